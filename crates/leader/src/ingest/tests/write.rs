//! Extents: on their way while the source is read, and not more of them than fit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

/// A bucket that takes a very long time for each object from now on.
async fn stuck(world: &mut World) {
    let store = Arc::new(ThrottledStore::new(
        InMemory::new(),
        ThrottleConfig::default(),
    ));
    let (clock, entropy) = (Arc::clone(&world.context.clock), Entropy::from_seed(2));
    let shared = Arc::clone(&store);
    world.context.bucket = BucketWriter::from_store(shared, Path::default(), clock, entropy)
        .await
        .expect("certified");
    store.config_mut(|config| config.wait_put_per_call = Duration::from_secs(100_000));
}

/// Waits until a count stands still; the threads that raise it need no more than moments.
async fn settled(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    while before != count.load(Ordering::SeqCst) {
        before = count.load(Ordering::SeqCst);
        let moment = Duration::from_millis(200);
        let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
    }
    before
}

#[tokio::test]
async fn full_extents_are_uploaded_while_the_source_is_still_open() {
    let mut world = World::new().await;
    world.context.options.extent_rows_max = 100;
    let bucket = world.context.bucket.clone();
    let before = bucket.requests().put;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let batches = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok::<_, ServiceError>);
    let context = world.context.clone();
    let writing = tokio::spawn(async move {
        let schema = table(&[("n", DataType::Int64, false)]);
        write_extents(&context, &schema, batches).await
    });
    sender.send(range(0..100)).await.expect("listened to");
    let uploaded = async {
        // The first is the intent.
        while bucket.requests().put < before + 2 {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, uploaded)
        .await
        .expect("the extent is uploaded by now");
    sender.send(range(100..150)).await.expect("listened to");
    drop(sender);
    let extents = writing.await.expect("no panic").expect("written");
    let rows: Vec<_> = extents.iter().map(|extent| extent.row_count).collect();
    assert_eq!(rows, [100, 50]);
}

#[tokio::test]
async fn an_extent_ends_with_the_last_row_of_a_key() {
    let mut world = World::new().await;
    world.context.options.extent_rows_max = 100;
    let schema = table(&[("n", DataType::Int64, false)]);
    // Cut within a batch, and between two: rows 98 to 130 have one key.
    for lengths in [vec![250], vec![100, 150]] {
        let keys = (0..250).map(|row| if (98..=130).contains(&row) { 98 } else { row });
        let keys: Vec<i64> = keys.collect();
        let mut rows = keys.as_slice();
        let batches = lengths.iter().map(|length| {
            let (batch, rest) = rows.split_at(*length);
            rows = rest;
            let values = Int64Array::from(batch.to_vec());
            Ok::<_, ServiceError>(
                RecordBatch::try_new(schema.arrow(), vec![Arc::new(values)]).expect("batch"),
            )
        });
        let batches: Vec<_> = batches.collect();
        let written = write_extents(&world.context, &schema, futures::stream::iter(batches)).await;
        let extents = written.expect("written");
        let rows: Vec<_> = extents.iter().map(|extent| extent.row_count).collect();
        assert_eq!(rows, [98, 100, 52]);
    }
}

#[tokio::test]
async fn a_key_that_fills_an_extent_is_torn() {
    let mut world = World::new().await;
    world.context.options.extent_rows_max = 100;
    let schema = table(&[("n", DataType::Int64, false)]);
    let values = Int64Array::from(vec![7; 150]);
    let batch = RecordBatch::try_new(schema.arrow(), vec![Arc::new(values)]).expect("batch");
    let batches = futures::stream::iter([Ok::<_, ServiceError>(batch)]);
    let extents = write_extents(&world.context, &schema, batches)
        .await
        .expect("written");
    let rows: Vec<_> = extents.iter().map(|extent| extent.row_count).collect();
    assert_eq!(rows, [100, 50]);
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_stops_the_source_and_no_other_ingest() {
    const ROWS: i64 = 100;
    let mut world = World::new().await;
    let healthy = world.context.clone();
    stuck(&mut world).await;
    world.context.options.extent_rows_max = ROWS as u64;
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let endless = futures::stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok::<_, ServiceError>(range(0..ROWS))
    });
    let context = world.context.clone();
    let writing = tokio::spawn(async move {
        let schema = table(&[("n", DataType::Int64, false)]);
        write_extents(&context, &schema, endless).await
    });
    let batches = settled(&taken).await;
    // Extents on their way, one being put together, row groups being encoded, one being gathered.
    let held_max = crate::ingest::write::UPLOADS_MAX + blocking::cores() + 3;
    assert!(
        (1..=held_max).contains(&batches),
        "{batches} extents are held"
    );

    // All of the node's slots are free for others.
    world.context = healthy;
    world.context.options.extent_rows_max = 10;
    let writes = super::write(&world, vec![range(0..100)]);
    let extents = tokio::time::timeout(Duration::from_secs(20), writes).await;
    assert_eq!(extents.expect("not held up").len(), 10);
    writing.abort();
}

#[tokio::test]
async fn what_a_failed_ingest_uploaded_is_abandoned_and_nothing_else_is() {
    let mut world = World::new().await;
    world.context.options.extent_rows_max = 100;
    let schema = table(&[("n", DataType::Int64, false)]);
    let failing = futures::stream::iter([
        Ok(range(0..100)),
        Ok(range(100..200)),
        Err(ServiceError::invalid("the source ends".to_owned())),
    ]);
    let failed = write_extents(&world.context, &schema, failing).await;
    failed.expect_err("a source that fails");
    let batches = futures::stream::iter([Ok::<_, ServiceError>(range(0..50))]);
    let written = write_extents(&world.context, &schema, batches).await;
    let written = written.expect("written");

    let abandoned = world.context.ids.abandoned();
    assert_eq!(abandoned.len(), 2);
    for one in abandoned {
        assert_ne!(one.extent.id, written[0].id);
        let (bucket, database) = (&world.context.bucket, world.context.database);
        let size = bucket.extent_size(database, one.extent.id).await;
        assert_eq!(size.expect("answered"), Some(one.extent.size_bytes));
    }
}

#[tokio::test]
async fn a_null_where_none_may_be_is_refused_by_name() {
    let world = World::new().await;
    let schema = table(&[("n", DataType::Int64, false)]);
    let nullable = table(&[("n", DataType::Int64, true)]);
    let column = Arc::new(Int64Array::from(vec![Some(1), None]));
    let batch = RecordBatch::try_new(nullable.arrow(), vec![column]).expect("valid");
    let batches = futures::stream::iter([Ok::<_, ServiceError>(batch)]);
    let error = write_extents(&world.context, &schema, batches).await;
    let error = error.expect_err("a null");
    assert!(error.message().contains("'n' is NOT NULL"), "{error}");
}

#[tokio::test]
async fn rows_of_wide_texts_make_smaller_row_groups() {
    // Each batch is one text of 1 MiB: 400 of them are more than one row group may hold.
    const TEXT_BYTES: usize = 1 << 20;
    let world = World::new().await;
    let schema = table(&[("s", DataType::Utf8View, true)]);
    let batch = || {
        let text = "x".repeat(TEXT_BYTES);
        let column = arrow::array::StringViewArray::from_iter_values([text]);
        RecordBatch::try_new(schema.arrow(), vec![Arc::new(column)]).expect("valid")
    };
    let batches = futures::stream::repeat_with(|| Ok::<_, ServiceError>(batch())).take(400);
    let extents = write_extents(&world.context, &schema, batches)
        .await
        .expect("written");
    let path = slipstream_storage::BucketPath::extent(world.context.database, extents[0].id);
    let bytes = world.context.bucket.get(&path).await.expect("uploaded");
    let file = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes);
    let groups = file.expect("Parquet").metadata().num_row_groups();
    assert_eq!((extents.len(), groups), (1, 2));
}
