//! What stands in a cluster's catalog.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{ClusterName, DatabaseId, DatabaseName, Timestamp};
use slipstream_proto::log as proto;
use slipstream_proto::log::cluster_record::Record as Kind;

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
    /// A follower begins to follow.
    AttachFollower {
        /// The follower cluster.
        follower_cluster: ClusterName,
        /// The name of its attached database configuration.
        configuration: String,
        /// The database.
        database_id: DatabaseId,
        /// When.
        attached_at: Timestamp,
    },
    /// The follower does not follow any more.
    DetachFollower,
}

impl LogRecord for ClusterRecord {
    fn encode(&self) -> Bytes {
        let kind = match self {
            Self::CreateDatabase { name } => Kind::CreateDatabase(proto::CreateDatabase {
                name: name.to_string(),
            }),
            Self::DropDatabase => Kind::DropDatabase(proto::DropDatabase {}),
            Self::AttachFollower {
                follower_cluster,
                configuration,
                database_id,
                attached_at,
            } => Kind::AttachFollower(proto::AttachFollower {
                follower_cluster: follower_cluster.to_string(),
                configuration: configuration.clone(),
                database_id: to_bytes(database_id.as_bytes()),
                attached_at: attached_at.as_micros(),
            }),
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
                Kind::AttachFollower(record) => Self::AttachFollower {
                    follower_cluster: name(record.follower_cluster)?,
                    configuration: record.configuration,
                    database_id: fixed(
                        "a database id",
                        &record.database_id,
                        DatabaseId::from_slice,
                    )?,
                    attached_at: Timestamp::from_micros(record.attached_at),
                },
                Kind::DetachFollower(proto::DetachFollower {}) => Self::DetachFollower,
            },
        )
    }
}
