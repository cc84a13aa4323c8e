//! The bucket: where everything is, who may write, and what an extent file looks like.
//!
//! This is the only crate that names a concrete object store. Everything above it speaks of
//! [`BucketPath`]s and gets bytes.
//!
//! * [`BucketReader`] reads. It has no way to put or delete: a follower is built on it.
//! * [`BucketWriter`] is a reader that can also create objects. [`BucketWriter::create`] is the
//!   commit primitive: of several writers racing for one path exactly one wins, and each learns
//!   truthfully whether it did, lost answers included.
//! * [`ExtentLayout`] and [`ExtentAssembler`] turn Arrow batches into a Parquet file with exact
//!   statistics, row groups in parallel; [`ExtentEncoder`] does it in one thread.
//!
//! Opening a writer certifies the store: it refuses one that does not honour create-only puts.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use slipstream_model::{ClusterName, Entropy, ManualClock, Timestamp, Version};
//! use slipstream_storage::{BucketPath, BucketWriter, CreateOutcome};
//!
//! let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
//! let bucket = BucketWriter::memory(clock, Entropy::from_seed(1)).await;
//! let path = BucketPath::cluster_commit(&ClusterName::new("prod").unwrap(), Version::FIRST);
//!
//! let first = bucket.create(&path, Bytes::from_static(b"mine")).await.unwrap();
//! let second = bucket.create(&path, Bytes::from_static(b"theirs")).await.unwrap();
//! assert!(matches!(first, CreateOutcome::Created));
//! assert!(matches!(second, CreateOutcome::Exists(bytes) if bytes == "mine"));
//! # });
//! ```

pub mod blocking;
mod bucket;
mod certify;
mod connection;
mod error;
mod extent;
pub mod frame;
mod metered;
mod pace;
mod path;
mod size;
mod url;
mod web;
mod writer;

pub use bucket::{BucketReader, FORMAT_VERSION};
pub use connection::BucketConnection;
pub use error::{StorageError, StorageErrorKind};
pub use extent::{
    EXTENT_BYTES_MAX, EXTENT_ROWS_MAX, EncodeError, EncodedColumns, EncodedExtent, EncodedRows,
    ExtentAssembler, ExtentEncoder, ExtentLayout, ROW_GROUP_BYTES, ROW_GROUP_ROWS, check_storable,
};
pub use metered::RequestCounts;
pub use pace::BucketPace;
pub use path::BucketPath;
pub use size::batch_bytes;
pub use url::{BucketUrl, open_object, open_store};
pub use writer::{BucketWriter, CreateOutcome};
