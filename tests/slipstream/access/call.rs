//! One request by any door, and what came of it.

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetTables, CommandStatementIngest, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use slipstream_proto::sync::admin_client::AdminClient;
use slipstream_proto::sync::metadata_sync_client::MetadataSyncClient;
use slipstream_proto::sync::{
    AttachFollowerRequest, DescribeClusterRequest, DetachFollowerRequest, FollowerIdentity,
    RenewLeaseRequest, SubscribeRequest,
};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::CLUSTER;
use crate::cluster::{ApiError, Client, Node};

/// The cluster and configuration that the operator attached: others may not speak for it.
pub(super) const FOLLOWER: (&str, &str) = ("x", "kept");

/// One way to ask a node for something. `{n}` is another number each time.
pub(super) enum Call {
    /// `POST /v1/sql`.
    Sql(&'static str),
    /// The same without a database.
    NodeSql(&'static str),
    /// `POST /v1/rest/mgmt`.
    Command(&'static str),
    /// `POST /v2/rest/query`, and `/v1/rest/query`.
    KustoQuery(&'static str),
    /// `POST /v1/ingest/d/TABLE`.
    Ingest(&'static str, &'static str),
    /// `POST /v1/rest/ingest/d/TABLE`.
    KustoIngest(&'static str),
    /// Anything else over HTTP.
    Http(&'static str, &'static str, Option<&'static str>),
    /// A `DELETE` of what the operator has just put.
    HttpDelete(&'static str, &'static str),
    /// Flight SQL.
    Flight(Flight),
    /// What followers call.
    Grpc(Grpc),
}

pub(super) enum Flight {
    Statement(&'static str),
    Prepared(&'static str),
    Schemas,
    Tables,
    Append(&'static str),
    Replace(&'static str),
}

#[derive(Debug)]
pub(super) enum Grpc {
    Attach,
    Detach,
    Describe,
    DescribeOf,
    Subscribe,
    RenewLease,
}

/// A node, and what has to be known to ask it anything.
pub(super) struct Target<'a> {
    pub(super) node: &'a Node,
    operator: Client,
    operator_token: String,
    bucket: Vec<u8>,
    database: Vec<u8>,
}

impl<'a> Target<'a> {
    /// A leader with a database `d`, which the operator attaches as [`FOLLOWER`].
    pub(super) async fn leader(node: &'a Node, operator_token: &str) -> Result<Self> {
        let mut target = Self::follower(node, operator_token);
        let mut admin = target.admin(Some(operator_token)).await?;
        let described = admin.describe_cluster(DescribeClusterRequest::default());
        let described = described.await?.into_inner();
        let database = described.databases.iter().find(|known| known.name == "d");
        target.database = database.context("database d")?.database_id.to_vec();
        target.bucket = described.bucket_id.to_vec();
        admin.attach_follower(target.attach(FOLLOWER.1)).await?;
        Ok(target)
    }

    /// A follower, which answers no calls of other clusters.
    pub(super) fn follower(node: &'a Node, operator_token: &str) -> Self {
        Self {
            node,
            operator: node.as_caller(Some(operator_token)),
            operator_token: operator_token.to_owned(),
            bucket: Vec::new(),
            database: Vec::new(),
        }
    }

    fn attach(&self, configuration: &str) -> AttachFollowerRequest {
        AttachFollowerRequest {
            follower_cluster: FOLLOWER.0.to_owned(),
            configuration: configuration.to_owned(),
            database_name: "d".to_owned(),
            bucket_id: self.bucket.clone().into(),
            location: "local".to_owned(),
            ..AttachFollowerRequest::default()
        }
    }

    async fn channel(&self, token: Option<&str>) -> Result<InterceptedService<Channel, Shows>> {
        let channel = Endpoint::from_shared(self.node.grpc_url())?
            .connect()
            .await?;
        let bearer = token.map(|token| format!("Bearer {token}").parse());
        Ok(InterceptedService::new(channel, Shows(bearer.transpose()?)))
    }

    async fn admin(
        &self,
        token: Option<&str>,
    ) -> Result<AdminClient<InterceptedService<Channel, Shows>>> {
        Ok(AdminClient::new(self.channel(token).await?))
    }
}

/// Shows a token with each call.
#[derive(Clone)]
pub(super) struct Shows(Option<AsciiMetadataValue>);

impl tonic::service::Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

impl Call {
    /// Sends it; gives the status and the error's code.
    pub(super) async fn send(
        &self,
        target: &Target<'_>,
        token: Option<&str>,
        number: usize,
    ) -> Result<(u16, String)> {
        let client = target.node.as_caller(token);
        let numbered = |text: &str| text.replace("{n}", &number.to_string());
        let post = async |path: &str, body: Value| client.send("POST", path, Some(&body)).await;
        let (status, body) = match self {
            Self::Sql(sql) => {
                let body = json!({"database": "d", "sql": numbered(sql)});
                post("/v1/sql", body).await?
            }
            Self::NodeSql(sql) => post("/v1/sql", json!({"sql": numbered(sql)})).await?,
            Self::Command(text) => {
                let body = json!({"db": "d", "csl": numbered(text)});
                post("/v1/rest/mgmt", body).await?
            }
            Self::KustoQuery(text) => {
                let body = json!({"db": "d", "csl": numbered(text)});
                let first = post("/v1/rest/query", body.clone()).await?;
                let second = post("/v2/rest/query", body).await?;
                ensure!(first.0 == second.0, "v1 {first:?}, v2 {second:?}");
                second
            }
            Self::Ingest(table, options) => {
                let table = numbered(table);
                let ingested = client.ingest("d", &table, options, "word\nx\n");
                match ingested.await {
                    Ok(receipt) => (200, receipt.to_string()),
                    Err(error) => {
                        let refused: ApiError = error.downcast()?;
                        return Ok((refused.status, refused.code));
                    }
                }
            }
            Self::KustoIngest(table) => {
                let path = format!("/v1/rest/ingest/d/{table}?streamFormat=Json");
                post(&path, json!({"word": "x"})).await?
            }
            Self::Http(method, path, body) => {
                let body = body.map(|body| serde_json::from_str(&numbered(body)));
                let body: Option<Value> = body.transpose()?;
                client
                    .send(
                        method,
                        &address(target.node, &numbered(path)),
                        body.as_ref(),
                    )
                    .await?
            }
            Self::HttpDelete(path, body) => {
                let body: Value = serde_json::from_str(body)?;
                let (status, answer) = target
                    .operator
                    .send("PUT", &address(target.node, path), Some(&body))
                    .await?;
                ensure!(status < 300, "PUT {path}: {status} {answer}");
                client
                    .send("DELETE", &address(target.node, path), None)
                    .await?
            }
            Self::Flight(call) => return flight(target.node, token, call, number).await,
            Self::Grpc(call) => return grpc(target, token, call, number).await,
        };
        let parsed: Value = serde_json::from_str(&body).unwrap_or_default();
        let code = parsed["error"]["code"].as_str().unwrap_or_default();
        Ok((status, code.to_owned()))
    }

    /// What it is, for messages.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Sql(text) | Self::NodeSql(text) => format!("SQL {text}"),
            Self::Command(text) => format!("command {text}"),
            Self::KustoQuery(text) => format!("Kusto query {text}"),
            Self::Ingest(table, options) => format!("ingest into {table} with {options}"),
            Self::KustoIngest(table) => format!("Kusto's ingest into {table}"),
            Self::Http(method, path, _) => format!("{method} {path}"),
            Self::HttpDelete(path, _) => format!("DELETE {path}"),
            Self::Flight(Flight::Statement(text)) => format!("Flight {text}"),
            Self::Flight(Flight::Prepared(text)) => format!("Flight, prepared {text}"),
            Self::Flight(Flight::Schemas) => "Flight GetDbSchemas".to_owned(),
            Self::Flight(Flight::Tables) => "Flight GetTables".to_owned(),
            Self::Flight(Flight::Append(table)) => format!("Flight ingest into {table}"),
            Self::Flight(Flight::Replace(table)) => format!("Flight ingest in place of {table}"),
            Self::Grpc(call) => format!("gRPC {call:?}"),
        }
    }
}

/// The path of a request; `ARM` stands for the node's own cluster as a resource.
fn address(node: &Node, path: &str) -> String {
    let path = path.replace("ARM", &CLUSTER.replace("north", node.cluster()));
    if path.starts_with("/subscriptions") {
        format!("{path}?api-version=2025-02-14")
    } else {
        path
    }
}

/// Flight SQL's client of a node, with or without a token.
pub(super) async fn flight_client(
    node: &Node,
    token: Option<&str>,
) -> Result<FlightSqlServiceClient<Channel>> {
    let channel = Endpoint::from_shared(node.grpc_url())?.connect().await?;
    let mut flight = FlightSqlServiceClient::new(channel);
    flight.set_header("database", "d");
    if let Some(token) = token {
        flight.set_token(token.to_owned());
    }
    Ok(flight)
}

async fn flight(
    node: &Node,
    token: Option<&str>,
    call: &Flight,
    number: usize,
) -> Result<(u16, String)> {
    let mut flight = flight_client(node, token).await?;
    let result = async {
        let info = match call {
            Flight::Statement(sql) => {
                let sql = sql.replace("{n}", &number.to_string());
                flight.execute(sql, None).await?
            }
            Flight::Prepared(sql) => {
                let mut prepared = flight.prepare((*sql).to_owned(), None).await?;
                prepared.execute().await?
            }
            Flight::Schemas => {
                let every = CommandGetDbSchemas::default();
                flight.get_db_schemas(every).await?
            }
            Flight::Tables => flight.get_tables(CommandGetTables::default()).await?,
            Flight::Append(table) => {
                return put(&mut flight, table, TableExistsOption::Append).await;
            }
            Flight::Replace(table) => {
                return put(&mut flight, table, TableExistsOption::Replace).await;
            }
        };
        for endpoint in info.endpoint {
            if let Some(ticket) = endpoint.ticket {
                flight.do_get(ticket).await?.try_collect::<Vec<_>>().await?;
            }
        }
        Ok::<_, FlightError>(())
    };
    match result.await {
        Ok(()) => Ok((200, String::new())),
        Err(error) => {
            let text = error.to_string().to_lowercase();
            if text.contains("valid authentication credentials") {
                return Ok((401, "unauthenticated".into()));
            }
            // Refused to everybody, before anybody's rights are looked at.
            if text.contains("is a follower") {
                return Ok((403, "read_only_follower".into()));
            }
            if text.contains("permission") || text.contains("may not") || text.contains("no role") {
                return Ok((403, "forbidden".into()));
            }
            Ok((500, text))
        }
    }
}

async fn put(
    flight: &mut FlightSqlServiceClient<Channel>,
    table: &str,
    exists: TableExistsOption,
) -> Result<(), FlightError> {
    let missing = match exists {
        TableExistsOption::Append => TableNotExistOption::Fail,
        _ => TableNotExistOption::Create,
    };
    let command = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing.into(),
            if_exists: exists.into(),
        }),
        table: table.to_owned(),
        ..Default::default()
    };
    let words: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["x"]));
    let batch = RecordBatch::try_from_iter([("word", words)])?;
    let batches = futures::stream::iter([Ok(batch)]);
    flight.execute_ingest(command, batches).await?;
    Ok(())
}

async fn grpc(
    target: &Target<'_>,
    token: Option<&str>,
    call: &Grpc,
    number: usize,
) -> Result<(u16, String)> {
    let mut admin = target.admin(token).await?;
    let mut sync = MetadataSyncClient::new(target.channel(token).await?);
    let follower = Some(FollowerIdentity {
        cluster: FOLLOWER.0.to_owned(),
        node_id: vec![7; 16].into(),
        configuration: FOLLOWER.1.to_owned(),
    });
    let result: Result<(), Status> = match call {
        Grpc::Attach => {
            let wanted = target.attach(&format!("new{number}"));
            admin.attach_follower(wanted).await.map(drop)
        }
        Grpc::Detach => {
            let configuration = format!("held{number}");
            let mut operator = target.admin(Some(&target.operator_token)).await?;
            operator
                .attach_follower(target.attach(&configuration))
                .await?;
            let detach = DetachFollowerRequest {
                follower_cluster: FOLLOWER.0.to_owned(),
                configuration,
            };
            admin.detach_follower(detach).await.map(drop)
        }
        Grpc::Describe => {
            let of_cluster = DescribeClusterRequest::default();
            admin.describe_cluster(of_cluster).await.map(drop)
        }
        Grpc::DescribeOf => {
            let of_follower = DescribeClusterRequest { follower };
            admin.describe_cluster(of_follower).await.map(drop)
        }
        Grpc::Subscribe => {
            let subscribe = SubscribeRequest {
                follower,
                bucket_id: target.bucket.clone().into(),
                database_id: target.database.clone().into(),
                from_version: 0,
                from_digest: vec![0; 32].into(),
            };
            sync.subscribe(subscribe).await.map(drop)
        }
        Grpc::RenewLease => {
            let renew = RenewLeaseRequest {
                follower,
                database_id: target.database.clone().into(),
                lowest_version: 1,
                current_version: 1,
                sent_us: 0,
            };
            sync.renew_lease(renew).await.map(drop)
        }
    };
    Ok(match result {
        Ok(()) => (200, String::new()),
        Err(status) => match status.code() {
            Code::Unauthenticated => (401, "unauthenticated".to_owned()),
            Code::PermissionDenied => (403, "forbidden".to_owned()),
            code => (500, format!("{code:?} {}", status.message())),
        },
    })
}
