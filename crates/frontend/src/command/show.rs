//! `.show`: what there is.

mod databases;
mod entities;
mod extents;
mod garbage;
mod node;
mod policies;
mod principals;
mod queries;
mod tables;
mod versions;

use std::sync::Arc;

use slipstream_catalog::{DatabaseState, TableState};
use slipstream_kusto::{Show, TableView};
use slipstream_model::{DatabaseAccessMode, EffectiveCaching, LeaderCaching, Overrides};

use super::Context;
use super::rows::Rows;
use crate::{DatabaseDescription, ErrorKind, Permission, ServiceError};

pub(super) use entities::{external_tables, functions};
pub(super) use extents::{ROWS_MAX, each_extent};
pub(super) use garbage::collected;
pub(super) use node::{cache_of, caching_preview};
pub(super) use policies::follower_databases;
pub(super) use principals::database_principals;
pub(super) use tables::table_schemas;
pub(super) use versions::{pins, recovered};

pub(super) async fn run(context: &Context<'_>, show: Show) -> Result<Rows, ServiceError> {
    match show {
        Show::Version => Ok(node::version()),
        Show::Cluster | Show::ClusterDetails => Ok(node::cluster(context)),
        Show::Cache => node::cache(context),
        Show::Diagnostics => node::diagnostics(context),
        Show::GcBlockers => garbage::blockers(context).await,
        Show::Capacity { resource } => node::capacity(context, resource.as_deref()).await,
        Show::Queries => queries::queries(context, false).await,
        Show::RunningQueries => queries::queries(context, true).await,
        Show::Commands => Ok(queries::commands(context)),
        Show::CommandsAndQueries => queries::commands_and_queries(context).await,
        Show::Databases { names, view } => databases::databases(context, &names, view),
        Show::Database { name, view } => {
            let name = context.database_or(name.as_deref())?.to_owned();
            databases::databases(context, &[name], view)
        }
        Show::DatabaseSchema { name, as_json } => {
            let name = context.database_or(name.as_deref())?;
            databases::schema(context, name, as_json)
        }
        Show::DatabaseVersions { name } => {
            let name = context.database_or(name.as_deref())?;
            versions::versions(context, name).await
        }
        Show::DatabasePins { name } => {
            let name = context.database_or(name.as_deref())?;
            versions::pins(context, name)
        }
        Show::Tables { names, details } => tables::tables(context, &names, details),
        Show::Table { name, view } => match view {
            TableView::Columns => tables::columns(context, &name),
            TableView::Details => tables::tables(context, &[name], true),
            TableView::SchemaAsJson => tables::table_schema(context, &name, true),
            TableView::CslSchema => tables::table_schema(context, &name, false),
        },
        Show::Extents(shown) => extents::extents(context, &shown),
        Show::DatabasePrincipals { database, role } => {
            let name = context.database_or(database.as_deref())?;
            principals::database_principals(context, name, role)
        }
        Show::ClusterPrincipals => principals::cluster_principals(context),
        Show::Functions => entities::functions(context, None),
        Show::Function { name } => entities::functions(context, Some(&name)),
        Show::ExternalTables => entities::external_tables(context, None),
        Show::ExternalTable { name } => entities::external_tables(context, Some(&name)),
        Show::Policy {
            entity,
            policy,
            effective: false,
        } => policies::policy(context, &entity, policy),
        Show::Policy {
            entity,
            policy,
            effective: true,
        } => policies::effective(context, &entity, policy),
        Show::FollowerDatabases { names } => policies::follower_databases(context, &names),
    }
}

/// A database at one version, and what this node makes of it.
struct Database {
    description: DatabaseDescription,
    /// `None` before the first synchronisation.
    state: Option<DatabaseState>,
    /// This node's own settings; `None` for a database that it owns.
    overrides: Option<Overrides>,
}

impl Database {
    fn is_followed(&self) -> bool {
        self.description.access_mode == DatabaseAccessMode::ReadOnlyFollowing
    }

    fn tables(&self) -> impl Iterator<Item = &Arc<TableState>> {
        self.state.iter().flat_map(DatabaseState::tables)
    }

    /// The caching policy that holds for a table here.
    fn caching(&self, table: &TableState) -> EffectiveCaching {
        let leader = LeaderCaching {
            database: self.state.as_ref().and_then(DatabaseState::caching_policy),
            table: table.policies.caching.as_ref(),
        };
        match &self.overrides {
            Some(overrides) => {
                EffectiveCaching::of_follower(leader, overrides, table.name.as_str())
            }
            None => EffectiveCaching::of_leader(leader),
        }
    }

    /// The database's caching policy here, for tables that have none.
    fn default_caching(&self) -> EffectiveCaching {
        let leader = LeaderCaching {
            database: self.state.as_ref().and_then(DatabaseState::caching_policy),
            table: None,
        };
        match &self.overrides {
            // No table has this name.
            Some(overrides) => EffectiveCaching::of_follower(leader, overrides, ""),
            None => EffectiveCaching::of_leader(leader),
        }
    }

    /// Kusto's versions have two numbers; the second counts what is not in the first. Here
    /// everything is.
    fn version(&self) -> String {
        let version = self.state.as_ref().map_or(0, |state| state.version().get());
        format!("v{version}.0")
    }
}

impl Context<'_> {
    /// The databases whose metadata the caller may see, by name.
    fn visible_databases(&self) -> Vec<Database> {
        let mut states = self.engine.states();
        let all = self.engine.databases().into_iter();
        let visible = all.filter(|known| self.access.may(&known.name, Permission::ViewMetadata));
        let overrides = self.engine.overrides();
        let mut databases: Vec<_> = visible
            .map(|description| Database {
                state: states.remove(&description.name),
                overrides: overrides
                    .iter()
                    .find(|known| known.database == description.name)
                    .map(|known| known.overrides.clone()),
                description,
            })
            .collect();
        databases.sort_by(|a, b| a.description.name.cmp(&b.description.name));
        databases
    }

    /// One of them.
    fn visible_database(&self, name: &str) -> Result<Database, ServiceError> {
        self.access.check(name, Permission::ViewMetadata)?;
        let all = self.visible_databases().into_iter();
        let found = all.into_iter().find(|known| known.description.name == name);
        found.ok_or_else(|| self.engine.no_database(name))
    }

    /// The database that the command was sent to.
    fn own_database(&self) -> Result<Database, ServiceError> {
        self.visible_database(self.database_or(None)?)
    }
}

fn no_table(database: &str, table: &str) -> ServiceError {
    ServiceError::new(
        ErrorKind::NotFound,
        "table_not_found",
        format!("there is no table '{table}' in database '{database}'"),
    )
}
