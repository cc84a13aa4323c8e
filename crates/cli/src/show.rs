//! `slipstream show`.

use clap::ValueEnum;

use crate::client::{Client, Credentials, LEADER_URL};
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
    /// HTTP address of a node, leader or follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = LEADER_URL)]
    url: String,
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
            Self::Followers => (
                "SELECT database_name, follower_cluster, configuration, attached_at, last_seen, \
                 version FROM slipstream.followers",
                "database_name, follower_cluster, configuration",
            ),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: ShowArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let (select, order) = args.what.query();
    let filter = args
        .database
        .as_ref()
        .map(|name| format!(" WHERE database_name = '{}'", name.replace('\'', "''")));
    let sql = format!("{select}{} ORDER BY {order}", filter.unwrap_or_default());
    let request = SqlArgs {
        url: args.url,
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
