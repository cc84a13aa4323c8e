//! Versions of a leader's own databases that are kept.
//!
//! A pin stands in the database's log: the next leader keeps the version too. It is committed while
//! nothing is deleted, after a look at everything that the version holds, so that what is pinned
//! can be read.

use slipstream_catalog::DatabaseOp;
use slipstream_frontend::{ErrorKind, PinChange, ServiceError, SqlRequest};

use crate::engine::LeaderEngine;
use crate::transaction::Transaction;

impl LeaderEngine {
    /// Pins a version of a database of this cluster, or unpins it.
    pub(crate) async fn pin_own(&self, change: PinChange) -> Result<(), ServiceError> {
        let PinChange {
            database,
            name,
            version,
            access,
        } = change;
        let writer = self.cluster().writer(self.owned(&database)?)?;
        let request = SqlRequest {
            database: Some(database.clone()),
            access,
            ..SqlRequest::default()
        };
        let transaction = Transaction::new(self, &request);
        let Some(version) = version else {
            transaction
                .apply(vec![DatabaseOp::DropPin { name }])
                .await?;
            return Ok(());
        };
        let kept = self.collector().keep(&writer).await?;
        let newest = kept.newest();
        let state = self.history().state_at(&database, newest, version).await?;
        let removed = state.removed_until(newest);
        if let Some(gone) = kept.gone_of(&removed).await? {
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "version_not_kept",
                format!(
                    "version {version} of database '{database}' cannot be pinned: the file of \
                     extent {gone}, which it holds, was deleted"
                ),
            ));
        }
        let pin = DatabaseOp::PutPin { name, version };
        transaction.apply_holding(vec![pin], kept).await
    }
}
