//! JSON lines: one object a line.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema;
use futures::{StreamExt, TryStreamExt, stream};
use memchr::memchr_iter;
use serde_json::{Map, Value};
use slipstream_frontend::ServiceError;
use slipstream_model::TableSchema;
use tokio::sync::Semaphore;

use super::BatchStream;
use super::blocking::compute;
use super::conform::{Conform, names_of};
use super::in_texts::{in_texts, read, read_texts, table_types};
use super::infer::{Inference, SAMPLE_BYTES, SAMPLE_ROWS, is_held_by_double};
use super::nesting::{DEPTH_MAX, Nesting};
use super::quoted::{Times, is_quoted};
use super::records::Records;
use super::rejects::{Misfit, Rejects, shorten};
use super::source::ByteStream;
use super::text::{Block, BlockStream, blocks, decode_all, of_lines};

/// Batches that are made of one block: they are held until others before them are given on. A line of
/// two bytes is a row of all columns.
const BATCHES_MAX: usize = 2;

/// Begins to read. The first blocks are looked at when there is no table yet.
pub(super) async fn open(
    slots: &Arc<Semaphore>,
    bytes: ByteStream,
    table: Option<&TableSchema>,
    rejects: Rejects,
) -> Result<(Schema, BatchStream), ServiceError> {
    let mut rest = blocks(bytes, Records::Lines, rejects.source());
    let mut sample: Vec<Block> = Vec::new();
    let table = match table {
        Some(table) => table.clone(),
        None => {
            let mut sampled = 0;
            while sampled < SAMPLE_BYTES
                && let Some(block) = rest.try_next().await?
            {
                sampled += block.bytes.len();
                sample.push(block);
            }
            let (source, seen) = (rejects.source().to_owned(), sample.clone());
            let found = compute(slots, move || infer(&seen, &source)).await??;
            TableSchema::new(&found).map_err(|error| ServiceError::invalid(error.to_string()))?
        }
    };
    let read = table_types(&table.arrow());
    let decode = Decode {
        conform: Conform::new(&read, &table, rejects.clone())?,
        file: Arc::new(in_texts(&read)),
        times: Times::of(&read),
        read: Arc::new(read),
        rejects,
    };
    let all: BlockStream = stream::iter(sample.into_iter().map(Ok)).chain(rest).boxed();
    let all = of_lines(all, decode.rows_max());
    let schema = table.arrow().as_ref().clone();
    Ok((
        schema,
        decode_all(slots, all, move |block| decode.block(block)),
    ))
}

fn infer(sample: &[Block], source: &str) -> Result<Schema, ServiceError> {
    let text: Vec<u8> = sample
        .iter()
        .flat_map(|block| block.bytes.iter().copied())
        .collect();
    let (schema, _) = infer_json_schema(text.as_slice(), Some(SAMPLE_ROWS)).map_err(|error| {
        let hint = match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => ". It begins with '[': send each object on a line of its own",
            _ => "",
        };
        ServiceError::invalid(format!(
            "{source} has no columns that hold all of its objects, one a line: {error}{hint}"
        ))
    })?;
    let mut fields = Vec::new();
    let (texts, rounded) = look_closer(&schema, &text);
    for ((field, text), is_rounded) in schema.fields().iter().zip(texts.fields()).zip(rounded) {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            DataType::Utf8 => text.data_type().clone(),
            // Its digits would not be the same.
            DataType::Float64 if is_rounded => DataType::Utf8,
            other => other.clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    if fields.is_empty() {
        return Err(ServiceError::invalid(format!(
            "{source} has no columns to infer"
        )));
    }
    Ok(Schema::new(fields))
}

/// JSON has no dates and times: which columns' texts are. And which columns have whole numbers that a double
/// does not hold.
fn look_closer(schema: &Schema, text: &[u8]) -> (Schema, Vec<bool>) {
    let mut rounded = vec![false; schema.fields().len()];
    let names = schema.fields().iter().map(|field| field.name().clone());
    let mut inference = Inference::of_texts(names);
    let objects = serde_json::Deserializer::from_slice(text).into_iter::<Map<String, Value>>();
    for object in objects.map_while(Result::ok).take(SAMPLE_ROWS) {
        for (name, value) in &object {
            let Ok(column) = schema.index_of(name) else {
                continue;
            };
            match value {
                Value::Null => {}
                Value::String(text) => inference.see(column, Some(text)),
                // Not a text, so not a time: as any text that is none.
                other => {
                    inference.see(column, Some(""));
                    let is_whole = other.is_i64() || other.is_u64();
                    rounded[column] |= is_whole && !is_held_by_double(&other.to_string());
                }
            }
        }
    }
    (inference.schema(), rounded)
}

/// Everything needed to decode a block.
struct Decode {
    /// What the decoder makes of objects.
    file: SchemaRef,
    /// What is made of that.
    read: SchemaRef,
    times: Times,
    conform: Conform,
    rejects: Rejects,
}

impl Decode {
    /// Rows of one block.
    fn rows_max(&self) -> usize {
        self.conform.batch_rows() * BATCHES_MAX
    }

    /// The fast way: the whole block at once. When anything does not fit, the slow way finds it.
    fn block(&self, block: &Block) -> Result<Vec<RecordBatch>, ServiceError> {
        if let Some(batches) = self.decode(&block.bytes) {
            return Ok(batches);
        }
        let lines = (block.first_line..).zip(block.bytes.split_inclusive(|byte| *byte == b'\n'));
        let mut batches = Vec::new();
        self.halve(&block.bytes, &lines.collect::<Vec<_>>(), &mut batches)?;
        Ok(batches)
    }

    fn decode(&self, bytes: &[u8]) -> Option<Vec<RecordBatch>> {
        if self.times.may_be_quoted(bytes) && self.has_quoted_times(bytes) {
            return None;
        }
        let batches = decode(
            &self.file,
            bytes,
            self.conform.batch_rows(),
            Others::AreErrors,
        )
        .ok()?;
        let batches = batches.iter().map(|batch| {
            let batch = read_texts(batch, &self.read)?;
            self.conform.batch(&batch).ok()
        });
        batches.collect()
    }

    /// Whether one of these objects has digits in quotes for a date or a time.
    fn has_quoted_times(&self, bytes: &[u8]) -> bool {
        let objects = serde_json::Deserializer::from_slice(bytes).into_iter::<Map<String, Value>>();
        let mut objects = objects.map_while(Result::ok);
        objects.any(|object| {
            let mut fields = self.read.fields().iter();
            fields.any(|field| {
                let value = object.get(field.name());
                value.is_some_and(|value| is_quoted(value, field.data_type()))
            })
        })
    }

    /// Finds the lines that do not fit by halving, and leaves them out.
    fn halve(
        &self,
        bytes: &[u8],
        lines: &[(u64, &[u8])],
        batches: &mut Vec<RecordBatch>,
    ) -> Result<(), ServiceError> {
        if let Some(decoded) = self.decode(bytes) {
            batches.extend(decoded);
            return Ok(());
        }
        if let [(line, raw)] = lines {
            return self.rejects.add(Misfit {
                line: *line,
                row: Some(String::from_utf8_lossy(raw).trim_end().to_owned()),
                ..self.misfit(raw)
            });
        }
        let (before, after) = lines.split_at(lines.len() / 2);
        let middle = before.iter().map(|(_, raw)| raw.len()).sum();
        self.halve(&bytes[..middle], before, batches)?;
        self.halve(&bytes[middle..], after, batches)
    }

    /// Which column of a line is to blame, and with which value.
    fn misfit(&self, raw: &[u8]) -> Misfit {
        if !Nesting::default().allows(&[], raw) {
            let reason = format!("the line is nested more than {DEPTH_MAX} levels deep");
            return Misfit::because(reason);
        }
        let object: Map<String, Value> = match serde_json::from_slice(raw) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Misfit::because("the line is not a JSON object"),
            Err(error) => {
                let objects = serde_json::Deserializer::from_slice(raw).into_iter::<Value>();
                if objects.map_while(Result::ok).nth(1).is_some() {
                    let reason = "the line holds several objects: send each on a line of its own";
                    return Misfit::because(reason);
                }
                return Misfit::because(format!("the line is not JSON: {error}"));
            }
        };
        for (name, value) in &object {
            let Ok(column) = self.file.index_of(name) else {
                let known = names_of(&self.file);
                let reason = format!("the table has no such column; it has {known}");
                return Misfit::at(&shorten(name), None, reason);
            };
            let is_quoted = is_quoted(value, self.read.field(column).data_type());
            if value.is_null() || !is_quoted && self.value_fits(column, raw) {
                continue;
            }
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let reason = format!("is not a {}", self.conform.expected_type(column));
            return Misfit::at(name, Some(text), reason);
        }
        match self
            .conform
            .missing(|name| object.get(name).is_none_or(Value::is_null))
        {
            Some(name) => Misfit::at(&name, None, "is null, and the column is NOT NULL"),
            None => Misfit::because("the line does not fit the table"),
        }
    }

    /// Whether a line's value of a column does, as it is written there.
    fn value_fits(&self, column: usize, raw: &[u8]) -> bool {
        let schema = Arc::new(Schema::new(vec![self.file.field(column).clone()]));
        let decoded = decode(&schema, raw, 1, Others::AreLeftOut);
        decoded.is_ok_and(|batches| {
            let mut batches = batches.iter();
            batches.all(|batch| {
                let read = read(batch.column(0), self.read.field(column).data_type());
                read.is_some_and(|values| self.conform.column_fits(column, &values))
            })
        })
    }
}

/// What becomes of values whose names are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// A value that is silently left out is a value lost.
    AreErrors,
    AreLeftOut,
}

/// Numbers become texts where the column holds texts.
fn decode(
    schema: &SchemaRef,
    bytes: &[u8],
    batch_rows: usize,
    others: Others,
) -> Result<Vec<RecordBatch>, ArrowError> {
    // The decoder makes room for a whole batch of rows at once. An object takes two bytes at least.
    let batch_rows = batch_rows.min(bytes.len() / 2 + 1);
    let mut decoder = ReaderBuilder::new(Arc::clone(schema))
        .with_batch_size(batch_rows)
        .with_strict_mode(others == Others::AreErrors)
        .with_coerce_primitive(true)
        .build_decoder()?;
    let mut batches = Vec::new();
    // A record may well go over several lines, where all of them are in one block.
    let (mut record, mut start, mut nesting) = (0, 0, Nesting::default());
    let ends = memchr_iter(b'\n', bytes).map(|newline| newline + 1);
    for end in ends.chain([bytes.len()]) {
        let mut line = &bytes[start..end];
        if !nesting.allows(&bytes[record..start], line) {
            return Err(ArrowError::JsonError("it is nested too deep".to_owned()));
        }
        loop {
            line = &line[decoder.decode(line)?..];
            if line.is_empty() {
                break;
            }
            // No more rows fit the batch.
            batches.extend(decoder.flush()?);
            if batches.len() >= BATCHES_MAX {
                // There are more of them than lines.
                let many = "it has many objects in a line".to_owned();
                return Err(ArrowError::JsonError(many));
            }
        }
        start = end;
        if !decoder.has_partial_record() {
            (record, nesting) = (start, Nesting::default());
        }
    }
    batches.extend(decoder.flush()?);
    Ok(batches)
}
