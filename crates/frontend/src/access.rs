//! Who asks, and what they may do: the one place where that is decided.
//!
//! A door finds out who asks ([`Gate`](crate::Gate)) and gets the node as that caller may use it
//! ([`AuthorizedEngine`](crate::AuthorizedEngine)). Where only the node can tell what a request
//! does, as with SQL, it asks the [`Access`] that the request carries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use slipstream_catalog::DatabaseState;
use slipstream_model::{ClusterRole, DatabasePrincipal, DatabaseRole, PrincipalName};
use slipstream_query::{
    ClusterView, DataScope, DatabaseRow, FollowerRow, LeaseRow, RemoteNode, SessionDatabases,
};

use crate::{ErrorKind, NodeIdentity, ServiceError};

/// Whoever a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Their name.
    pub principal: PrincipalName,
    /// Groups they belong to: what a group may do, they may.
    pub groups: Vec<PrincipalName>,
    /// Their roles in all databases of the cluster.
    pub cluster_roles: Vec<ClusterRole>,
}

impl Caller {
    /// Whoever comes to a node without tokens. It listens on loopback only, so it is somebody who
    /// could read its files as well: nothing is kept from them.
    pub fn local() -> Self {
        Self {
            principal: PrincipalName::anonymous(),
            groups: Vec::new(),
            cluster_roles: ClusterRole::ALL.to_vec(),
        }
    }

    /// Somebody without any role.
    fn nobody() -> Self {
        Self {
            principal: PrincipalName::anonymous(),
            groups: Vec::new(),
            cluster_roles: Vec::new(),
        }
    }

    /// Whether a principal is them, or a group of theirs.
    pub fn is(&self, principal: &PrincipalName) -> bool {
        self.principal == *principal || self.groups.contains(principal)
    }

    /// Whether they have a role in the cluster.
    pub fn has(&self, role: ClusterRole) -> bool {
        self.cluster_roles.contains(&role)
    }

    /// Whether their cluster roles allow something.
    pub fn may(&self, permission: ClusterPermission) -> bool {
        let roles = permission.roles();
        roles.iter().any(|role| self.has(*role))
    }

    /// Refuses what their cluster roles do not allow.
    ///
    /// # Errors
    /// `Forbidden`, naming the roles that would do.
    pub fn check(&self, permission: ClusterPermission) -> Result<(), ServiceError> {
        if self.may(permission) {
            return Ok(());
        }
        let roles = permission.roles().iter().map(ToString::to_string);
        Err(forbidden(format!(
            "principal '{}' may not {permission}: it takes the cluster role {}",
            self.principal,
            roles.collect::<Vec<_>>().join(" or ")
        )))
    }
}

/// Something that can be done in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read rows.
    Query,
    /// See tables, columns, extents, policies.
    ViewMetadata,
    /// See what others ask and command there.
    Monitor,
    /// Add rows to tables that are there.
    Ingest,
    /// Create tables and functions.
    Create,
    /// Everything else: drop, alter, policies, principals, overrides.
    Administer,
}

impl Permission {
    /// Every one, for tests and tables.
    pub const ALL: [Self; 6] = [
        Self::Query,
        Self::ViewMetadata,
        Self::Monitor,
        Self::Ingest,
        Self::Create,
        Self::Administer,
    ];

    /// The roles that allow it (*Role-based access control*, Kusto documentation). Restricted
    /// views, which only an unrestricted viewer reads, do not exist here: the role reads like
    /// Viewer.
    pub const fn roles(self) -> &'static [DatabaseRole] {
        use DatabaseRole as R;
        match self {
            Self::Query => &[R::Viewer, R::UnrestrictedViewer, R::User, R::Admin],
            Self::ViewMetadata => &[
                R::Monitor,
                R::Viewer,
                R::UnrestrictedViewer,
                R::User,
                R::Admin,
            ],
            // *.show queries*: an admin or monitor of a database sees every query on it.
            Self::Monitor => &[R::Monitor, R::Admin],
            Self::Ingest => &[R::Ingestor, R::Admin],
            Self::Create => &[R::User, R::Admin],
            Self::Administer => &[R::Admin],
        }
    }

    /// The roles in all databases that allow it.
    const fn cluster_roles(self) -> &'static [ClusterRole] {
        use ClusterRole as R;
        match self {
            Self::Query => &[R::AllDatabasesViewer, R::AllDatabasesAdmin],
            Self::ViewMetadata | Self::Monitor => &[
                R::AllDatabasesMonitor,
                R::AllDatabasesViewer,
                R::AllDatabasesAdmin,
            ],
            Self::Ingest | Self::Create | Self::Administer => &[R::AllDatabasesAdmin],
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "query",
            Self::ViewMetadata => "see the metadata of",
            Self::Monitor => "see what others do in",
            Self::Ingest => "ingest into",
            Self::Create => "create tables or functions in",
            Self::Administer => "administer",
        })
    }
}

/// Something that can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterPermission {
    /// Create and drop databases.
    ManageDatabases,
    /// Attach, detach, invite: what Azure calls Contributor on the cluster.
    Share,
    /// See metrics, diagnostics, and everybody's queries.
    Monitor,
}

impl ClusterPermission {
    /// Every one, for tests and tables.
    pub const ALL: [Self; 3] = [Self::ManageDatabases, Self::Share, Self::Monitor];

    /// The roles that allow it.
    pub const fn roles(self) -> &'static [ClusterRole] {
        use ClusterRole as R;
        match self {
            Self::ManageDatabases => &[R::AllDatabasesAdmin],
            Self::Share => &[R::Contributor, R::AllDatabasesAdmin],
            Self::Monitor => &[
                R::AllDatabasesMonitor,
                R::AllDatabasesViewer,
                R::AllDatabasesAdmin,
            ],
        }
    }
}

impl fmt::Display for ClusterPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManageDatabases => "create or drop databases",
            Self::Share => "attach, detach or invite",
            Self::Monitor => "see what belongs to the whole cluster",
        })
    }
}

/// What a caller may do on this node, resolved once for a request. The default is nothing.
#[derive(Debug, Clone)]
pub struct Access {
    caller: Arc<Caller>,
    /// Their roles, by database; databases without any are left out.
    databases: Arc<BTreeMap<String, Vec<DatabaseRole>>>,
    token: Option<Token>,
}

/// A token that a caller showed, kept so that it can be shown to a leader on their behalf.
#[derive(Clone)]
struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::new(Arc::new(Caller::nobody()), &BTreeMap::new())
    }
}

impl Access {
    /// What a caller may do, given who has which role in each database of the node.
    pub fn new(caller: Arc<Caller>, principals: &BTreeMap<String, Vec<DatabasePrincipal>>) -> Self {
        let roles = principals.iter().filter_map(|(database, principals)| {
            let theirs = principals.iter().filter(|p| caller.is(&p.principal));
            let roles: Vec<_> = theirs.map(|p| p.role).collect();
            (!roles.is_empty()).then(|| (database.clone(), roles))
        });
        let databases = Arc::new(roles.collect());
        Self {
            caller,
            databases,
            token: None,
        }
    }

    /// With the token that the caller showed.
    #[must_use]
    pub(crate) fn with_token(self, token: Option<&Arc<str>>) -> Self {
        Self {
            token: token.map(|token| Token(Arc::clone(token))),
            ..self
        }
    }

    /// The token that the caller showed: what a leader is asked with on their behalf.
    pub fn token(&self) -> Option<Arc<str>> {
        self.token.as_ref().map(|token| Arc::clone(&token.0))
    }

    /// Who it is.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Whether something may be done in a database.
    pub fn may(&self, database: &str, permission: Permission) -> bool {
        let cluster_roles = permission.cluster_roles();
        if cluster_roles.iter().any(|role| self.caller.has(*role)) {
            return true;
        }
        let roles = self.databases.get(database);
        roles.is_some_and(|roles| roles.iter().any(|role| permission.roles().contains(role)))
    }

    /// Whether the caller may know that there is a database of this name.
    pub fn sees(&self, database: &str) -> bool {
        self.databases.contains_key(database)
            || self.may(database, Permission::ViewMetadata)
            || self.caller.may(ClusterPermission::Share)
    }

    /// Whether the caller may see a query or a command of somebody: their own, those of a database
    /// that they monitor, or all.
    pub fn sees_activity_of(&self, principal: &str, database: Option<&str>) -> bool {
        self.caller.principal.as_str() == principal
            || self.caller.may(ClusterPermission::Monitor)
            || database.is_some_and(|name| self.may(name, Permission::Monitor))
    }

    /// Refuses what may not be done in a database.
    ///
    /// # Errors
    /// `Forbidden`. Somebody without any role in the database cannot tell from the error whether
    /// there is one.
    pub fn check(&self, database: &str, permission: Permission) -> Result<(), ServiceError> {
        if self.may(database, permission) {
            return Ok(());
        }
        self.check_sees(database)?;
        let roles = permission.roles().iter().map(ToString::to_string);
        Err(forbidden(format!(
            "principal '{}' may not {permission} database '{database}': it takes the role {} there",
            self.caller.principal,
            roles.collect::<Vec<_>>().join(" or ")
        )))
    }

    /// Refuses to speak of a database that the caller may not know of.
    ///
    /// # Errors
    /// `Forbidden`, whether there is such a database or not.
    pub fn check_sees(&self, database: &str) -> Result<(), ServiceError> {
        if self.sees(database) {
            return Ok(());
        }
        Err(forbidden(format!(
            "principal '{}' has no role in a database '{database}', or there is none: ask its \
             admin for one",
            self.caller.principal
        )))
    }

    /// What of a node's databases a request of the caller sees.
    pub fn session(
        &self,
        node: &NodeIdentity,
        default: Option<String>,
        leader: Option<Arc<dyn RemoteNode>>,
        scope: DataScope,
        databases: BTreeMap<String, DatabaseState>,
    ) -> SessionDatabases {
        let mut session = SessionDatabases {
            default,
            leader,
            scope,
            identity: node.session(&self.caller.principal),
            ..SessionDatabases::default()
        };
        for (name, state) in databases {
            if self.may(&name, Permission::Query) {
                session.databases.insert(name, state);
            } else if self.may(&name, Permission::ViewMetadata) {
                session.metadata_only.insert(name, state);
            }
        }
        session
    }

    /// A node's rows of the system tables, without those of databases that the caller may not
    /// see.
    pub fn view(&self, whole: Arc<dyn ClusterView>) -> Arc<dyn ClusterView> {
        Arc::new(VisibleView {
            whole,
            access: self.clone(),
        })
    }
}

fn forbidden(message: String) -> ServiceError {
    ServiceError::new(ErrorKind::Forbidden, "forbidden", message)
}

/// See [`Access::view`].
#[derive(Debug)]
struct VisibleView {
    whole: Arc<dyn ClusterView>,
    access: Access,
}

impl VisibleView {
    fn keep<R>(&self, rows: Vec<R>, database: impl Fn(&R) -> &str) -> Vec<R> {
        let is_visible = |row: &R| self.access.may(database(row), Permission::ViewMetadata);
        rows.into_iter().filter(is_visible).collect()
    }
}

impl ClusterView for VisibleView {
    fn databases(&self) -> Vec<DatabaseRow> {
        self.keep(self.whole.databases(), |row| &row.database_name)
    }

    fn followers(&self) -> Vec<FollowerRow> {
        self.keep(self.whole.followers(), |row| &row.database_name)
    }

    fn leases(&self) -> Vec<LeaseRow> {
        self.keep(self.whole.leases(), |row| &row.database_name)
    }

    fn shows_query_of(&self, principal: &str, database: Option<&str>) -> bool {
        self.access.sees_activity_of(principal, database)
    }
}

#[cfg(test)]
mod tests;
