//! Tables: *.show tables*, *.show table details*, *.show table schema*.

use serde_json::json;
use slipstream_catalog::TableState;

use super::databases::Size;
use super::{Database, no_table};
use crate::ServiceError;
use crate::command::rows::{Cell, Kind, Rows};
use crate::command::{Context, json as shapes, types};

use Kind::{Guid, Long, Real, Text, Time};

const TABLES: &[(&str, Kind)] = &[
    ("TableName", Text),
    ("DatabaseName", Text),
    ("Folder", Text),
    ("DocString", Text),
];

/// *.show table details*; `TableId` is ours.
const DETAILS: &[(&str, Kind)] = &[
    ("TableName", Text),
    ("DatabaseName", Text),
    ("Folder", Text),
    ("DocString", Text),
    ("TotalExtents", Long),
    ("TotalExtentSize", Real),
    ("TotalOriginalSize", Real),
    ("TotalRowCount", Long),
    ("HotExtents", Long),
    ("HotExtentSize", Real),
    ("HotOriginalSize", Real),
    ("HotRowCount", Long),
    ("AuthorizedPrincipals", Text),
    ("RetentionPolicy", Text),
    ("CachingPolicy", Text),
    ("ShardingPolicy", Text),
    ("MergePolicy", Text),
    ("StreamingIngestionPolicy", Text),
    ("IngestionBatchingPolicy", Text),
    ("RowOrderPolicy", Text),
    ("MinExtentsCreationTime", Time),
    ("MaxExtentsCreationTime", Time),
    ("TableId", Guid),
];

pub(super) fn tables(
    context: &Context<'_>,
    names: &[String],
    with_details: bool,
) -> Result<Rows, ServiceError> {
    let database = context.own_database()?;
    let name = &database.description.name;
    for wanted in names {
        find(&database, wanted)?;
    }
    let wanted = |table: &TableState| {
        names.is_empty() || names.iter().any(|name| name == table.name.as_str())
    };
    let tables = database.tables().filter(|table| wanted(table));
    if !with_details {
        return Ok(Rows::new(TABLES).with(tables.map(|table| {
            vec![
                table.name.as_str().into(),
                name.as_str().into(),
                "".into(),
                "".into(),
            ]
        })));
    }
    let principals = context.engine.principals(name)?;
    let principals = shapes::principals(&principals);
    Ok(Rows::new(DETAILS).with(tables.map(|table| {
        let mut row = details(&database, table);
        row[12] = principals.clone().into();
        row
    })))
}

fn details(database: &Database, table: &TableState) -> Vec<Cell> {
    let (all, hot) = (Size::of(&table.extents), Size::of_hot(database, table));
    let state = database.state.as_ref();
    let retention = table.policies.retention;
    let retention = retention.or_else(|| state.and_then(|state| state.retention_policy()));
    let merge = table.policies.merge;
    let merge = merge.or_else(|| state.and_then(|state| state.merge_policy()));
    let batching = table.policies.ingestion_batching;
    let batching = batching.or_else(|| state.and_then(|state| state.ingestion_batching_policy()));
    let streaming = table.policies.streaming_ingestion;
    let streaming =
        streaming.or_else(|| state.and_then(|state| state.streaming_ingestion_policy()));
    let caching = database.caching(table);
    let created = created_between(table);
    vec![
        table.name.as_str().into(),
        database.description.name.as_str().into(),
        "".into(),
        "".into(),
        all.extents.into(),
        Cell::Real(all.bytes as f64),
        Cell::Real(all.original_bytes as f64),
        all.rows.into(),
        hot.extents.into(),
        Cell::Real(hot.bytes as f64),
        Cell::Real(hot.original_bytes as f64),
        hot.rows.into(),
        Cell::Null,
        retention.map(shapes::retention).into(),
        caching.policy.as_ref().map(shapes::caching).into(),
        Cell::Null,
        merge.map(shapes::merge).into(),
        streaming.map(shapes::streaming_ingestion).into(),
        batching.map(shapes::ingestion_batching).into(),
        Cell::Null,
        created.map(|(first, _)| first).into(),
        created.map(|(_, last)| last).into(),
        table.id.to_string().into(),
    ]
}

fn created_between(
    table: &TableState,
) -> Option<(slipstream_model::Timestamp, slipstream_model::Timestamp)> {
    let mut between = None;
    for block in table.extents.blocks() {
        for slot in block.live_slots() {
            let extent = block.extent(slot);
            let (first, last) = between.unwrap_or((extent.min_created_on, extent.max_created_on));
            between = Some((
                first.min(extent.min_created_on),
                last.max(extent.max_created_on),
            ));
        }
    }
    between
}

fn find<'a>(database: &'a Database, name: &str) -> Result<&'a TableState, ServiceError> {
    let mut tables = database.tables();
    let found = tables.find(|table| table.name.as_str() == name);
    found
        .map(AsRef::as_ref)
        .ok_or_else(|| no_table(&database.description.name, name))
}

/// *.show table*: its columns.
pub(super) fn columns(context: &Context<'_>, name: &str) -> Result<Rows, ServiceError> {
    let database = context.own_database()?;
    let table = find(&database, name)?;
    let columns = table.schema.columns().iter().map(|column| {
        vec![
            column.field.name().as_str().into(),
            types::column_type(&column.field).dotnet().into(),
            types::column_type(&column.field).to_string().into(),
            types::docstring(&column.field).into(),
        ]
    });
    Ok(Rows::new(&[
        ("AttributeName", Text),
        ("AttributeType", Text),
        ("CslType", Text),
        ("DocString", Text),
    ])
    .with(columns))
}

const SCHEMA: &[(&str, Kind)] = &[
    ("TableName", Text),
    ("Schema", Text),
    ("DatabaseName", Text),
    ("Folder", Text),
    ("DocString", Text),
];

/// *.show table schema*, as JSON or as `name:type,...`.
pub(super) fn table_schema(
    context: &Context<'_>,
    name: &str,
    as_json: bool,
) -> Result<Rows, ServiceError> {
    let database = context.own_database()?;
    let table = find(&database, name)?;
    let schema = if as_json {
        let fields: Vec<_> = table.schema.arrow().fields().iter().cloned().collect();
        json!({"Name": name, "OrderedColumns": types::json_columns(&fields)}).to_string()
    } else {
        types::csl_schema(&table.schema.arrow())
    };
    Ok(Rows::new(SCHEMA).with([schema_row(&database, name, schema)]))
}

/// What commands that make tables answer.
pub(in crate::command) fn table_schemas(
    context: &Context<'_>,
    names: &[String],
) -> Result<Rows, ServiceError> {
    let database = context.own_database()?;
    let mut rows = Rows::new(SCHEMA);
    for name in names {
        let table = find(&database, name)?;
        let fields: Vec<_> = table.schema.arrow().fields().iter().cloned().collect();
        let schema = json!({"Name": name, "OrderedColumns": types::json_columns(&fields)});
        rows.push(schema_row(&database, name, schema.to_string()));
    }
    Ok(rows)
}

fn schema_row(database: &Database, table: &str, schema: String) -> Vec<Cell> {
    vec![
        table.into(),
        schema.into(),
        database.description.name.as_str().into(),
        "".into(),
        "".into(),
    ]
}
