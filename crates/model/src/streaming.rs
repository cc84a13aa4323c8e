//! Whether rows may be streamed in (*Streaming ingestion policy*, Kusto documentation).

use serde::{Deserialize, Serialize};

/// Whether small ingests may put their rows into the commit itself, and are moved into extents later.
///
/// The JSON is Kusto's, without its hint of how many rows will come: nothing is allocated for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct StreamingIngestionPolicy {
    /// Whether they may.
    pub is_enabled: bool,
}

impl StreamingIngestionPolicy {
    /// The policy that holds for a table: its own, else the database's, else that they may not.
    pub fn effective(table: Option<Self>, database: Option<Self>) -> Self {
        table.or(database).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_s_own_policy_counts_and_without_any_nothing_is_streamed() {
        let of = |is_enabled| Some(StreamingIngestionPolicy { is_enabled });
        let effective =
            |table, database| StreamingIngestionPolicy::effective(table, database).is_enabled;
        assert!(effective(of(true), of(false)));
        assert!(!effective(of(false), of(true)));
        assert!(effective(None, of(true)));
        assert!(!effective(None, None));
    }
}
