//! Comma-separated values.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use slipstream_frontend::{ServiceError, TextOptions};
use slipstream_model::TableSchema;
use tokio::sync::Semaphore;

use super::BatchStream;
use super::blocking::compute;
use super::conform::{Conform, names_of};
use super::infer::{Inference, SAMPLE_BYTES, SAMPLE_ROWS};
use super::nulls::NullTexts;
use super::plain;
use super::records::Records;
use super::rejects::{Misfit, Rejects};
use super::source::ByteStream;
use super::text::{Block, BlockStream, blocks, decode_all};
use super::typed::{Numbers, array};

/// How records are read.
#[derive(Debug, Clone)]
struct Dialect {
    delimiter: u8,
    nulls: NullTexts,
}

impl Dialect {
    fn new(text: &TextOptions) -> Result<Self, ServiceError> {
        if !text.delimiter.is_ascii() || matches!(text.delimiter, b'"' | b'\n' | b'\r') {
            return Err(ServiceError::invalid(
                "the delimiter must be an ASCII character, not a quote or end of line",
            ));
        }
        Ok(Self {
            delimiter: text.delimiter,
            nulls: NullTexts::new(&text.nulls)?,
        })
    }

    fn records<'a>(&self, bytes: &'a [u8]) -> csv::Reader<&'a [u8]> {
        csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .from_reader(bytes)
    }
}

/// Begins to read. The first blocks are looked at: for the header, and for the columns' types
/// when there is no table yet.
pub(super) async fn open(
    slots: &Arc<Semaphore>,
    bytes: ByteStream,
    text: &TextOptions,
    table: Option<&TableSchema>,
    rejects: Rejects,
) -> Result<(Schema, BatchStream), ServiceError> {
    let dialect = Dialect::new(text)?;
    let delimiter = dialect.delimiter;
    let mut rest = blocks(bytes, Records::Quoted { delimiter }, rejects.source());
    let mut sample: Vec<Block> = Vec::new();
    let sample_bytes = if table.is_some() { 1 } else { SAMPLE_BYTES };
    let mut sampled = 0;
    while sampled < sample_bytes
        && let Some(block) = rest.try_next().await?
    {
        sampled += block.bytes.len();
        sample.push(block);
    }
    let source = rejects.source().to_owned();
    let Some(first) = sample.first_mut() else {
        return Err(ServiceError::invalid(format!(
            "{source} is empty: there is no header and no row"
        )));
    };
    let names = if text.header {
        let (names, header_bytes, lines) = read_header(&dialect, &first.bytes, &source)?;
        first.bytes = first.bytes.slice(header_bytes..);
        first.first_line += lines;
        Some(names)
    } else {
        None
    };

    let width = match &names {
        Some(names) => names.len(),
        None => first_record_width(&dialect, &first.bytes),
    };
    let (file, table) = match table {
        Some(table) => (
            file_schema(table, names.as_deref(), width, &source)?,
            table.clone(),
        ),
        None => {
            let names =
                names.unwrap_or_else(|| (1..=width).map(|n| format!("column_{n}")).collect());
            let (looking, seen) = (dialect.clone(), sample.clone());
            let found = compute(slots, move || infer(&looking, names, &seen)).await?;
            let table =
                TableSchema::new(&found).map_err(|e| ServiceError::invalid(e.to_string()))?;
            (Arc::new(found), table)
        }
    };
    check_flat(&file, &source)?;
    let conform = Arc::new(Conform::new(&file, &table, rejects.clone())?);
    let file = decodable(&file);
    let decode = Decode {
        conform,
        texts: decimals_as_texts(&file),
        file,
        dialect,
        rejects,
    };
    let all: BlockStream = stream::iter(sample.into_iter().map(Ok)).chain(rest).boxed();
    let schema = table.arrow().as_ref().clone();
    Ok((
        schema,
        decode_all(slots, all, move |block| decode.block(block)),
    ))
}

fn read_header(
    dialect: &Dialect,
    bytes: &Bytes,
    source: &str,
) -> Result<(Vec<String>, usize, u64), ServiceError> {
    let mut reader = dialect.records(bytes);
    let mut header = csv::ByteRecord::new();
    let read = reader.read_byte_record(&mut header);
    if !read.is_ok_and(|found| found) {
        return Err(ServiceError::invalid(format!("{source} has no header")));
    }
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for name in &header {
        let name = std::str::from_utf8(name)
            .map_err(|_| ServiceError::invalid(format!("{source}: the header is not UTF-8")))?
            .trim()
            .to_owned();
        if name.is_empty() {
            return Err(ServiceError::invalid(format!(
                "{source}: column {} has no name in the header. Is there no header? Say \
                 --no-header",
                names.len() + 1
            )));
        }
        if !seen.insert(name.clone()) {
            return Err(ServiceError::invalid(format!(
                "{source}: the header names '{name}' twice"
            )));
        }
        names.push(name);
    }
    let position = reader.position();
    let end = usize::try_from(position.byte()).unwrap_or(bytes.len());
    // The reader stops behind the record's carriage return when there is one.
    let end = end + usize::from(bytes.get(end) == Some(&b'\n'));
    let lines = bytes[..end].iter().filter(|byte| **byte == b'\n').count() as u64;
    Ok((names, end, lines))
}

fn first_record_width(dialect: &Dialect, bytes: &Bytes) -> usize {
    let mut record = csv::ByteRecord::new();
    let _ = dialect.records(bytes).read_byte_record(&mut record);
    record.len()
}

/// The file's columns, in the file's order and with the table's types.
fn file_schema(
    table: &TableSchema,
    names: Option<&[String]>,
    width: usize,
    source: &str,
) -> Result<SchemaRef, ServiceError> {
    let columns = table.columns();
    let Some(names) = names else {
        if width > columns.len() {
            return Err(ServiceError::invalid(format!(
                "{source} has {width} columns, and the table {}",
                columns.len()
            )));
        }
        let fields: Vec<_> = columns
            .iter()
            .take(width)
            .map(|c| Arc::clone(&c.field))
            .collect();
        return Ok(Arc::new(Schema::new(fields)));
    };
    let find = |name: &String| {
        let folded = || {
            columns
                .iter()
                .find(|c| c.field.name().eq_ignore_ascii_case(name))
        };
        columns.iter().find(|c| c.field.name() == name).or_else(folded).ok_or_else(|| {
            let known = names_of(&table.arrow());
            ServiceError::invalid(format!(
                "{source} has a column '{name}' that the table does not have; the table has {known}"
            ))
        })
    };
    let mut fields: Vec<FieldRef> = Vec::new();
    for name in names {
        let field = &find(name)?.field;
        if fields.contains(field) {
            return Err(ServiceError::invalid(format!(
                "{source} has two columns for the table's '{}': rename or leave out one",
                field.name()
            )));
        }
        fields.push(Arc::clone(field));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Lists and structs have no form in this format that would be read back as it was.
fn check_flat(file: &Schema, source: &str) -> Result<(), ServiceError> {
    match file.fields().iter().find(|f| f.data_type().is_nested()) {
        None => Ok(()),
        Some(field) => Err(ServiceError::invalid(format!(
            "column '{}' has type {}, which {source} cannot hold as comma-separated values: send \
             JSON lines, Parquet or Arrow",
            field.name(),
            field.data_type()
        ))),
    }
}

/// The types that text is decoded to first; what the decoder does not know is cast afterwards.
fn decodable(schema: &Schema) -> SchemaRef {
    use DataType as T;
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            known @ (T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64
            | T::Float32
            | T::Float64
            | T::Boolean
            | T::Date32
            | T::Date64
            | T::Decimal32(..)
            | T::Decimal64(..)
            | T::Decimal128(..)
            | T::Decimal256(..)
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(..)
            | T::Utf8
            | T::Utf8View) => known.clone(),
            _ => T::Utf8,
        };
        // Whether nulls are allowed is checked with the line at hand.
        Field::new(field.name(), data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What the general decoder decodes to: it would cut digits off decimals.
pub(super) fn decimals_as_texts(schema: &SchemaRef) -> SchemaRef {
    if !schema
        .fields()
        .iter()
        .any(|field| field.data_type().is_decimal())
    {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        decimal if decimal.is_decimal() => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows of the general decoder with these columns.
pub(super) fn with_decimals(
    batch: RecordBatch,
    fields: &[FieldRef],
) -> Result<RecordBatch, ArrowError> {
    if !fields.iter().any(|field| field.data_type().is_decimal()) {
        return Ok(batch);
    }
    let columns = fields.iter().zip(batch.columns()).map(|(field, values)| {
        if !field.data_type().is_decimal() {
            return Ok(Arc::clone(values));
        }
        let values = array(
            values.as_string::<i32>(),
            field.data_type(),
            Numbers::AsTyped,
        );
        values.ok_or_else(|| ArrowError::ParseError("a decimal does not fit".to_owned()))
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns)
}

fn infer(dialect: &Dialect, names: Vec<String>, sample: &[Block]) -> Schema {
    let mut inference = Inference::new(names);
    let mut left = SAMPLE_ROWS;
    for block in sample {
        let mut reader = dialect.records(&block.bytes);
        let mut record = csv::ByteRecord::new();
        while left > 0
            && reader
                .read_byte_record(&mut record)
                .is_ok_and(|found| found)
        {
            for (column, value) in record.iter().enumerate() {
                let value = String::from_utf8_lossy(value);
                inference.see(column, (!dialect.nulls.is_null(&value)).then_some(&*value));
            }
            left -= 1;
        }
    }
    inference.schema()
}

/// Where a record stands in its block, and on which line of the source it begins.
struct Record {
    bytes: Range<usize>,
    line: u64,
}

/// Everything needed to decode a block.
struct Decode {
    file: SchemaRef,
    /// See [`decimals_as_texts`].
    texts: SchemaRef,
    dialect: Dialect,
    conform: Arc<Conform>,
    rejects: Rejects,
}

impl Decode {
    /// Decodes records, or one column of them.
    fn decode(
        &self,
        records: &[u8],
        column: Option<usize>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let delimiter = self.dialect.delimiter;
        let batch_rows = self.conform.batch_rows();
        let pattern = self.dialect.nulls.pattern_for(records, delimiter);
        if pattern.is_none()
            && column.is_none()
            && let Some(batches) = plain::decode(records, delimiter, &self.file, batch_rows)
        {
            return Ok(batches);
        }
        // The decoder makes room for a whole batch of rows at once. A field takes a byte at least, the
        // last one's end of line, which the last record may lack.
        let rows = records.len() / self.file.fields().len().max(1) + 1;
        let mut builder = ReaderBuilder::new(Arc::clone(&self.texts))
            .with_delimiter(delimiter)
            .with_batch_size(rows.min(batch_rows));
        if let Some(pattern) = pattern {
            builder = builder.with_null_regex(pattern.clone());
        }
        let mut fields = &self.file.fields()[..];
        if let Some(column) = column {
            builder = builder.with_projection(vec![column]);
            fields = &fields[column..=column];
        }
        let batches = decode(builder.build_decoder(), records)?;
        let batches = batches.into_iter();
        batches.map(|batch| with_decimals(batch, fields)).collect()
    }

    /// The fast way: the whole block at once. When anything does not fit, the slow way finds it.
    fn block(&self, block: &Block) -> Result<Vec<RecordBatch>, ServiceError> {
        if let Ok(batches) = self.decode(&block.bytes, None)
            && let Ok(batches) = batches
                .iter()
                .map(|batch| self.conform.batch(batch))
                .collect::<Result<_, _>>()
        {
            return Ok(batches);
        }
        self.record_by_record(block)
    }

    /// Finds the records that do not fit by halving, and leaves them out.
    fn record_by_record(&self, block: &Block) -> Result<Vec<RecordBatch>, ServiceError> {
        let records = self.split(block)?;
        let mut batches = Vec::new();
        self.halve(block, &records, &mut batches)?;
        Ok(batches)
    }

    fn halve(
        &self,
        block: &Block,
        records: &[Record],
        batches: &mut Vec<RecordBatch>,
    ) -> Result<(), ServiceError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let bytes = &block.bytes[first.bytes.start..last.bytes.end];
        if let Ok(decoded) = self.decode(bytes, None)
            && let Ok(decoded) = decoded
                .iter()
                .map(|batch| self.conform.batch(batch))
                .collect::<Result<Vec<_>, _>>()
        {
            batches.extend(decoded);
            return Ok(());
        }
        if records.len() > 1 {
            let (before, after) = records.split_at(records.len() / 2);
            self.halve(block, before, batches)?;
            return self.halve(block, after, batches);
        }
        let row = String::from_utf8_lossy(bytes)
            .trim_matches(['\r', '\n'])
            .to_owned();
        self.rejects.add(Misfit {
            line: first.line,
            row: Some(row),
            ..self.misfit_of(bytes)
        })
    }

    /// Where each record of a block stands.
    fn split(&self, block: &Block) -> Result<Vec<Record>, ServiceError> {
        let mut reader = self.dialect.records(&block.bytes);
        let mut values = csv::ByteRecord::new();
        let mut records = Vec::new();
        let (mut start, mut line) = (0, block.first_line);
        loop {
            let found = reader.read_byte_record(&mut values).map_err(|error| {
                ServiceError::invalid(format!("{}, line {line}: {error}", self.rejects.source()))
            })?;
            if !found {
                return Ok(records);
            }
            let mut end = usize::try_from(reader.position().byte()).unwrap_or(block.bytes.len());
            // The reader stops behind the record's carriage return when there is one.
            end += usize::from(block.bytes.get(end) == Some(&b'\n'));
            // Empty lines before a record are part of its bytes.
            let raw = &block.bytes[start..end];
            let empty = raw
                .iter()
                .take_while(|byte| matches!(byte, b'\n' | b'\r'))
                .count();
            let begins = line + newlines(&raw[..empty]);
            records.push(Record {
                bytes: start..end,
                line: begins,
            });
            line += newlines(raw);
            start = end;
        }
    }

    /// What is wrong with one record.
    fn misfit_of(&self, raw: &[u8]) -> Misfit {
        let mut record = csv::ByteRecord::new();
        let _ = self.dialect.records(raw).read_byte_record(&mut record);
        let width = self.file.fields().len();
        if record.len() != width {
            let reason = format!(
                "the row has {} values where {width} are expected",
                record.len()
            );
            return Misfit::because(reason);
        }
        // First, as no column can be decoded of a row that is not UTF-8 somewhere.
        for (column, value) in record.iter().enumerate() {
            if std::str::from_utf8(value).is_err() {
                let value = Some(String::from_utf8_lossy(value).into_owned());
                return self.misfit(column, value, "is not UTF-8".to_owned());
            }
        }
        for (column, value) in record.iter().enumerate() {
            let decoded = self.decode(raw, Some(column));
            let fits = decoded.is_ok_and(|batches| {
                batches
                    .iter()
                    .all(|batch| self.conform.column_fits(column, batch.column(0)))
            });
            if !fits {
                let text = String::from_utf8_lossy(value);
                let is_null = self.dialect.nulls.is_null(&text);
                let reason = if is_null {
                    "is null, and the column is NOT NULL".to_owned()
                } else {
                    format!("is not a {}", self.conform.expected_type(column))
                };
                return self.misfit(column, Some(text.into_owned()), reason);
            }
        }
        Misfit::because("the row does not fit the table")
    }

    fn misfit(&self, column: usize, value: Option<String>, reason: String) -> Misfit {
        Misfit::at(self.file.field(column).name(), value, reason)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn decode(mut decoder: Decoder, mut bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    loop {
        let read = decoder.decode(bytes)?;
        bytes = &bytes[read..];
        if read == 0 || decoder.capacity() == 0 {
            match decoder.flush()? {
                Some(batch) => batches.push(batch),
                None if read == 0 => return Ok(batches),
                None => {}
            }
        }
    }
}
