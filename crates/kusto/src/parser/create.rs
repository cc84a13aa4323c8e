//! `.create` and its like: databases, tables, functions, external tables.

use super::cursor::{Cursor, Parsed};
use crate::{
    ColumnDefinition, ColumnType, Command, ExternalFormat, ExternalTableDefinition,
    ExternalTablePutMode, FunctionCommand, FunctionParameterDefinition, FunctionPutMode,
    TableDefinition, TablePutMode,
};

const TABLE: &str = "the name of a table";

/// `.create ...`
pub(super) fn create(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("ifnotexists") {
        c.word("function")?;
        return function(c, FunctionPutMode::CreateIfNotExists);
    }
    if c.word_opt("function") {
        let mode = if c.word_opt("ifnotexists") {
            FunctionPutMode::CreateIfNotExists
        } else {
            FunctionPutMode::Create
        };
        return function(c, mode);
    }
    if c.word_opt("database") {
        return database(c);
    }
    if c.word_opt("external") {
        c.word("table")?;
        return external_table(c, ExternalTablePutMode::Create);
    }
    tables(c, TablePutMode::Create)
}

/// `.create-merge ...`
pub(super) fn create_merge(c: &mut Cursor<'_>) -> Parsed<Command> {
    tables(c, TablePutMode::CreateMerge)
}

/// `.create-or-alter ...`
pub(super) fn create_or_alter(c: &mut Cursor<'_>) -> Parsed<Command> {
    if c.word_opt("function") {
        return function(c, FunctionPutMode::CreateOrAlter);
    }
    c.words(&["external", "table"])?;
    external_table(c, ExternalTablePutMode::CreateOrAlter)
}

/// Where a database stands is not chosen here: `persist (...)` and `volatile` mean nothing.
fn database(c: &mut Cursor<'_>) -> Parsed<Command> {
    let name = c.name("the name of a database")?;
    let mut if_not_exists = c.word_opt("ifnotexists");
    if c.word_opt("persist") {
        c.skip_parentheses()?;
    } else {
        c.word_opt("volatile");
    }
    if_not_exists |= c.word_opt("ifnotexists");
    Ok(Command::CreateDatabase {
        name,
        if_not_exists,
    })
}

fn tables(c: &mut Cursor<'_>, mode: TablePutMode) -> Parsed<Command> {
    if c.word_opt("table") {
        let name = c.name(TABLE)?;
        return put_tables(c, mode, name);
    }
    c.word("tables")?;
    let mut tables = Vec::new();
    loop {
        let name = c.name(TABLE)?;
        tables.push(TableDefinition {
            name,
            columns: c.list(column)?,
            docstring: None,
            folder: None,
        });
        if !c.sign_opt(',') {
            break;
        }
    }
    let (docstring, folder, _) = properties(c)?;
    for table in &mut tables {
        table.docstring.clone_from(&docstring);
        table.folder.clone_from(&folder);
    }
    Ok(Command::PutTables { mode, tables })
}

/// One table, behind its name.
pub(super) fn put_tables(c: &mut Cursor<'_>, mode: TablePutMode, name: String) -> Parsed<Command> {
    let columns = c.list(column)?;
    let (docstring, folder, _) = properties(c)?;
    Ok(Command::PutTables {
        mode,
        tables: vec![TableDefinition {
            name,
            columns,
            docstring,
            folder,
        }],
    })
}

/// `name:type`.
fn column(c: &mut Cursor<'_>) -> Parsed<ColumnDefinition> {
    let name = c.name("the name of a column")?;
    c.sign(':')?;
    Ok(ColumnDefinition {
        name,
        column_type: column_type(c)?,
        docstring: c.text_opt("a text that says what it is for"),
    })
}

fn column_type(c: &mut Cursor<'_>) -> Parsed<ColumnType> {
    let mut name = c.name("a type such as string or long")?;
    // `System.Int64`.
    while c.sees_sign('.') {
        c.sign('.')?;
        name = format!("{name}.{}", c.name("the rest of a type's name")?);
    }
    name.parse()
        .or_else(|error: crate::UnknownColumnType| c.refuse(error.to_string()))
}

/// What `with (...)` says: what it is for, where it is shown, and the rest.
type Properties = (Option<String>, Option<String>, Vec<(String, String)>);

/// `with (docstring = '...', folder = '...')`, or nothing.
fn properties(c: &mut Cursor<'_>) -> Parsed<Properties> {
    let (mut docstring, mut folder, mut rest) = (None, None, Vec::new());
    if c.word_opt("with") {
        let all = c.list(|c| {
            let name = c.name("the name of a property")?;
            c.sign('=')?;
            Ok((name, c.literal()?))
        })?;
        for (name, value) in all {
            if name.eq_ignore_ascii_case("docstring") {
                docstring = Some(value);
            } else if name.eq_ignore_ascii_case("folder") {
                folder = Some(value);
            } else {
                rest.push((name, value));
            }
        }
    }
    Ok((docstring, folder, rest))
}

/// `[with (...)] Name(parameters) { body }`.
pub(super) fn function(c: &mut Cursor<'_>, mode: FunctionPutMode) -> Parsed<Command> {
    let (docstring, folder, _) = properties(c)?;
    let name = c.name("the name of a function")?;
    c.sign('(')?;
    let mut parameters = Vec::new();
    if !c.sign_opt(')') {
        parameters.push(parameter(c)?);
        while c.sign_opt(',') {
            parameters.push(parameter(c)?);
        }
        c.sign(')')?;
    }
    Ok(Command::PutFunction(FunctionCommand {
        mode,
        name,
        parameters,
        body: c.body()?,
        docstring,
        folder,
    }))
}

/// `name:type[=literal]`.
fn parameter(c: &mut Cursor<'_>) -> Parsed<FunctionParameterDefinition> {
    let name = c.name("the name of a parameter")?;
    c.sign(':')?;
    let column_type = column_type(c)?;
    let default = if c.sign_opt('=') {
        Some(c.literal()?)
    } else {
        None
    };
    Ok(FunctionParameterDefinition {
        name,
        column_type,
        default,
    })
}

/// `Name (columns) kind=storage dataformat=csv ('url', ...) [with (...)]`.
pub(super) fn external_table(c: &mut Cursor<'_>, mode: ExternalTablePutMode) -> Parsed<Command> {
    let name = c.name(TABLE)?;
    let columns = c.list(column)?;
    c.word("kind")?;
    c.sign('=')?;
    if !["storage", "blob", "adl"]
        .iter()
        .any(|kind| c.word_opt(kind))
    {
        return c.fail();
    }
    c.word("dataformat")?;
    c.sign('=')?;
    let format = format(c)?;
    let locations = c.list(|c| c.text("a location in quotes"))?;
    let (docstring, folder, rest) = properties(c)?;
    let has_header = rest.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case("includeHeaders") && !value.eq_ignore_ascii_case("none")
    });
    Ok(Command::PutExternalTable(ExternalTableDefinition {
        mode,
        name,
        columns,
        format: match format {
            ExternalFormat::Csv { .. } => ExternalFormat::Csv { header: has_header },
            other => other,
        },
        locations,
        docstring,
        folder,
    }))
}

fn format(c: &mut Cursor<'_>) -> Parsed<ExternalFormat> {
    if c.word_opt("csv") {
        return Ok(ExternalFormat::Csv { header: false });
    }
    if c.word_opt("json") || c.word_opt("multijson") {
        return Ok(ExternalFormat::Json);
    }
    c.word("parquet")?;
    Ok(ExternalFormat::Parquet)
}
