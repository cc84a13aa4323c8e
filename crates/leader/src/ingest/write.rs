//! Batches to extents in the bucket.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use futures::stream::{FuturesOrdered, Stream};
use futures::{StreamExt, TryStreamExt};
use slipstream_frontend::{ErrorKind, ServiceError};
use slipstream_model::{Extent, ExtentId, TableSchema};
use slipstream_storage::{
    EXTENT_BYTES_MAX, EncodeError, EncodedExtent, EncodedRows, ExtentAssembler, ExtentLayout,
    ROW_GROUP_BYTES, ROW_GROUP_ROWS,
};

use super::IngestContext;

/// Extents of one ingest that are on their way to the bucket at one time. Each is whole in
/// memory; more of them would not make one connection faster.
const UPLOADS_MAX: usize = 4;

/// Encodes rows and uploads the extents, in the rows' order. Row groups are encoded in parallel.
///
/// # Errors
/// The first failure of the source, the encoder or the bucket. What was uploaded until then is
/// never referred to.
pub async fn write_extents<E>(
    context: &IngestContext,
    schema: &TableSchema,
    batches: impl Stream<Item = Result<RecordBatch, E>> + Send,
) -> Result<Vec<Extent>, ServiceError>
where
    E: Into<ServiceError>,
{
    let layout = ExtentLayout::new(schema).map_err(encoding)?;
    let cores = context.encoding.available_permits().max(1);
    let checked = batches.map(|batch| {
        let batch = batch.map_err(Into::into)?;
        check_nulls(&batch, schema)?;
        Ok::<_, ServiceError>(batch)
    });
    let groups = group(checked, context.options.extent_rows_max);
    let encoded = groups
        .map(|group| {
            let layout = layout.clone();
            async move {
                let Group {
                    batches,
                    ends_extent,
                } = group?;
                Ok::<_, ServiceError>((encode(context, layout, batches).await?, ends_extent))
            }
        })
        .buffered(cores);
    let mut encoded = std::pin::pin!(encoded);

    let mut extents = Vec::new();
    let mut uploads = FuturesOrdered::new();
    let mut assembler: Option<ExtentAssembler> = None;
    while let Some((rows, ends_extent)) = encoded.try_next().await? {
        let mut extent = match assembler.take() {
            Some(extent) => extent,
            None => ExtentAssembler::new(&layout).map_err(encoding)?,
        };
        extent.append(rows).map_err(encoding)?;
        if ends_extent || extent.size_bytes() >= EXTENT_BYTES_MAX {
            uploads.push_back(finish(context, extent));
        } else {
            assembler = Some(extent);
        }
        while uploads.len() >= UPLOADS_MAX {
            extents.extend(uploads.try_next().await?);
        }
    }
    if let Some(extent) = assembler.filter(|extent| extent.row_count() > 0) {
        uploads.push_back(finish(context, extent));
    }
    extents.extend(uploads.try_collect::<Vec<_>>().await?);
    Ok(extents)
}

/// Rows that are encoded together.
struct Group {
    batches: Vec<RecordBatch>,
    ends_extent: bool,
}

/// What is left over of the source, and how full the group and the extent are.
struct Grouper<S> {
    source: S,
    waiting: VecDeque<RecordBatch>,
    rows_in_extent: u64,
    extent_rows_max: u64,
    ended: bool,
}

/// Cuts the rows into row groups, so that extents end exactly where they are full.
fn group<S>(
    source: S,
    extent_rows_max: u64,
) -> impl Stream<Item = Result<Group, ServiceError>> + Send
where
    S: Stream<Item = Result<RecordBatch, ServiceError>> + Send,
{
    let grouper = Grouper {
        source: Box::pin(source),
        waiting: VecDeque::new(),
        rows_in_extent: 0,
        extent_rows_max,
        ended: false,
    };
    futures::stream::try_unfold(grouper, |mut grouper| async move {
        let group = grouper.next().await?;
        Ok(group.map(|group| (group, grouper)))
    })
}

impl<S> Grouper<S>
where
    S: Stream<Item = Result<RecordBatch, ServiceError>> + Send + Unpin,
{
    async fn next(&mut self) -> Result<Option<Group>, ServiceError> {
        let left_in_extent = self.extent_rows_max - self.rows_in_extent;
        let rows_max = usize::try_from(left_in_extent)
            .unwrap_or(usize::MAX)
            .min(ROW_GROUP_ROWS);
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < rows_max && bytes < ROW_GROUP_BYTES {
            let Some(batch) = self.next_batch().await? else {
                break;
            };
            let taken = batch.num_rows().min(rows_max - rows);
            if taken < batch.num_rows() {
                self.waiting
                    .push_front(batch.slice(taken, batch.num_rows() - taken));
            }
            let batch = batch.slice(0, taken);
            rows += taken;
            bytes += slice_bytes(&batch);
            batches.push(batch);
        }
        if rows == 0 {
            return Ok(None);
        }
        self.rows_in_extent += rows as u64;
        let ends_extent = self.rows_in_extent >= self.extent_rows_max;
        if ends_extent {
            self.rows_in_extent = 0;
        }
        Ok(Some(Group {
            batches,
            ends_extent,
        }))
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ServiceError> {
        if let Some(batch) = self.waiting.pop_front() {
            return Ok(Some(batch));
        }
        while !self.ended {
            match self.source.try_next().await? {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => return Ok(Some(batch)),
                None => self.ended = true,
            }
        }
        Ok(None)
    }
}

fn slice_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
        .sum()
}

async fn encode(
    context: &IngestContext,
    layout: ExtentLayout,
    batches: Vec<RecordBatch>,
) -> Result<EncodedRows, ServiceError> {
    let slot = Arc::clone(&context.encoding)
        .acquire_owned()
        .await
        .map_err(|_| ServiceError::internal("the node is stopping"))?;
    let encoded = tokio::task::spawn_blocking(move || {
        let encoded = layout.encode_rows(&batches);
        drop(slot);
        encoded
    });
    let encoded = encoded
        .await
        .map_err(|error| ServiceError::internal(error.to_string()))?;
    encoded.map_err(encoding)
}

/// Ends an extent and brings it to the bucket.
async fn finish(context: &IngestContext, extent: ExtentAssembler) -> Result<Extent, ServiceError> {
    let id = ExtentId::new(context.entropy.uuid_at(context.clock.now()));
    let (created_on, tags) = (context.created_on, context.tags.clone());
    // Hashing a large file takes a while: not on a thread that serves others.
    let finished = tokio::task::spawn_blocking(move || extent.finish(id, created_on, tags));
    let finished: EncodedExtent = finished
        .await
        .map_err(|error| ServiceError::internal(error.to_string()))?
        .map_err(encoding)?;
    context
        .bucket
        .upload_extent(context.database, &finished)
        .await?;
    metrics::counter!("slipstream_extents_written_total").increment(1);
    metrics::counter!("slipstream_rows_written_total").increment(finished.extent.row_count);
    Ok(finished.extent)
}

/// Batches that come from a query may hold nulls where the table has none.
fn check_nulls(batch: &RecordBatch, schema: &TableSchema) -> Result<(), ServiceError> {
    for (column, values) in schema.columns().iter().zip(batch.columns()) {
        if !column.field.is_nullable() && values.logical_null_count() > 0 {
            return Err(ServiceError::new(
                ErrorKind::InvalidArgument,
                "bad_row",
                format!(
                    "column '{}' is NOT NULL, and a row has no value for it. Nothing was ingested",
                    column.field.name()
                ),
            ));
        }
    }
    Ok(())
}

fn encoding(error: EncodeError) -> ServiceError {
    match error {
        EncodeError::UnsupportedType { .. } | EncodeError::SchemaMismatch { .. } => {
            ServiceError::invalid(error.to_string())
        }
        EncodeError::Parquet(_) => ServiceError::internal(error.to_string()),
    }
}
