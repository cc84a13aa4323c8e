//! Functions and external tables: *.show functions*, *.show external tables*.

use serde_json::{Value, json};
use slipstream_model::StoredFunction;

use crate::command::rows::{Kind, Rows};
use crate::command::{Context, types};
use crate::{ErrorKind, ServiceError};

use Kind::Text;

const FUNCTIONS: &[(&str, Kind)] = &[
    ("Name", Text),
    ("Parameters", Text),
    ("Body", Text),
    ("Folder", Text),
    ("DocString", Text),
];

pub(in crate::command) fn functions(
    context: &Context<'_>,
    name: Option<&str>,
) -> Result<Rows, ServiceError> {
    let database = context.database_or(None)?;
    let state = context.state(database)?;
    if let Some(name) = name
        && state.function(name).is_none()
    {
        return Err(ServiceError::new(
            ErrorKind::NotFound,
            "function_not_found",
            format!("there is no function '{name}' in database '{database}'"),
        ));
    }
    let wanted = state
        .functions()
        .map(|known| known.entity.as_ref())
        .filter(|function| name.is_none_or(|name| function.name.as_str() == name));
    Ok(Rows::new(FUNCTIONS).with(wanted.map(|function| {
        vec![
            function.name.as_str().into(),
            parameters(function).into(),
            format!("{{ {} }}", function.body).into(),
            function.folder.as_str().into(),
            function.docstring.as_str().into(),
        ]
    })))
}

fn parameters(function: &StoredFunction) -> String {
    let parameters = function.parameters.iter().map(|parameter| {
        let kind = types::column_type(&parameter.field);
        let default = parameter.default.as_ref();
        let default = default.map(|text| format!("={text}")).unwrap_or_default();
        format!("{}:{kind}{default}", parameter.field.name())
    });
    format!("({})", parameters.collect::<Vec<_>>().join(", "))
}

/// *.show external tables*.
const EXTERNAL_TABLES: &[(&str, Kind)] = &[
    ("TableName", Text),
    ("TableType", Text),
    ("Folder", Text),
    ("DocString", Text),
    ("Properties", Text),
    ("ConnectionStrings", Text),
    ("Partitions", Text),
    ("PathFormat", Text),
];

pub(in crate::command) fn external_tables(
    context: &Context<'_>,
    name: Option<&str>,
) -> Result<Rows, ServiceError> {
    let database = context.database_or(None)?;
    let state = context.state(database)?;
    if let Some(name) = name
        && state.external_table(name).is_none()
    {
        return Err(ServiceError::new(
            ErrorKind::NotFound,
            "table_not_found",
            format!("there is no external table '{name}' in database '{database}'"),
        ));
    }
    let wanted = state
        .external_tables()
        .map(|known| known.entity.as_ref())
        .filter(|table| name.is_none_or(|name| table.name.as_str() == name));
    Ok(Rows::new(EXTERNAL_TABLES).with(wanted.map(|table| {
        let properties = json!({
            "Format": table.format.name(),
            "Schema": types::csl_schema(&table.schema),
        });
        vec![
            table.name.as_str().into(),
            "Blob".into(),
            table.folder.as_str().into(),
            table.docstring.as_str().into(),
            properties.into(),
            Value::from_iter(table.locations.iter().map(String::as_str)).into(),
            "[]".into(),
            "".into(),
        ]
    })))
}
