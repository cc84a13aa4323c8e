use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::{TryStreamExt, stream};
use slipstream_catalog::{TableState, WriterContext};
use slipstream_model::{ClusterName, ManualClock, SortOrder, Timestamp};
use slipstream_storage::{BucketPath, BucketWriter};
use tokio::sync::Semaphore;

use super::*;
use crate::ingest::{ExtentIds, IngestOptions, write_extents};
use crate::lifecycle::plan;

const TABLE: &str = "t";

/// A database with one table of two columns, `n` and `old`.
struct World {
    context: IngestContext,
    writer: DatabaseWriter,
    _spool: tempfile::TempDir,
}

fn name() -> TableName {
    TableName::new(TABLE).expect("a name")
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1)));
        let entropy = slipstream_model::Entropy::from_seed(1);
        let bucket = BucketWriter::memory(Arc::clone(&clock) as _, entropy.clone()).await;
        let database = DatabaseId::new(entropy.uuid());
        let cluster = ClusterName::new("prod").expect("a name");
        let context = WriterContext::new(cluster, Arc::clone(&clock) as _, entropy.clone());
        let writer = DatabaseWriter::open(bucket.clone(), database, context);
        let spool = tempfile::tempdir().expect("temporary directory");
        let ids = ExtentIds::new(
            bucket.clone(),
            Arc::clone(&clock) as _,
            entropy.clone(),
            database,
            slipstream_model::Epoch::FIRST,
        );
        let world = Self {
            writer: writer.await.expect("opened"),
            context: IngestContext {
                ids,
                bucket,
                clock,
                database,
                created_on: Timestamp::default(),
                tags: BTreeSet::new(),
                encoding: Arc::new(Semaphore::new(1)),
                options: IngestOptions::in_directory(spool.path().to_owned()).expect("made"),
            },
            _spool: spool,
        };
        let columns = vec![
            Field::new("n", DataType::Int64, false),
            Field::new("old", DataType::Utf8, true),
        ];
        let create = DatabaseOp::CreateTable {
            id: TableId::new(entropy.uuid()),
            name: name(),
            schema: TableSchema::new(&Schema::new(columns)).expect("valid"),
            if_not_exists: false,
        };
        world.commit(create).await;
        world
    }

    async fn commit(&self, op: DatabaseOp) {
        self.writer.commit(vec![op]).await.expect("allowed");
    }

    fn table(&self) -> Arc<TableState> {
        let state = self.writer.state();
        Arc::clone(state.table(TABLE).expect("made"))
    }

    /// Adds an extent of these numbers; its other columns are null.
    async fn ingest(&self, numbers: &[i64], created_on: i64, tag: &str) -> Extent {
        let table = self.table();
        let context = IngestContext {
            created_on: Timestamp::from_micros(created_on),
            tags: [tag.to_owned()].into(),
            ..self.context.clone()
        };
        let arrow = table.schema.arrow();
        let columns = arrow
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                "n" => Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef,
                _ => new_null_array(field.data_type(), numbers.len()),
            });
        let columns = columns.collect();
        let batch = RecordBatch::try_new(Arc::clone(&arrow), columns).expect("valid");
        let batches = stream::iter([Ok::<_, ServiceError>(batch)]);
        let extents = write_extents(&context, &table.schema, batches).await;
        let extents = extents.expect("written");
        let extent = extents[0].clone();
        self.commit(DatabaseOp::AddExtents {
            table: table.id,
            schema: table.schema.clone(),
            extents,
        })
        .await;
        extent
    }

    async fn add_column(&self, column: &str) {
        let add = DatabaseOp::AddColumn {
            table: name(),
            field: Field::new(column, DataType::Int64, true),
            if_not_exists: false,
        };
        self.commit(add).await;
    }

    async fn drop_column(&self, column: &str) {
        let drop = DatabaseOp::DropColumn {
            table: name(),
            column: column.to_owned(),
            if_exists: false,
        };
        self.commit(drop).await;
    }

    /// A merge of all extents that there are.
    fn merge_of_all(&self) -> Merge {
        let table = self.table();
        Merge {
            database: DatabaseName::new("d").expect("a name"),
            database_id: self.context.database,
            table: name(),
            table_id: table.id,
            schema: table.schema.clone(),
            sources: plan::write_order(table.extents.iter().collect(), &table.schema),
        }
    }

    async fn run(&self, merge: &Merge) -> Result<Vec<Extent>, MergeError> {
        merge.run(&self.writer, &self.context).await
    }

    /// The numbers of all rows, extent after extent.
    async fn numbers(&self) -> Vec<i64> {
        let mut numbers = Vec::new();
        for batch in self.batches().await {
            let column = batch.column_by_name("n").expect("there");
            let values = column.as_primitive::<Int64Type>().values();
            numbers.extend(values.iter().copied());
        }
        numbers
    }

    async fn batches(&self) -> Vec<RecordBatch> {
        let table = self.table();
        let extents: Vec<Extent> = table.extents.iter().collect();
        let (bucket, database) = (self.context.bucket.reader(), self.context.database);
        let unreadable = Unreadable::default();
        let rows = read::rows(bucket, database, &extents, &table.schema, &unreadable);
        rows.try_collect().await.expect("readable")
    }
}

#[tokio::test]
async fn extents_become_one_with_all_rows_in_order_and_all_they_were_known_by() {
    let world = World::new().await;
    world.ingest(&[3, 4], 20, "ingest-by:b").await;
    world.ingest(&[1, 2], 10, "ingest-by:a").await;
    world.ingest(&[5], 30, "ingest-by:c").await;
    let extents = world.run(&world.merge_of_all()).await.expect("merged");
    assert_eq!(world.numbers().await, [1, 2, 3, 4, 5]);
    let table = world.table();
    assert_eq!(table.extents.iter().collect::<Vec<_>>(), extents);
    let [extent] = extents.as_slice() else {
        panic!("one is expected: {extents:?}");
    };
    assert_eq!(extent.row_count, 5);
    assert_eq!(extent.min_created_on, Timestamp::from_micros(10));
    assert_eq!(extent.max_created_on, Timestamp::from_micros(30));
    let tags = ["ingest-by:a", "ingest-by:b", "ingest-by:c"];
    assert_eq!(extent.tags, BTreeSet::from(tags.map(str::to_owned)));
    assert_eq!(extent.columns[0].sort_order, SortOrder::Ascending);
}

#[tokio::test]
async fn the_result_has_the_columns_of_the_table_as_it_is_now() {
    let world = World::new().await;
    world.ingest(&[1], 10, "x").await;
    world.add_column("new").await;
    world.ingest(&[2], 20, "x").await;
    world.drop_column("old").await;
    let extents = world.run(&world.merge_of_all()).await.expect("merged");
    let ids: Vec<u32> = extents[0]
        .columns
        .iter()
        .map(|column| column.id.0)
        .collect();
    assert_eq!(ids, [1, 3], "n and new");
    assert_eq!(extents[0].columns[1].null_count, 2);
    assert_eq!(world.numbers().await, [1, 2]);
}

#[tokio::test]
async fn a_column_that_comes_meanwhile_does_no_harm_and_one_that_goes_ends_the_merge() {
    let world = World::new().await;
    world.ingest(&[1], 10, "x").await;
    world.ingest(&[2], 20, "x").await;
    let merge = world.merge_of_all();
    world.add_column("new").await;
    world.run(&merge).await.expect("merged");
    let batches = world.batches().await;
    let new = batches[0].column_by_name("new").expect("there");
    assert_eq!(new.null_count(), 2);

    world.ingest(&[3], 30, "x").await;
    let merge = world.merge_of_all();
    world.drop_column("old").await;
    let outcome = world.run(&merge).await;
    assert!(
        matches!(outcome, Err(MergeError::Superseded(_))),
        "{outcome:?}"
    );
    assert_eq!(world.table().extents.len(), 2);
    world.run(&world.merge_of_all()).await.expect("merged");
    assert_eq!(world.numbers().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_merge_whose_source_is_gone_meanwhile_changes_nothing() {
    let world = World::new().await;
    world.ingest(&[1], 10, "x").await;
    let gone = world.ingest(&[2], 20, "x").await;
    let merge = world.merge_of_all();
    world
        .commit(DatabaseOp::RemoveExtents {
            table: world.table().id,
            extents: vec![gone.id],
        })
        .await;
    let before = world.writer.state().version();
    let outcome = world.run(&merge).await;
    assert!(
        matches!(outcome, Err(MergeError::Superseded(_))),
        "{outcome:?}"
    );
    assert_eq!(world.numbers().await, [1]);
    assert_eq!(world.writer.state().version(), before);
}

#[tokio::test]
async fn a_merge_whose_source_got_other_tags_meanwhile_changes_nothing() {
    let world = World::new().await;
    world.ingest(&[1], 10, "x").await;
    let tagged = world.ingest(&[2], 20, "x").await;
    let merge = world.merge_of_all();
    world
        .commit(DatabaseOp::AlterExtentTags {
            table: world.table().id,
            extents: vec![tagged.id],
            change: slipstream_catalog::TagsChange::Add(["ingest-by:b".to_owned()].into()),
        })
        .await;
    let outcome = world.run(&merge).await;
    assert!(
        matches!(outcome, Err(MergeError::Superseded(_))),
        "{outcome:?}"
    );
    assert_eq!(world.table().extents.len(), 2);
    let merged = world.run(&world.merge_of_all()).await.expect("merged");
    assert!(merged[0].tags.contains("ingest-by:b"), "{merged:?}");
}

#[tokio::test]
async fn a_damaged_source_is_named_and_does_not_become_part_of_another() {
    let world = World::new().await;
    world.ingest(&[1], 10, "x").await;
    let damaged = world.ingest(&[2], 20, "x").await;
    let path = BucketPath::extent(world.context.database, damaged.id);
    let mut bytes = world
        .context
        .bucket
        .get(&path)
        .await
        .expect("there")
        .to_vec();
    bytes[10] ^= 1;
    world
        .context
        .bucket
        .put(&path, bytes.into())
        .await
        .expect("written");
    let outcome = world.run(&world.merge_of_all()).await;
    let (extent, error) = match outcome {
        Err(MergeError::Unreadable(extent, error)) => (extent, error),
        other => panic!("a refusal is expected: {other:?}"),
    };
    assert_eq!(extent, damaged.id);
    assert!(error.message().contains("is damaged"), "{error}");
    assert_eq!(world.table().extents.len(), 2);
}

#[tokio::test]
async fn rows_that_do_not_become_fewer_extents_stay_where_they_are() {
    let mut world = World::new().await;
    world.ingest(&[1, 2], 10, "x").await;
    world.ingest(&[3, 4], 20, "x").await;
    world.context.options.extent_rows_max = 2;
    let outcome = world.run(&world.merge_of_all()).await;
    assert!(matches!(outcome, Err(MergeError::Failed(_))), "{outcome:?}");
    assert_eq!(world.table().extents.len(), 2);
}
