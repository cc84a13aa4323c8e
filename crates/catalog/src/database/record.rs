//! What stands in a database's log. One record changes one table, one function or the database.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use slipstream_model::{
    CachingPolicy, Column, ColumnId, DatabasePrincipal, EntityKind, Extent, ExtentId,
    ExternalTable, IngestionBatchingPolicy, MergePolicy, PinName, RetentionPolicy,
    RowLevelSecurity, StoredFunction, StreamingIngestionPolicy, TableName, TableSchema, Version,
};
use slipstream_proto::log as proto;
use slipstream_proto::log::database_record::Record as Kind;

use crate::NotedIngest;
use crate::codec::{
    Malformed, batching_from_proto, batching_to_proto, caching_from_proto, caching_to_proto,
    column_from_proto, column_to_proto, extent_from_proto, extent_to_proto, external_from_proto,
    external_to_proto, fixed, function_from_proto, function_to_proto, ingest_from_proto,
    ingest_to_proto, merge_from_proto, merge_to_proto, name, pin_from_proto, pin_to_proto,
    principal_from_proto, principal_to_proto, required, retention_from_proto, retention_to_proto,
    schema_from_proto, schema_to_proto, security_from_proto, security_to_proto,
    streaming_from_proto, streaming_to_proto, to_bytes,
};
use crate::log::LogRecord;

/// One change to one subject; which one, the section says.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseRecord {
    /// The table begins.
    CreateTable {
        /// Its name.
        name: TableName,
        /// Its columns.
        schema: TableSchema,
    },
    /// The table ends.
    DropTable,
    /// The table has one more column.
    AddColumn(Column),
    /// The table has one column less.
    DropColumn(ColumnId),
    /// The table has more extents.
    AddExtents(Vec<Extent>),
    /// The table has fewer extents.
    RemoveExtents(Vec<ExtentId>),
    /// The function begins, or is another one from now on.
    PutFunction(Arc<StoredFunction>),
    /// The function ends.
    DropFunction,
    /// The table's, or the database's, extents are hot by this; `None`: there is no policy.
    SetCachingPolicy(Option<CachingPolicy>),
    /// The table's rows are shown by this; `None`: all.
    SetRowLevelSecurity(Option<RowLevelSecurity>),
    /// The table's, or the database's, rows are kept this long; `None`: there is no policy.
    SetRetentionPolicy(Option<RetentionPolicy>),
    /// The table's, or the database's, extents are merged by this; `None`: there is no policy.
    SetMergePolicy(Option<MergePolicy>),
    /// Queued ingests to the table, or the database, are put together by this; `None`: there is no
    /// policy.
    SetIngestionBatchingPolicy(Option<IngestionBatchingPolicy>),
    /// Whether rows may be streamed into the table, or the database; `None`: there is no policy.
    SetStreamingIngestionPolicy(Option<StreamingIngestionPolicy>),
    /// The table has taken in these ingests.
    NoteIngests(Vec<NotedIngest>),
    /// They have these roles from now on.
    AddPrincipals(Vec<DatabasePrincipal>),
    /// They do not have these roles any more.
    DropPrincipals(Vec<DatabasePrincipal>),
    /// The external table begins, or is another one from now on.
    PutExternalTable(Arc<ExternalTable>),
    /// The external table ends.
    DropExternalTable,
    /// Nothing that the version holds is deleted from now on.
    PutPin(PinName, Version),
    /// The pin holds nothing any more.
    DropPin(PinName),
    /// The extents have these tags, and no others.
    AlterExtentTags {
        /// The extents.
        extents: Vec<ExtentId>,
        /// Their tags.
        tags: BTreeSet<String>,
    },
}

impl DatabaseRecord {
    /// What it does, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::CreateTable { .. } => "CreateTable",
            Self::DropTable => "DropTable",
            Self::AddColumn(_) => "AddColumn",
            Self::DropColumn(_) => "DropColumn",
            Self::AddExtents(_) => "AddExtents",
            Self::RemoveExtents(_) => "RemoveExtents",
            Self::PutFunction(_) => "PutFunction",
            Self::DropFunction => "DropFunction",
            Self::SetCachingPolicy(_) => "SetCachingPolicy",
            Self::SetRowLevelSecurity(_) => "SetRowLevelSecurity",
            Self::SetRetentionPolicy(_) => "SetRetentionPolicy",
            Self::SetMergePolicy(_) => "SetMergePolicy",
            Self::SetIngestionBatchingPolicy(_) => "SetIngestionBatchingPolicy",
            Self::SetStreamingIngestionPolicy(_) => "SetStreamingIngestionPolicy",
            Self::NoteIngests(_) => "NoteIngests",
            Self::AddPrincipals(_) => "AddPrincipals",
            Self::DropPrincipals(_) => "DropPrincipals",
            Self::PutExternalTable(_) => "PutExternalTable",
            Self::DropExternalTable => "DropExternalTable",
            Self::PutPin(..) => "PutPin",
            Self::DropPin(_) => "DropPin",
            Self::AlterExtentTags { .. } => "AlterExtentTags",
        }
    }
}

impl LogRecord for DatabaseRecord {
    fn encode(&self) -> Bytes {
        let kind = match self {
            Self::CreateTable { name, schema } => Kind::CreateTable(proto::CreateTable {
                name: name.to_string(),
                schema: Some(schema_to_proto(schema)),
            }),
            Self::DropTable => Kind::DropTable(proto::DropTable {}),
            Self::AddColumn(column) => Kind::AddColumn(proto::AddColumn {
                column: Some(column_to_proto(column)),
            }),
            Self::DropColumn(id) => Kind::DropColumn(proto::DropColumn { column_id: id.0 }),
            Self::AddExtents(extents) => Kind::AddExtents(proto::AddExtents {
                extents: extents.iter().map(extent_to_proto).collect(),
            }),
            Self::RemoveExtents(ids) => Kind::RemoveExtents(proto::RemoveExtents {
                extent_ids: extent_ids_to_proto(ids),
            }),
            Self::PutFunction(function) => Kind::PutFunction(function_to_proto(function)),
            Self::DropFunction => Kind::DropFunction(proto::DropFunction {}),
            Self::SetCachingPolicy(policy) => Kind::SetCachingPolicy(proto::SetCachingPolicy {
                policy: policy.as_ref().map(caching_to_proto),
            }),
            Self::SetRowLevelSecurity(policy) => {
                Kind::SetRowLevelSecurity(proto::SetRowLevelSecurity {
                    policy: policy.as_ref().map(security_to_proto),
                })
            }
            Self::SetRetentionPolicy(policy) => {
                Kind::SetRetentionPolicy(proto::SetRetentionPolicy {
                    policy: policy.as_ref().map(retention_to_proto),
                })
            }
            Self::SetMergePolicy(policy) => Kind::SetMergePolicy(proto::SetMergePolicy {
                policy: policy.as_ref().map(merge_to_proto),
            }),
            Self::SetIngestionBatchingPolicy(policy) => {
                Kind::SetIngestionBatchingPolicy(proto::SetIngestionBatchingPolicy {
                    policy: policy.as_ref().map(batching_to_proto),
                })
            }
            Self::SetStreamingIngestionPolicy(policy) => {
                Kind::SetStreamingIngestionPolicy(proto::SetStreamingIngestionPolicy {
                    policy: policy.as_ref().map(streaming_to_proto),
                })
            }
            Self::NoteIngests(ingests) => Kind::NoteIngests(proto::NoteIngests {
                ingests: ingests.iter().map(ingest_to_proto).collect(),
            }),
            Self::AddPrincipals(principals) => Kind::AddPrincipals(proto::AddPrincipals {
                principals: principals.iter().map(principal_to_proto).collect(),
            }),
            Self::DropPrincipals(principals) => Kind::DropPrincipals(proto::DropPrincipals {
                principals: principals.iter().map(principal_to_proto).collect(),
            }),
            Self::PutExternalTable(table) => Kind::PutExternalTable(external_to_proto(table)),
            Self::DropExternalTable => Kind::DropExternalTable(proto::DropExternalTable {}),
            Self::PutPin(name, version) => Kind::PutPin(pin_to_proto(name, *version)),
            Self::DropPin(name) => Kind::DropPin(proto::DropPin {
                name: name.to_string(),
            }),
            Self::AlterExtentTags { extents, tags } => {
                Kind::AlterExtentTags(proto::AlterExtentTags {
                    extent_ids: extent_ids_to_proto(extents),
                    tags: tags.iter().cloned().collect(),
                })
            }
        };
        proto::DatabaseRecord { record: Some(kind) }
            .encode_to_vec()
            .into()
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        Ok(Self::from_bytes(bytes)?)
    }
}

impl DatabaseRecord {
    /// What begins with the record, and its name.
    pub(crate) fn named(&self) -> Option<(EntityKind, &str)> {
        match self {
            Self::CreateTable { name, .. } => Some((EntityKind::Table, name.as_str())),
            Self::PutFunction(function) => Some((EntityKind::Function, function.name.as_str())),
            Self::PutExternalTable(table) => Some((EntityKind::ExternalTable, table.name.as_str())),
            _ => None,
        }
    }

    fn from_bytes(bytes: &Bytes) -> Result<Self, Malformed> {
        let message = proto::DatabaseRecord::decode(bytes.clone())?;
        Ok(
            match required("a record of a kind that this program knows", message.record)? {
                Kind::CreateTable(record) => Self::CreateTable {
                    name: name(record.name)?,
                    schema: schema_from_proto(record.schema)?,
                },
                Kind::DropTable(proto::DropTable {}) => Self::DropTable,
                Kind::AddColumn(record) => Self::AddColumn(column_from_proto(record.column)?),
                Kind::DropColumn(record) => Self::DropColumn(ColumnId(record.column_id)),
                Kind::AddExtents(record) => {
                    let extents = record.extents.into_iter().map(extent_from_proto);
                    Self::AddExtents(extents.collect::<Result<_, _>>()?)
                }
                Kind::RemoveExtents(record) => {
                    Self::RemoveExtents(extent_ids_from_proto(&record.extent_ids)?)
                }
                Kind::PutFunction(function) => {
                    Self::PutFunction(Arc::new(function_from_proto(function)?))
                }
                Kind::DropFunction(proto::DropFunction {}) => Self::DropFunction,
                Kind::SetCachingPolicy(record) => {
                    Self::SetCachingPolicy(record.policy.map(caching_from_proto))
                }
                Kind::SetRowLevelSecurity(record) => {
                    Self::SetRowLevelSecurity(record.policy.map(security_from_proto))
                }
                Kind::SetRetentionPolicy(record) => {
                    Self::SetRetentionPolicy(record.policy.map(retention_from_proto))
                }
                Kind::SetMergePolicy(record) => {
                    Self::SetMergePolicy(record.policy.map(merge_from_proto).transpose()?)
                }
                Kind::SetIngestionBatchingPolicy(record) => {
                    Self::SetIngestionBatchingPolicy(record.policy.map(batching_from_proto))
                }
                Kind::SetStreamingIngestionPolicy(record) => {
                    Self::SetStreamingIngestionPolicy(record.policy.map(streaming_from_proto))
                }
                Kind::NoteIngests(record) => {
                    let ingests = record.ingests.into_iter().map(ingest_from_proto);
                    Self::NoteIngests(ingests.collect::<Result<_, _>>()?)
                }
                Kind::AddPrincipals(record) => Self::AddPrincipals(principals(record.principals)?),
                Kind::DropPrincipals(record) => {
                    Self::DropPrincipals(principals(record.principals)?)
                }
                Kind::PutExternalTable(table) => {
                    Self::PutExternalTable(Arc::new(external_from_proto(table)?))
                }
                Kind::DropExternalTable(proto::DropExternalTable {}) => Self::DropExternalTable,
                Kind::PutPin(pin) => {
                    let (name, version) = pin_from_proto(pin)?;
                    Self::PutPin(name, version)
                }
                Kind::DropPin(pin) => Self::DropPin(name(pin.name)?),
                Kind::AlterExtentTags(record) => Self::AlterExtentTags {
                    extents: extent_ids_from_proto(&record.extent_ids)?,
                    tags: record.tags.into_iter().collect(),
                },
            },
        )
    }
}

fn extent_ids_to_proto(ids: &[ExtentId]) -> Vec<Bytes> {
    ids.iter().map(|id| to_bytes(id.as_bytes())).collect()
}

fn extent_ids_from_proto(ids: &[Bytes]) -> Result<Vec<ExtentId>, Malformed> {
    let ids = ids.iter();
    ids.map(|id| fixed("an extent id", id, ExtentId::from_slice))
        .collect()
}

fn principals(
    messages: Vec<proto::DatabasePrincipal>,
) -> Result<Vec<DatabasePrincipal>, Malformed> {
    messages.into_iter().map(principal_from_proto).collect()
}
