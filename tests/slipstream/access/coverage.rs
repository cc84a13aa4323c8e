//! Every command has a row in the matrix: a new one does not compile here before it has a name, and
//! fails here before it has a row.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use slipstream_kusto::{Command, PolicyEntity, Show, TableView, parse};

use super::call::Call;
use super::operations::{changes, operations, operations_of_a_follower};

/// A name for each case of a type, and all the names there are.
macro_rules! names {
    ($name_of:ident, $all:ident, $type:ty: $($case:pat => $name:literal,)*) => {
        const $all: &[&str] = &[$($name),*];

        fn $name_of(command: &$type) -> &'static str {
            match command {
                $($case => $name,)*
            }
        }
    };
}

names! { name_of, COMMANDS, Command:
    Command::Show(_) => "show",
    Command::Follower { .. } => "follower",
    Command::WhatIf { .. } => "what if",
    Command::Warm { .. } => "warm",
    Command::CreateDatabase { .. } => "create database",
    Command::DropDatabase { .. } => "drop database",
    Command::PutTables { .. } => "create or alter tables",
    Command::DropTables { .. } => "drop tables",
    Command::UndoDropTable { .. } => "undo drop table",
    Command::Pin { .. } => "pin",
    Command::Unpin { .. } => "unpin",
    Command::RenameTable { .. } => "rename table",
    Command::DropColumns { .. } => "drop columns",
    Command::RenameColumn { .. } => "rename column",
    Command::DropExtents { what_if: true, .. } => "drop extents, if",
    Command::DropExtents { what_if: false, .. } => "drop extents",
    Command::MoveExtents { .. } => "move extents",
    Command::ReplaceExtents { .. } => "replace extents",
    Command::AlterExtentTags { .. } => "alter extent tags",
    Command::CollectGarbage { what_if: true, .. } => "collect garbage, if",
    Command::CollectGarbage { what_if: false, .. } => "collect garbage",
    Command::PutFunction(_) => "create or alter function",
    Command::DropFunctions { .. } => "drop functions",
    Command::PutExternalTable(_) => "create or alter external table",
    Command::DropExternalTable { .. } => "drop external table",
    Command::SetCachingPolicy { entity: PolicyEntity::Database(_), .. } => "caching of a database",
    Command::SetCachingPolicy { entity: PolicyEntity::Tables(_), .. } => "caching of tables",
    Command::SetCachingPolicy { entity: PolicyEntity::MaterializedViews(_), .. } =>
        "caching of views",
    Command::DeleteCachingPolicy { .. } => "delete caching",
    Command::SetRetentionPolicy { is_merge: true, .. } => "merge retention",
    Command::SetRetentionPolicy { is_merge: false, .. } => "retention",
    Command::DeleteRetentionPolicy { .. } => "delete retention",
    Command::SetMergePolicy { is_merge: true, .. } => "merge the merge policy",
    Command::SetMergePolicy { is_merge: false, .. } => "merge policy",
    Command::DeleteMergePolicy { .. } => "delete merge policy",
    Command::SetIngestionBatchingPolicy { is_merge: true, .. } => "merge ingestion batching",
    Command::SetIngestionBatchingPolicy { is_merge: false, .. } => "ingestion batching",
    Command::DeleteIngestionBatchingPolicy { .. } => "delete ingestion batching",
    Command::SetStreamingIngestionPolicy { is_merge: true, .. } => "merge streaming ingestion",
    Command::SetStreamingIngestionPolicy { is_merge: false, .. } => "streaming ingestion",
    Command::DeleteStreamingIngestionPolicy { .. } => "delete streaming ingestion",
    Command::SetRowLevelSecurity { .. } => "row-level security",
    Command::DeleteRowLevelSecurity { .. } => "delete row-level security",
    Command::ChangeDatabasePrincipals { .. } => "principals of a database",
    Command::ChangeClusterPrincipals { .. } => "principals of the cluster",
}

names! { name_of_show, SHOWS, Show:
    Show::Version => "version",
    Show::Cluster => "cluster",
    Show::ClusterDetails => "cluster details",
    Show::Cache => "cache",
    Show::Diagnostics => "diagnostics",
    Show::GcBlockers => "garbage collection's blockers",
    Show::Capacity { .. } => "capacity",
    Show::Queries => "queries",
    Show::RunningQueries => "running queries",
    Show::Commands => "commands",
    Show::CommandsAndQueries => "commands and queries",
    Show::Databases { .. } => "databases",
    Show::Database { .. } => "database",
    Show::DatabaseSchema { as_json: true, .. } => "schema as JSON",
    Show::DatabaseSchema { as_json: false, .. } => "schema",
    Show::DatabaseVersions { .. } => "versions",
    Show::DatabasePins { .. } => "pins",
    Show::Tables { .. } => "tables",
    Show::Table { view: TableView::Columns, .. } => "table",
    Show::Table { view: TableView::Details, .. } => "table details",
    Show::Table { view: TableView::SchemaAsJson, .. } => "table schema as JSON",
    Show::Table { view: TableView::CslSchema, .. } => "table schema",
    Show::Extents { .. } => "extents",
    Show::DatabasePrincipals { .. } => "principals",
    Show::ClusterPrincipals => "principals of the cluster",
    Show::Functions => "functions",
    Show::Function { .. } => "function",
    Show::ExternalTables => "external tables",
    Show::ExternalTable { .. } => "external table",
    Show::Policy { effective: true, .. } => "effective policy",
    Show::Policy { effective: false, .. } => "policy",
    Show::FollowerDatabases { .. } => "follower databases",
}

fn check(calls: impl IntoIterator<Item = Call>, but: &[&str]) -> Result<()> {
    let (mut commands, mut shows) = (BTreeSet::new(), BTreeSet::new());
    for call in calls {
        let Call::Command(text) = call else { continue };
        let command = parse(&text.replace("{n}", "1"))?;
        commands.insert(name_of(&command));
        if let Command::Show(show) = &command {
            shows.insert(name_of_show(show));
        }
    }
    let is_missing = |name: &&&str| !commands.contains(**name) && !but.contains(*name);
    let missing: Vec<_> = COMMANDS.iter().filter(is_missing).collect();
    ensure!(missing.is_empty(), "commands without a row: {missing:?}");
    let missing: Vec<_> = SHOWS
        .iter()
        .filter(|name| !shows.contains(**name))
        .collect();
    ensure!(missing.is_empty(), ".show without a row: {missing:?}");
    Ok(())
}

#[test]
fn every_command_has_a_row_of_the_leaders_matrix() -> Result<()> {
    // A follower's own settings and cache are none of a leader's.
    let calls = operations().into_iter().map(|(_, call)| call);
    check(calls, &["follower", "what if", "warm"])
}

#[test]
fn every_command_has_a_row_of_the_followers_matrix() -> Result<()> {
    let own = operations_of_a_follower().into_iter().map(|(_, call)| call);
    // What this version does nowhere is refused before it is known where.
    let nowhere = [
        "rename table",
        "rename column",
        "principals of the cluster",
        "caching of views",
    ];
    check(own.chain(changes()), &nowhere)
}
