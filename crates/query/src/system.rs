//! The schema `slipstream`: what a node knows of itself, as tables.

mod columns;
mod provider;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use slipstream_catalog::DatabaseState;

use crate::ClusterView;
use crate::log::QueryLog;

/// The system tables of one session. Rows are made when a query reads them, a thousand at a time.
#[derive(Clone)]
pub(crate) struct SystemSchema {
    databases: Arc<BTreeMap<String, DatabaseState>>,
    cluster: Arc<dyn ClusterView>,
    log: Arc<QueryLog>,
}

impl SystemSchema {
    pub(crate) fn new(
        databases: BTreeMap<String, DatabaseState>,
        cluster: Arc<dyn ClusterView>,
        log: Arc<QueryLog>,
    ) -> Self {
        Self {
            databases: Arc::new(databases),
            cluster,
            log,
        }
    }

    fn provider(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let (databases, cluster) = (Arc::clone(&self.databases), Arc::clone(&self.cluster));
        Some(match name {
            "databases" => tables::databases(cluster),
            "tables" => tables::tables(databases),
            "extents" => tables::extents(databases),
            "followers" => tables::followers(cluster),
            "leases" => tables::leases(cluster),
            "queries" => tables::queries(Arc::clone(&self.log), cluster),
            _ => return None,
        })
    }
}

impl fmt::Debug for SystemSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemSchema")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        [
            "databases",
            "extents",
            "followers",
            "leases",
            "queries",
            "tables",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.provider(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.provider(name).is_some()
    }
}
