//! Changing who may do what, on either side of a share.

use slipstream_catalog::{DatabaseOp, PrincipalsChange};
use slipstream_model::{DatabaseAccessMode, OverrideChange};

use crate::{AuthorizedEngine, DatabaseChange, ServiceError};

impl AuthorizedEngine {
    /// Whether a database is one of another cluster, followed here.
    pub(crate) fn follows(&self, database: &str) -> bool {
        let all = self.databases();
        all.iter().any(|known| {
            known.name == database && known.access_mode == DatabaseAccessMode::ReadOnlyFollowing
        })
    }

    /// Changes who may do what in a database: at the leader for everybody, on a follower for that
    /// cluster alone.
    ///
    /// # Errors
    /// When the caller does not administer the database, or the change cannot be made.
    pub(crate) async fn change_principals(
        &self,
        database: &str,
        change: PrincipalsChange,
    ) -> Result<(), ServiceError> {
        if !self.follows(database) {
            let change = DatabaseChange {
                database: database.to_owned(),
                ops: vec![DatabaseOp::ChangePrincipals(change)],
                access: self.access(),
            };
            return self.change(change).await.map(drop);
        }
        let change = match change {
            PrincipalsChange::Add(added) => OverrideChange::AddPrincipals(added),
            PrincipalsChange::Drop(role, principals) => {
                OverrideChange::DropPrincipals { role, principals }
            }
            PrincipalsChange::Set(role, principals) => {
                OverrideChange::SetPrincipals { role, principals }
            }
        };
        self.override_settings(database, change).await
    }
}
