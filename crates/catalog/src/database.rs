//! A database: its tables, their columns and extents, at one version.

mod record;
mod state;
mod stored;

pub(crate) use record::DatabaseRecord;
pub use state::{DatabaseState, TableState};
pub use stored::{Stored, StoredEntity};
