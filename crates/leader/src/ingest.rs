//! Files and batches in, uploaded extents out.
//!
//! ```text
//! bytes -> blocks of whole records -> batches -> row groups -> extents -> bucket
//!          one thread                 in parallel, in order     in parallel
//! ```
//!
//! Memory is bounded whatever the source's size: every arrow above is a bounded queue. Extents
//! hold the rows in the source's order. Nothing here commits; what is uploaded becomes visible
//! with the commit that names it, or never.

mod blocking;
mod columnar;
mod conform;
mod csv;
mod exact;
mod footer;
mod ids;
mod in_texts;
mod infer;
mod ipc;
mod json;
mod marks;
mod nesting;
mod nulls;
mod numbers;
mod pages;
mod plain;
mod quoted;
mod records;
mod rejects;
mod source;
mod text;
mod thrift;
mod typed;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use slipstream_frontend::{ErrorKind, IngestFormat, IngestSource, ServiceError, TextOptions};
use slipstream_model::{Clock, DatabaseId, TableSchema, Timestamp};
use slipstream_storage::{BucketWriter, EXTENT_ROWS_MAX};
use tokio::sync::Semaphore;

pub(crate) use blocking::{Stop, give, produce};
pub(crate) use columnar::batch_rows;
use conform::Conform;
pub(crate) use ids::Abandoned;
pub use ids::ExtentIds;
use rejects::Place;
pub use rejects::Rejects;
pub(crate) use write::{check_nulls, rewrite_extents};
pub use write::{inline_extent, write_extents};

/// Rows in one batch on the way.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Batches of an ingest, in the source's order.
pub type BatchStream = BoxStream<'static, Result<RecordBatch, ServiceError>>;

/// How this node ingests.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Where sources that cannot be read from front to back wait, such as an uploaded Parquet
    /// file.
    pub spool: PathBuf,
    /// Rows of one extent.
    pub extent_rows_max: u64,
}

impl IngestOptions {
    /// Spools in a directory, which is made.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn in_directory(spool: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&spool)?;
        Ok(Self {
            spool,
            extent_rows_max: EXTENT_ROWS_MAX,
        })
    }
}

/// What an ingest needs besides its source.
#[derive(Debug, Clone)]
pub struct IngestContext {
    /// Where extents go.
    pub bucket: BucketWriter,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where extent ids come from.
    pub ids: ExtentIds,
    /// The database that the extents belong to.
    pub database: DatabaseId,
    /// Their creation time.
    pub created_on: Timestamp,
    /// Their tags.
    pub tags: BTreeSet<String>,
    /// Row groups that are encoded, and blocks that are decoded, at one time, over all ingests of
    /// the node.
    pub encoding: Arc<Semaphore>,
    /// How this node ingests.
    pub options: IngestOptions,
}

/// A source that is being read.
#[expect(missing_debug_implementations, reason = "a stream has nothing to show")]
pub struct OpenSource {
    /// The columns of the batches: the table's, or, for a table to be made, what was found.
    pub schema: Schema,
    /// The rows.
    pub batches: BatchStream,
    /// Rows that were left out, once the batches are read.
    pub rejects: Rejects,
}

/// Begins to read a source.
///
/// # Errors
/// When the format is not known, the source cannot be read, or its columns do not fit the table.
pub async fn open_source(
    context: &IngestContext,
    source: IngestSource,
    format: Option<IngestFormat>,
    source_name: &str,
    text: &TextOptions,
    table: Option<&TableSchema>,
    bad_rows_max: u64,
) -> Result<OpenSource, ServiceError> {
    let rejects = |place| Rejects::new(source_name, place, table.is_none(), bad_rows_max);
    let slots = &context.encoding;
    let (found, batches): (SchemaRef, BatchStream) = match source {
        // As with files, no row would have anything.
        IngestSource::Batches(schema, _) if schema.fields().is_empty() => {
            return Err(ServiceError::invalid(format!(
                "{source_name} has no columns"
            )));
        }
        IngestSource::Batches(schema, batches) => (schema, ipc::stream_in_pieces(batches)),
        source => {
            let (format, text) = decide_format(format, source_name, text)?;
            let bytes = source::open(source, &context.bucket).await?;
            match format {
                IngestFormat::Csv => {
                    let rejects = rejects(Place::Line);
                    let open = csv::open(slots, bytes, &text, table, rejects.clone()).await?;
                    return Ok(OpenSource {
                        schema: open.0,
                        batches: open.1,
                        rejects,
                    });
                }
                IngestFormat::Jsonl => {
                    let rejects = rejects(Place::Line);
                    let open = json::open(slots, bytes, table, rejects.clone()).await?;
                    return Ok(OpenSource {
                        schema: open.0,
                        batches: open.1,
                        rejects,
                    });
                }
                IngestFormat::Parquet => columnar::parquet(context, bytes, source_name).await?,
                IngestFormat::Arrow => columnar::arrow(context, bytes, source_name).await?,
            }
        }
    };
    let rejects = rejects(Place::Row);
    TableSchema::check_size(&found)
        .map_err(|error| ServiceError::invalid(format!("{source_name}: {error}")))?;
    let Some(table) = table else {
        return Ok(OpenSource {
            schema: found.as_ref().clone(),
            batches,
            rejects,
        });
    };
    let conform = Conform::new(&found, table, rejects.clone())?;
    let schema = table.arrow().as_ref().clone();
    Ok(OpenSource {
        schema,
        batches: conform.apply(batches).boxed(),
        rejects,
    })
}

/// The format that was named, or that the name's ending tells.
fn decide_format(
    format: Option<IngestFormat>,
    source_name: &str,
    text: &TextOptions,
) -> Result<(IngestFormat, TextOptions), ServiceError> {
    let path = source_name
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let path = path.strip_suffix(".gz").unwrap_or(&path);
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
    let mut text = text.clone();
    if ending == "tsv" && text.delimiter == b',' {
        text.delimiter = b'\t';
    }
    let by_name = match ending {
        "csv" | "tsv" => Some(IngestFormat::Csv),
        "jsonl" | "ndjson" | "json" => Some(IngestFormat::Jsonl),
        "parquet" => Some(IngestFormat::Parquet),
        "arrow" | "arrows" | "feather" | "ipc" => Some(IngestFormat::Arrow),
        _ => None,
    };
    let format = format.or(by_name).ok_or_else(|| {
        ServiceError::new(
            ErrorKind::InvalidArgument,
            "unknown_format",
            format!(
                "the name '{source_name}' does not tell the format: name one of csv, jsonl, \
                 parquet, arrow"
            ),
        )
    })?;
    Ok((format, text))
}

#[cfg(test)]
mod tests;
