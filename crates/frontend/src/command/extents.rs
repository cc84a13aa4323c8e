//! Extents leave, move and get other tags: *.drop extents*, *.move extents*, *.replace extents*,
//! *.alter extent tags*.
//!
//! Which extents are meant is found out here, in a state that other commits may have left behind
//! by the time the change is committed. Then it is refused, as an extent that was found is not
//! there any more; where extents were not named one by one they are looked for again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use slipstream_catalog::{DatabaseOp, TagsChange};
use slipstream_kusto::{
    CreatedOnWindow, ExtentQuery, ExtentScope, ExtentSize, ExtentTrim, ExtentsToDrop,
    ExtentsToMove, ExtentsToTag, ShownExtents, TagsAction,
};
use slipstream_model::{ExtentId, TableId, TableName, Timestamp};
use slipstream_query::QuerySession;
use uuid::Uuid;

use super::Context;
use super::rows::{Cell, Kind, Rows};
use super::show::{ROWS_MAX, each_extent};
use crate::{ErrorKind, Permission, ServiceError, SqlRequest};

use Kind::{Text, Time};

/// How often extents are looked for while others keep changing them. Merging, which does so most,
/// leaves a table alone for seconds in between.
const ATTEMPTS_MAX: u32 = 5;
/// What a commit is refused with when an extent is not where it was.
const EXTENTS_CHANGED: &str = "extents_changed";

/// *.drop extents*. `CreatedOn` is what `older` looks at: when the newest row was taken in.
const DROPPED: &[(&str, Kind)] = &[("ExtentId", Text), ("TableName", Text), ("CreatedOn", Time)];

/// *.move extents*, *.replace extents*. An extent keeps its id, so both are the same here.
const MOVED: &[(&str, Kind)] = &[
    ("OriginalExtentId", Text),
    ("ResultExtentId", Text),
    ("Details", Text),
];

/// *.alter extent tags* and its like. An extent keeps its id here too.
const TAGGED: &[(&str, Kind)] = &[
    ("OriginalExtentId", Text),
    ("ResultExtentId", Text),
    ("ResultExtentTags", Text),
    ("Details", Text),
];

/// An extent that a command is about.
#[derive(Debug)]
struct Found {
    id: ExtentId,
    table: TableId,
    table_name: TableName,
    created_on: Timestamp,
    size_bytes: u64,
    original_bytes: u64,
    tags: BTreeSet<String>,
}

/// A command about extents.
pub(super) enum ExtentChange {
    Drop(ExtentsToDrop),
    Move {
        extents: ExtentsToMove,
        to: String,
        window: CreatedOnWindow,
    },
    Replace {
        table: String,
        drop: ExtentQuery,
        add: ExtentQuery,
        window: CreatedOnWindow,
    },
    Tag {
        extents: ExtentsToTag,
        change: TagsChange,
        window: CreatedOnWindow,
    },
}

impl ExtentChange {
    /// Whether the extents are named one by one: then no others will do.
    fn is_by_id(&self) -> bool {
        matches!(
            self,
            Self::Drop(ExtentsToDrop::Ids { .. })
                | Self::Move {
                    extents: ExtentsToMove::Ids { .. },
                    ..
                }
        )
    }
}

/// What a command does, and what it answers.
struct Planned {
    ops: Vec<DatabaseOp>,
    rows: Rows,
}

impl Context<'_> {
    /// Does what a command says of extents, in one commit; or only says what that would be.
    pub(super) async fn change_extents(
        &self,
        change: ExtentChange,
        what_if: bool,
    ) -> Result<Rows, ServiceError> {
        let database = self.database_or(None)?;
        self.access.check(database, Permission::Administer)?;
        if self.engine.follows(database) {
            // The node refuses, whatever it is.
            return self.commit(std::iter::empty()).await;
        }
        let mut attempt = 1;
        loop {
            let Planned { ops, rows } = self.plan(&change).await?;
            if what_if {
                let state = self.engine.state(database)?;
                state.preview(&ops).map_err(|error| {
                    ServiceError::new(ErrorKind::Conflict, "would_be_refused", error.to_string())
                })?;
                return Ok(rows);
            }
            let may_retry = !change.is_by_id() && attempt < ATTEMPTS_MAX;
            match self.commit(ops.into_iter().map(Ok)).await {
                Ok(_) => return Ok(rows),
                Err(error) if may_retry && error.code() == EXTENTS_CHANGED => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn plan(&self, change: &ExtentChange) -> Result<Planned, ServiceError> {
        match change {
            ExtentChange::Drop(extents) => {
                let found = self.to_drop(extents).await?;
                check_count(&found)?;
                let rows = found.iter().map(|extent| {
                    vec![
                        extent.id.to_string().into(),
                        extent.table_name.as_str().into(),
                        extent.created_on.into(),
                    ]
                });
                Ok(Planned {
                    ops: removals(&found),
                    rows: Rows::new(DROPPED).with(rows),
                })
            }
            ExtentChange::Move {
                extents,
                to,
                window,
            } => {
                let to = self.table_id(to)?;
                let mut found = self.to_move(extents).await?;
                found.retain(|extent| window.contains(extent.created_on));
                check_count(&found)?;
                Ok(Planned {
                    ops: movements(&found, to)?,
                    rows: Rows::new(MOVED).with(found.iter().map(moved)),
                })
            }
            ExtentChange::Replace {
                table,
                drop,
                add,
                window,
            } => {
                let (mut dropped, mut added) = (self.ask(drop).await?, self.ask(add).await?);
                dropped.retain(|extent| window.contains(extent.created_on));
                added.retain(|extent| window.contains(extent.created_on));
                check_count(&dropped)?;
                check_count(&added)?;
                replacement(table, self.table_id(table)?, &dropped, &added)
            }
            ExtentChange::Tag {
                extents,
                change,
                window,
            } => {
                let mut found = self.to_tag(extents).await?;
                found.retain(|extent| window.contains(extent.created_on));
                check_count(&found)?;
                Ok(tagged(&found, change))
            }
        }
    }

    async fn to_tag(&self, extents: &ExtentsToTag) -> Result<Vec<Found>, ServiceError> {
        match extents {
            ExtentsToTag::Table(table) => self.find(&of_tables(std::slice::from_ref(table))),
            ExtentsToTag::Query { table: None, query } => self.ask(query).await,
            ExtentsToTag::Query {
                table: Some(table),
                query,
            } => {
                let (id, found) = (self.table_id(table)?, self.ask(query).await?);
                if let Some(stranger) = found.iter().find(|extent| extent.table != id) {
                    return Err(ServiceError::invalid(format!(
                        "extent {} is in table '{}', and the command is about table '{table}'",
                        stranger.id, stranger.table_name
                    )));
                }
                Ok(found)
            }
        }
    }

    async fn to_move(&self, extents: &ExtentsToMove) -> Result<Vec<Found>, ServiceError> {
        match extents {
            ExtentsToMove::All { table } => self.find(&of_tables(std::slice::from_ref(table))),
            ExtentsToMove::Ids { table, ids } => self.find(&ShownExtents {
                ids: ids.clone(),
                ..of_tables(std::slice::from_ref(table))
            }),
            ExtentsToMove::Query(query) => self.ask(query).await,
        }
    }

    async fn to_drop(&self, extents: &ExtentsToDrop) -> Result<Vec<Found>, ServiceError> {
        match extents {
            ExtentsToDrop::Ids { ids, table } => {
                let of = match table {
                    Some(table) => of_tables(std::slice::from_ref(table)),
                    None => of_tables(&[]),
                };
                self.find(&ShownExtents {
                    ids: ids.clone(),
                    ..of
                })
            }
            ExtentsToDrop::Of {
                tables,
                older_than,
                trim,
                limit,
            } => {
                let mut found = self.find(&of_tables(tables))?;
                found.sort_unstable_by_key(|extent| (extent.created_on, extent.id));
                let total = trim.map_or(0, |trim| size(&found, trim));
                let now = self.engine.clock().now();
                if let Some(age) = older_than {
                    found.retain(|extent| now.since(extent.created_on) > *age);
                }
                if let Some(trim) = *trim {
                    let too_much = total.saturating_sub(trim.bytes);
                    found.truncate(first(&found, trim, too_much));
                }
                if let Some(limit) = limit {
                    found.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                }
                Ok(found)
            }
            ExtentsToDrop::Query(query) => self.ask(query).await,
        }
    }

    /// The extents that a query gives.
    async fn ask(&self, query: &ExtentQuery) -> Result<Vec<Found>, ServiceError> {
        match query {
            ExtentQuery::Show(shown) => self.find(shown),
            ExtentQuery::Sql(sql) => {
                let ids = self.ids_of(sql).await?;
                if ids.is_empty() {
                    return Ok(Vec::new());
                }
                self.find(&ShownExtents {
                    ids,
                    ..of_tables(&[])
                })
            }
        }
    }

    /// The extents that are meant. Those that are named one by one must all be there.
    fn find(&self, shown: &ShownExtents) -> Result<Vec<Found>, ServiceError> {
        let own = self.database_or(None)?;
        let mut found = Vec::new();
        let mut stranger = None;
        each_extent(self, shown, |database, table, block, slot| {
            let id = block.id(slot);
            if database.name != own && stranger.is_none() {
                stranger = Some((id, database.name.clone()));
            }
            found.push(Found {
                id,
                table: table.id,
                table_name: table.name.clone(),
                created_on: block.max_created_on(slot),
                size_bytes: block.size_bytes(slot),
                original_bytes: block.original_bytes(slot),
                tags: block.tags(slot),
            });
            Ok(())
        })?;
        if let Some((id, database)) = stranger {
            return Err(ServiceError::invalid(format!(
                "extent {id} is in database '{database}', and the command was sent to '{own}'"
            )));
        }
        let known: HashSet<Uuid> = found.iter().map(|extent| extent.id.as_uuid()).collect();
        if shown.filters.is_empty()
            && !shown.hot
            && let Some(missing) = shown.ids.iter().find(|id| !known.contains(*id))
        {
            let place = match &shown.scope {
                ExtentScope::Tables(tables) => format!("table '{}'", tables.join("', '")),
                _ => format!("database '{own}'"),
            };
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "extent_not_found",
                format!("there is no extent {missing} in {place}"),
            ));
        }
        Ok(found)
    }

    /// The ids that a query's rows have.
    async fn ids_of(&self, sql: &str) -> Result<Vec<Uuid>, ServiceError> {
        let statements = QuerySession::parse(sql)?;
        if statements.len() != 1 || statements.iter().any(QuerySession::is_write) {
            return Err(ServiceError::invalid(
                "behind <| stands one query, which changes nothing",
            ));
        }
        let request = SqlRequest {
            sql: sql.to_owned(),
            database: self.database.map(str::to_owned),
            client: self.request.client.clone(),
            timeout: self.request.timeout,
            ..SqlRequest::default()
        };
        let mut rows = self.engine.execute_sql(request).await?.rows;
        let mut ids = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            read_ids(&batch, &mut ids)?;
            if ids.len() > ROWS_MAX {
                return Err(ServiceError::invalid(format!(
                    "the query gives more than {ROWS_MAX} extents: take them in several steps"
                )));
            }
        }
        Ok(ids)
    }

    fn table_id(&self, name: &str) -> Result<TableId, ServiceError> {
        let database = self.database_or(None)?;
        let state = self.engine.state(database)?;
        let table = state.table(name).map(|table| table.id);
        table.ok_or_else(|| {
            ServiceError::new(
                ErrorKind::NotFound,
                "table_not_found",
                format!("there is no table '{name}' in database '{database}'"),
            )
        })
    }
}

/// One commit takes so many extents, and one answer shows them.
fn check_count(found: &[Found]) -> Result<(), ServiceError> {
    if found.len() <= ROWS_MAX {
        return Ok(());
    }
    Err(ServiceError::invalid(format!(
        "this is about {} extents, and a command is about {ROWS_MAX} at most: take them in several \
         steps, by age, window, or `<| SELECT extent_id FROM slipstream.extents ... LIMIT {ROWS_MAX}`",
        found.len()
    )))
}

/// All extents of some tables of the command's database; of no table: of the whole database.
fn of_tables(tables: &[String]) -> ShownExtents {
    let scope = if tables.is_empty() {
        ExtentScope::Database(None)
    } else {
        ExtentScope::Tables(tables.to_vec())
    };
    ShownExtents {
        scope,
        ids: Vec::new(),
        hot: false,
        filters: Vec::new(),
    }
}

/// The size of some extents, by what is counted.
fn size(extents: &[Found], trim: ExtentTrim) -> u64 {
    extents.iter().map(|extent| size_of(extent, trim)).sum()
}

fn size_of(extent: &Found, trim: ExtentTrim) -> u64 {
    match trim.by {
        ExtentSize::Extent => extent.size_bytes,
        ExtentSize::Data => extent.original_bytes,
    }
}

/// How many of the first extents have this size together.
fn first(extents: &[Found], trim: ExtentTrim, bytes: u64) -> usize {
    let mut before = 0;
    let needed = extents.iter().take_while(|extent| {
        let is_needed = before < bytes;
        before += size_of(extent, trim);
        is_needed
    });
    needed.count()
}

fn by_table(extents: &[Found]) -> BTreeMap<TableId, Vec<ExtentId>> {
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    for extent in extents {
        tables.entry(extent.table).or_default().push(extent.id);
    }
    tables
}

fn removals(extents: &[Found]) -> Vec<DatabaseOp> {
    let tables = by_table(extents).into_iter();
    tables
        .map(|(table, extents)| DatabaseOp::RemoveExtents { table, extents })
        .collect()
}

fn movements(extents: &[Found], to: TableId) -> Result<Vec<DatabaseOp>, ServiceError> {
    if let Some(extent) = extents.iter().find(|extent| extent.table == to) {
        return Err(ServiceError::invalid(format!(
            "extent {} is in table '{}' already",
            extent.id, extent.table_name
        )));
    }
    let tables = by_table(extents).into_iter();
    let moved = tables.map(|(from, extents)| DatabaseOp::MoveExtents { from, to, extents });
    Ok(moved.collect())
}

/// Some extents of a table leave, and some of others come instead.
fn replacement(
    name: &str,
    table: TableId,
    dropped: &[Found],
    added: &[Found],
) -> Result<Planned, ServiceError> {
    if let Some(stranger) = dropped.iter().find(|extent| extent.table != table) {
        return Err(ServiceError::invalid(format!(
            "extent {} is in table '{}', and only extents of table '{name}' can be replaced there",
            stranger.id, stranger.table_name
        )));
    }
    let mut ops = removals(dropped);
    ops.extend(movements(added, table)?);
    let gone = dropped
        .iter()
        .map(|extent| vec![extent.id.to_string().into(), "".into(), "".into()]);
    let rows = added.iter().map(moved).chain(gone);
    Ok(Planned {
        ops,
        rows: Rows::new(MOVED).with(rows),
    })
}

fn tagged(extents: &[Found], change: &TagsChange) -> Planned {
    let tables = by_table(extents).into_iter();
    let ops = tables.map(|(table, extents)| DatabaseOp::AlterExtentTags {
        table,
        extents,
        change: change.clone(),
    });
    let rows = extents.iter().map(|extent| {
        let id = extent.id.to_string();
        let tags: Vec<String> = change.of(&extent.tags).into_iter().collect();
        vec![
            id.clone().into(),
            id.into(),
            tags.join("\r\n").into(),
            "".into(),
        ]
    });
    Planned {
        ops: ops.collect(),
        rows: Rows::new(TAGGED).with(rows),
    }
}

/// What a command does to tags. To drop none by name is to drop all.
pub(super) fn tags_change(action: TagsAction, tags: Vec<String>) -> TagsChange {
    let tags: BTreeSet<String> = tags.into_iter().collect();
    match action {
        TagsAction::Set => TagsChange::Set(tags),
        TagsAction::Add => TagsChange::Add(tags),
        TagsAction::Drop if tags.is_empty() => TagsChange::Clear,
        TagsAction::Drop => TagsChange::Drop(tags),
    }
}

fn moved(extent: &Found) -> Vec<Cell> {
    let id = extent.id.to_string();
    vec![id.clone().into(), id.into(), "".into()]
}

/// The ids in the column that is called so, or in the only one.
fn read_ids(batch: &RecordBatch, ids: &mut Vec<Uuid>) -> Result<(), ServiceError> {
    let schema = batch.schema();
    let mut names = ["extent_id", "ExtentId"].iter();
    let named = names.find_map(|name| schema.index_of(name).ok());
    let position = match (named, batch.num_columns()) {
        (Some(position), _) => position,
        (None, 1) => 0,
        (None, _) => {
            return Err(ServiceError::invalid(
                "the query gives no column 'extent_id', and more than one column",
            ));
        }
    };
    let texts = cast(batch.column(position), &DataType::Utf8)
        .map_err(|error| ServiceError::invalid(format!("no ids of extents: {error}")))?;
    for text in texts.as_string::<i32>().iter().flatten() {
        let id: Uuid = text
            .parse()
            .map_err(|_| ServiceError::invalid(format!("'{text}' is no extent's id")))?;
        ids.push(id);
    }
    Ok(())
}
