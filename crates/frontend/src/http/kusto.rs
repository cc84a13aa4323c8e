//! Kusto's REST API for queries: `/v1/rest/query`, `/v2/rest/query`, `/v1/rest/mgmt`. The text of
//! a query is SQL.
//!
//! Shapes: *Query V2 HTTP response* and *Query/management HTTP request* of the Kusto
//! documentation.

mod completion;
mod value;

use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipstream_kusto::parse_timespan;
use slipstream_query::{DataScope, Parameters, QueryStream};
use tokio::time::Instant;

use self::completion::Completion;
use self::value::{ColumnKind, Columns};
use super::error::challenge;
use crate::client::ClientLabel;
use crate::metrics::Timer;
use crate::{AuthorizedEngine, ErrorKind, Gate, ServiceError, SqlRequest};

/// The frames before the rows. Clients that stream read the fields in this order.
const OPENING: &str = r#"[{"FrameType":"DataSetHeader","IsProgressive":false,"Version":"v2.0"},
{"FrameType":"DataTable","TableId":0,"TableKind":"QueryProperties","TableName":"@ExtendedProperties","Columns":[{"ColumnName":"TableId","ColumnType":"int"},{"ColumnName":"Key","ColumnType":"string"},{"ColumnName":"Value","ColumnType":"dynamic"}],"Rows":[]}"#;
/// The header by which a client names its request.
const CLIENT_REQUEST_ID: &str = "x-ms-client-request-id";
/// The header by which a client names its program.
const CLIENT_APP: &str = "x-ms-app";

/// What Kusto's clients name when nobody named a database.
const NO_DATABASE: &str = "NetDefaultDB";

/// A request as Kusto's clients send it.
#[derive(Debug, Deserialize)]
struct KustoRequest {
    db: Option<String>,
    csl: String,
    /// An object, or its text: clients send either.
    #[serde(default)]
    properties: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Properties {
    options: Map<String, Value>,
    parameters: Map<String, Value>,
}

/// `POST /v2/rest/query`: frames, not progressive.
pub(super) async fn query_v2(
    engine: Result<AuthorizedEngine, ServiceError>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let timer = Timer::start("http", "kusto_query");
    let beginning = async {
        let mut started = start(engine, &body, &headers, peer).await?;
        // What fails before the first rows decides the status; later only the last frame can tell.
        let first = started.rows.next().await.transpose()?;
        let count = first.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        check_rows(count, started.rows_max)?;
        Ok((started, first))
    };
    let result = beginning.await;
    timer.finish(&result);
    match result {
        Ok((started, first)) => frames(started, first),
        Err(error) => failure(&error, &headers),
    }
}

/// `POST /v1/rest/query` and `POST /v1/rest/mgmt`: one table, and for a query those that say what it
/// cost.
pub(super) async fn query_v1(
    engine: Result<AuthorizedEngine, ServiceError>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let timer = Timer::start("http", "kusto_query");
    let answering = async { tables(start(engine, &body, &headers, peer).await?).await };
    let result = answering.await;
    timer.finish(&result);
    match result {
        Ok(tables) => answered(Body::from(tables), &request_id(&headers)),
        Err(error) => failure(&error, &headers),
    }
}

/// `GET /v1/rest/auth/metadata`: which authority issues tokens. Here it is the node itself, so
/// there is no login page to send anybody to; clients that bring a token ask and go on.
pub(super) async fn auth_metadata(State(gate): State<Gate>) -> Json<Value> {
    let resource = format!("https://{}.slipstream.invalid", gate.identity().cluster);
    Json(json!({
        "AzureAD": {
            "LoginEndpoint": resource,
            "LoginMfaRequired": false,
            "KustoClientAppId": "00000000-0000-0000-0000-000000000000",
            "KustoClientRedirectUri": "http://localhost",
            "KustoServiceResourceId": resource,
            "FirstPartyAuthorityUrl": resource,
        }
    }))
}

/// A query that was taken, and how many rows its answer may have.
struct Started {
    rows: QueryStream,
    rows_max: Option<u64>,
    completion: Completion,
}

async fn start(
    engine: Result<AuthorizedEngine, ServiceError>,
    body: &[u8],
    headers: &HeaderMap,
    peer: SocketAddr,
) -> Result<Started, ServiceError> {
    let began = Instant::now();
    let engine = engine?;
    let (asked, rows_max) = read(body)?;
    let request = SqlRequest {
        client: client_of(headers, peer).to_string(),
        ..asked
    };
    let answer = engine.execute(request).await?;
    let completion = Completion {
        began,
        answered_at: answer.answered_at,
        query_id: answer.rows.query_id(),
        request_id: request_id(headers),
    };
    Ok(Started {
        rows: answer.rows,
        rows_max,
        completion,
    })
}

/// What a body asks for, and how many rows the answer may have.
pub(super) fn read(body: &[u8]) -> Result<(SqlRequest, Option<u64>), ServiceError> {
    let request: KustoRequest = serde_json::from_slice(body).map_err(|error| {
        ServiceError::invalid(format!(
            "the body is not {{\"db\": ..., \"csl\": ...}}: {error}"
        ))
    })?;
    let properties = properties(request.properties)?;
    let timeout = properties
        .options
        .get("servertimeout")
        .and_then(Value::as_str);
    let rows_max = rows_max(&properties.options)?;
    let scope = scope(&properties.options)?;
    let parameters = properties.parameters.into_iter();
    let parameters = parameters
        .map(|(name, value)| Ok((name, value::parameter(&value)?)))
        .collect::<Result<Vec<_>, ServiceError>>()?;
    let request = SqlRequest {
        database: request
            .db
            .filter(|name| !name.is_empty() && name != NO_DATABASE),
        sql: request.csl,
        parameters: if parameters.is_empty() {
            Parameters::default()
        } else {
            Parameters::named(parameters)
        },
        timeout: timeout.map(server_timeout).transpose()?,
        scope,
        ..SqlRequest::default()
    };
    Ok((request, rows_max))
}

/// `truncationmaxrecords`: an answer with more rows fails, rather than being cut in silence
/// (*Query limits*). `notruncation` lifts it.
fn rows_max(options: &Map<String, Value>) -> Result<Option<u64>, ServiceError> {
    if options.get("notruncation").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    let Some(value) = options.get("truncationmaxrecords") else {
        return Ok(None);
    };
    let count = value.as_u64();
    let count = count.or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    count.map(Some).ok_or_else(|| {
        ServiceError::invalid(format!("truncationmaxrecords {value} is no number of rows"))
    })
}

fn check_rows(count: u64, rows_max: Option<u64>) -> Result<(), ServiceError> {
    match rows_max {
        Some(rows_max) if count > rows_max => Err(ServiceError::new(
            ErrorKind::ResourcesExhausted,
            "E_QUERY_RESULT_SET_TOO_LARGE",
            format!("the answer has more rows than truncationmaxrecords allows, {rows_max}"),
        )),
        _ => Ok(()),
    }
}

/// `query_datascope`.
fn scope(options: &Map<String, Value>) -> Result<DataScope, ServiceError> {
    match options.get("query_datascope") {
        None | Some(Value::Null) => Ok(DataScope::default()),
        Some(Value::String(text)) => Ok(text.parse()?),
        Some(other) => Err(ServiceError::invalid(format!(
            "query_datascope {other} is no text"
        ))),
    }
}

fn properties(value: Value) -> Result<Properties, ServiceError> {
    let read = match value {
        Value::Null => return Ok(Properties::default()),
        Value::String(text) => serde_json::from_str(&text),
        value => serde_json::from_value(value),
    };
    read.map_err(|error| ServiceError::invalid(format!("properties: {error}")))
}

/// A timespan of at least hours and minutes: `00:04:00`.
fn server_timeout(text: &str) -> Result<Duration, ServiceError> {
    let span = parse_timespan(text).filter(|_| text.contains(':'));
    span.ok_or_else(|| {
        ServiceError::invalid(format!(
            "servertimeout '{text}' is no timespan such as 00:04:00"
        ))
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn request_id(headers: &HeaderMap) -> String {
    text(headers, CLIENT_REQUEST_ID)
        .unwrap_or_default()
        .to_owned()
}

fn client_of(headers: &HeaderMap, peer: SocketAddr) -> ClientLabel {
    let peer = format!("kusto {peer}");
    ClientLabel::new(
        peer,
        text(headers, CLIENT_REQUEST_ID),
        text(headers, CLIENT_APP),
    )
}

fn answered(body: Body, request_id: &str) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if let Ok(id) = header::HeaderValue::from_str(request_id) {
        headers.insert(CLIENT_REQUEST_ID, id);
    }
    response
}

/// Kusto's clients take 404 for an address that is not Kusto's at all, so what is not found is a
/// bad request, as it is there.
pub(super) fn failure(error: &ServiceError, headers: &HeaderMap) -> Response {
    let status = match error.kind().http() {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
            StatusCode::BAD_REQUEST
        }
        status => status,
    };
    let body = json!({"error": one_api(error, &request_id(headers))});
    let mut response = (status, Json(body)).into_response();
    challenge(error, response.headers_mut());
    response
}

/// An error in the shape of Microsoft's OneApi.
fn one_api(error: &ServiceError, request_id: &str) -> Value {
    let is_permanent = !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::DeadlineExceeded
    );
    json!({
        "code": error.code(),
        "message": error.message(),
        "@type": "Slipstream.ServiceError",
        "@message": error.message(),
        "@context": {"clientRequestId": request_id},
        "@permanent": is_permanent,
    })
}

/// Bytes of the rows of an answer of version 1, which is put together before it is sent: Kusto's own limit
/// (*Query limits*, result set size).
const V1_BYTES_MAX: usize = 64 << 20;

/// The rows as a table, and what follows it, as v1 has them.
async fn tables(started: Started) -> Result<String, ServiceError> {
    let Started {
        mut rows,
        rows_max,
        completion,
    } = started;
    let columns = Columns::new(&rows.schema());
    let (mut text, mut count) = (String::new(), 0);
    while let Some(batch) = rows.next().await {
        for row in columns.rows(&batch?)? {
            let separator = if count == 0 { "" } else { "," };
            text.push_str(separator);
            text.push_str(&Value::from(row).to_string());
            count += 1;
        }
        check_rows(count, rows_max)?;
        if text.len() > V1_BYTES_MAX {
            return Err(ServiceError::new(
                ErrorKind::ResourcesExhausted,
                "E_QUERY_RESULT_SET_TOO_LARGE",
                format!(
                    "an answer of version 1 has at most {} MiB: ask /v2/rest/query, which streams",
                    V1_BYTES_MAX >> 20
                ),
            ));
        }
    }
    let described: Vec<_> = columns.describe(|kind| {
        let ColumnKind {
            column_type,
            data_type,
        } = kind;
        json!({"ColumnType": column_type, "DataType": data_type})
    });
    let described = Value::from(described);
    let mut all = format!(
        "{{\"Tables\":[{{\"TableName\":\"Table_0\",\"Columns\":{described},\"Rows\":[{text}]}}"
    );
    for table in completion.tables(&rows.statistics()) {
        all.push(',');
        all.push_str(&table.to_string());
    }
    all.push_str("]}");
    Ok(all)
}

/// The frames of a v2 answer, rows as they come. What they cost, and what fails in the middle, is
/// told in the last two, where clients look for it.
fn frames(started: Started, first: Option<RecordBatch>) -> Response {
    let Started {
        rows,
        rows_max,
        completion,
    } = started;
    let request_id = completion.request_id.clone();
    let columns = Columns::new(&rows.schema());
    let described = columns.describe(|kind| json!({"ColumnType": kind.column_type}));
    let opening = format!(
        "{OPENING},\n{{\"FrameType\":\"DataTable\",\"TableId\":1,\"TableKind\":\"PrimaryResult\",\
         \"TableName\":\"PrimaryResult\",\"Columns\":{},\"Rows\":[",
        Value::from(described),
    );
    let state = Frames {
        rows,
        rows_max,
        row_count: 0,
        first,
        columns,
        completion,
        opening: Some(opening),
        has_rows: false,
        has_ended: false,
    };
    let chunks = stream::unfold(state, |mut state| async move {
        let chunk = state.next_chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), state))
    });
    answered(Body::from_stream(chunks), &request_id)
}

struct Frames {
    rows: QueryStream,
    rows_max: Option<u64>,
    row_count: u64,
    /// The batch that was waited for before the answer began.
    first: Option<RecordBatch>,
    columns: Columns,
    completion: Completion,
    opening: Option<String>,
    has_rows: bool,
    has_ended: bool,
}

impl Frames {
    async fn next_chunk(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        if self.has_ended {
            return None;
        }
        let batch = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.rows.next().await,
        };
        let batch = batch.map(|batch| {
            let rows = self.columns.rows(&batch?)?;
            self.row_count += rows.len() as u64;
            check_rows(self.row_count, self.rows_max)?;
            Ok(rows)
        });
        match batch {
            Some(Ok(rows)) => {
                let mut text = String::new();
                for row in rows {
                    text.push_str(if self.has_rows { ",\n" } else { "\n" });
                    text.push_str(&Value::from(row).to_string());
                    self.has_rows = true;
                }
                Some(text)
            }
            Some(Err(error)) => Some(self.close(Some(&error))),
            None => Some(self.close(None)),
        }
    }

    fn close(&mut self, error: Option<&ServiceError>) -> String {
        self.has_ended = true;
        let errors = match error {
            None => String::new(),
            Some(error) => {
                let error = json!([{"error": one_api(error, &self.completion.request_id)}]);
                format!(",\"OneApiErrors\":{error}")
            }
        };
        let has_failed = error.is_some();
        let cost = self.completion.frame(&self.rows.statistics(), has_failed);
        format!(
            "]}},\n{cost},\n{{\"FrameType\":\"DataSetCompletion\",\"HasErrors\":{has_failed},\"Cancelled\":false{errors}}}]\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_timeout_is_a_timespan() {
        for (text, seconds) in [
            ("00:04:00", 240.0),
            ("1.00:00:01", 86_401.0),
            ("00:00:00.5", 0.5),
        ] {
            let found = server_timeout(text).expect("a timespan");
            assert!((found.as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        for text in ["", "5s", "1:60", "a:b:c", "00:00:-1"] {
            assert!(server_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn properties_come_as_an_object_or_as_its_text() {
        let object = json!({"Options": {"servertimeout": "00:01:00"}, "Parameters": {"a": "1"}});
        for value in [object.clone(), Value::String(object.to_string())] {
            let read = properties(value).expect("properties");
            assert_eq!(read.options["servertimeout"], "00:01:00");
            assert_eq!(read.parameters["a"], "1");
        }
    }
}
