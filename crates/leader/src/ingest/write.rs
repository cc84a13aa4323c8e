//! Batches to extents in the bucket.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, Scalar};
use arrow::compute::kernels::cmp;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use slipstream_catalog::{INLINE_EXTENT_BYTES_MAX, RemovedExtent};
use slipstream_frontend::{ErrorKind, ServiceError};
use slipstream_model::{Extent, TableSchema};
use slipstream_storage::{
    EXTENT_BYTES_MAX, EncodeError, EncodedExtent, EncodedRows, ExtentAssembler, ExtentEncoder,
    ExtentLayout, ROW_GROUP_BYTES, ROW_GROUP_ROWS, batch_bytes, blocking::off_the_runtime,
};

use tokio_util::task::AbortOnDropHandle;

use super::blocking::{compute, cores, died};
use super::ids::Uploads;
use super::{BatchStream, IngestContext};

/// Extents of one ingest that are on their way to the bucket at one time. Each is whole in
/// memory; more of them would not make one connection faster.
pub(super) const UPLOADS_MAX: usize = 4;

/// Row groups of one ingest that are encoded at one time; the cores share out their columns.
const GROUPS_MAX: usize = 4;
/// Parts of a row group's columns that are encoded at one time.
const SHARES_MAX: usize = 16;
/// A full extent leaves at most this part of its rows to the next.
const SHARE_LEFT_MAX: u64 = 16;

/// Encodes rows and uploads the extents, in the rows' order. Row groups are encoded in parallel,
/// while the extents before them are on their way.
///
/// # Errors
/// The first failure of the source, the encoder or the bucket. What was uploaded until then is
/// never referred to, and is deleted one day.
pub async fn write_extents<E>(
    context: &IngestContext,
    schema: &TableSchema,
    batches: impl Stream<Item = Result<RecordBatch, E>> + Send,
) -> Result<Vec<Extent>, ServiceError>
where
    E: Into<ServiceError>,
{
    let extents = write(context, schema, batches, GROUPS_MAX.min(cores())).await?;
    let rows = extents.iter().map(|extent| extent.row_count).sum();
    metrics::counter!("slipstream_extents_written_total").increment(extents.len() as u64);
    metrics::counter!("slipstream_rows_written_total").increment(rows);
    Ok(extents)
}

/// The same for rows that stand in extents already. Nobody waits for it, so it holds one row group
/// at a time.
///
/// # Errors
/// As [`write_extents`].
pub(crate) async fn rewrite_extents(
    context: &IngestContext,
    schema: &TableSchema,
    batches: BatchStream,
) -> Result<Vec<Extent>, ServiceError> {
    write(context, schema, batches, 1).await
}

/// Encodes a few rows as an extent that stands in the log; `None` when it would be too large for
/// that. Nothing is uploaded.
///
/// # Errors
/// When they do not fit the table, or no id is to be had.
pub async fn inline_extent(
    context: &IngestContext,
    schema: &TableSchema,
    batches: Vec<RecordBatch>,
) -> Result<Option<Extent>, ServiceError> {
    let id = context.ids.next().await?;
    // There is no file of it that might be left over.
    context.ids.settle([id]);
    let (schema, tags) = (schema.clone(), context.tags.clone());
    let created_on = context.created_on;
    let encoded = compute(&context.encoding, move || {
        let mut encoder = ExtentEncoder::new(&schema)?;
        for batch in &batches {
            encoder.write(batch)?;
        }
        encoder.finish(id, created_on, tags)
    });
    let EncodedExtent { mut extent, bytes } = encoded.await?.map_err(encoding)?;
    if bytes.len() > INLINE_EXTENT_BYTES_MAX {
        return Ok(None);
    }
    extent.inline = Some(bytes);
    Ok(Some(extent))
}

async fn write<E>(
    context: &IngestContext,
    schema: &TableSchema,
    batches: impl Stream<Item = Result<RecordBatch, E>> + Send,
    groups_max: usize,
) -> Result<Vec<Extent>, ServiceError>
where
    E: Into<ServiceError>,
{
    let layout = ExtentLayout::new(schema).map_err(encoding)?;
    context.ids.prepare();
    let uploads = context.ids.uploads();
    let checked = batches.map(|batch| {
        let batch = batch.map_err(Into::into)?;
        check_nulls(&batch, schema)?;
        Ok::<_, ServiceError>(batch)
    });
    let rows = layout.clone();
    let encoded = group(checked, context.options.extent_rows_max)
        .map(|group| encode(context, rows.clone(), group))
        .buffered(groups_max);
    let extents = assemble(encoded, layout)
        .map(|extent| finish(context, &uploads, extent))
        .buffered(UPLOADS_MAX)
        .try_collect()
        .await?;
    uploads.keep();
    Ok(extents)
}

/// Puts row groups together until an extent is full.
fn assemble(
    encoded: impl Stream<Item = Result<(EncodedRows, bool), ServiceError>> + Send,
    layout: ExtentLayout,
) -> impl Stream<Item = Result<ExtentAssembler, ServiceError>> + Send {
    let state = (Box::pin(encoded), layout);
    futures::stream::try_unfold(state, |(mut encoded, layout)| async move {
        let mut extent = ExtentAssembler::new(&layout).map_err(encoding)?;
        while let Some((rows, ends_extent)) = encoded.try_next().await? {
            extent.append(rows).map_err(encoding)?;
            if ends_extent || extent.size_bytes() >= EXTENT_BYTES_MAX {
                break;
            }
        }
        let has_rows = extent.row_count() > 0;
        Ok(has_rows.then_some((extent, (encoded, layout))))
    })
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
    /// What the source gave when it was looked at ahead.
    seen: Option<Result<RecordBatch, ServiceError>>,
    rows_in_extent: u64,
    extent_rows_max: u64,
    ended: bool,
}

/// Cuts the rows into row groups, so that extents end where they are full, or a few rows before
/// when rows that belong together would be torn apart.
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
        seen: None,
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
            bytes += batch_bytes(&batch);
            batches.push(batch);
        }
        if rows == 0 {
            return Ok(None);
        }
        self.rows_in_extent += rows as u64;
        let ends_extent = self.rows_in_extent >= self.extent_rows_max;
        if ends_extent {
            self.keep_together(&mut batches);
            self.rows_in_extent = 0;
        }
        Ok(Some(Group {
            batches,
            ends_extent,
        }))
    }

    /// Leaves the last rows of a full extent to the next one, when that begins with rows of the same
    /// key. Then no key stands in two extents, and each can be aggregated without the others.
    fn keep_together(&mut self, batches: &mut [RecordBatch]) {
        // What is not here yet is not waited for: a full extent goes on its way.
        if self.waiting.is_empty() && !self.ended && self.seen.is_none() {
            match self.source.next().now_or_never() {
                Some(Some(next)) => self.seen = Some(next),
                Some(None) => self.ended = true,
                None => {}
            }
        }
        let seen = self.seen.as_ref().and_then(|seen| seen.as_ref().ok());
        let next = self.waiting.front().or(seen);
        let next = next.filter(|batch| batch.num_rows() > 0);
        let (Some(last), Some(next)) = (batches.last_mut(), next) else {
            return;
        };
        let torn = rows_of_next_key(last, next);
        if torn > 0 && torn as u64 * SHARE_LEFT_MAX <= self.rows_in_extent {
            let kept = last.num_rows() - torn;
            self.waiting.push_front(last.slice(kept, torn));
            *last = last.slice(0, kept);
        }
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ServiceError> {
        if let Some(batch) = self.waiting.pop_front() {
            return Ok(Some(batch));
        }
        while !self.ended {
            let next = match self.seen.take() {
                Some(seen) => Some(seen?),
                None => self.source.try_next().await?,
            };
            match next {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => return Ok(Some(batch)),
                None => self.ended = true,
            }
        }
        Ok(None)
    }
}

/// How many rows at the end of a batch have the key that the next batch begins with. A key is the
/// first column whose values ascend and change.
fn rows_of_next_key(batch: &RecordBatch, next: &RecordBatch) -> usize {
    let pairs = batch.columns().iter().zip(next.columns());
    let torn = |(values, next): (&ArrayRef, &ArrayRef)| {
        let (length, first) = (values.len(), next.slice(0, 1));
        if values.null_count() > 0 || first.null_count() > 0 || values.data_type().is_nested() {
            return None;
        }
        let (before, after) = (values.slice(0, length - 1), values.slice(1, length - 1));
        let ascends = cmp::lt_eq(&before, &after).ok()?.false_count() == 0;
        let last = values.slice(length - 1, 1);
        let goes_on = cmp::lt_eq(&last, &first).ok()?.value(0);
        let same = cmp::eq(values, &Scalar::new(first)).ok()?;
        // As the values ascend, those that are the same stand at the end.
        let torn = same.true_count();
        (ascends && goes_on && torn < length).then_some(torn)
    };
    pairs.filter_map(torn).next().unwrap_or(0)
}

async fn encode(
    context: &IngestContext,
    layout: ExtentLayout,
    group: Result<Group, ServiceError>,
) -> Result<(EncodedRows, bool), ServiceError> {
    let Group {
        batches,
        ends_extent,
    } = group?;
    let (layout, batches) = (Arc::new(layout), Arc::new(batches));
    // The columns are shared out, so that no core idles while another has the last group. Some take
    // many times as long as others.
    let columns = batches.first().map_or(1, |batch| batch.num_columns());
    let step = columns.clamp(1, SHARES_MAX);
    let shares = (0..step).map(|first| {
        let (layout, batches) = (Arc::clone(&layout), Arc::clone(&batches));
        compute(&context.encoding, move || {
            layout.encode_columns(&batches, first, step)
        })
    });
    let shares = futures::future::try_join_all(shares).await?;
    let shares: Result<Vec<_>, _> = shares.into_iter().collect();
    let rows = EncodedRows::of(shares.map_err(encoding)?);
    Ok((rows, ends_extent))
}

/// Ends an extent and brings it to the bucket.
///
/// A task of its own: it goes on while the ingest waits for its source, and ends with the ingest.
async fn finish(
    context: &IngestContext,
    uploads: &Uploads,
    extent: Result<ExtentAssembler, ServiceError>,
) -> Result<Extent, ServiceError> {
    let extent = extent?;
    let id = context.ids.next().await?;
    let noted = uploads.noted();
    let (created_on, tags) = (context.created_on, context.tags.clone());
    let (bucket, database) = (context.bucket.clone(), context.database);
    let upload = async move {
        // Hashing a large file takes a while: not on a thread that serves others.
        let finish = move || extent.finish(id, created_on, tags);
        let finished = off_the_runtime(finish).await;
        let finished: EncodedExtent = finished.map_err(|e| died(&e))?.map_err(encoding)?;
        let size_bytes = finished.extent.size_bytes;
        noted.lock().push(RemovedExtent { id, size_bytes });
        bucket.upload_extent(database, &finished).await?;
        Ok::<_, ServiceError>(finished.extent)
    };
    let upload = AbortOnDropHandle::new(tokio::spawn(upload));
    upload.await.map_err(|error| died(&error))?
}

/// Batches that come from a query may hold nulls where the table has none.
pub(crate) fn check_nulls(batch: &RecordBatch, schema: &TableSchema) -> Result<(), ServiceError> {
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
