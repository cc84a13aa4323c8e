//! What doors say to a node about attaching, following and being followed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipstream_model::{
    AttachTerms, DatabaseAccessMode, Overrides, PrincipalsModificationKind, TableLevelSharing,
    Timestamp,
};

/// An attached database configuration as a client wants it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The configuration's name; the database's when not given, `all` for `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The leader cluster.
    pub leader: String,
    /// The database at the leader; `*` for all of them.
    pub database: String,
    /// Which tables, external tables, materialized views and functions.
    #[serde(default, skip_serializing_if = "TableLevelSharing::is_everything")]
    pub sharing: TableLevelSharing,
    /// What the database is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name_override: Option<String>,
    /// What stands here in front of each database's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name_prefix: Option<String>,
    /// How principals combine, until it is changed for a database.
    #[serde(default)]
    pub default_principals_modification_kind: PrincipalsModificationKind,
    /// The token of an invitation, when this cluster has no right of its own at the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
    /// Where this cluster is thought to be; must be its location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl AttachRequest {
    /// All of a database, under its own name.
    pub fn of(leader: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            name: None,
            leader: leader.into(),
            database: database.into(),
            sharing: TableLevelSharing::default(),
            database_name_override: None,
            database_name_prefix: None,
            default_principals_modification_kind: PrincipalsModificationKind::default(),
            invitation: None,
            location: None,
        }
    }
}

/// An attached database configuration as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// The configuration's name.
    pub name: String,
    /// The leader cluster.
    pub leader: String,
    /// Where the leader answers gRPC.
    pub leader_url: String,
    /// What was asked for.
    #[serde(flatten)]
    pub terms: AttachTerms,
    /// How principals combine, until it is changed for a database.
    pub default_principals_modification_kind: PrincipalsModificationKind,
    /// The bucket both read.
    pub bucket_id: String,
    /// How far the attach has come.
    pub provisioning_state: ProvisioningState,
    /// Why it failed.
    pub error: Option<ProvisioningError>,
    /// The databases that it brought here, and those that it could not bring.
    pub databases: Vec<AttachedDatabase>,
}

/// A database that a configuration brought here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachedDatabase {
    /// Its name here.
    pub name: String,
    /// Its name at the leader.
    pub original_name: String,
    /// Its id.
    pub database_id: String,
    /// How far it has come.
    pub provisioning_state: ProvisioningState,
    /// Why it is not served.
    pub error: Option<ProvisioningError>,
    /// The version that is served.
    pub version: Option<u64>,
}

/// The states of an asynchronous management operation, as Azure names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisioningState {
    /// The first synchronisation is under way.
    Creating,
    /// It is being served.
    Succeeded,
    /// It cannot be served; the error says why.
    Failed,
    /// It is being removed.
    Deleting,
}

/// Why a management operation failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProvisioningError {
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A database of a node, owned or followed.
#[derive(Debug, Clone)]
pub struct DatabaseDescription {
    /// Its name here.
    pub name: String,
    /// Its id.
    pub database_id: String,
    /// Whether this node writes it or follows it.
    pub access_mode: DatabaseAccessMode,
    /// The version that is served.
    pub version: Option<u64>,
    /// Bytes of its extents.
    pub size_bytes: u64,
    /// Whether another cluster follows it.
    pub is_followed: bool,
    /// Where it comes from, when it is followed here.
    pub source: Option<DatabaseSource>,
    /// How far it has come.
    pub provisioning_state: ProvisioningState,
    /// Why it stands still, when it does.
    pub suspension: Option<String>,
    /// Since when, where that is known.
    pub suspended_since: Option<Timestamp>,
    /// How long ago it was known to be the newest there is; `None` before the first
    /// synchronisation, and for databases that this node owns.
    pub lag: Option<Duration>,
    /// How many versions the leader is known to be ahead.
    pub versions_behind: u64,
}

/// Where a followed database comes from.
#[derive(Debug, Clone)]
pub struct DatabaseSource {
    /// The leader cluster.
    pub leader: String,
    /// The attached database configuration.
    pub configuration: String,
    /// Its name at the leader.
    pub original_name: String,
    /// What of it is followed.
    pub sharing: TableLevelSharing,
    /// How this cluster came by the right.
    pub origin: ShareOrigin,
    /// How principals combine now.
    pub principals_modification_kind: PrincipalsModificationKind,
}

/// How a follower came by its right to a database: `databaseShareOrigin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ShareOrigin {
    /// It has the right at the leader.
    #[default]
    Direct,
    /// It was invited.
    Other,
}

/// An attached database configuration of another cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FollowerDescription {
    /// The follower cluster.
    pub cluster: String,
    /// Its configuration.
    pub configuration: String,
    /// The database here; `*` for all.
    pub database: String,
    /// What of it.
    pub sharing: TableLevelSharing,
    /// How it came by the right.
    pub origin: ShareOrigin,
    /// Since when.
    pub attached_at: Timestamp,
}

/// An invitation to follow a database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The database.
    pub database: String,
    /// For whom, for people; nobody checks it.
    #[serde(default)]
    pub invitee: Option<String>,
    /// What may be followed of it; an attach with the token gets these filters.
    #[serde(default)]
    pub sharing: TableLevelSharing,
    /// How long the token can be used; a week when not given.
    #[serde(default, with = "humantime_serde")]
    pub expires_in: Option<Duration>,
}

/// An invitation that was not revoked. Its secret is known to nobody but the invited.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitationDescription {
    /// Names the invitation, to revoke it.
    pub id: String,
    /// The database.
    pub database: String,
    /// For whom, for people.
    pub invitee: String,
    /// What may be followed of it.
    pub sharing: TableLevelSharing,
    /// When it stops working, or did.
    pub expires_at: Timestamp,
}

/// What the invited present when they attach.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// Names the invitation, to revoke it.
    pub id: String,
    /// The secret. Said once; only its SHA-256 is kept.
    pub token: String,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// A followed database and this node's own settings for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FollowerDatabase {
    /// Its name here.
    pub database: String,
    /// Its name at the leader.
    pub original_name: String,
    /// The leader cluster.
    pub leader: String,
    /// Where the leader keeps its metadata: a URL of the bucket.
    pub metadata_url: String,
    /// The settings.
    pub overrides: Overrides,
}
