//! `slipstream ingest`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytesize::ByteSize;
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use slipstream_frontend::runtime::{SystemClock, entropy_from_os};
use slipstream_frontend::{IngestReceipt, Skipped};
use slipstream_model::{Clock, Entropy, IngestId, Timestamp};
use tokio_util::io::ReaderStream;

use crate::client::{Client, Credentials, Failure, LEADER_URL};
use crate::format::thousands;

/// Bytes read from a file at a time: large enough that system calls do not show.
const CHUNK_BYTES: usize = 256 << 10;
/// How often a file is sent again that was not acknowledged: for half a minute, in which a leader
/// is restarted.
const RETRIES_MAX: u32 = 5;
/// The pause before the first of them; each further one doubles it.
const RETRY_BACKOFF: Duration = Duration::from_secs(1);

/// Flags of `slipstream ingest`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream ingest -d nyc -t flights --create flights.csv.gz
  slipstream ingest -d nyc -t flights --creation-time 2013-02-01T00:00:00Z --tag month:2013-01 jan.parquet
  slipstream ingest -d nyc -t planes s3://elsewhere/planes.parquet
  zcat flights.csv.gz | slipstream ingest -d nyc -t flights --format csv -
  slipstream ingest -d nyc -t flights --tag ingest-by:2013-01 --ingest-if-not-exists 2013-01 jan.csv
  slipstream ingest -d nyc -t flights --queued some-rows.jsonl

Each file is one commit, all of it or nothing; a file whose connection breaks is sent again, and
committed once. The version it answers can be asked of a follower:
slipstream sql --url FOLLOWER --min-version N ...")]
pub(crate) struct IngestArgs {
    /// HTTP address of the leader.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = LEADER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// The database.
    #[arg(short, long, value_name = "DATABASE")]
    database: String,
    /// The table.
    #[arg(short, long, value_name = "TABLE")]
    table: String,
    /// Create the table if it is not there, with columns and types found in the file.
    #[arg(long)]
    create: bool,
    /// How the file is encoded [default: by its name's ending]. CSV and JSON lines may be gzipped.
    #[arg(long, value_parser = ["csv", "jsonl", "parquet", "arrow"])]
    format: Option<String>,
    /// Creation time of the extents, when not now: what caching policies look at.
    #[arg(long, value_name = "RFC3339")]
    creation_time: Option<Timestamp>,
    /// A tag on the extents; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Ingest nothing when the table has extents with the tag ingest-by:VALUE; may be given several
    /// times.
    #[arg(long, value_name = "VALUE")]
    ingest_if_not_exists: Vec<String>,
    /// The ingest's own name: one of the same name that was committed to the table lately is not
    /// ingested again. For one file only [default: a new one for each file].
    #[arg(long, value_name = "ID")]
    ingest_id: Option<IngestId>,
    /// Wait for other small ingests at the leader, and share an extent and a commit with them (see
    /// .show table T policy ingestionbatching).
    #[arg(long)]
    queued: bool,
    /// Put the rows of a small file into the commit itself, which takes milliseconds, and have them
    /// moved into an extent later. Needs the policy (see .show table T policy streamingingestion).
    #[arg(long, conflicts_with = "queued")]
    streaming: bool,
    /// CSV: a text that means null, besides the empty one; may be given several times [default:
    /// NA, NULL, null].
    #[arg(long = "null", value_name = "TEXT")]
    nulls: Vec<String>,
    /// CSV: the first line is a row, not the names of the columns.
    #[arg(long)]
    no_header: bool,
    /// CSV: what stands between values [default: a comma; \t is a tab].
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<String>,
    /// Leave out up to N rows that do not fit, and write them to a file.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_bad_rows: u64,
    /// Where rows that were left out go, as JSON lines [default: TABLE.rejects.jsonl].
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Print the node's receipts as JSON, one a line.
    #[arg(long)]
    json: bool,
    /// Files of this machine, addresses that the leader reads (s3://, az://, gs://, https://), or -
    /// for standard input.
    #[arg(required = true, value_name = "FILE|URL|-")]
    sources: Vec<String>,
}

/// Runs the command: one ingest after another, up to the first that fails.
pub(crate) async fn run(args: IngestArgs) -> anyhow::Result<()> {
    if args.ingest_id.is_some() && args.sources.len() > 1 {
        bail!(
            "--ingest-id names one ingest, and there are {} files",
            args.sources.len()
        );
    }
    let client = Client::new(&args.url, &args.credentials)?;
    let entropy = entropy_from_os();
    for (index, source) in args.sources.iter().enumerate() {
        let started = now();
        let ingested = ingest_once(&client, &args, source, &entropy).await;
        let receipt = ingested.with_context(|| {
            let left = args.sources.len() - index - 1;
            let rest = if left == 0 {
                String::new()
            } else {
                format!(", {left} more not begun")
            };
            let before = if index == 0 {
                String::new()
            } else {
                format!(" ({index} ingested before{rest})")
            };
            format!("{source} was not ingested{before}")
        })?;
        if !receipt.rejects.is_empty() {
            write_rejects(&args, &receipt)?;
        }
        report(&args, source, &receipt, started.elapsed())?;
    }
    Ok(())
}

/// Sends a file until the node says what became of it. The id makes it one ingest.
async fn ingest_once(
    client: &Client,
    args: &IngestArgs,
    source: &str,
    entropy: &Entropy,
) -> anyhow::Result<IngestReceipt> {
    let id = match &args.ingest_id {
        Some(id) => id.to_string(),
        None => entropy.uuid().to_string(),
    };
    let (mut attempt, mut pause) = (0, RETRY_BACKOFF);
    loop {
        let error = match ingest(client, args, source, &id).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let may_pass = match error.downcast_ref() {
            // A node that was never there is a wrong address.
            Some(Failure::Unreachable(_)) => attempt > 0,
            Some(failure) => failure.may_pass(),
            None => false,
        };
        // What came through a pipe is gone.
        if !may_pass || source == "-" || attempt == RETRIES_MAX {
            return Err(error);
        }
        eprintln!("  {error}; trying again");
        SystemClock::default().sleep(pause).await;
        attempt += 1;
        pause *= 2;
    }
}

async fn ingest(
    client: &Client,
    args: &IngestArgs,
    source: &str,
    id: &str,
) -> anyhow::Result<IngestReceipt> {
    let mut query: Vec<(&str, String)> = Vec::new();
    let mut add = |name: &'static str, value: Option<String>| {
        query.extend(value.map(|value| (name, value)));
    };
    add("create", args.create.then(|| "true".to_owned()));
    add("format", args.format.clone());
    add(
        "creation_time",
        args.creation_time.map(|time| time.to_string()),
    );
    args.tags
        .iter()
        .for_each(|tag| add("tag", Some(tag.clone())));
    args.ingest_if_not_exists
        .iter()
        .for_each(|value| add("ingest_if_not_exists", Some(value.clone())));
    add("ingest_id", Some(id.to_owned()));
    add("streaming", args.streaming.then(|| "true".to_owned()));
    add("queued", args.queued.then(|| "true".to_owned()));
    args.nulls
        .iter()
        .for_each(|null| add("null", Some(null.clone())));
    add("header", args.no_header.then(|| "false".to_owned()));
    add("delimiter", args.delimiter.clone());
    add(
        "max_bad_rows",
        (args.max_bad_rows > 0).then(|| args.max_bad_rows.to_string()),
    );
    let is_address = source.contains("://");
    if is_address {
        add("url", Some(source.to_owned()));
    } else {
        let name = if source == "-" {
            "standard input"
        } else {
            source
        };
        add("source_name", Some(name.to_owned()));
    }
    let path = ["v1", "ingest", &args.database, &args.table];
    let request = client.request(Method::POST, &path).query(&query);

    let progress = if is_address {
        spinner(source)
    } else {
        bar(source)
    };
    let request = if is_address {
        request
    } else {
        request.body(body(source, &progress).await?)
    };
    let response = client.send(request).await;
    progress.finish_and_clear();
    let receipt = response?.json().await;
    receipt.map_err(|error| Failure::Lost(format!("the node's answer is garbled: {error}")).into())
}

/// The file as a body that moves the bar as it is read.
async fn body(source: &str, progress: &ProgressBar) -> anyhow::Result<Body> {
    let counting = progress.clone();
    let count = move |chunk: &bytes::Bytes| counting.inc(chunk.len() as u64);
    if source == "-" {
        let chunks = ReaderStream::with_capacity(tokio::io::stdin(), CHUNK_BYTES);
        return Ok(Body::wrap_stream(chunks.inspect_ok(count)));
    }
    let file = tokio::fs::File::open(source)
        .await
        .with_context(|| format!("cannot open {source}"))?;
    let metadata = file
        .metadata()
        .await
        .with_context(|| format!("cannot read {source}"))?;
    if metadata.is_dir() {
        bail!("{source} is a directory: name the files in it");
    }
    progress.set_length(metadata.len());
    let chunks = ReaderStream::with_capacity(file, CHUNK_BYTES);
    Ok(Body::wrap_stream(chunks.inspect_ok(count)))
}

/// Hidden by itself when standard error is not a terminal.
fn bar(source: &str) -> ProgressBar {
    let progress = ProgressBar::new(0);
    let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        progress.set_style(style);
    }
    progress.set_message(source.to_owned());
    progress
}

fn spinner(source: &str) -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.set_message(format!("the leader reads {source}"));
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

fn report(
    args: &IngestArgs,
    source: &str,
    receipt: &IngestReceipt,
    took: Duration,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(receipt)?)?);
    }
    if receipt.skipped == Some(Skipped::TagExists) {
        let version = receipt.version;
        return Ok(writeln!(
            out,
            "{source}: skipped, the table has it already at version {version}"
        )?);
    }
    let seconds = took.as_secs_f64().max(0.001);
    let bad = match receipt.bad_rows {
        0 => String::new(),
        bad => format!(", {} left out", thousands(bad)),
    };
    writeln!(
        out,
        "{source}: {} rows in {} extent{} ({}), version {}{bad}",
        thousands(receipt.rows),
        receipt.extents,
        if receipt.extents == 1 { "" } else { "s" },
        ByteSize::b(receipt.size_bytes),
        receipt.version,
    )?;
    let rate = receipt.rows as f64 / seconds;
    eprintln!("  {seconds:.2} s, {} rows/s", thousands(rate as u64));
    Ok(())
}

/// Appends, so that several files of one call leave one list.
fn write_rejects(args: &IngestArgs, receipt: &IngestReceipt) -> anyhow::Result<()> {
    let default = || Path::new(&format!("{}.rejects.jsonl", args.table)).to_owned();
    let path = args.rejects.clone().unwrap_or_else(default);
    let mut lines = Vec::new();
    for reject in &receipt.rejects {
        serde_json::to_writer(&mut lines, reject)?;
        lines.push(b'\n');
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&lines))
        .with_context(|| {
            format!(
                "cannot write the rows that were left out to {}",
                path.display()
            )
        })?;
    eprintln!(
        "{} rows were left out: see {}",
        thousands(receipt.bad_rows),
        path.display()
    );
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch for the person in front of it"
)]
fn now() -> Instant {
    Instant::now()
}
