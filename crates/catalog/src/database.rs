//! A database: its tables, their columns and extents, at one version.

mod functions;
mod record;
mod state;

pub use functions::FunctionState;
pub(crate) use record::DatabaseRecord;
pub use state::{DatabaseState, TableState};
