//! Parquet and Arrow files, decoded as an ingest decodes them: into a table that is there,
//! or one that is made by what is found. The first byte chooses.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use futures::StreamExt;
use slipstream_frontend::{IngestFormat, IngestSource, TextOptions};
use slipstream_leader::ingest::{ExtentIds, IngestContext, IngestOptions, open_source};
use slipstream_model::{Clock, DatabaseId, Entropy, Epoch, ManualClock, TableSchema, Timestamp};
use slipstream_storage::BucketWriter;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Rows that may be left out before an ingest gives up.
const BAD_ROWS_MAX: u64 = 3;
/// Rows that are looked at. A file may say billions in a few bytes, as a run or as nulls; they come
/// batch by batch, and take their time.
const ROWS_MAX: usize = 1 << 20;
/// The pieces in which the bytes come.
const CHUNK_BYTES: usize = 4_096;

struct World {
    runtime: Runtime,
    context: IngestContext,
    table: TableSchema,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    let entropy = Entropy::from_seed(1);
    let bucket = runtime.block_on(BucketWriter::memory(Arc::clone(&clock), entropy.clone()));
    let database = DatabaseId::default();
    let of_ids = (bucket.clone(), Arc::clone(&clock));
    let context = IngestContext {
        ids: ExtentIds::new(of_ids.0, of_ids.1, entropy, database, Epoch::FIRST),
        bucket,
        clock,
        database,
        created_on: Timestamp::from_micros(0),
        tags: BTreeSet::new(),
        encoding: Arc::new(Semaphore::new(1)),
        options: IngestOptions::in_directory(std::env::temp_dir()).expect("a folder"),
    };
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let list = Arc::new(field("item", DataType::Float64));
    let columns = vec![
        field("a", DataType::Int64),
        field("b", DataType::Utf8),
        field("c", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("d", DataType::Decimal128(9, 2)),
        field("e", DataType::List(list)),
        Field::new("f", DataType::Boolean, true),
    ];
    let table = TableSchema::new(&Schema::new(columns)).expect("a schema");
    World {
        runtime,
        context,
        table,
    }
});

pub(crate) fn run(data: &[u8]) {
    let Some((choice, file)) = data.split_first() else {
        return;
    };
    let format = if choice & 1 == 0 {
        IngestFormat::Parquet
    } else {
        IngestFormat::Arrow
    };
    let table = (choice & 2 == 0).then_some(&WORLD.table);
    WORLD.runtime.block_on(decode(file, format, table));
}

async fn decode(file: &[u8], format: IngestFormat, table: Option<&TableSchema>) {
    let chunks: Vec<_> = file
        .chunks(CHUNK_BYTES)
        .map(Bytes::copy_from_slice)
        .collect();
    let body = IngestSource::Body(futures::stream::iter(chunks.into_iter().map(Ok)).boxed());
    let context = &WORLD.context;
    let text = TextOptions::default();
    let open = open_source(
        context,
        body,
        Some(format),
        "body",
        &text,
        table,
        BAD_ROWS_MAX,
    );
    let Ok(mut source) = open.await else {
        return;
    };
    let mut rows = 0;
    while rows < ROWS_MAX
        && let Some(Ok(batch)) = source.batches.next().await
    {
        assert_eq!(batch.schema().fields(), &source.schema.fields);
        rows += batch.num_rows();
    }
}
