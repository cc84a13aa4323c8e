//! Columns, as Arrow IPC schema messages: every type that Arrow has survives, with time zones,
//! dictionaries, nesting and metadata.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use bytes::Bytes;
use slipstream_model::{Column, ColumnId, TableSchema};
use slipstream_proto::log as proto;

use super::{Malformed, required};

/// More columns no table ever has had, and numbers beyond are far from overflowing.
const COLUMN_ID_MAX: u32 = 1 << 30;

pub(crate) fn schema_to_proto(schema: &TableSchema) -> proto::TableSchema {
    proto::TableSchema {
        arrow_schema: encode_arrow(&schema.arrow()),
        column_ids: schema.columns().iter().map(|column| column.id.0).collect(),
        next_column_id: schema.next_column_id(),
        dropped_columns: schema.dropped().iter().map(column_to_proto).collect(),
    }
}

pub(crate) fn schema_from_proto(
    schema: Option<proto::TableSchema>,
) -> Result<TableSchema, Malformed> {
    let schema = required("a table's schema", schema)?;
    let arrow = decode_arrow(&schema.arrow_schema)?;
    if arrow.fields().len() != schema.column_ids.len() {
        return Err(Malformed::new(
            "a table's schema has more or fewer columns than ids",
        ));
    }
    let columns: Vec<Column> = schema
        .column_ids
        .into_iter()
        .zip(arrow.fields())
        .map(|(id, field)| Column {
            id: ColumnId(id),
            field: Arc::clone(field),
        })
        .collect();
    let dropped = schema.dropped_columns.into_iter();
    let dropped = dropped.map(|column| column_from_proto(Some(column)));
    let dropped = dropped.collect::<Result<Vec<_>, _>>()?;
    check_ids(columns.iter().chain(&dropped), schema.next_column_id)?;
    TableSchema::from_columns(columns, schema.next_column_id)
        .map(|schema| schema.with_dropped(dropped))
        .map_err(|error| Malformed::new(error.to_string()))
}

/// Whether each column has a number of its own, and the next one will too. Statistics go by these
/// numbers.
fn check_ids<'a>(columns: impl Iterator<Item = &'a Column>, next: u32) -> Result<(), Malformed> {
    let mut seen = BTreeSet::new();
    for ColumnId(id) in columns.map(|column| column.id) {
        if id >= next || !seen.insert(id) {
            return Err(Malformed::new(format!(
                "a column has id {id}, which is another's"
            )));
        }
    }
    if next > COLUMN_ID_MAX {
        return Err(Malformed::new(format!(
            "the next column would have id {next}"
        )));
    }
    Ok(())
}

pub(crate) fn column_to_proto(column: &Column) -> proto::Column {
    let schema = Schema::new(vec![Arc::clone(&column.field)]);
    proto::Column {
        id: column.id.0,
        arrow_schema: encode_arrow(&schema),
    }
}

pub(crate) fn column_from_proto(column: Option<proto::Column>) -> Result<Column, Malformed> {
    let column = required("a column", column)?;
    Ok(Column {
        id: ColumnId(column.id),
        field: only_field(&decode_arrow(&column.arrow_schema)?)?,
    })
}

/// The field of a schema that stands for one.
pub(super) fn only_field(schema: &Schema) -> Result<FieldRef, Malformed> {
    match schema.fields().as_ref() {
        [field] => Ok(Arc::clone(field)),
        fields => {
            let what = format!("a column has {} fields", fields.len());
            Err(Malformed::new(what))
        }
    }
}

pub(super) fn encode_arrow(schema: &Schema) -> Bytes {
    let mut dictionaries = DictionaryTracker::new(false);
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(
            schema,
            &mut dictionaries,
            &IpcWriteOptions::default(),
        )
        .ipc_message
        .into()
}

pub(super) fn decode_arrow(message: &[u8]) -> Result<Schema, Malformed> {
    // Arrow panics at a type that it does not know, which a newer program may have written.
    catch_unwind(|| try_schema_from_flatbuffer_bytes(message))
        .map_err(|_| Malformed::new("a column has an Arrow type that this program does not know"))?
        .map_err(|error| Malformed::new(error.to_string()))
}
