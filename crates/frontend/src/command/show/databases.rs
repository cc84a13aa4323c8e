//! Databases: *.show databases*, *.show database schema*.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use slipstream_catalog::ExtentSet;
use slipstream_kusto::DatabaseView;

use super::Database;
use crate::ServiceError;
use crate::command::rows::{Cell, Kind, Rows};
use crate::command::{Context, json as shapes, types};

use Kind::{Bool, Guid, Long, Real, Text};

pub(super) fn databases(
    context: &Context<'_>,
    names: &[String],
    view: DatabaseView,
) -> Result<Rows, ServiceError> {
    let databases = if names.is_empty() {
        context.visible_databases()
    } else {
        let named = names.iter().map(|name| context.visible_database(name));
        named.collect::<Result<_, _>>()?
    };
    let rows = databases.iter();
    Ok(match view {
        DatabaseView::Details => {
            Rows::new(DETAILS).with(rows.map(|database| details(context, database)))
        }
        DatabaseView::DataStats => Rows::new(STATS).with(rows.map(stats)),
        DatabaseView::Policies => {
            Rows::new(POLICIES).with(rows.map(|database| policies(context, database)))
        }
        DatabaseView::Basic | DatabaseView::Identity | DatabaseView::Verbose => {
            Rows::new(BASIC).with(rows.map(|database| basic(context, database)))
        }
    })
}

/// *.show databases*.
const BASIC: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("PersistentStorage", Text),
    ("Version", Text),
    ("IsCurrent", Bool),
    ("DatabaseAccessMode", Text),
    ("PrettyName", Text),
    ("DatabaseId", Guid),
    ("InTransitionTo", Text),
    ("SuspensionState", Text),
];

fn basic(context: &Context<'_>, database: &Database) -> Vec<Cell> {
    let known = &database.description;
    vec![
        known.name.as_str().into(),
        storage(context, database),
        database.version().into(),
        (context.database == Some(&known.name)).into(),
        known.access_mode.to_string().into(),
        Cell::Null,
        known.database_id.as_str().into(),
        "".into(),
        known.suspension.clone().unwrap_or_default().into(),
    ]
}

/// Where the database stands in the bucket, without what only the bucket's owner knows.
fn storage(context: &Context<'_>, database: &Database) -> Cell {
    let _ = context;
    format!("databases/{}", database.description.database_id).into()
}

/// *.show databases details* (`database-details-option.md`).
const DETAILS: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("PersistentStorage", Text),
    ("Version", Text),
    ("IsCurrent", Bool),
    ("DatabaseAccessMode", Text),
    ("PrettyName", Text),
    ("AuthorizedPrincipals", Text),
    ("RetentionPolicy", Text),
    ("MergePolicy", Text),
    ("CachingPolicy", Text),
    ("ShardingPolicy", Text),
    ("StreamingIngestionPolicy", Text),
    ("IngestionBatchingPolicy", Text),
    ("TotalSize", Real),
    ("DatabaseId", Guid),
    ("InTransitionTo", Text),
    ("NumberOfTables", Long),
    ("NumberOfExternalTables", Long),
    ("NumberOfMaterializedViews", Long),
    ("EncryptionScope", Text),
    ("SuspensionState", Text),
];

fn details(context: &Context<'_>, database: &Database) -> Vec<Cell> {
    let known = &database.description;
    let state = database.state.as_ref();
    let retention = state.and_then(|state| state.retention_policy());
    let merge = state.and_then(|state| state.merge_policy());
    let batching = state.and_then(|state| state.ingestion_batching_policy());
    let streaming = state.and_then(|state| state.streaming_ingestion_policy());
    vec![
        known.name.as_str().into(),
        storage(context, database),
        database.version().into(),
        (context.database == Some(&known.name)).into(),
        known.access_mode.to_string().into(),
        Cell::Null,
        authorized(context, &known.name),
        retention.map(shapes::retention).into(),
        merge.map(shapes::merge).into(),
        caching(database),
        Cell::Null,
        streaming.map(shapes::streaming_ingestion).into(),
        batching.map(shapes::ingestion_batching).into(),
        Cell::Real(known.size_bytes as f64),
        known.database_id.as_str().into(),
        "".into(),
        state.map(|state| state.tables().len()).into(),
        state.map(|state| state.external_tables().len()).into(),
        Cell::Long(0),
        "".into(),
        known.suspension.clone().unwrap_or_default().into(),
    ]
}

fn authorized(context: &Context<'_>, database: &str) -> Cell {
    let principals = context.engine.principals(database).unwrap_or_default();
    shapes::principals(&principals).into()
}

fn caching(database: &Database) -> Cell {
    let effective = database.default_caching();
    effective.policy.as_ref().map(shapes::caching).into()
}

const POLICIES: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("PersistentStorage", Text),
    ("Version", Text),
    ("IsCurrent", Bool),
    ("DatabaseAccessMode", Text),
    ("PrettyName", Text),
    ("DatabaseId", Guid),
    ("AuthorizedPrincipals", Text),
    ("RetentionPolicy", Text),
    ("CachingPolicy", Text),
];

fn policies(context: &Context<'_>, database: &Database) -> Vec<Cell> {
    let state = database.state.as_ref();
    let retention = state.and_then(|state| state.retention_policy());
    let mut row = basic(context, database);
    row.truncate(7);
    row.extend([
        authorized(context, &database.description.name),
        retention.map(shapes::retention).into(),
        caching(database),
    ]);
    row
}

/// *.show databases datastats* (`database-datastats-option.md`).
const STATS: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("PersistentStorage", Text),
    ("Version", Text),
    ("IsCurrent", Bool),
    ("DatabaseAccessMode", Text),
    ("PrettyName", Text),
    ("DatabaseId", Guid),
    ("OriginalSize", Real),
    ("ExtentSize", Real),
    ("CompressedSize", Real),
    ("IndexSize", Real),
    ("RowCount", Long),
    ("HotOriginalSize", Real),
    ("HotExtentSize", Real),
    ("HotCompressedSize", Real),
    ("HotIndexSize", Real),
    ("HotRowCount", Long),
    ("TotalExtents", Long),
    ("HotExtents", Long),
];

fn stats(database: &Database) -> Vec<Cell> {
    let known = &database.description;
    let (mut all, mut hot) = (Size::default(), Size::default());
    for table in database.tables() {
        all.add(Size::of(&table.extents));
        hot.add(Size::of_hot(database, table));
    }
    let mut row = vec![
        known.name.as_str().into(),
        format!("databases/{}", known.database_id).into(),
        database.version().into(),
        Cell::Null,
        known.access_mode.to_string().into(),
        Cell::Null,
        known.database_id.as_str().into(),
    ];
    for size in [&all, &hot] {
        row.extend([
            Cell::Real(size.original_bytes as f64),
            Cell::Real(size.bytes as f64),
            Cell::Real(size.bytes as f64),
            // Indexes stand in the extents' footers.
            Cell::Real(0.0),
            size.rows.into(),
        ]);
    }
    row.extend([all.extents.into(), hot.extents.into()]);
    row
}

/// What extents amount to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) extents: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) original_bytes: u64,
}

impl Size {
    pub(super) fn of(extents: &ExtentSet) -> Self {
        Self {
            extents: extents.len(),
            rows: extents.row_count(),
            bytes: extents.size_bytes(),
            original_bytes: extents.original_bytes(),
        }
    }

    /// The extents that are hot by the policy that holds here.
    pub(super) fn of_hot(database: &Database, table: &slipstream_catalog::TableState) -> Self {
        let caching = database.caching(table);
        if caching.policy.is_none() {
            return Self::of(&table.extents);
        }
        let now = database.state.as_ref().map(|state| state.committed_at());
        let now = now.unwrap_or_default();
        let mut size = Self::default();
        for block in table.extents.blocks() {
            for slot in block.live_slots() {
                let extent = block.extent(slot);
                if caching.is_hot(extent.max_created_on, now) {
                    size.add(Self {
                        extents: 1,
                        rows: extent.row_count,
                        bytes: extent.size_bytes,
                        original_bytes: extent.original_bytes,
                    });
                }
            }
        }
        size
    }

    fn add(&mut self, other: Self) {
        self.extents += other.extents;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.original_bytes += other.original_bytes;
    }
}

/// *.show database schema*.
const SCHEMA: &[(&str, Kind)] = &[
    ("DatabaseName", Text),
    ("TableName", Text),
    ("ColumnName", Text),
    ("ColumnType", Text),
    ("IsDefaultTable", Bool),
    ("IsDefaultColumn", Bool),
    ("PrettyName", Text),
    ("Version", Text),
    ("Folder", Text),
    ("DocString", Text),
];

pub(super) fn schema(
    context: &Context<'_>,
    name: &str,
    as_json: bool,
) -> Result<Rows, ServiceError> {
    let database = context.visible_database(name)?;
    if as_json {
        let schema = json!({"Databases": {name: json_schema(&database)}});
        return Ok(Rows::new(&[("DatabaseSchema", Text)]).with([vec![schema.into()]]));
    }
    let row = |table: &str, column: Cell, kind: Cell, docstring: &str| {
        vec![
            name.into(),
            table.into(),
            column,
            kind,
            false.into(),
            false.into(),
            Cell::Null,
            database.version().into(),
            "".into(),
            docstring.into(),
        ]
    };
    let mut rows = Rows::new(SCHEMA);
    for table in database.tables() {
        let table_name = table.name.as_str();
        rows.push(row(table_name, Cell::Null, Cell::Null, ""));
        for column in table.schema.columns() {
            let field = &column.field;
            let kind = types::column_type(field).dotnet();
            rows.push(row(
                table_name,
                field.name().as_str().into(),
                kind.into(),
                types::docstring(field),
            ));
        }
    }
    Ok(rows)
}

fn json_schema(database: &Database) -> Value {
    let tables = database.tables().map(|table| {
        let fields: Vec<_> = table.schema.arrow().fields().iter().cloned().collect();
        let table = json!({
            "Name": table.name.as_str(),
            "OrderedColumns": types::json_columns(&fields),
        });
        (table["Name"].as_str().unwrap_or_default().to_owned(), table)
    });
    let state = database.state.iter();
    let functions = state.flat_map(|state| state.functions()).map(|known| {
        let function = &known.entity;
        let name = function.name.to_string();
        let parameters = function.parameters.iter();
        let fields: Vec<_> = parameters.map(|known| Arc::clone(&known.field)).collect();
        let value = json!({
            "Name": name, "InputParameters": types::json_columns(&fields), "Body": function.body, "Folder": function.folder,
            "DocString": function.docstring, "FunctionKind": "Unknown",
        });
        (name, value)
    });
    let state = database.state.iter();
    let external = state
        .flat_map(|state| state.external_tables())
        .map(|known| {
            let table = &known.entity;
            let fields: Vec<_> = table.schema.fields().iter().cloned().collect();
            let value = json!({
                "Name": table.name.as_str(), "Folder": table.folder, "DocString": table.docstring,
                "OrderedColumns": types::json_columns(&fields),
            });
            (table.name.to_string(), value)
        });
    json!({
        "Name": database.description.name,
        "Tables": tables.collect::<Map<_, _>>(),
        "ExternalTables": external.collect::<Map<_, _>>(),
        "MaterializedViews": {},
        "Functions": functions.collect::<Map<_, _>>(),
        "MajorVersion": database.state.as_ref().map_or(0, |state| state.version().get()),
        "MinorVersion": 0,
        "DatabaseAccessMode": database.description.access_mode.to_string(),
    })
}
