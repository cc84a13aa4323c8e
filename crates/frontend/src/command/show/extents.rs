//! Extents: *.show extents* (`show-extents-output-schema.md`).

use std::collections::{BTreeSet, HashSet};

use slipstream_catalog::{ExtentBlock, TableState};
use slipstream_kusto::{ExtentScope, ShownExtents, TagFilter, TagOperator};
use slipstream_model::Extent;
use uuid::Uuid;

use super::{Database, no_table};
use crate::command::Context;
use crate::command::rows::{Cell, Kind, Rows};
use crate::{DatabaseDescription, ServiceError};

use Kind::{Guid, Long, Real, Text, Time};

/// Rows of one answer, which stands in memory, and extents of one command. `slipstream.extents` has
/// no such limit.
pub(in crate::command) const ROWS_MAX: usize = 100_000;

const EXTENTS: &[(&str, Kind)] = &[
    ("ExtentId", Guid),
    ("DatabaseName", Text),
    ("TableName", Text),
    ("MaxCreatedOn", Time),
    ("OriginalSize", Real),
    ("ExtentSize", Real),
    ("CompressedSize", Real),
    ("IndexSize", Real),
    ("Blocks", Long),
    ("Segments", Long),
    ("ReservedSlot1", Text),
    ("ReservedSlot2", Text),
    ("ExtentContainerId", Text),
    ("RowCount", Long),
    ("MinCreatedOn", Time),
    ("Tags", Text),
    ("Kind", Text),
    ("ReservedSlot3", Text),
    ("DeletedRowCount", Long),
];

pub(super) fn extents(context: &Context<'_>, shown: &ShownExtents) -> Result<Rows, ServiceError> {
    let mut rows = Rows::new(EXTENTS);
    let mut count = 0;
    each_extent(context, shown, |database, table, block, slot| {
        count += 1;
        if count > ROWS_MAX {
            return Err(ServiceError::invalid(format!(
                "there are more than {ROWS_MAX} such extents: ask for one table, or use SQL over \
                 slipstream.extents"
            )));
        }
        rows.push(row(database, table, &block.extent(slot)));
        Ok(())
    })?;
    Ok(rows)
}

/// Takes each extent that is asked for, by its place in a block of its table.
///
/// # Errors
/// When there is no such database or table, or when it is not taken.
pub(in crate::command) fn each_extent(
    context: &Context<'_>,
    shown: &ShownExtents,
    mut take: impl FnMut(
        &DatabaseDescription,
        &TableState,
        &ExtentBlock,
        usize,
    ) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let (databases, tables): (Vec<Database>, &[String]) = match &shown.scope {
        ExtentScope::Cluster => (context.visible_databases(), &[]),
        ExtentScope::Database(name) => {
            let name = context.database_or(name.as_deref())?;
            (vec![context.visible_database(name)?], &[])
        }
        ExtentScope::Tables(names) => (vec![context.own_database()?], names),
    };
    let ids: HashSet<Uuid> = shown.ids.iter().copied().collect();
    for database in &databases {
        for name in tables {
            if !database.tables().any(|table| table.name.as_str() == name) {
                return Err(no_table(&database.description.name, name));
            }
        }
        let now = database.state.as_ref().map(|state| state.committed_at());
        let now = now.unwrap_or_default();
        for table in database.tables() {
            if !tables.is_empty() && !tables.iter().any(|name| name == table.name.as_str()) {
                continue;
            }
            let caching = shown.hot.then(|| database.caching(table));
            for block in table.extents.blocks() {
                for slot in block.live_slots() {
                    let is_wanted = (ids.is_empty() || ids.contains(&block.id(slot).as_uuid()))
                        && caching
                            .as_ref()
                            .is_none_or(|caching| caching.is_hot(block.max_created_on(slot), now))
                        && shown
                            .filters
                            .iter()
                            .all(|filter| passes(&block.tags(slot), filter));
                    if !is_wanted {
                        continue;
                    }
                    take(&database.description, table, &block, slot)?;
                }
            }
        }
    }
    Ok(())
}

fn passes(tags: &BTreeSet<String>, filter: &TagFilter) -> bool {
    let has = || tags.contains(&filter.tag);
    let contains = || {
        let wanted = filter.tag.to_lowercase();
        let mut tags = tags.iter();
        tags.any(|tag| tag.to_lowercase().contains(&wanted))
    };
    match filter.op {
        TagOperator::Has => has(),
        TagOperator::HasNot => !has(),
        TagOperator::Contains => contains(),
        TagOperator::ContainsNot => !contains(),
    }
}

fn row(database: &DatabaseDescription, table: &TableState, extent: &Extent) -> Vec<Cell> {
    let tags: Vec<&str> = extent.tags.iter().map(String::as_str).collect();
    vec![
        extent.id.to_string().into(),
        database.name.as_str().into(),
        table.name.as_str().into(),
        extent.max_created_on.into(),
        Cell::Real(extent.original_bytes as f64),
        Cell::Real(extent.size_bytes as f64),
        Cell::Real(extent.size_bytes as f64),
        Cell::Real(f64::from(extent.footer_bytes)),
        Cell::Long(1),
        Cell::Long(1),
        Cell::Null,
        Cell::Null,
        format!("databases/{}/extents", database.database_id).into(),
        extent.row_count.into(),
        extent.min_created_on.into(),
        // As Kusto shows them: one below the other.
        tags.join("\r\n").into(),
        "Parquet".into(),
        Cell::Null,
        Cell::Long(0),
    ]
}
