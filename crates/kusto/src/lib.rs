//! The management commands of Kusto, as text and as types.
//!
//! [`parse`] takes the text of one command, which begins with a dot, and gives a [`Command`] or a
//! [`SyntaxError`] that says where the text goes wrong and what was expected there. Nothing is
//! looked up and nothing is done: whether a database exists, and whether whoever sent the command
//! may do it, is for others to say.
//!
//! * Keywords are read in any case; names keep theirs.
//! * A name is bare (`Trips`), in brackets (`['my table']`) or a string literal.
//! * A text is refused as a whole or taken as a whole; there are no half commands.
//! * No text makes the parser panic, and no text above [`COMMAND_BYTES_MAX`] is looked at.
//!
//! ```
//! use slipstream_kusto::{Command, parse};
//!
//! let command = parse(".drop table Trips ifexists").expect("a command");
//! let names = vec!["Trips".to_owned()];
//! assert_eq!(command, Command::DropTables { names, if_exists: true });
//!
//! let error = parse(".drop tabel Trips").expect_err("a misspelt word");
//! assert_eq!(error.column, 7);
//! assert_eq!(error.message, "unknown word 'tabel': did you mean 'table'?");
//! ```

mod command;
mod error;
mod extents;
mod lexer;
mod parser;
mod show;
mod text;
mod values;

pub use command::{
    ColumnDefinition, Command, ExternalFormat, ExternalTableDefinition, ExternalTablePutMode,
    FunctionCommand, FunctionParameterDefinition, FunctionPutMode, PolicyEntity, PrincipalsAction,
    PrincipalsChange, RetentionPolicy, TableDefinition, TablePutMode,
};
pub use error::SyntaxError;
pub use extents::{
    CreatedOnWindow, ExtentQuery, ExtentScope, ExtentSize, ExtentTrim, ExtentsToDrop,
    ExtentsToMove, ExtentsToTag, ShownExtents, TagFilter, TagOperator, TagsAction,
};
pub use parser::{COMMAND_BYTES_MAX, parse, without_secrets};
pub use show::{DatabaseView, PolicyKind, PolicyTarget, Show, TableView};
pub use text::{follower_command, warm_command};
pub use values::{ColumnType, UnknownColumnType, format_timespan, parse_datetime, parse_timespan};
