//! Ingests that happen once: by their own id, or by a tag that the table may not have yet.

use slipstream_catalog::{Commit, DatabaseOp, DatabaseState, NotedIngest};
use slipstream_frontend::{IngestReceipt, IngestRequest, ServiceError, Skipped};
use slipstream_model::{DatabaseId, Digest, INGEST_BY, IngestId, TableName, Version};
use slipstream_storage::BucketPath;

use crate::cluster::{Cluster, INGESTED_BEFORE, TAG_EXISTS};

/// What an ingest asks of its table.
pub(super) struct Once {
    /// Tags that no extent of the table may have.
    pub(super) tags: Vec<String>,
    /// The ingest's own name.
    pub(super) id: Option<IngestId>,
}

/// Why an ingest is not needed any more.
pub(super) enum Found {
    /// The table has extents of the tag.
    Tag,
    /// It was committed with this version.
    Ingest(Version, NotedIngest),
}

impl Once {
    pub(super) fn of(request: &IngestRequest) -> Self {
        let tags = request.ingest_if_not_exists.iter();
        Self {
            tags: tags.map(|value| format!("{INGEST_BY}{value}")).collect(),
            id: request.ingest_id.clone(),
        }
    }

    /// Whether a state has it already.
    pub(super) fn find(&self, state: &DatabaseState, table: &TableName) -> Option<Found> {
        let table = state.table(table.as_str())?;
        let known = self.id.as_ref().and_then(|id| table.ingests.get(id));
        if let Some((version, ingest)) = known {
            return Some(Found::Ingest(*version, ingest.clone()));
        }
        let mut tags = self.tags.iter();
        tags.any(|tag| table.extents.has_tag(tag))
            .then_some(Found::Tag)
    }

    /// What makes the commit look again: it sees the ingests before this one, and is seen by those
    /// after it.
    pub(super) fn op(&self, table: &TableName) -> Option<DatabaseOp> {
        let is_asked = self.id.is_some() || !self.tags.is_empty();
        is_asked.then(|| DatabaseOp::IngestOnce {
            table: table.clone(),
            tags: self.tags.clone(),
            ids: self.id.iter().cloned().collect(),
        })
    }
}

impl Found {
    /// The answer to whoever sent it once more.
    pub(super) async fn receipt(
        self,
        cluster: &Cluster,
        state: &DatabaseState,
        receipt: IngestReceipt,
    ) -> IngestReceipt {
        let receipt = IngestReceipt {
            bad_rows: 0,
            rejects: Vec::new(),
            ..receipt
        };
        match self {
            Self::Tag => IngestReceipt {
                version: state.version().get(),
                digest: state.digest().to_string(),
                rows: 0,
                extents: 0,
                size_bytes: 0,
                skipped: Some(Skipped::TagExists),
                ..receipt
            },
            Self::Ingest(version, ingest) => {
                let digest = if version == state.version() {
                    Some(state.digest())
                } else {
                    digest_at(cluster, state.id(), version).await
                };
                IngestReceipt {
                    version: version.get(),
                    digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
                    rows: ingest.rows,
                    extents: ingest.extents,
                    size_bytes: ingest.size_bytes,
                    skipped: Some(Skipped::IngestedBefore),
                    ..receipt
                }
            }
        }
    }
}

/// Whether a commit was refused because the table has what it would bring.
pub(super) fn is_done(error: &ServiceError) -> bool {
    [INGESTED_BEFORE, TAG_EXISTS].contains(&error.code())
}

/// The digest of an older version, as its commit states it. `None` when the bucket does not tell:
/// the version alone is as good an answer.
async fn digest_at(cluster: &Cluster, database: DatabaseId, version: Version) -> Option<Digest> {
    let path = BucketPath::database_commit(database, version);
    let bytes = cluster.bucket().reader().try_get(&path).await.ok()??;
    let commit = Commit::decode(&bytes).ok()?;
    Some(commit.digest())
}
