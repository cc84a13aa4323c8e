//! `Microsoft.Kusto/clusters/databases`: those of this cluster, and those it follows.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use slipstream_catalog::{DatabaseOp, DatabaseState};
use slipstream_model::{CachingPolicy, DatabaseAccessMode, OverrideChange, RetentionPolicy};

use super::path::Scope;
use super::resource::{self, Policies};
use super::{Answer, Request, duration, ok};
use crate::{
    ClusterPermission, DatabaseChange, DatabaseDescription, ErrorKind, FollowerDatabase,
    ServiceError, SqlRequest,
};

/// Whether what a body leaves out is reset, or stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
}

#[derive(Debug, Deserialize)]
struct PutDatabase {
    kind: Option<String>,
    #[serde(default)]
    properties: DatabaseProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DatabaseProperties {
    hot_cache_period: Option<String>,
    soft_delete_period: Option<String>,
}

/// What the node knows of its databases' policies, looked up once for a request.
struct Known {
    states: BTreeMap<String, DatabaseState>,
    overrides: Vec<FollowerDatabase>,
}

impl Known {
    fn policies(&self, database: &str) -> Policies {
        let overrides = self.overrides.iter();
        let own = overrides
            .map(|own| (own.database.as_str(), &own.overrides))
            .find(|(name, _)| *name == database);
        Policies::of(
            self.states.get(database),
            own.map(|(_, overrides)| overrides),
        )
    }
}

impl Request {
    fn known(&self) -> Known {
        Known {
            states: self.engine.states(),
            overrides: self.engine.overrides(),
        }
    }

    pub(super) fn databases(&self, scope: &Scope) -> Value {
        let location = &self.engine.identity().location;
        let known = self.known();
        let all = self.engine.databases();
        let all = all.iter().map(|database| {
            let policies = known.policies(&database.name);
            resource::database(database, &policies, scope, location)
        });
        json!({"value": all.collect::<Vec<_>>()})
    }

    fn find(&self, name: &str) -> Option<DatabaseDescription> {
        let all = self.engine.databases().into_iter();
        all.into_iter().find(|known| known.name == name)
    }

    pub(super) fn database(&self, scope: &Scope, name: &str) -> Answer {
        let database = self.find(name).ok_or_else(|| no_database(name))?;
        let location = &self.engine.identity().location;
        let policies = self.known().policies(name);
        Ok(ok(resource::database(
            &database, &policies, scope, location,
        )))
    }

    pub(super) async fn put_database(&self, scope: &Scope, name: &str, write: Write) -> Answer {
        let body: PutDatabase = self.read("database")?;
        let properties = body.properties;
        let mode = self.find(name).map(|known| known.access_mode);
        match (body.kind.as_deref(), mode) {
            (_, Some(DatabaseAccessMode::ReadOnlyFollowing)) => {
                self.override_database(name, &properties, write).await?;
            }
            (Some("ReadOnlyFollowing"), _) => {
                return Err(ServiceError::invalid(format!(
                    "database '{name}' is not followed here: attach it with an attached database \
                     configuration"
                ))
                .into());
            }
            (_, Some(DatabaseAccessMode::ReadWrite)) => {
                self.change_database(name, &properties).await?;
            }
            (_, None) => {
                // Also what is hidden from the caller comes to this.
                let caller = self.engine.caller();
                caller.check(ClusterPermission::ManageDatabases)?;
                // Read before anything is created: a period that is none creates nothing.
                policies_of(&properties)?;
                self.run(format!("CREATE DATABASE {}", quoted(name)))
                    .await?;
                self.change_database(name, &properties).await?;
            }
        }
        self.database(scope, name)
    }

    /// Sets this cluster's own policy for a followed database. Of all properties that is the only
    /// one that can be written; the leader's retention is sent back by clients that read it.
    async fn override_database(
        &self,
        name: &str,
        properties: &DatabaseProperties,
        write: Write,
    ) -> Result<(), ServiceError> {
        let entities = Vec::new();
        let change = match (&properties.hot_cache_period, write) {
            (Some(period), _) => {
                let policy = CachingPolicy::hot(duration::parse(period)?);
                OverrideChange::SetCaching { entities, policy }
            }
            (None, Write::Put) => OverrideChange::DeleteCaching { entities },
            (None, Write::Patch) => return Ok(()),
        };
        self.engine.override_settings(name, change).await
    }

    /// Sets the periods that a body names. One that it leaves out stays, by `PUT` too: most bodies
    /// that put a database name none of them, and data would be dropped by default.
    async fn change_database(
        &self,
        name: &str,
        properties: &DatabaseProperties,
    ) -> Result<(), ServiceError> {
        let (caching, retention) = policies_of(properties)?;
        let mut ops = Vec::new();
        if let Some(policy) = caching {
            let (table, policy) = (None, Some(policy));
            ops.push(DatabaseOp::SetCachingPolicy { table, policy });
        }
        if let Some(soft_delete_period) = retention {
            let state = self.engine.state(name)?;
            let known = state.retention_policy().unwrap_or_default();
            let policy = Some(RetentionPolicy {
                soft_delete_period,
                ..known
            });
            let table = None;
            ops.push(DatabaseOp::SetRetentionPolicy { table, policy });
        }
        if ops.is_empty() {
            return Ok(());
        }
        let change = DatabaseChange {
            database: name.to_owned(),
            ops,
            access: self.engine.access(),
        };
        self.engine.change(change).await.map(drop)
    }

    pub(super) async fn delete_database(&self, name: &str) -> Answer {
        // Asked first: a database that is not there answers no other way than one that is hidden.
        let caller = self.engine.caller();
        caller.check(ClusterPermission::ManageDatabases)?;
        let Some(known) = self.find(name) else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        if let Some(source) = known.source {
            return Err(ServiceError::new(
                ErrorKind::Conflict,
                "database_attached",
                format!(
                    "database '{name}' is attached by configuration '{}' and cannot be deleted: \
                     delete the configuration",
                    source.configuration
                ),
            )
            .into());
        }
        self.run(format!("DROP DATABASE {}", quoted(name))).await?;
        Ok(StatusCode::OK.into_response())
    }

    async fn run(&self, sql: String) -> Result<(), ServiceError> {
        let request = SqlRequest {
            sql,
            client: "resource manager".to_owned(),
            ..SqlRequest::default()
        };
        self.engine.execute(request).await.map(drop)
    }
}

/// Reads a body, and does nothing with it.
pub(super) fn read_body(body: &[u8]) -> Result<(), ServiceError> {
    let body: PutDatabase = super::read(body, "database")?;
    policies_of(&body.properties).map(drop)
}

/// The hot span and the soft-delete period of a body.
fn policies_of(
    properties: &DatabaseProperties,
) -> Result<(Option<CachingPolicy>, Option<std::time::Duration>), ServiceError> {
    let read = |period: &Option<String>| {
        let period = period.as_deref();
        period.map(duration::parse).transpose()
    };
    let hot = read(&properties.hot_cache_period)?;
    Ok((
        hot.map(CachingPolicy::hot),
        read(&properties.soft_delete_period)?,
    ))
}

fn no_database(name: &str) -> ServiceError {
    let message = format!("there is no database '{name}'");
    ServiceError::new(ErrorKind::NotFound, "database_not_found", message)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
