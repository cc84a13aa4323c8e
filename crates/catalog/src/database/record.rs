//! What stands in a database's log. One record changes one table.

use bytes::Bytes;
use prost::Message;
use slipstream_model::{Column, Extent, ExtentId, TableName, TableSchema};
use slipstream_proto::log as proto;
use slipstream_proto::log::database_record::Record as Kind;

use crate::codec::{
    Malformed, column_from_proto, column_to_proto, extent_from_proto, extent_to_proto, fixed, name,
    required, schema_from_proto, schema_to_proto, to_bytes,
};
use crate::log::LogRecord;

/// One change to one table; which one, the section says.
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
    /// The table has more extents.
    AddExtents(Vec<Extent>),
    /// The table has fewer extents.
    RemoveExtents(Vec<ExtentId>),
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
            Self::AddExtents(extents) => Kind::AddExtents(proto::AddExtents {
                extents: extents.iter().map(extent_to_proto).collect(),
            }),
            Self::RemoveExtents(ids) => Kind::RemoveExtents(proto::RemoveExtents {
                extent_ids: ids.iter().map(|id| to_bytes(id.as_bytes())).collect(),
            }),
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
                Kind::AddExtents(record) => {
                    let extents = record.extents.into_iter().map(extent_from_proto);
                    Self::AddExtents(extents.collect::<Result<_, _>>()?)
                }
                Kind::RemoveExtents(record) => {
                    let ids = record.extent_ids.iter();
                    let ids = ids.map(|id| fixed("an extent id", id, ExtentId::from_slice));
                    Self::RemoveExtents(ids.collect::<Result<_, _>>()?)
                }
            },
        )
    }
}
