//! What stands in a cluster's catalog.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{DatabaseId, DatabaseName, Digest, TableLevelSharing, Timestamp};
use slipstream_proto::log as proto;
use slipstream_proto::log::cluster_record::Record as Kind;

use uuid::Uuid;

use super::{FollowerRecord, InvitationRecord};
use crate::codec::{Malformed, fixed, name, required, to_bytes};
use crate::log::LogRecord;

/// One change to one database or one follower; which one, the section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterRecord {
    /// The database begins.
    CreateDatabase {
        /// Its name.
        name: DatabaseName,
    },
    /// The database ends.
    DropDatabase,
    /// A follower begins to follow, or follows on other terms.
    AttachFollower(FollowerRecord),
    /// The follower does not follow any more.
    DetachFollower,
    /// An invitation is given.
    CreateInvitation(InvitationRecord),
    /// The invitation is taken back.
    RevokeInvitation,
}

impl LogRecord for ClusterRecord {
    fn encode(&self) -> Bytes {
        let kind = match self {
            Self::CreateDatabase { name } => Kind::CreateDatabase(proto::CreateDatabase {
                name: name.to_string(),
            }),
            Self::DropDatabase => Kind::DropDatabase(proto::DropDatabase {}),
            Self::AttachFollower(follower) => Kind::AttachFollower(proto::AttachFollower {
                follower_cluster: follower.cluster.to_string(),
                configuration: follower.configuration.clone(),
                database_id: follower
                    .database_id
                    .map(|id| to_bytes(id.as_bytes()))
                    .unwrap_or_default(),
                attached_at: follower.attached_at.as_micros(),
                sharing: sharing_to_proto(&follower.sharing),
                invitation_id: follower
                    .invitation
                    .map(|id| to_bytes(id.as_bytes()))
                    .unwrap_or_default(),
                principal: follower
                    .principal
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            }),
            Self::CreateInvitation(invitation) => Kind::CreateInvitation(proto::CreateInvitation {
                database_id: to_bytes(invitation.database_id.as_bytes()),
                token_sha256: to_bytes(invitation.token_sha256.as_bytes()),
                sharing: sharing_to_proto(&invitation.sharing),
                expires_at: invitation.expires_at.as_micros(),
                invitee: invitation.invitee.clone(),
            }),
            Self::RevokeInvitation => Kind::RevokeInvitation(proto::RevokeInvitation {}),
            Self::DetachFollower => Kind::DetachFollower(proto::DetachFollower {}),
        };
        proto::ClusterRecord { record: Some(kind) }
            .encode_to_vec()
            .into()
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        Ok(Self::from_bytes(bytes)?)
    }
}

impl ClusterRecord {
    fn from_bytes(bytes: &Bytes) -> Result<Self, Malformed> {
        let message = proto::ClusterRecord::decode(bytes.clone())?;
        Ok(
            match required("a record of a kind that this program knows", message.record)? {
                Kind::CreateDatabase(record) => Self::CreateDatabase {
                    name: name(record.name)?,
                },
                Kind::DropDatabase(proto::DropDatabase {}) => Self::DropDatabase,
                Kind::AttachFollower(record) => Self::AttachFollower(FollowerRecord {
                    cluster: name(record.follower_cluster)?,
                    configuration: record.configuration,
                    database_id: optional("a database id", &record.database_id, |id| {
                        DatabaseId::from_slice(id)
                    })?,
                    sharing: sharing_from_proto(record.sharing).into(),
                    invitation: optional("an invitation's id", &record.invitation_id, |id| {
                        Uuid::from_slice(id).ok()
                    })?,
                    principal: Some(record.principal)
                        .filter(|principal| !principal.is_empty())
                        .map(name)
                        .transpose()?,
                    attached_at: Timestamp::from_micros(record.attached_at),
                }),
                Kind::CreateInvitation(record) => Self::CreateInvitation(InvitationRecord {
                    database_id: fixed(
                        "a database id",
                        &record.database_id,
                        DatabaseId::from_slice,
                    )?,
                    token_sha256: fixed(
                        "a token's digest",
                        &record.token_sha256,
                        Digest::from_slice,
                    )?,
                    sharing: sharing_from_proto(record.sharing).into(),
                    expires_at: Timestamp::from_micros(record.expires_at),
                    invitee: record.invitee,
                }),
                Kind::RevokeInvitation(proto::RevokeInvitation {}) => Self::RevokeInvitation,
                Kind::DetachFollower(proto::DetachFollower {}) => Self::DetachFollower,
            },
        )
    }
}

/// A field of fixed width that may be empty.
fn optional<T>(
    field: &str,
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    fixed(field, bytes, read).map(Some)
}

/// Nothing stands for everything, so that records without filters stay what they were.
fn sharing_to_proto(sharing: &TableLevelSharing) -> Option<proto::Sharing> {
    if sharing.is_everything() {
        return None;
    }
    let sharing = sharing.clone();
    Some(proto::Sharing {
        tables_to_include: sharing.tables_to_include,
        tables_to_exclude: sharing.tables_to_exclude,
        external_tables_to_include: sharing.external_tables_to_include,
        external_tables_to_exclude: sharing.external_tables_to_exclude,
        materialized_views_to_include: sharing.materialized_views_to_include,
        materialized_views_to_exclude: sharing.materialized_views_to_exclude,
        functions_to_include: sharing.functions_to_include,
        functions_to_exclude: sharing.functions_to_exclude,
    })
}

fn sharing_from_proto(sharing: Option<proto::Sharing>) -> TableLevelSharing {
    let sharing = sharing.unwrap_or_default();
    TableLevelSharing {
        tables_to_include: sharing.tables_to_include,
        tables_to_exclude: sharing.tables_to_exclude,
        external_tables_to_include: sharing.external_tables_to_include,
        external_tables_to_exclude: sharing.external_tables_to_exclude,
        materialized_views_to_include: sharing.materialized_views_to_include,
        materialized_views_to_exclude: sharing.materialized_views_to_exclude,
        functions_to_include: sharing.functions_to_include,
        functions_to_exclude: sharing.functions_to_exclude,
    }
}
