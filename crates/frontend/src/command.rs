//! Kusto's management commands: a request whose text begins with a dot.
//!
//! They are understood in front of the node, so every door takes them and they need nothing that
//! the node does not offer to all callers: what it says of itself, its settings, and changes of
//! its databases. Columns and shapes are those of the Kusto documentation, named at each.

mod change;
mod extents;
mod json;
mod log;
mod rows;
mod show;
mod types;

use slipstream_kusto::{Command, Show};
use slipstream_query::QueryStream;

use crate::{
    Access, Answer, AuthorizedEngine, Description, ErrorKind, Permission, ServiceError, SqlRequest,
};
pub(crate) use log::CommandLog;
use rows::Rows;
pub(crate) use types::column_type;

/// Whether a text is a command rather than SQL. Comments may stand before one.
pub(crate) fn is_command(text: &str) -> bool {
    let mut rest = text.trim_start();
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment
            .split_once('\n')
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest.starts_with('.')
}

/// A command on its way: the node, who asks, and where names are looked up.
struct Context<'a> {
    engine: &'a AuthorizedEngine,
    access: Access,
    /// The database that the command was sent to.
    database: Option<&'a str>,
    request: &'a SqlRequest,
}

/// Runs a command.
///
/// # Errors
/// When it cannot be read, is not allowed, or fails.
pub(crate) async fn run(
    engine: &AuthorizedEngine,
    request: &SqlRequest,
) -> Result<Answer, ServiceError> {
    let entry = engine.command_log().begin(engine, request);
    let result = rows(engine, request).await;
    entry.end(&result);
    let rows = result?;
    let batch = rows.batch()?;
    Ok(Answer {
        rows: QueryStream::from_batches(batch.schema(), vec![batch]),
        freshness: None,
        answered_at: engine.clock().now(),
        rows_written: None,
    })
}

/// What a command would answer. Nothing is changed to find out.
///
/// # Errors
/// When it cannot be read, or shows something that is not there.
pub(crate) async fn describe(
    engine: &AuthorizedEngine,
    request: &SqlRequest,
) -> Result<Description, ServiceError> {
    let command = parse(&request.sql)?;
    match command {
        Command::Show(_) => Ok(Description {
            schema: rows(engine, request).await?.schema(),
            parameters: arrow::datatypes::Schema::empty(),
            is_query: true,
        }),
        _ => Ok(Description::of_change(change::schema())),
    }
}

fn parse(text: &str) -> Result<Command, ServiceError> {
    slipstream_kusto::parse(text)
        .map_err(|error| ServiceError::new(ErrorKind::Syntax, "syntax_error", error.to_string()))
}

async fn rows(engine: &AuthorizedEngine, request: &SqlRequest) -> Result<Rows, ServiceError> {
    let context = Context {
        engine,
        access: engine.access(),
        database: request.database.as_deref(),
        request,
    };
    match parse(&request.sql)? {
        Command::Show(show) => context.show(show).await,
        command => context.change(command).await,
    }
}

impl Context<'_> {
    /// The database that a command names, or was sent to.
    fn database_or<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, ServiceError> {
        named.or(self.database).ok_or_else(|| {
            ServiceError::invalid(
                "the command is about a database, and names none: name it in the command, or \
                 send the command to one",
            )
        })
    }

    /// The state of a database whose metadata the caller may see.
    fn state(&self, database: &str) -> Result<slipstream_catalog::DatabaseState, ServiceError> {
        self.access.check(database, Permission::ViewMetadata)?;
        self.engine.state(database)
    }

    async fn show(&self, show: Show) -> Result<Rows, ServiceError> {
        show::run(self, show).await
    }
}
