//! `slipstream show`.

use clap::ValueEnum;

use crate::apply::{Current, Document};
use crate::client::{Client, Credentials, FOLLOWER_URL, LEADER_URL};
use crate::format::Format;
use crate::sql::{self, SqlArgs};

/// Flags of `slipstream show`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream show databases
  slipstream show databases --url http://127.0.0.1:7421
  slipstream show extents -d nyc --format csv")]
pub(crate) struct ShowArgs {
    /// HTTP address of a node, leader or follower [default: http://127.0.0.1:7411; for 'follower'
    /// http://127.0.0.1:7421].
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL")]
    url: Option<String>,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// What to show.
    #[arg(value_enum)]
    what: What,
    /// Only of this database.
    #[arg(short, long, value_name = "DATABASE")]
    database: Option<String>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Of 'follower': write a document that 'slipstream apply' takes.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Databases of the node: version, freshness, size, and why one stands still.
    Databases,
    /// Tables, with rows and bytes.
    Tables,
    /// Extents: the Parquet files.
    Extents,
    /// Who follows, on a leader.
    Followers,
    /// A follower's attachments and own settings; with --output as a document for 'slipstream
    /// apply'.
    Follower,
}

/// What a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl What {
    /// The columns that matter to a person; the system tables have more.
    const fn query(self) -> (&'static str, &'static str) {
        match self {
            Self::Databases => (
                "SELECT database_name, database_access_mode, version, substr(digest, 1, 12) AS \
                 digest, lag_ms, versions_behind, table_count, row_count, size_bytes, leader, \
                 suspension_state FROM slipstream.databases",
                "database_name",
            ),
            Self::Tables => (
                "SELECT database_name, table_name, column_count, row_count, extent_count, \
                 size_bytes, original_bytes FROM slipstream.tables",
                "database_name, table_name",
            ),
            Self::Extents => (
                "SELECT database_name, table_name, extent_id, row_count, size_bytes, \
                 max_created_on, tags FROM slipstream.extents",
                "database_name, table_name, max_created_on, extent_id",
            ),
            Self::Follower => (".show follower databases", ""),
            Self::Followers => (
                "SELECT database_name, follower_cluster, configuration, attached_at, last_seen, \
                 version FROM slipstream.followers",
                "database_name, follower_cluster, configuration",
            ),
        }
    }
}

/// Writes the follower as a document.
async fn document(client: &Client, output: Output) -> anyhow::Result<()> {
    let current = Current::read(client).await?;
    let document = Document::of(&current.attachments, &current.databases);
    match output {
        Output::Yaml => crate::print(serde_saphyr::to_string(&document)?.trim_end())?,
        Output::Json => crate::print(serde_json::to_string_pretty(&document)?)?,
    }
    Ok(())
}

/// Runs the command.
pub(crate) async fn run(args: ShowArgs) -> anyhow::Result<()> {
    let default = match args.what {
        What::Follower => FOLLOWER_URL,
        _ => LEADER_URL,
    };
    let url = args.url.unwrap_or_else(|| default.to_owned());
    let client = Client::new(&url, &args.credentials)?;
    match (args.what, args.output) {
        (What::Follower, Some(output)) => return document(&client, output).await,
        (_, Some(_)) => anyhow::bail!("--output is of 'slipstream show follower'"),
        (_, None) => {}
    }
    let (select, order) = args.what.query();
    let filter = args
        .database
        .as_ref()
        .map(|name| format!(" WHERE database_name = '{}'", name.replace('\'', "''")));
    let sql = if select.starts_with('.') {
        select.to_owned()
    } else {
        format!("{select}{} ORDER BY {order}", filter.unwrap_or_default())
    };
    let request = SqlArgs {
        url,
        credentials: args.credentials,
        database: None,
        format: args.format,
        min_version: None,
        max_staleness: None,
        when_stale: None,
        timeout: None,
        file: None,
        sql: None,
    };
    let response = sql::request(&client, &request, &sql).await?;
    sql::print(response, args.format, usize::MAX)
        .await
        .map(drop)
}
