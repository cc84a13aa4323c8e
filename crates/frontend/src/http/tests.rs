use std::net::SocketAddr;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use slipstream_model::{
    ClusterName, Digest, Entropy, Freshness, ManualClock, Timestamp, Version, WhenStale,
};
use slipstream_query::QueryStream;
use tower::ServiceExt;

use super::*;
use crate::{
    Answer, AttachRequest, Attachment, DatabaseReadiness, Description, Engine, ErrorKind,
    IngestReceipt, IngestRequest, NodeIdentity, NodeRole, Readiness, ServiceError, SqlRequest,
    Tokens,
};

/// Answers one row, remembers what it was asked, and is not ready.
#[derive(Debug)]
struct Scripted {
    identity: NodeIdentity,
    asked: Mutex<Vec<SqlRequest>>,
}

impl Scripted {
    fn new() -> Arc<Self> {
        let identity = NodeIdentity {
            cluster: ClusterName::new("scripted").expect("valid"),
            role: NodeRole::Follower,
            location: "local".into(),
        };
        Arc::new(Self {
            identity,
            asked: Mutex::default(),
        })
    }
}

#[async_trait]
impl Engine for Scripted {
    fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    async fn execute(&self, request: SqlRequest) -> Result<Answer, ServiceError> {
        if request.sql.contains("missing") {
            let message = "there is no table 'missing'";
            return Err(ServiceError::new(
                ErrorKind::NotFound,
                "table_not_found",
                message,
            ));
        }
        let freshness = request.database.clone().map(|database| Freshness {
            database,
            version: Version::new(7),
            digest: Digest::ZERO,
            last_contact: Timestamp::from_micros(1_000_000),
            committed_at: Timestamp::from_micros(0),
            versions_behind: 2,
        });
        self.asked.lock().push(request);
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).expect("valid");
        Ok(Answer {
            rows: QueryStream::from_batches(schema, vec![batch]),
            freshness,
            answered_at: Timestamp::from_micros(1_250_000),
            rows_written: None,
        })
    }

    async fn describe(&self, _: SqlRequest) -> Result<Description, ServiceError> {
        Err(ServiceError::internal("not asked"))
    }

    async fn ingest(&self, _: IngestRequest) -> Result<IngestReceipt, ServiceError> {
        Err(ServiceError::new(
            ErrorKind::ReadOnly,
            "read_only_follower",
            "read-only",
        ))
    }

    async fn attach(&self, _: AttachRequest) -> Result<Attachment, ServiceError> {
        Err(ServiceError::internal("not asked"))
    }

    async fn detach(&self, _: &str) -> Result<(), ServiceError> {
        Ok(())
    }

    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(vec![DatabaseReadiness {
            name: "d".into(),
            ready: false,
            version: None,
            digest: None,
            suspension_state: Some("damaged".into()),
        }])
    }
}

async fn send(engine: &Arc<Scripted>, request: Request<Body>) -> Response<Body> {
    let mut request = request;
    let peer: SocketAddr = ([127, 0, 0, 1], 9).into();
    request.extensions_mut().insert(ConnectInfo(peer));
    let engine: Arc<dyn Engine> = Arc::clone(engine) as _;
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
    let tokens = Tokens::open("there is no such file".into(), clock).expect("open to all");
    let entropy = Entropy::from_seed(1);
    router(Gate::new(engine, Arc::new(tokens), entropy))
        .oneshot(request)
        .await
        .expect("the router never fails")
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("whole");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn post(path: &str, body: &str) -> Request<Body> {
    Request::post(path)
        .body(Body::from(body.to_owned()))
        .expect("valid")
}

#[tokio::test]
async fn an_answer_says_which_state_it_came_from() {
    let engine = Scripted::new();
    let body = r#"{"database": "d", "sql": "SELECT n", "min_version": 7, "when_stale": "fail"}"#;
    let response = send(&engine, post("/v1/sql", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        ("slipstream-database", "d"),
        ("slipstream-version", "7"),
        ("slipstream-lag-ms", "250"),
        ("slipstream-versions-behind", "2"),
        ("slipstream-last-contact", "1970-01-01T00:00:01Z"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(text(response).await.trim(), r#"[{"n":1}]"#);
    let asked = engine.asked.lock().remove(0);
    assert_eq!(asked.freshness.min_version, Some(Version::new(7)));
    assert_eq!(asked.freshness.when_stale, WhenStale::Fail);
    assert_eq!(asked.client, "http 127.0.0.1:9");
}

#[tokio::test]
async fn bare_sql_and_headers_say_the_same() {
    let engine = Scripted::new();
    let request = Request::post("/v1/sql?timeout=3s")
        .header("content-type", "text/plain")
        .header("accept", "text/csv")
        .header("slipstream-database", "d")
        .header("slipstream-max-staleness", "5s")
        .body(Body::from("SELECT n"))
        .expect("valid");
    let response = send(&engine, request).await;
    assert_eq!(text(response).await, "n\n1\n");
    let asked = engine.asked.lock().remove(0);
    assert_eq!(asked.database.as_deref(), Some("d"));
    assert_eq!(
        asked.freshness.max_staleness,
        Some(std::time::Duration::from_secs(5))
    );
    assert_eq!(asked.timeout, Some(std::time::Duration::from_secs(3)));
}

#[tokio::test]
async fn statistics_come_when_they_are_asked_for() {
    let engine = Scripted::new();
    let body = r#"{"sql": "SELECT n", "statistics": true}"#;
    let answer = text(send(&engine, post("/v1/sql", body)).await).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["rows"], serde_json::json!([{"n": 1}]));
    assert_eq!(answer["statistics"]["reads"]["requests"], 0);

    let ask = |accept: &str| {
        Request::post("/v1/sql?statistics=true")
            .header("content-type", "text/plain")
            .header("accept", accept)
            .body(Body::from("SELECT n"))
            .expect("valid")
    };
    let lines = text(send(&engine, ask("application/x-ndjson")).await).await;
    assert!(lines.starts_with("{\"n\":1}\n{\"statistics\":{"), "{lines}");
    // Refused before anything is done.
    let before = engine.asked.lock().len();
    let response = send(&engine, ask("text/csv")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(text(response).await.contains("not_acceptable"));
    assert_eq!(engine.asked.lock().len(), before);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_code() {
    let engine = Scripted::new();
    let cases = [
        (
            "/v1/sql",
            "not JSON",
            StatusCode::BAD_REQUEST,
            "invalid_argument",
        ),
        (
            "/v1/sql",
            r#"{"sql": "x", "databse": "d"}"#,
            StatusCode::BAD_REQUEST,
            "invalid_argument",
        ),
        (
            "/v1/sql",
            r#"{"database": "d"}"#,
            StatusCode::BAD_REQUEST,
            "invalid_argument",
        ),
        (
            "/v1/sql",
            r#"{"sql": "SELECT missing"}"#,
            StatusCode::NOT_FOUND,
            "table_not_found",
        ),
        (
            "/v1/ingest/d/t?colour=red",
            "",
            StatusCode::BAD_REQUEST,
            "invalid_argument",
        ),
        (
            "/v1/ingest/d/t",
            "",
            StatusCode::FORBIDDEN,
            "read_only_follower",
        ),
        ("/v2/nothing", "", StatusCode::NOT_FOUND, "route_not_found"),
    ];
    for (path, body, status, code) in cases {
        let response = send(&engine, post(path, body)).await;
        assert_eq!(response.status(), status, "{path} {body}");
        let error: serde_json::Value = serde_json::from_str(&text(response).await).expect("JSON");
        assert_eq!(error["error"]["code"], code, "{path} {body}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why() {
    let engine = Scripted::new();
    let request = Request::get("/readyz").body(Body::empty()).expect("valid");
    let response = send(&engine, request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let readiness: serde_json::Value = serde_json::from_str(&text(response).await).expect("JSON");
    assert_eq!(readiness["databases"][0]["suspension_state"], "damaged");
    assert!(
        readiness["reason"]
            .as_str()
            .is_some_and(|why| why.contains("'d'"))
    );
}
