//! Extent files: Arrow batches in, one Parquet file and its exact statistics out.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use slipstream_model::{
    BOUND_BYTES_MAX, ColumnStatisticsBuilder, Digest, Extent, ExtentId, StatisticValue,
    TableSchema, Timestamp,
};

use crate::size::array_bytes;

/// Kusto's shard size: <https://learn.microsoft.com/kusto/management/sharding-policy>.
pub const EXTENT_ROWS_MAX: u64 = 1_048_576;
/// An extent is cut here even when it has few rows: it is encoded in memory, so this bounds what
/// one ingest holds, and what one reader has to fetch.
pub const EXTENT_BYTES_MAX: usize = 256 << 20;
/// One row group in a full extent: a cold scan makes a request or two for each. Extents are what
/// scans run in parallel.
pub const ROW_GROUP_ROWS: usize = 1_048_576;
/// A row group of wide rows is cut here, in bytes as Arrow holds them, so that encoding several
/// at a time stays within memory.
pub const ROW_GROUP_BYTES: usize = 256 << 20;
/// Level 1 writes twice as fast as level 3 and costs a few per cent of size.
const ZSTD_LEVEL: i32 = 1;
/// The fixed end of a Parquet file: length of the metadata, and magic.
const PARQUET_TAIL_BYTES: u64 = 8;

/// Rows that cannot become an extent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Parquet has no place for a column's type.
    #[error("column '{column}' has type {data_type}, which Parquet cannot hold: cast it first")]
    UnsupportedType {
        /// The column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// The batch is not of the table's schema.
    #[error("a batch with columns {found} does not fit a table with columns {expected}")]
    SchemaMismatch {
        /// What the table has.
        expected: String,
        /// What came.
        found: String,
    },
    /// The encoder itself failed.
    #[error("cannot encode an extent: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// Checks that every column can be held by Parquet, and comes back as it was.
///
/// Finds out by doing it with one null: what the writer accepts is what its code accepts.
///
/// # Errors
/// When a column has a type such as an interval or a union.
pub fn check_storable(schema: &Schema) -> Result<(), EncodeError> {
    for field in schema.fields() {
        if !survives(field.data_type()) {
            return Err(EncodeError::UnsupportedType {
                column: field.name().clone(),
                data_type: field.data_type().to_string(),
            });
        }
    }
    Ok(())
}

fn survives(data_type: &DataType) -> bool {
    let schema = Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]));
    let round_trip = || -> Result<DataType, EncodeError> {
        let one_null = new_null_array(data_type, 1);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![one_null])
            .map_err(|error| EncodeError::Parquet(error.into()))?;
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None)?;
        writer.write(&batch)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(writer.into_inner()?))?;
        Ok(reader.schema().field(0).data_type().clone())
    };
    round_trip().is_ok_and(|read| &read == data_type)
}

/// An extent file that is ready to be uploaded.
#[derive(Debug, Clone)]
pub struct EncodedExtent {
    /// What the catalog will know about it.
    pub extent: Extent,
    /// The file.
    pub bytes: Bytes,
}

/// How the extents of one table are encoded. Cheap to clone and to send to other threads: the row
/// groups of an extent are encoded independently of each other, by [`ExtentLayout::encode_rows`],
/// and then put together in order by an [`ExtentAssembler`].
#[derive(Debug, Clone)]
pub struct ExtentLayout {
    schema: TableSchema,
    /// What makes the writers of each column. A writer has a decompressor of 100 KB and more, so only
    /// those of columns that are being encoded are made.
    columns: Arc<[ArrowRowGroupWriterFactory]>,
}

impl ExtentLayout {
    /// The layout for a table.
    ///
    /// # Errors
    /// When the encoder cannot be set up. The table's types were checked when it was created, by
    /// [`check_storable`].
    pub fn new(schema: &TableSchema) -> Result<Self, EncodeError> {
        let fields = schema.columns().iter().map(|column| &column.field);
        let alone = fields.map(|field| Arc::new(Schema::new(vec![Arc::clone(field)])));
        let columns = alone.map(|schema| Ok(new_file(schema)?.1));
        Ok(Self {
            schema: schema.clone(),
            columns: columns.collect::<Result<_, EncodeError>>()?,
        })
    }

    /// Encodes one row group, and gathers its statistics. Uses the processor only: run it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// When a batch does not have the table's columns, in order and type.
    pub fn encode_rows(&self, batches: &[RecordBatch]) -> Result<EncodedRows, EncodeError> {
        Ok(EncodedRows::of(vec![self.encode_columns(batches, 0, 1)?]))
    }

    /// Encodes every `step`th column of a row group, beginning with the `first`: what
    /// [`encode_rows`](Self::encode_rows) does, for several threads to do together.
    ///
    /// # Errors
    /// When a batch does not have the table's columns, in order and type.
    pub fn encode_columns(
        &self,
        batches: &[RecordBatch],
        first: usize,
        step: usize,
    ) -> Result<EncodedColumns, EncodeError> {
        for batch in batches {
            self.check(batch)?;
        }
        let mut encoded = EncodedColumns {
            columns: Vec::new(),
            first,
            step,
            row_count: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            original_bytes: 0,
        };
        let columns = self.schema.columns().iter().zip(self.columns.iter());
        for (position, (column, writers)) in columns.enumerate().skip(first).step_by(step) {
            let mut writers = writers.create_column_writers(0)?;
            let data_type = column.field.data_type();
            let mut statistics = ColumnStatisticsBuilder::new(column.id, data_type);
            let text_bounds = TextBounds::of(data_type);
            for batch in batches {
                let array = batch.column(position);
                match text_bounds {
                    Some(_) => statistics.update_but_bounds(array),
                    None => statistics.update(array),
                }
                let leaves = compute_leaves(&column.field, array)?;
                if leaves.len() != writers.len() {
                    return Err(ParquetError::General(format!(
                        "column '{}' has {} leaves, and {} were laid out",
                        column.field.name(),
                        leaves.len(),
                        writers.len()
                    ))
                    .into());
                }
                for (writer, leaf) in writers.iter_mut().zip(leaves) {
                    writer.write(&leaf)?;
                }
                encoded.original_bytes += array_bytes(&array.to_data()) as u64;
            }
            let chunks = writers.into_iter().map(ArrowColumnWriter::close);
            let chunks: Vec<ArrowColumnChunk> = chunks.collect::<Result<_, _>>()?;
            if let Some(text_bounds) = text_bounds
                && !text_bounds.give(&chunks, &mut statistics)
            {
                for batch in batches {
                    statistics.update_bounds(batch.column(position));
                }
            }
            encoded.columns.push((chunks, statistics));
        }
        Ok(encoded)
    }

    fn check(&self, batch: &RecordBatch) -> Result<(), EncodeError> {
        let expected = self.schema.arrow();
        let fits = |(found, wanted): (&FieldRef, &FieldRef)| {
            found.name() == wanted.name() && found.data_type() == wanted.data_type()
        };
        let found = batch.schema();
        if found.fields().len() == expected.fields().len()
            && found.fields().iter().zip(expected.fields()).all(fits)
        {
            return Ok(());
        }
        let describe = |schema: &Schema| {
            let fields = schema.fields().iter();
            fields
                .map(|f| format!("{} {}", f.name(), f.data_type()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        Err(EncodeError::SchemaMismatch {
            expected: describe(&expected),
            found: describe(&found),
        })
    }
}

/// The bounds of texts and bytes: Parquet's writer compares each of them with those of its page anyway.
#[derive(Debug, Clone, Copy)]
enum TextBounds {
    Text,
    Bytes,
}

impl TextBounds {
    /// `None` for other types, or lists of these.
    fn of(data_type: &DataType) -> Option<Self> {
        use DataType as T;
        match data_type {
            T::Utf8 | T::LargeUtf8 | T::Utf8View => Some(Self::Text),
            T::Binary | T::LargeBinary | T::BinaryView => Some(Self::Bytes),
            _ => None,
        }
    }

    /// Whether the file has them. It has none of nulls only, nor perhaps of what another feature of the writer
    /// takes for more than texts.
    fn give(self, chunks: &[ArrowColumnChunk], statistics: &mut ColumnStatisticsBuilder) -> bool {
        let [chunk] = chunks else {
            return false;
        };
        let Some(Statistics::ByteArray(found)) = chunk.close().metadata.statistics() else {
            return false;
        };
        let value = |bytes: Option<&ByteArray>| {
            let bytes = bytes?.data();
            match self {
                Self::Bytes => Some(StatisticValue::Bytes(bytes.to_vec())),
                Self::Text => {
                    let text = std::str::from_utf8(bytes).ok()?;
                    Some(StatisticValue::Text(text.to_owned()))
                }
            }
        };
        let (Some(min), Some(max)) = (value(found.min_opt()), value(found.max_opt())) else {
            return false;
        };
        statistics.bounded_by((min, found.min_is_exact()), (max, found.max_is_exact()));
        true
    }
}

/// Some columns of a row group, encoded.
pub struct EncodedColumns {
    /// For each of them the chunks of its leaves, and its statistics.
    columns: Vec<(Vec<ArrowColumnChunk>, ColumnStatisticsBuilder)>,
    first: usize,
    step: usize,
    row_count: u64,
    original_bytes: u64,
}

impl fmt::Debug for EncodedColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedColumns")
            .field("first", &self.first)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl EncodedRows {
    /// A row group of shares that are all its columns together.
    pub fn of(shares: Vec<EncodedColumns>) -> Self {
        let mut rows = Self {
            chunks: Vec::new(),
            statistics: Vec::new(),
            row_count: shares.first().map_or(0, |share| share.row_count),
            original_bytes: shares.iter().map(|share| share.original_bytes).sum(),
        };
        let placed = shares.into_iter().flat_map(|share| {
            let positions = (share.first..).step_by(share.step);
            positions.zip(share.columns)
        });
        let mut columns: Vec<_> = placed.collect();
        columns.sort_unstable_by_key(|(position, _)| *position);
        for (_, (chunks, statistics)) in columns {
            rows.chunks.extend(chunks);
            rows.statistics.push(statistics);
        }
        rows
    }
}

/// One row group, encoded but not yet part of a file.
pub struct EncodedRows {
    chunks: Vec<ArrowColumnChunk>,
    statistics: Vec<ColumnStatisticsBuilder>,
    row_count: u64,
    original_bytes: u64,
}

impl fmt::Debug for EncodedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedRows")
            .field("row_count", &self.row_count)
            .finish_non_exhaustive()
    }
}

/// An extent while its row groups are put together.
pub struct ExtentAssembler {
    writer: SerializedFileWriter<Vec<u8>>,
    statistics: Option<Vec<ColumnStatisticsBuilder>>,
    layout: ExtentLayout,
    row_count: u64,
    original_bytes: u64,
}

impl ExtentAssembler {
    /// An extent without rows.
    ///
    /// # Errors
    /// When the encoder cannot be set up.
    pub fn new(layout: &ExtentLayout) -> Result<Self, EncodeError> {
        let (writer, _) = new_file(layout.schema.arrow())?;
        let layout = layout.clone();
        Ok(Self {
            writer,
            statistics: None,
            layout,
            row_count: 0,
            original_bytes: 0,
        })
    }

    /// Adds the next row group.
    ///
    /// # Errors
    /// When the file cannot take it.
    pub fn append(&mut self, rows: EncodedRows) -> Result<(), EncodeError> {
        if rows.row_count == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for chunk in rows.chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.row_count += rows.row_count;
        self.original_bytes += rows.original_bytes;
        self.statistics = Some(match self.statistics.take() {
            None => rows.statistics,
            Some(known) => {
                let pairs = known.into_iter().zip(rows.statistics);
                pairs
                    .map(|(before, after)| before.followed_by(after))
                    .collect()
            }
        });
        Ok(())
    }

    /// Rows so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Bytes of the file so far.
    pub fn size_bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When its footer cannot be written.
    pub fn finish(
        mut self,
        id: ExtentId,
        created_on: Timestamp,
        tags: BTreeSet<String>,
    ) -> Result<EncodedExtent, EncodeError> {
        let statistics = match self.statistics.take() {
            Some(statistics) => statistics,
            None => self.layout.encode_rows(&[])?.statistics,
        };
        let metadata = self.writer.finish()?;
        let bytes = Bytes::from(std::mem::take(self.writer.inner_mut()));
        let size_bytes = bytes.len() as u64;
        let footer_bytes = size_bytes - footer_start(&metadata, size_bytes);
        let extent = Extent {
            id,
            row_count: self.row_count,
            size_bytes,
            original_bytes: self.original_bytes,
            sha256: Digest::of(&bytes),
            footer_bytes: u32::try_from(footer_bytes).unwrap_or(u32::MAX),
            min_created_on: created_on,
            max_created_on: created_on,
            tags,
            inline: None,
            columns: statistics
                .into_iter()
                .map(ColumnStatisticsBuilder::finish)
                .collect(),
        };
        Ok(EncodedExtent { extent, bytes })
    }
}

impl fmt::Debug for ExtentAssembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentAssembler")
            .field("row_count", &self.row_count)
            .finish_non_exhaustive()
    }
}

/// Builds one extent in one thread, for callers that have few rows.
#[derive(Debug)]
pub struct ExtentEncoder {
    layout: ExtentLayout,
    assembler: ExtentAssembler,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
}

impl ExtentEncoder {
    /// Starts an extent of a table.
    ///
    /// # Errors
    /// When the encoder cannot be set up.
    pub fn new(schema: &TableSchema) -> Result<Self, EncodeError> {
        let layout = ExtentLayout::new(schema)?;
        let assembler = ExtentAssembler::new(&layout)?;
        Ok(Self {
            layout,
            assembler,
            pending: Vec::new(),
            pending_rows: 0,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the batch does not have the table's columns, in order and type.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        self.layout.check(batch)?;
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let taken = rest.num_rows().min(ROW_GROUP_ROWS - self.pending_rows);
            self.pending.push(rest.slice(0, taken));
            self.pending_rows += taken;
            rest = rest.slice(taken, rest.num_rows() - taken);
            if self.pending_rows == ROW_GROUP_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), EncodeError> {
        self.assembler
            .append(self.layout.encode_rows(&self.pending)?)?;
        self.pending.clear();
        self.pending_rows = 0;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When encoding what is left fails.
    pub fn finish(
        mut self,
        id: ExtentId,
        created_on: Timestamp,
        tags: BTreeSet<String>,
    ) -> Result<EncodedExtent, EncodeError> {
        self.flush()?;
        self.assembler.finish(id, created_on, tags)
    }
}

/// An empty file, and what makes column writers for it.
fn new_file(
    schema: SchemaRef,
) -> Result<(SerializedFileWriter<Vec<u8>>, ArrowRowGroupWriterFactory), EncodeError> {
    let properties = WriterProperties::builder()
        .set_created_by(concat!("slipstream ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(BOUND_BYTES_MAX))
        .build();
    let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    Ok(writer.into_serialized_writer()?)
}

/// Where the page index begins, which stands right before the footer, so that one read from here
/// to the end of the file gets both.
fn footer_start(metadata: &ParquetMetaData, size_bytes: u64) -> u64 {
    let chunks = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns());
    let indexes = chunks.flat_map(|c| [c.column_index_offset(), c.offset_index_offset()]);
    let first_index = indexes
        .flatten()
        .filter_map(|offset| u64::try_from(offset).ok())
        .min();
    let data_end = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
        .map(|chunk| {
            let (start, length) = chunk.byte_range();
            start + length
        })
        .max()
        .unwrap_or(4);
    first_index
        .unwrap_or(data_end)
        .min(size_bytes - PARQUET_TAIL_BYTES)
}

#[cfg(test)]
mod tests;
