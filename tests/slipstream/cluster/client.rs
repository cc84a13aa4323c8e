//! A client of one node's HTTP door.

use std::fmt;
use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Speaks HTTP to one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// A refusal, as the node words it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

/// An answer: its rows, and the state of the database that they come from.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<Map<String, Value>>,
    headers: HeaderMap,
}

impl Reply {
    /// The version that the rows are of.
    pub(crate) fn version(&self) -> Result<u64> {
        Ok(self.header("slipstream-version")?.parse()?)
    }

    /// The digest of that version.
    pub(crate) fn digest(&self) -> Result<&str> {
        self.header("slipstream-digest")
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Result<&str> {
        let value = self.headers.get(name);
        let value = value.with_context(|| format!("no header {name} in {:?}", self.headers))?;
        Ok(value.to_str()?)
    }

    /// The only value of an answer of one row and one column.
    pub(crate) fn value(&self) -> Result<&Value> {
        match self.rows.as_slice() {
            [row] if row.len() == 1 => row.values().next().context("one column"),
            rows => bail!("expected one value, got {rows:?}"),
        }
    }

    /// The only value of an answer, as a whole number.
    pub(crate) fn count(&self) -> Result<i64> {
        let value = self.value()?;
        value
            .as_i64()
            .with_context(|| format!("not a whole number: {value}"))
    }

    /// The rows, as text, for messages and comparisons.
    pub(crate) fn text(&self) -> String {
        self.rows
            .iter()
            .map(|row| format!("{}\n", Value::Object(row.clone())))
            .collect()
    }
}

/// A question that is being put together.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    client: &'a Client,
    body: Value,
}

impl Ask<'_> {
    /// The answer must be of this version or a newer one.
    pub(crate) fn min_version(self, version: u64) -> Self {
        self.with("min_version", json!(version))
    }

    /// Sets a field of the request.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.body[field] = value;
        self
    }

    /// Sends it; a refusal is an error of type [`ApiError`].
    pub(crate) async fn send(self) -> Result<Reply> {
        let response = self.client.post_sql(&self.body, "application/json").await?;
        let headers = response.headers().clone();
        let text = response.text().await.context("read the answer")?;
        let rows = serde_json::from_str(&text).with_context(|| format!("not rows: {text}"))?;
        Ok(Reply { rows, headers })
    }

    /// Sends it, expecting a refusal.
    pub(crate) async fn refused(self) -> Result<ApiError> {
        let what = self.body.to_string();
        match self.send().await {
            Ok(reply) => bail!("{what} was answered: {}", reply.text()),
            Err(error) => error.downcast().context("expected a refusal"),
        }
    }

    /// Sends it, and reads the answer as Arrow batches.
    pub(crate) async fn arrow(self) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let response = self.client.post_sql(&self.body, ARROW_STREAM).await?;
        read_stream(&response.bytes().await?)
    }

    /// Sends it, and gives the body as it comes.
    pub(crate) async fn body(self, accept: &str) -> Result<String> {
        Ok(self
            .client
            .post_sql(&self.body, accept)
            .await?
            .text()
            .await?)
    }
}

impl Client {
    pub(crate) fn new(base: &str) -> Self {
        Self::with_token(base, None)
    }

    /// A client that shows a token.
    pub(crate) fn with_token(base: &str, token: Option<&str>) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(bearer) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            headers.insert(reqwest::header::AUTHORIZATION, bearer);
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .default_headers(headers)
            .timeout(Duration::from_secs(240))
            .build()
            .unwrap_or_default();
        Self {
            http,
            base: base.to_owned(),
        }
    }

    /// Sends any request; gives the status and the body as text.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, String)> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Runs a management command as Kusto's clients do; gives its rows, each by column name.
    pub(crate) async fn command(&self, database: &str, text: &str) -> Result<Vec<Value>> {
        let body = json!({"db": database, "csl": text});
        let (status, answer) = self.post_json("/v1/rest/mgmt", &body).await?;
        ensure!(status == 200, "{text}: {status} {answer}");
        let table = &answer["Tables"][0];
        let columns = table["Columns"].as_array().context("columns")?;
        let names: Vec<_> = columns.iter().map(|c| c["ColumnName"].as_str()).collect();
        let rows = table["Rows"].as_array().context("rows")?.iter().map(|row| {
            let values = row.as_array().into_iter().flatten().cloned();
            let named = names.iter().map(|name| name.unwrap_or_default().to_owned());
            Value::Object(named.zip(values).collect())
        });
        Ok(rows.collect())
    }

    /// Runs a command that is expected to be refused; gives the status, code and message.
    pub(crate) async fn command_refused(&self, database: &str, text: &str) -> Result<ApiError> {
        let body = json!({"db": database, "csl": text});
        let (status, answer) = self.post_json("/v1/rest/mgmt", &body).await?;
        ensure!(status >= 400, "{text} was answered: {answer}");
        let field = |name: &str| {
            answer["error"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Ok(ApiError {
            status,
            code: field("code"),
            message: field("@message"),
        })
    }

    /// A question about a database.
    pub(crate) fn ask(&self, database: &str, sql: &str) -> Ask<'_> {
        Ask {
            client: self,
            body: json!({"database": database, "sql": sql}),
        }
    }

    /// A question about no database in particular.
    pub(crate) fn ask_node(&self, sql: &str) -> Ask<'_> {
        Ask {
            client: self,
            body: json!({"sql": sql}),
        }
    }

    /// Runs SQL.
    pub(crate) async fn sql(&self, database: &str, sql: &str) -> Result<Reply> {
        self.ask(database, sql)
            .send()
            .await
            .with_context(|| sql.to_owned())
    }

    /// Runs SQL that answers one whole number.
    pub(crate) async fn count(&self, database: &str, sql: &str) -> Result<i64> {
        self.sql(database, sql)
            .await?
            .count()
            .with_context(|| sql.to_owned())
    }

    /// Runs SQL that is expected to be refused.
    pub(crate) async fn refused(&self, database: &str, sql: &str) -> Result<ApiError> {
        self.ask(database, sql).refused().await
    }

    /// Creates a database.
    pub(crate) async fn create_database(&self, name: &str) -> Result<()> {
        let sql = format!("CREATE DATABASE {name}");
        self.ask_node(&sql)
            .send()
            .await
            .with_context(|| sql.clone())?;
        Ok(())
    }

    /// Sends rows to a table; `options` are the query of the address: `format=csv&create=true`.
    pub(crate) async fn ingest(
        &self,
        database: &str,
        table: &str,
        options: &str,
        body: impl Into<Bytes>,
    ) -> Result<Value> {
        let url = format!("{}/v1/ingest/{database}/{table}?{options}", self.base);
        let response = self.http.post(url).body(body.into()).send().await?;
        let receipt: Value = accepted(response).await?.json().await?;
        ensure!(
            receipt["version"].is_u64(),
            "a receipt names its version: {receipt}"
        );
        Ok(receipt)
    }

    /// Sends rows that are expected to be refused.
    pub(crate) async fn ingest_refused(
        &self,
        database: &str,
        table: &str,
        options: &str,
        body: impl Into<Bytes>,
    ) -> Result<ApiError> {
        match self.ingest(database, table, options, body).await {
            Ok(receipt) => bail!("the ingest was taken: {receipt}"),
            Err(error) => error.downcast().context("expected a refusal"),
        }
    }

    /// Stops following.
    pub(crate) async fn detach(&self, name: &str) -> Result<()> {
        let url = format!("{}/v1/attachments/{name}", self.base);
        accepted(self.http.delete(url).send().await?).await?;
        Ok(())
    }

    /// Asks with GET; gives the status and the body, which is JSON.
    pub(crate) async fn get_json(&self, path: &str) -> Result<(u16, Value)> {
        let (status, text) = self.get(path).await?;
        let value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        Ok((status, value))
    }

    /// Asks with GET; gives the status and the body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Posts JSON; gives the status and the body, which is JSON.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let response = self
            .http
            .post(format!("{}{path}", self.base))
            .json(body)
            .send()
            .await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    /// The sum of a counter of `/metrics` over all label sets that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let (status, text) = self.get("/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}");
        let mut sum = 0;
        for line in text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
        {
            let value = line.rsplit(' ').next().unwrap_or_default();
            sum += value
                .parse::<u64>()
                .with_context(|| format!("not a count: {line}"))?;
        }
        Ok(sum)
    }

    /// How the node sees a database, from `/readyz`: that entry, and the status.
    pub(crate) async fn readiness_of(&self, database: &str) -> Result<(u16, Value)> {
        let (status, answer) = self.get_json("/readyz").await?;
        let databases = answer["databases"].as_array().cloned().unwrap_or_default();
        let entry = databases
            .into_iter()
            .find(|entry| entry["name"] == database);
        Ok((status, entry.unwrap_or_default()))
    }

    async fn post_sql(&self, body: &Value, accept: &str) -> Result<reqwest::Response> {
        let request = self.http.post(format!("{}/v1/sql", self.base)).json(body);
        accepted(request.header("accept", accept).send().await?).await
    }
}

/// Turns a refusal into an [`ApiError`].
async fn accepted(response: reqwest::Response) -> Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await?;
    let body: Value = serde_json::from_str(&text)
        .with_context(|| format!("status {status}, and the error is not JSON: {text}"))?;
    let field = |name: &str| {
        let text = body["error"][name].as_str();
        text.map(str::to_owned)
            .with_context(|| format!("an error without {name}: {body}"))
    };
    let (code, message) = (field("code")?, field("message")?);
    Err(ApiError {
        status: status.as_u16(),
        code,
        message,
    }
    .into())
}

/// Arrow batches as an IPC stream.
pub(crate) fn write_stream(batches: &[RecordBatch]) -> Result<Bytes> {
    let first = batches.first().context("a stream of no batches")?;
    let mut writer = StreamWriter::try_new(Vec::new(), &first.schema())?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.into())
}

/// The Arrow batches of an IPC stream.
pub(crate) fn read_stream(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None).context("an Arrow stream")?;
    let schema = reader.schema();
    Ok((schema, reader.collect::<Result<_, _>>()?))
}
