//! `slipstream sql`.

use std::io::{Cursor, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use futures::StreamExt;
use reqwest::{Method, Response};
use serde_json::json;

use crate::client::{Client, Credentials, LEADER_URL};
use crate::format::{self, Format};
use crate::shell;

/// Flags of `slipstream sql`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream sql \"CREATE DATABASE nyc\"
  slipstream sql -d nyc \"SELECT count(*) FROM flights\"
  slipstream sql -d nyc --format csv \"SELECT * FROM airlines\" > airlines.csv
  slipstream sql -d nyc -f report.sql
  slipstream sql --url http://127.0.0.1:7421 -d nyc --min-version 7 \"SELECT max(time_hour) FROM flights\"
  slipstream sql -d nyc                            an interactive shell")]
pub(crate) struct SqlArgs {
    /// HTTP address of a node, leader or follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = LEADER_URL)]
    pub(crate) url: String,
    /// How to get in.
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// Database that names without a schema are looked up in.
    #[arg(short, long, value_name = "DATABASE")]
    pub(crate) database: Option<String>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Answer from this version of the database or a newer one.
    #[arg(long, value_name = "N")]
    pub(crate) min_version: Option<u64>,
    /// Answer from a state that was the newest at most this long ago, such as 5s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) max_staleness: Option<Duration>,
    /// What to do when the state is older.
    #[arg(long, value_name = "WHAT", value_parser = ["wait", "fail", "stale"])]
    pub(crate) when_stale: Option<String>,
    /// How long the request may take, such as 30s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Read the SQL from a file; - is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "sql")]
    pub(crate) file: Option<PathBuf>,
    /// One statement, or several that are one transaction. Without it, a shell.
    pub(crate) sql: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: SqlArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let sql = match (&args.sql, &args.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?,
        (None, None) if std::io::stdin().is_terminal() => return shell::run(client, args).await,
        (None, _) => {
            let mut sql = String::new();
            std::io::stdin()
                .read_to_string(&mut sql)
                .context("cannot read standard input")?;
            sql
        }
    };
    if sql.trim().is_empty() {
        bail!("there is no SQL to run");
    }
    let response = request(&client, &args, &sql).await?;
    print(response, args.format, usize::MAX).await.map(drop)
}

/// Sends SQL to the node.
pub(crate) async fn request(
    client: &Client,
    args: &SqlArgs,
    sql: &str,
) -> anyhow::Result<Response> {
    let duration = |duration: Option<Duration>| {
        duration.map(|duration| humantime::format_duration(duration).to_string())
    };
    let body = json!({
        "database": args.database,
        "sql": sql,
        "min_version": args.min_version,
        "max_staleness": duration(args.max_staleness),
        "when_stale": args.when_stale,
        "timeout": duration(args.timeout),
    });
    let request = client
        .request(Method::POST, &["v1", "sql"])
        .header(reqwest::header::ACCEPT, args.format.accept())
        .json(&body);
    client.send(request).await
}

/// What an answer held.
pub(crate) struct Printed {
    pub(crate) rows: usize,
    pub(crate) version: Option<String>,
    pub(crate) lag_ms: Option<String>,
}

/// Prints an answer: a table whole, everything else as it comes.
pub(crate) async fn print(
    response: Response,
    format: Format,
    rows_max: usize,
) -> anyhow::Result<Printed> {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(ToOwned::to_owned)
    };
    let (version, lag_ms) = (header("slipstream-version"), header("slipstream-lag-ms"));
    if format != Format::Table {
        let mut chunks = response.bytes_stream();
        let mut out = std::io::stdout().lock();
        while let Some(chunk) = chunks.next().await {
            out.write_all(&chunk.context("the answer broke off; see the node's log")?)?;
        }
        out.flush()?;
        return Ok(Printed {
            rows: 0,
            version,
            lag_ms,
        });
    }
    let (schema, batches) = read_arrow(response).await?;
    format::print_table(&schema, &batches, rows_max)?;
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(Printed {
        rows,
        version,
        lag_ms,
    })
}

/// Reads an answer whole.
pub(crate) async fn read_arrow(
    response: Response,
) -> anyhow::Result<(SchemaRef, Vec<RecordBatch>)> {
    let bytes = response
        .bytes()
        .await
        .context("the answer broke off; see the node's log")?;
    let reader = StreamReader::try_new(Cursor::new(bytes), None).context("not an Arrow stream")?;
    let schema = reader.schema();
    let batches = reader
        .collect::<Result<_, _>>()
        .context("a damaged Arrow stream")?;
    Ok((schema, batches))
}
