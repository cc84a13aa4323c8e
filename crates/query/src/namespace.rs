//! Names in SQL: catalog `cluster`, a schema for each database, and the schema `slipstream`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result};
use slipstream_catalog::{DatabaseState, TableState};

use crate::suggestion::did_you_mean;
use crate::system::SystemSchema;
use crate::table::SnapshotTable;
use crate::{DataScope, QueryError, QueryErrorKind, QueryRuntime, external, identity};

/// The one catalog.
pub const CATALOG: &str = "cluster";
/// The schema of the system tables.
pub(crate) const SYSTEM_SCHEMA: &str = "slipstream";
/// DataFusion's own schema about schemas.
const INFORMATION_SCHEMA: &str = "information_schema";
/// What unqualified names are looked up in when the request names no database. No database can
/// have this name, so nothing is found there.
pub(crate) const NO_DATABASE: &str = "";

/// Everything that a session can name.
#[derive(Debug)]
pub(crate) struct Namespace {
    default: Option<String>,
    databases: BTreeMap<String, Arc<DatabaseSchema>>,
    /// Databases as they were, by names that no database can have.
    older: BTreeMap<String, Arc<DatabaseSchema>>,
    system: Arc<SystemSchema>,
}

impl Namespace {
    pub(crate) fn new(
        default: Option<String>,
        databases: &BTreeMap<String, DatabaseState>,
        followed: &BTreeSet<String>,
        system: SystemSchema,
        scope: DataScope,
        runtime: &Arc<QueryRuntime>,
    ) -> Arc<Self> {
        let databases = databases.iter().map(|(name, state)| {
            let schema = DatabaseSchema {
                name: name.as_str().into(),
                state: state.clone(),
                newest: None,
                is_followed: followed.contains(name),
                scope,
                runtime: Arc::clone(runtime),
            };
            (name.clone(), Arc::new(schema))
        });
        Arc::new(Self {
            default,
            databases: databases.collect(),
            older: BTreeMap::new(),
            system: Arc::new(system),
        })
    }

    /// The same, and databases as they were: by the name of a schema, the database and its state.
    pub(crate) fn with_older(&self, older: Vec<(String, String, DatabaseState)>) -> Arc<Self> {
        let older = older.into_iter().filter_map(|(schema, database, state)| {
            let newest = self.databases.get(&database)?;
            Some((schema, Arc::new(newest.at(state))))
        });
        Arc::new(Self {
            default: self.default.clone(),
            databases: self.databases.clone(),
            older: older.collect(),
            system: Arc::clone(&self.system),
        })
    }

    /// The same, with a database as it was in the place of what it is now.
    pub(crate) fn as_of(&self, name: &str, state: DatabaseState) -> Arc<Self> {
        let mut databases = self.databases.clone();
        if let Some(newest) = databases.get(name) {
            let as_it_was = newest.at(state);
            databases.insert(name.to_owned(), Arc::new(as_it_was));
        }
        Arc::new(Self {
            default: self.default.clone(),
            databases,
            older: self.older.clone(),
            system: Arc::clone(&self.system),
        })
    }

    /// A database as it is now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn newest(&self, database: &str) -> Result<&DatabaseState, QueryError> {
        match self.databases.get(database) {
            Some(schema) => Ok(schema.now()),
            None => Err(self.missing_database(database)),
        }
    }

    fn missing_database(&self, name: &str) -> QueryError {
        let hint = did_you_mean(name, self.databases.keys().map(String::as_str));
        let message = format!("there is no database '{name}'{hint}");
        QueryError::new(QueryErrorKind::NotFound, message)
    }

    /// A table with all its rows, for whoever checks a policy.
    pub(crate) fn unsecured(&self, database: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        let table = self.whole(database, table)?;
        Some(Arc::new(table))
    }

    /// The same, for whoever writes its extents anew.
    pub(crate) fn whole(&self, database: &str, table: &str) -> Option<SnapshotTable> {
        let schema = self.databases.get(database)?;
        let table = schema.state.table(table)?;
        Some(schema.snapshot(table, DataScope::All))
    }

    /// A table in a scope of its own, by `table` or `database.table`.
    pub(crate) fn scoped(
        &self,
        name: &str,
        scope: DataScope,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let (database, table) = match name.split_once('.') {
            Some((database, table)) => (Some(database), table),
            None => (self.default.as_deref(), name),
        };
        let schema = database.and_then(|database| self.databases.get(database));
        match schema {
            Some(schema) => schema.provider(table, scope),
            None => Ok(None),
        }
    }

    /// What is wrong with the name of a table, if it is the name that is wrong.
    pub(crate) fn explain_missing(&self, reference: &TableReference) -> Option<QueryError> {
        let not_found = |message| Some(QueryError::new(QueryErrorKind::NotFound, message));
        let table = reference.table();
        if let Some(catalog) = reference.catalog().filter(|catalog| *catalog != CATALOG) {
            return not_found(format!(
                "there is no catalog '{catalog}': write database.table, or {CATALOG}.database.table"
            ));
        }
        let Some(database) = reference.schema().or(self.default.as_deref()) else {
            return not_found(format!(
                "table '{table}' is looked for in no database: name one in the request, or write \
                 database.{table}"
            ));
        };
        if database == INFORMATION_SCHEMA {
            return None;
        }
        let mut place = format!("database '{database}'");
        let tables = match (self.databases.get(database), self.older.get(database)) {
            _ if database == SYSTEM_SCHEMA => self.system.table_names(),
            (Some(schema), _) => schema.table_names(),
            (None, Some(older)) => {
                place = format!(
                    "database '{}' at version {}",
                    older.name,
                    older.state.version()
                );
                older.table_names()
            }
            (None, None) => return Some(self.missing_database(database)),
        };
        if tables.iter().any(|name| name == table) {
            return None;
        }
        let hint = did_you_mean(table, tables.iter().map(String::as_str));
        not_found(format!("there is no table '{table}' in {place}{hint}"))
    }
}

impl CatalogProvider for Namespace {
    fn schema_names(&self) -> Vec<String> {
        let databases = self.databases.keys().cloned();
        databases.chain([SYSTEM_SCHEMA.to_owned()]).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SYSTEM_SCHEMA {
            return Some(Arc::clone(&self.system) as Arc<dyn SchemaProvider>);
        }
        let schema = self.databases.get(name).or_else(|| self.older.get(name))?;
        Some(Arc::clone(schema) as Arc<dyn SchemaProvider>)
    }
}

/// The list that holds the one catalog.
#[derive(Debug)]
pub(crate) struct Catalogs(pub(crate) Arc<Namespace>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::clone(&self.0) as Arc<dyn CatalogProvider>)
    }
}

/// A database at one version.
#[derive(Debug)]
struct DatabaseSchema {
    name: Arc<str>,
    state: DatabaseState,
    /// Of a database as it was, what it is now: that says who may see which rows.
    newest: Option<DatabaseState>,
    /// Whether another node deletes its files.
    is_followed: bool,
    scope: DataScope,
    runtime: Arc<QueryRuntime>,
}

impl DatabaseSchema {
    /// The same as it was.
    fn at(&self, state: DatabaseState) -> Self {
        Self {
            name: Arc::clone(&self.name),
            state,
            newest: Some(self.now().clone()),
            is_followed: self.is_followed,
            scope: self.scope,
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// What it is now.
    fn now(&self) -> &DatabaseState {
        self.newest.as_ref().unwrap_or(&self.state)
    }

    fn snapshot(&self, table: &Arc<TableState>, scope: DataScope) -> SnapshotTable {
        let snapshot = SnapshotTable::new(
            Arc::clone(&self.name),
            self.state.id(),
            Arc::clone(table),
            scope,
            Arc::clone(&self.runtime.scans),
        );
        let version = self.state.version();
        match &self.newest {
            Some(newest) if newest.version() > version => snapshot.may_be_gone(version),
            _ if self.is_followed => snapshot.may_be_gone(version),
            _ => snapshot,
        }
    }

    /// The tables whose policies say who sees which rows. A table as it was is shown to nobody who may
    /// not see it now; one that is gone by its own policy and by that of what was made in its place.
    fn guards<'a>(&'a self, table: &'a Arc<TableState>) -> Vec<&'a Arc<TableState>> {
        let Some(newest) = &self.newest else {
            return vec![table];
        };
        match newest.table_by_id(table.id) {
            Some(same) => vec![same],
            None => std::iter::once(table)
                .chain(newest.table(table.name.as_str()))
                .collect(),
        }
    }

    fn provider(&self, name: &str, scope: DataScope) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(known) = self.state.external_table(name) {
            if self.newest.is_some() {
                return Err(DataFusionError::Plan(format!(
                    "'{name}' is an external table, and what stands elsewhere has no versions"
                )));
            }
            return external::provider(&self.runtime, &known.entity).map(Some);
        }
        let Some(table) = self.state.table(name) else {
            return Ok(None);
        };
        let mut provider: Arc<dyn TableProvider> = Arc::new(self.snapshot(table, scope));
        for guard in self.guards(table) {
            if let Some(policy) = &guard.policies.row_level_security
                && policy.is_enabled
            {
                provider = identity::secured(&self.runtime.base, name, provider, policy)?;
            }
        }
        Ok(Some(provider))
    }
}

#[async_trait]
impl SchemaProvider for DatabaseSchema {
    fn table_names(&self) -> Vec<String> {
        let tables = self.state.tables().map(|table| table.name.to_string());
        let external = self.state.external_tables();
        tables
            .chain(external.map(|known| known.entity.name.to_string()))
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        self.provider(name, self.scope)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.state.table(name).is_some() || self.state.external_table(name).is_some()
    }
}
