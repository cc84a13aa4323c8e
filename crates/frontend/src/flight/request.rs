//! What a call's headers say.

use std::collections::BTreeSet;
use std::str::FromStr;

use slipstream_model::{FreshnessRequirement, IngestId, Version, WhenStale};
use tonic::{Request, Status};

use crate::SqlRequest;

fn header<'a, T>(request: &'a Request<T>, name: &str) -> Option<&'a str> {
    request
        .metadata()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

fn parsed<T, V>(request: &Request<T>, name: &str) -> Result<Option<V>, Status>
where
    V: FromStr<Err: std::fmt::Display>,
{
    header(request, name)
        .map(|text| {
            text.parse()
                .map_err(|error| Status::invalid_argument(format!("{name} '{text}': {error}")))
        })
        .transpose()
}

/// The database a call is about: the header `database`.
pub(super) fn database<T>(request: &Request<T>) -> Option<String> {
    let name = header(request, "database").or_else(|| header(request, "slipstream-database"));
    name.filter(|name| !name.is_empty()).map(ToOwned::to_owned)
}

/// What the headers of a call ask of an ingest.
pub(super) struct IngestHeaders {
    /// `slipstream-tag`, any number of times.
    pub(super) tags: BTreeSet<String>,
    /// `slipstream-ingest-if-not-exists`, any number of times.
    pub(super) if_not_exists: BTreeSet<String>,
    /// `slipstream-ingest-id`.
    pub(super) id: Option<IngestId>,
    /// `slipstream-queued: true`.
    pub(super) queued: bool,
}

impl IngestHeaders {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let all = |name: &'static str| -> BTreeSet<String> {
            let values = request.metadata().get_all(name).iter();
            let values = values.filter_map(|value| value.to_str().ok());
            values.map(ToOwned::to_owned).collect()
        };
        Ok(Self {
            tags: all("slipstream-tag"),
            if_not_exists: all("slipstream-ingest-if-not-exists"),
            id: parsed(request, "slipstream-ingest-id")?,
            queued: parsed(request, "slipstream-queued")?.unwrap_or_default(),
        })
    }
}

/// SQL with what the headers ask of it.
pub(super) fn sql<T>(request: &Request<T>, sql: String) -> Result<SqlRequest, Status> {
    let max_staleness: Option<humantime::Duration> = parsed(request, "slipstream-max-staleness")?;
    let freshness = FreshnessRequirement {
        min_version: parsed::<_, Version>(request, "slipstream-min-version")?,
        max_staleness: max_staleness.map(Into::into),
        when_stale: parsed::<_, WhenStale>(request, "slipstream-when-stale")?.unwrap_or_default(),
    };
    let timeout: Option<humantime::Duration> = parsed(request, "slipstream-timeout")?;
    let peer = request
        .remote_addr()
        .map_or_else(|| "?".to_owned(), |peer| peer.to_string());
    Ok(SqlRequest {
        database: database(request),
        sql,
        freshness,
        timeout: timeout.map(Into::into),
        client: format!("flight {peer}"),
        ..SqlRequest::default()
    })
}
