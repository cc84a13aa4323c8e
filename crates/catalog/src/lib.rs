//! The catalog: what a database consists of, and how that changes.
//!
//! A database's history is a log of numbered objects in the bucket. An operation
//! ([`DatabaseOp`]) is validated and becomes records; the records of one or more transactions
//! become one [`Commit`]; applying it to a [`DatabaseState`] gives the next one.
//!
//! * [`DatabaseWriter`] commits. It is one task per database, groups what is waiting, and is
//!   fenced when another writer opens the same database.
//! * [`DatabaseReader`] reads checkpoint and log, without ever listing the bucket.
//! * [`History`] reads older versions, as long as the log that leads to them is kept.
//! * [`DatabaseState`] is what they lead to: tables, columns, and an [`ExtentSet`] a table. It is
//!   immutable and clones in O(1), so that a query keeps the version it began with.
//! * [`GarbageLedger`] is what commits took out of tables and nobody has deleted yet. An
//!   [`UploadIntent`] says which extents a writer may upload, and a [`DroppedDatabase`] how far the
//!   deletion of a whole database is.
//! * A [`LogStart`] says where the log begins once its oldest commits are deleted.
//! * [`ClusterWriter`], [`ClusterReader`] and [`ClusterState`] are the same for the catalog of a
//!   cluster: its databases, and who follows them.
//!
//! # Invariants
//!
//! * A commit is durable exactly when its object exists, and is acknowledged only then. Its object goes
//!   only behind a [`LogStart`].
//! * Of all writers only the one with the newest epoch can commit. No clock takes part.
//! * A state is only ever reached by commits whose bucket, log, number, epoch, history and
//!   digests were verified. What does not verify is named ([`CorruptLog`]) and nothing is guessed.
//! * Committing and applying cost what changes, however many extents there are.
//! * A checkpoint is only a shortcut: the log alone gives the same state. Only where a log's beginning
//!   was deleted, the checkpoint that it begins with stands for it.
//!
//! # Example
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use arrow::datatypes::{DataType, Field, Schema};
//! use slipstream_catalog::{DatabaseOp, DatabaseReader, DatabaseWriter, WriterContext};
//! use slipstream_model::{
//!     ClusterName, DatabaseId, Entropy, ManualClock, TableId, TableName, TableSchema, Timestamp,
//! };
//! use slipstream_storage::BucketWriter;
//!
//! let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
//! let entropy = Entropy::from_seed(1);
//! let bucket = BucketWriter::memory(clock.clone(), entropy.clone()).await;
//! let database = DatabaseId::new(entropy.uuid());
//! let context =
//!     WriterContext::new(ClusterName::new("prod").unwrap(), clock, entropy.clone());
//!
//! let writer = DatabaseWriter::open(bucket.clone(), database, context).await.unwrap();
//! let columns = Schema::new(vec![Field::new("origin", DataType::Utf8, true)]);
//! let committed = writer
//!     .commit(vec![DatabaseOp::CreateTable {
//!         id: TableId::new(entropy.uuid()),
//!         name: TableName::new("flights").unwrap(),
//!         schema: TableSchema::new(&columns).unwrap(),
//!         if_not_exists: false,
//!     }])
//!     .await
//!     .unwrap();
//! // Version 1 opened the log for writing.
//! assert_eq!(committed.version.get(), 2);
//!
//! let reader = DatabaseReader::new(bucket.reader().clone(), database);
//! let state = reader.load().await.unwrap().into_whole().unwrap();
//! assert_eq!(state.digest(), committed.digest);
//! assert!(state.table("flights").is_some());
//! writer.close().await;
//! # });
//! ```

mod checkpoint;
mod cluster;
mod codec;
mod commit;
mod database;
mod dropped;
mod error;
mod extents;
mod garbage;
#[cfg(test)]
mod golden;
mod history;
mod ingests;
mod intent;
mod log;
mod op;
mod reader;
mod start;
#[cfg(test)]
mod testing;
mod writer;

pub use cluster::{ClusterOp, ClusterState, FollowerRecord, InvitationRecord};
pub use commit::{COMMIT_BYTES_MAX, Commit, Redactor};
pub use database::{DatabaseState, Stored, StoredEntity, TableState};
pub use dropped::DroppedDatabase;
pub use error::{CatalogError, CommitError, CorruptLog, LogDefect};
pub use extents::{
    BlockColumn, ColumnSummary, ExtentBlock, ExtentSet, INLINE_BYTES_MAX, INLINE_EXTENT_BYTES_MAX,
    INLINE_EXTENTS_MAX, InlineTotals, SEGMENT_EXTENTS,
};
pub use garbage::{GarbageLedger, OpenedEpoch, Removal, RemovedExtent};
pub use history::{DroppedTable, History, HistoryError, VersionSummary};
pub use ingests::{NotedIngest, RecentIngests};
pub use intent::UploadIntent;
pub use op::{
    DatabaseOp, EXTENT_TAGS_MAX, OpError, PrincipalsChange, PutMode, TagsChange, check_tags,
};
pub use reader::{ClusterReader, DatabaseReader, Loaded};
pub use start::{LogStart, checkpoint_segments};
pub use writer::{
    CHECKPOINT_EVERY, ClusterWriter, Committed, DatabaseWriter, LogWriter, Subscription,
    WriterContext,
};
