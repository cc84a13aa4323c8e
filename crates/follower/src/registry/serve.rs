//! What the registry gives to queries: states, as fresh as asked for, and held while they are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipstream_catalog::DatabaseState;
use slipstream_frontend::{DatabaseReadiness, ErrorKind, ServiceError, SqlRequest};
use slipstream_model::{DatabaseAccessMode, Freshness, WhenStale};
use slipstream_query::{DatabaseRow, RemoteNode};

use super::Registry;
use crate::following::{Following, Served};
use crate::leader_query::LeaderQuery;
use crate::pins::Pin;

/// How long a request waits for fresher state when it does not say.
const WAIT_FOR_FRESHNESS: Duration = Duration::from_secs(10);

impl Registry {
    /// Every followed database that can be read, by its name here, resolved once; the request's
    /// own as fresh as it asks for.
    ///
    /// # Errors
    /// When the request's database is not followed, or not as fresh as asked for.
    pub async fn resolve(
        &self,
        request: &SqlRequest,
    ) -> Result<(BTreeMap<String, DatabaseState>, Option<Freshness>), ServiceError> {
        let mut databases = self.states();
        let Some(name) = &request.database else {
            return Ok((databases, None));
        };
        let following = self.by_database(name)?;
        let served = self.wait_until_fresh(&following, request).await?;
        let freshness = following.freshness(&served);
        if let Some(state) = served.state {
            databases.insert(name.clone(), state);
        }
        Ok((databases, freshness))
    }

    /// Every followed database that can be read, by its name here.
    pub fn states(&self) -> BTreeMap<String, DatabaseState> {
        let all = self.all().into_iter();
        all.filter_map(|following| {
            let state = following.served().state?;
            Some((following.source().database.clone(), state))
        })
        .collect()
    }

    /// The leader of a request's database, for what is to be asked there.
    pub fn leader_of(&self, request: &SqlRequest) -> Option<Arc<dyn RemoteNode>> {
        let following = self.by_database(request.database.as_deref()?).ok()?;
        Some(Arc::new(LeaderQuery::new(following, &request.access)))
    }

    /// Holds the versions of followed databases for as long as the answer lives, so that the
    /// leases name them.
    pub fn pin(&self, databases: &BTreeMap<String, DatabaseState>) -> Vec<Pin> {
        let all = self.all().into_iter();
        all.filter_map(|following| {
            let state = databases.get(&following.source().database)?;
            let is_it = state.id() == following.source().database_id;
            is_it.then(|| following.pin(state.version()))
        })
        .collect()
    }

    /// Whether the followed databases can be queried.
    pub fn readiness(&self) -> Vec<DatabaseReadiness> {
        let all = self.all().into_iter();
        all.map(|following| {
            let served = following.served();
            let state = served.state.as_ref();
            DatabaseReadiness {
                name: following.source().database.clone(),
                ready: state.is_some() && served.suspension.is_none(),
                version: state.map(|state| state.version().get()),
                digest: state.map(|state| state.digest().to_string()),
                suspension_state: served.suspension,
            }
        })
        .collect()
    }

    /// The followed databases as rows of `slipstream.databases`.
    pub fn database_rows(&self) -> Vec<DatabaseRow> {
        let now = self.context.clock.now();
        let rows = self.all().into_iter().map(|following| {
            let served = following.served();
            let source = following.source();
            let freshness = following.freshness(&served);
            let freshness = freshness.as_ref();
            DatabaseRow {
                last_contact: freshness.map(|freshness| freshness.last_contact),
                lag: freshness.map(|freshness| freshness.staleness(now)),
                versions_behind: freshness.map(|freshness| freshness.versions_behind),
                leader: Some(source.leader.clone()),
                configuration: Some(source.configuration.clone()),
                suspension_state: served.suspension.clone(),
                ..DatabaseRow::of(
                    &source.database,
                    source.database_id,
                    DatabaseAccessMode::ReadOnlyFollowing,
                    served.state.as_ref(),
                )
            }
        });
        rows.collect()
    }

    /// Says where writes go, instead of only that they do not go here.
    pub fn refuse_write(&self, database: Option<&str>) -> ServiceError {
        let leader = database
            .and_then(|name| self.by_database(name).ok())
            .map(|following| {
                let source = following.source();
                format!("leader '{}' at {}", source.leader, source.leader_url)
            })
            .or_else(|| {
                let leaders = self.leaders.iter();
                let leaders: Vec<_> = leaders
                    .map(|l| format!("leader '{}' at {}", l.name, l.url))
                    .collect();
                (!leaders.is_empty()).then(|| leaders.join(" or "))
            })
            .unwrap_or_else(|| "the database's leader".to_owned());
        ServiceError::new(
            ErrorKind::ReadOnly,
            "read_only_follower",
            format!(
                "cluster '{}' is a follower, and its databases are read-only here: send the \
                 change to {leader}",
                self.identity.cluster
            ),
        )
    }

    /// Waits until a database is as fresh as a request asks for, or fails as it chooses.
    async fn wait_until_fresh(
        &self,
        following: &Following,
        request: &SqlRequest,
    ) -> Result<Served, ServiceError> {
        let wanted = &request.freshness;
        let is_met = |served: &Served| {
            let now = self.context.clock.now();
            following
                .freshness(served)
                .is_some_and(|freshness| wanted.is_met_by(&freshness, now))
        };
        let served = following.served();
        let as_is = wanted.when_stale == WhenStale::Stale && served.state.is_some();
        if as_is || is_met(&served) {
            return Ok(served);
        }
        if wanted.when_stale != WhenStale::Fail {
            let mut changes = following.changes();
            following.look.notify_one();
            let timeout = request.timeout.unwrap_or(WAIT_FOR_FRESHNESS);
            let arrived = tokio::time::timeout(timeout, changes.wait_for(|s| is_met(s))).await;
            if let Ok(Ok(served)) = arrived {
                return Ok(served.clone());
            }
        }
        Err(self.stale(following, &following.served(), request))
    }

    fn stale(&self, following: &Following, served: &Served, request: &SqlRequest) -> ServiceError {
        let database = &following.source().database;
        let why = served
            .suspension
            .as_ref()
            .or(served.leader_silence.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let Some(freshness) = following.freshness(served) else {
            return ServiceError::new(
                ErrorKind::Unavailable,
                "not_synchronised",
                format!("database '{database}' has not had its first synchronisation{why}"),
            );
        };
        let staleness = freshness.staleness(self.context.clock.now());
        let wanted = match (
            request.freshness.min_version,
            request.freshness.max_staleness,
        ) {
            (Some(version), _) if version > freshness.version => {
                format!("version {version} was asked for")
            }
            (_, Some(bound)) => format!("at most {bound:?} old was asked for"),
            (version, None) => format!("version {version:?} was asked for"),
        };
        ServiceError::new(
            ErrorKind::Stale,
            "stale",
            format!(
                "database '{database}' is at version {}, last known to be the newest {staleness:?} \
                 ago; {wanted}{why}",
                freshness.version
            ),
        )
    }
}
