//! The rows of extents, one extent after another, as their table has them now.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use slipstream_frontend::{ErrorKind, ServiceError};
use slipstream_model::{DatabaseId, Digest, Extent, ExtentId, TableSchema};
use slipstream_storage::{BucketPath, BucketReader};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use crate::ingest::{BatchStream, Stop, batch_rows, give, produce};

/// Extents that are fetched at one time, whole. Those of one merge are together no larger than one
/// extent may be.
const SOURCES_AHEAD: usize = 4;
/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 4;

/// Which extent it was that could not be read, when one could not.
pub(super) type Unreadable = Arc<OnceLock<ExtentId>>;

/// Reads extents in order. Each is fetched whole and checked against its SHA-256: what is damaged
/// must not become part of an extent that counts as whole. Columns that an extent does not hold are
/// null, and those that the table does not have any more are left out.
pub(super) fn rows(
    bucket: &BucketReader,
    database: DatabaseId,
    sources: &[Extent],
    schema: &TableSchema,
    unreadable: &Unreadable,
) -> BatchStream {
    let (bucket, table) = (bucket.clone(), schema.arrow());
    let (of_fetch, of_decode) = (Arc::clone(unreadable), Arc::clone(unreadable));
    let fetched = stream::iter(sources.to_vec()).map(move |source| {
        let (bucket, inline) = (bucket.clone(), source.inline.clone());
        let unreadable = Arc::clone(&of_fetch);
        async move {
            let bytes = match inline {
                Some(bytes) => Ok(bytes),
                None => fetch(bucket, database, source.id).await,
            };
            match bytes {
                Ok(bytes) => Ok((source, bytes)),
                Err(error) => Err(note(&unreadable, source.id, error)),
            }
        }
    });
    let decoded = fetched
        .buffered(SOURCES_AHEAD)
        .map_ok(move |(source, bytes)| {
            let (id, unreadable) = (source.id, Arc::clone(&of_decode));
            decode(source, bytes, Arc::clone(&table))
                .map_err(move |error| note(&unreadable, id, error))
        });
    decoded.try_flatten().boxed()
}

fn note(unreadable: &Unreadable, extent: ExtentId, error: ServiceError) -> ServiceError {
    // The first one counts: nothing is read after it.
    let _ = unreadable.set(extent);
    error
}

/// Fetches an extent, also while nobody waits for it.
async fn fetch(
    bucket: BucketReader,
    database: DatabaseId,
    extent: ExtentId,
) -> Result<Bytes, ServiceError> {
    let path = BucketPath::extent(database, extent);
    let fetching = async move { bucket.get(&path).await };
    let fetching = AbortOnDropHandle::new(tokio::spawn(fetching));
    let fetched = fetching.await;
    let fetched = fetched.map_err(|error| {
        ServiceError::internal(format!("extent {extent} could not be fetched: {error}"))
    })?;
    Ok(fetched?)
}

/// Checks and decodes an extent, on a thread of its own.
fn decode(
    source: Extent,
    bytes: Bytes,
    table: SchemaRef,
) -> impl Stream<Item = Result<RecordBatch, ServiceError>> + Send {
    let id = source.id;
    let broken = move |what: &dyn Display| damaged(id, what);
    // The decoders do not expect every kind of damage.
    let on_panic = move |_: &JoinError| damaged(id, &"it cannot be decoded");
    produce(BATCHES_AHEAD, on_panic, move |sender| {
        if Digest::of(&bytes) != source.sha256 {
            return Err(broken(&"its content is not what the catalog says").into());
        }
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes);
        let builder = builder.map_err(|error| broken(&error))?;
        let held = builder.schema().fields().iter().enumerate();
        let wanted = held.filter(|(_, field)| table.column_with_name(field.name()).is_some());
        let wanted: Vec<usize> = wanted.map(|(position, _)| position).collect();
        let wanted = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let rows = batch_rows(builder.metadata());
        let reader = builder
            .with_projection(wanted)
            .with_batch_size(rows)
            .build()
            .map_err(|error| broken(&error))?;
        let mut row_count = 0;
        for batch in reader {
            let batch = batch.and_then(|batch| conform(&batch, &table));
            let batch = batch.map_err(|error| broken(&error))?;
            row_count += batch.num_rows() as u64;
            give(sender, batch)?;
        }
        if row_count != source.row_count {
            let what = format!("it has {row_count} rows, not {}", source.row_count);
            return Err(Stop::Failed(broken(&what)));
        }
        Ok(())
    })
}

/// A batch with the table's columns.
fn conform(batch: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let exactly = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns = table.fields().iter().map(|field| {
        let wanted = field.data_type();
        match batch.column_by_name(field.name()) {
            Some(values) if values.data_type() == wanted => Ok(Arc::clone(values)),
            Some(values) => cast_with_options(values, wanted, &exactly),
            None => Ok(new_null_array(wanted, batch.num_rows())),
        }
    });
    let columns = columns.collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(table), columns, &options)
}

fn damaged(extent: ExtentId, what: &dyn Display) -> ServiceError {
    ServiceError::new(
        ErrorKind::DataCorrupt,
        "corrupt_data",
        format!("extent {extent} is damaged: {what}"),
    )
}
