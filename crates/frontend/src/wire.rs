//! Between the model's types and the messages that nodes send each other.

use slipstream_model::TableLevelSharing;
use slipstream_proto::sync;

/// Filters as a message.
pub fn sharing_to_proto(sharing: &TableLevelSharing) -> sync::Sharing {
    let sharing = sharing.clone();
    sync::Sharing {
        tables_to_include: sharing.tables_to_include,
        tables_to_exclude: sharing.tables_to_exclude,
        external_tables_to_include: sharing.external_tables_to_include,
        external_tables_to_exclude: sharing.external_tables_to_exclude,
        materialized_views_to_include: sharing.materialized_views_to_include,
        materialized_views_to_exclude: sharing.materialized_views_to_exclude,
        functions_to_include: sharing.functions_to_include,
        functions_to_exclude: sharing.functions_to_exclude,
    }
}

/// Filters of a message; an absent one has none.
pub fn sharing_from_proto(sharing: Option<sync::Sharing>) -> TableLevelSharing {
    let sharing = sharing.unwrap_or_default();
    TableLevelSharing {
        tables_to_include: sharing.tables_to_include,
        tables_to_exclude: sharing.tables_to_exclude,
        external_tables_to_include: sharing.external_tables_to_include,
        external_tables_to_exclude: sharing.external_tables_to_exclude,
        materialized_views_to_include: sharing.materialized_views_to_include,
        materialized_views_to_exclude: sharing.materialized_views_to_exclude,
        functions_to_include: sharing.functions_to_include,
        functions_to_exclude: sharing.functions_to_exclude,
    }
}
