//! What the tests of this crate share: a bucket with the log of one database, and what follows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use slipstream_catalog::{Committed, DatabaseOp, DatabaseWriter, WriterContext};
use slipstream_model::{
    AttachTerms, BucketId, ClusterName, DatabaseId, DatabaseSelection, Entropy, ManualClock,
    PrincipalsModificationKind, TableId, TableLevelSharing, TableName, TableSchema, Timestamp,
};
use slipstream_storage::BucketWriter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::ClientTlsConfig;
use uuid::Uuid;

use crate::attachments::Configuration;
use crate::following::{FollowContext, Source};
use crate::link::{Dialer, NodeName};

/// The database, which has version 1 when its log is opened.
pub(crate) const DATABASE: DatabaseId = DatabaseId::new(Uuid::from_u128(0xDA7A));

/// A bucket, the clock of everybody, and the leader's writer.
pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) bucket: BucketWriter,
    writer: DatabaseWriter,
    entropy: Entropy,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
        let entropy = Entropy::from_seed(3);
        let bucket = BucketWriter::memory(Arc::clone(&clock) as _, entropy.clone()).await;
        let cluster = ClusterName::new("north").expect("a name");
        let context = WriterContext::new(cluster, Arc::clone(&clock) as _, entropy.clone());
        let writer = DatabaseWriter::open(bucket.clone(), DATABASE, context).await;
        Self {
            clock,
            bucket,
            writer: writer.expect("opened"),
            entropy,
        }
    }

    /// Commits one more version, a second after whatever was before.
    pub(crate) async fn commit(&self) -> Committed {
        self.clock.advance(Duration::from_secs(1));
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
        let id = self.entropy.uuid();
        let create = DatabaseOp::CreateTable {
            id: TableId::new(id),
            name: TableName::new(format!("t{}", id.simple())).expect("a name"),
            schema: TableSchema::new(&schema).expect("columns"),
            if_not_exists: false,
        };
        self.writer.commit(vec![create]).await.expect("ok")
    }

    pub(crate) fn context(&self) -> FollowContext {
        FollowContext {
            connection: (**self.bucket.reader()).clone(),
            clock: Arc::clone(&self.clock) as _,
            entropy: self.entropy.clone(),
            node: NodeName {
                cluster: "south".to_owned(),
                node: Uuid::from_u128(1),
            },
            dialer: Dialer::new(BTreeMap::new(), ClientTlsConfig::new()),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            news: Arc::default(),
            shows_streamed: true,
        }
    }

    pub(crate) fn source(&self) -> Source {
        Source {
            configuration: "d".to_owned(),
            leader: "north".to_owned(),
            leader_url: "http://127.0.0.1:7410".to_owned(),
            bucket_id: self.bucket.id(),
            database_id: DATABASE,
            database: "d".to_owned(),
            original_name: "d".to_owned(),
            sharing: Arc::new(TableLevelSharing::default()),
        }
    }
}

/// A configuration that has brought nothing yet.
pub(crate) fn configuration(name: &str, database: DatabaseSelection) -> Configuration {
    Configuration {
        name: name.to_owned(),
        revision: Uuid::nil(),
        leader: "north".to_owned(),
        leader_url: "http://127.0.0.1:7410".to_owned(),
        bucket_id: BucketId::default(),
        terms: AttachTerms::of(database),
        is_invited: false,
        default_principals_modification_kind: PrincipalsModificationKind::Union,
        databases: Vec::new(),
    }
}
