//! `POST /v1/sql`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Query};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use serde::Deserialize;
use slipstream_model::{FreshnessRequirement, Version, WhenStale};
use slipstream_query::Parameters;

use super::encode::{AnswerFormat, Encoder, with_statistics};
use crate::metrics::Timer;
use crate::{Answer, AuthorizedEngine, ServiceError, SqlRequest};

/// The body, or, for a body that is SQL, the query string and headers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SqlBody {
    database: Option<String>,
    sql: Option<String>,
    parameters: Option<serde_json::Value>,
    min_version: Option<u64>,
    max_staleness: Option<String>,
    when_stale: Option<WhenStale>,
    timeout: Option<String>,
    query_datascope: Option<String>,
    /// Whether the answer ends with what the query cost.
    statistics: Option<bool>,
}

/// What a client asks for.
pub(super) struct Asked {
    pub(super) request: SqlRequest,
    statistics: bool,
}

pub(super) async fn run(
    engine: AuthorizedEngine,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ServiceError> {
    let timer = Timer::start("http", "sql");
    let answering = async {
        let format = AnswerFormat::of(&headers)?;
        let asked = parse(&headers, &query, &body, peer)?;
        if asked.statistics {
            format.check_statistics()?;
        }
        answer(engine, asked, format).await
    };
    let result = answering.await;
    timer.finish(&result);
    result
}

async fn answer(
    engine: AuthorizedEngine,
    asked: Asked,
    format: AnswerFormat,
) -> Result<Response, ServiceError> {
    let Answer {
        mut rows,
        freshness,
        answered_at,
        ..
    } = engine.execute(asked.request).await?;
    let schema = rows.schema();
    let query_id = rows.query_id();
    let meter = rows.meter();
    // The first batch, or the failure before it, decides the status; after it only the broken
    // transfer can tell the client.
    let first = rows.next().await.transpose()?;
    let encoder = Encoder::new(format, schema)?;
    let stream = encoder.encode(futures::stream::iter(first.map(Ok)).chain(rows));
    let body = if asked.statistics {
        Body::from_stream(with_statistics(format, stream, meter))
    } else {
        Body::from_stream(stream)
    };

    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    let mut set = |name: &'static str, value: String| {
        // A database may be called something that no header can hold; it is in the request too.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    };
    if let Some(id) = query_id {
        set("slipstream-query-id", id.to_string());
    }
    if let Some(freshness) = freshness {
        let lag = freshness.staleness(answered_at);
        set("slipstream-version", freshness.version.to_string());
        set("slipstream-digest", freshness.digest.to_string());
        set(
            "slipstream-last-contact",
            freshness.last_contact.to_string(),
        );
        set("slipstream-lag-ms", lag.as_millis().to_string());
        set(
            "slipstream-versions-behind",
            freshness.versions_behind.to_string(),
        );
        set("slipstream-database", freshness.database);
    }
    Ok(response)
}

pub(super) fn parse(
    headers: &HeaderMap,
    query: &HashMap<String, String>,
    body: &[u8],
    peer: SocketAddr,
) -> Result<Asked, ServiceError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let is_sql = content_type.is_some_and(|content_type| {
        content_type.starts_with("text/plain") || content_type.starts_with("application/sql")
    });
    let mut given = if is_sql {
        of_sql(query, body)?
    } else {
        of_json(body)?
    };
    let from_header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned)
    };
    given.database = given
        .database
        .or_else(|| from_header("slipstream-database"));
    given.max_staleness = given
        .max_staleness
        .or_else(|| from_header("slipstream-max-staleness"));
    if given.min_version.is_none() {
        given.min_version = parse_with("min_version", from_header("slipstream-min-version"))?;
    }
    if given.when_stale.is_none() {
        given.when_stale = parse_with("when_stale", from_header("slipstream-when-stale"))?;
    }
    let request = SqlRequest {
        database: given.database.filter(|name| !name.is_empty()),
        sql: given
            .sql
            .ok_or_else(|| ServiceError::invalid("the body has no \"sql\""))?,
        parameters: given
            .parameters
            .map(parameters)
            .transpose()?
            .unwrap_or_default(),
        freshness: FreshnessRequirement {
            min_version: given.min_version.map(Version::new),
            max_staleness: duration("max_staleness", given.max_staleness)?,
            when_stale: given.when_stale.unwrap_or_default(),
        },
        timeout: duration("timeout", given.timeout)?,
        scope: parse_with("query_datascope", given.query_datascope)?.unwrap_or_default(),
        client: format!("http {peer}"),
        ..SqlRequest::default()
    };
    Ok(Asked {
        request,
        statistics: given.statistics.unwrap_or_default(),
    })
}

fn of_json(body: &[u8]) -> Result<SqlBody, ServiceError> {
    serde_json::from_slice(body).map_err(|error| {
        ServiceError::invalid(format!(
            "the body is not {{\"database\": ..., \"sql\": ...}}: {error}. Send bare SQL as \
             text/plain"
        ))
    })
}

fn of_sql(query: &HashMap<String, String>, body: &[u8]) -> Result<SqlBody, ServiceError> {
    let sql = std::str::from_utf8(body)
        .map_err(|error| ServiceError::invalid(format!("the body is not UTF-8: {error}")))?;
    Ok(SqlBody {
        database: query.get("database").cloned(),
        sql: Some(sql.to_owned()),
        parameters: None,
        min_version: parse_with("min_version", query.get("min_version").cloned())?,
        max_staleness: query.get("max_staleness").cloned(),
        when_stale: parse_with("when_stale", query.get("when_stale").cloned())?,
        timeout: query.get("timeout").cloned(),
        query_datascope: query.get("query_datascope").cloned(),
        statistics: parse_with("statistics", query.get("statistics").cloned())?,
    })
}

fn parse_with<T>(name: &str, text: Option<String>) -> Result<Option<T>, ServiceError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parse = |text: String| {
        text.parse()
            .map_err(|error| ServiceError::invalid(format!("{name} '{text}': {error}")))
    };
    text.map(parse).transpose()
}

fn duration(name: &str, text: Option<String>) -> Result<Option<Duration>, ServiceError> {
    let parse = |text: String| {
        humantime::parse_duration(&text).map_err(|error| {
            ServiceError::invalid(format!(
                "{name} '{text}' is not a duration such as 5s: {error}"
            ))
        })
    };
    text.map(parse).transpose()
}

/// `[1, "a"]` for `$1`, `$2`; `{"from": 1}` for `$from`.
fn parameters(value: serde_json::Value) -> Result<Parameters, ServiceError> {
    use serde_json::Value;
    match value {
        Value::Array(values) => Ok(Parameters::positional(
            values.into_iter().map(scalar).collect::<Result<_, _>>()?,
        )),
        Value::Object(values) => {
            let named = values
                .into_iter()
                .map(|(name, value)| Ok((name, scalar(value)?)));
            Ok(Parameters::named(
                named.collect::<Result<Vec<_>, ServiceError>>()?,
            ))
        }
        Value::Null => Ok(Parameters::default()),
        _ => Err(ServiceError::invalid(
            "\"parameters\" is neither an array nor an object",
        )),
    }
}

fn scalar(value: serde_json::Value) -> Result<ScalarValue, ServiceError> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::from(value),
        Value::String(value) => ScalarValue::from(value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => ScalarValue::from(value),
            (None, Some(value), _) => ScalarValue::from(value),
            (None, None, value) => ScalarValue::Float64(value),
        },
        Value::Array(_) | Value::Object(_) => {
            return Err(ServiceError::invalid(
                "a parameter is a number, a string, a bool or null",
            ));
        }
    })
}
