//! `slipstream warm`: a follower fetches what is hot of a database, and shows how far it is.
//!
//! The warming is the follower's: this program asks for it, and watches `.show cache` until nothing
//! more will come.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde::Deserialize;
use slipstream_kusto::warm_command;
use tokio::time::Instant;

use crate::client::{Client, Credentials, FOLLOWER_URL};

/// Between the first two looks. Small tables are warm in no time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Between two looks in the long run. Each look is a command in the node's log, which has an end.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// As long as this nothing has moved: nothing will. A node looks for work several times a second.
const QUIET: Duration = Duration::from_secs(2);
/// The same after fetches that failed: a node waits up to a minute before it tries again.
const QUIET_AFTER_FAILURES: Duration = Duration::from_secs(90);

/// Flags of `slipstream warm`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream warm nyc
  slipstream warm nyc --table flights --follower http://127.0.0.1:7421
  slipstream warm nyc --no-wait
  slipstream sql --url http://127.0.0.1:7421 \".show cache\"        how far it is, as a table

What is hot is what the follower's caching policies say; '.alter follower database nyc policy
caching hot = 7d' changes that. It is fetched before anything else, the newest first, as far as
--cache-disk-bytes of the follower allows. Ctrl-C ends the waiting, not the warming.")]
pub(crate) struct WarmArgs {
    /// HTTP address of the follower.
    #[arg(
        long,
        visible_alias = "follower",
        value_name = "URL",
        env = "SLIPSTREAM_URL",
        default_value = FOLLOWER_URL
    )]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// The database, by its name at the follower.
    #[arg(value_name = "DATABASE")]
    database: String,
    /// Only this table of it.
    #[arg(short, long, value_name = "TABLE")]
    table: Option<String>,
    /// Do not wait until it is warm.
    #[arg(long)]
    no_wait: bool,
}

impl fmt::Display for WarmArgs {
    /// What is warmed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "table '{table}' of ")?;
        }
        write!(f, "database '{}'", self.database)
    }
}

/// A row of `.show cache`; `.warm` answers with the first columns of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CacheRow {
    /// Empty in the row of the node itself.
    database_name: String,
    table_name: String,
    hot_extents: u64,
    hot_bytes: u64,
    resident_extents: u64,
    resident_bytes: u64,
    shortfall_bytes: Option<u64>,
    waiting_extents: Option<u64>,
    in_flight_bytes: Option<u64>,
    failures: Option<u64>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// Extents that are hot.
    extents: u64,
    bytes: u64,
    /// Those of them that are on the follower's disk.
    resident_extents: u64,
    resident_bytes: u64,
    /// Bytes that are hot on the node, and do not fit.
    shortfall_bytes: u64,
    /// Whether the node fetches anything.
    is_fetching: bool,
    /// Fetches of the node that failed since it started.
    failures: u64,
}

impl Look {
    fn of(rows: &[CacheRow], args: &WarmArgs) -> Self {
        let mut look = Self::default();
        for row in rows {
            if row.database_name.is_empty() {
                look.shortfall_bytes = row.shortfall_bytes.unwrap_or(0);
                look.is_fetching =
                    row.waiting_extents.unwrap_or(0) > 0 || row.in_flight_bytes.unwrap_or(0) > 0;
                look.failures = row.failures.unwrap_or(0);
            } else if row.database_name == args.database
                && args
                    .table
                    .as_ref()
                    .is_none_or(|table| *table == row.table_name)
            {
                look.extents += row.hot_extents;
                look.bytes += row.hot_bytes;
                look.resident_extents += row.resident_extents;
                look.resident_bytes += row.resident_bytes;
            }
        }
        look
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.resident_extents, extents(self.extents))
    }
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that is hot is here.
    Warm(Look),
    /// The policies make nothing hot.
    NothingHot,
    /// Not all of it fits.
    Short(Look),
    /// Something is missing, and is not fetched.
    Stalled(Look),
}

impl End {
    /// The line that says so.
    ///
    /// # Errors
    /// When it is not an end that was to be expected.
    fn tell(self, args: &WarmArgs) -> anyhow::Result<String> {
        match self {
            Self::Warm(look) => Ok(format!(
                "{args} is warm: {}, {} on the follower's disk",
                extents(look.extents),
                ByteSize::b(look.resident_bytes)
            )),
            Self::NothingHot => Ok(format!(
                "nothing of {args} is hot: its caching policies keep nothing near"
            )),
            Self::Short(look) => Ok(format!(
                "{args} is as warm as the disk allows: {look}, {}; the follower lacks {} for all \
                 that is hot: start it with more --cache-disk-bytes, or make less hot",
                ByteSize::b(look.resident_bytes),
                ByteSize::b(look.shortfall_bytes)
            )),
            Self::Stalled(look) => bail!(
                "{args} is not warm, and nothing more comes: {look} are here; see the follower's \
                 log"
            ),
        }
    }
}

/// Notices when nothing more will come.
#[derive(Debug, Default)]
struct Watch {
    last: Look,
    moved_at: Duration,
    /// Failures of the node before the first look.
    failures_before: Option<u64>,
}

impl Watch {
    /// Takes in what was seen at a time since the beginning.
    fn note(&mut self, look: Look, at: Duration) -> Option<End> {
        let has_moved = look.is_fetching
            || (look.extents, look.resident_extents, look.failures)
                != (
                    self.last.extents,
                    self.last.resident_extents,
                    self.last.failures,
                );
        self.last = look;
        self.failures_before.get_or_insert(look.failures);
        if has_moved {
            self.moved_at = at;
        }
        let patience = match self.failures() {
            0 => QUIET,
            _ => QUIET_AFTER_FAILURES,
        };
        let is_quiet = at.saturating_sub(self.moved_at) >= patience;
        match look {
            // Whatever the node fetches, it is for others.
            Look { extents: 0, .. } => (at >= QUIET).then_some(End::NothingHot),
            look if look.resident_extents == look.extents => Some(End::Warm(look)),
            look if look.shortfall_bytes > 0 => is_quiet.then_some(End::Short(look)),
            look => is_quiet.then_some(End::Stalled(look)),
        }
    }

    /// Fetches of the node that failed since the first look.
    fn failures(&self) -> u64 {
        let before = self.failures_before.unwrap_or(self.last.failures);
        self.last.failures.saturating_sub(before)
    }
}

/// Runs the command.
pub(crate) async fn run(args: WarmArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let command = warm_command(&args.database, args.table.as_deref());
    let rows = tokio::select! {
        // First, so that from here on Ctrl-C is this program's.
        biased;
        pressed = &mut interrupted => return Err(stopped(pressed, "interrupted")),
        rows = ask(&client, &command) => rows?,
    };
    if args.no_wait {
        let look = Look::of(&rows, &args);
        crate::print(format!("{args} is being warmed: {look} are here"))?;
        return Ok(());
    }
    let progress = bar();
    let ended = tokio::select! {
        biased;
        pressed = &mut interrupted => {
            let message = format!(
                "interrupted: the follower goes on warming {args}, and .show cache tells how far \
                 it is"
            );
            Err(stopped(pressed, &message))
        }
        ended = watch(&client, &args, &progress) => ended,
    };
    progress.finish_and_clear();
    crate::print(ended?.tell(&args)?)?;
    Ok(())
}

fn stopped(pressed: io::Result<()>, message: &str) -> anyhow::Error {
    match pressed {
        Ok(()) => anyhow!("{message}"),
        Err(error) => anyhow!(error).context("cannot wait for Ctrl-C"),
    }
}

async fn watch(client: &Client, args: &WarmArgs, progress: &ProgressBar) -> anyhow::Result<End> {
    let began = Instant::now();
    let mut watch = Watch::default();
    let mut is_told = false;
    let mut pause = PAUSE_FIRST;
    loop {
        let rows = ask(client, ".show cache").await;
        let rows = rows.with_context(|| {
            format!("the follower goes on warming {args}, but cannot be asked how far it is")
        })?;
        let look = Look::of(&rows, args);
        let end = watch.note(look, began.elapsed());
        show(progress, args, &look, watch.failures());
        if let Some(end) = end {
            return Ok(end);
        }
        if watch.failures() > 0 && progress.is_hidden() && !std::mem::replace(&mut is_told, true) {
            eprintln!("fetches fail, and are tried again: see the follower's log");
        }
        wait(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What a management command answers.
async fn ask(client: &Client, command: &str) -> anyhow::Result<Vec<CacheRow>> {
    let body = serde_json::json!({"sql": command});
    let request = client.request(Method::POST, &["v1", "sql"]).json(&body);
    let answer = client.send(request).await?.json().await;
    answer.context("the node's answer is garbled")
}

/// Hidden by itself when standard error is not a terminal.
fn bar() -> ProgressBar {
    let progress = ProgressBar::new(0);
    let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        progress.set_style(style);
    }
    progress
}

fn show(progress: &ProgressBar, args: &WarmArgs, look: &Look, failures: u64) {
    let failed = match failures {
        0 => String::new(),
        failures => format!(", {failures} failed, see the follower's log"),
    };
    progress.set_message(format!("{args}: {look}{failed}"));
    progress.set_length(look.bytes);
    let is_first = progress.position() == 0;
    progress.set_position(look.resident_bytes);
    if is_first {
        // What was here before did not come just now.
        progress.reset_eta();
    }
}

fn extents(count: u64) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} extent{ending}")
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for another process, with a person in front of it"
)]
async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: WarmArgs,
    }

    fn args(line: &str) -> WarmArgs {
        let words = std::iter::once("warm").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("valid").args
    }

    fn rows() -> Vec<CacheRow> {
        let text = r#"[
            {"DatabaseName": "", "TableName": "", "HotExtents": 9, "HotBytes": 90,
             "ResidentExtents": 4, "ResidentBytes": 40, "EncodedExtents": 1, "HitPercent": null,
             "ShortfallBytes": 7, "WaitingExtents": 2, "InFlightBytes": 0, "Failures": 3},
            {"DatabaseName": "d", "TableName": "t", "HotExtents": 3, "HotBytes": 30,
             "ResidentExtents": 1, "ResidentBytes": 10, "ShortfallBytes": null},
            {"DatabaseName": "d", "TableName": "u", "HotExtents": 1, "HotBytes": 10,
             "ResidentExtents": 1, "ResidentBytes": 10, "WaitingExtents": null},
            {"DatabaseName": "e", "TableName": "t", "HotExtents": 5, "HotBytes": 50,
             "ResidentExtents": 2, "ResidentBytes": 20}
        ]"#;
        serde_json::from_str(text).expect("rows")
    }

    #[test]
    fn a_look_is_at_what_was_asked_for() {
        let database = Look::of(&rows(), &args("d"));
        assert_eq!((database.extents, database.resident_extents), (4, 2));
        assert_eq!((database.bytes, database.resident_bytes), (40, 20));
        assert!(database.is_fetching);
        assert_eq!((database.shortfall_bytes, database.failures), (7, 3));
        let table = Look::of(&rows(), &args("d --table t"));
        assert_eq!(table.to_string(), "1 of 3 extents");
        assert_eq!(Look::of(&rows(), &args("missing")).extents, 0);
    }

    #[test]
    fn it_ends_when_it_is_warm_or_nothing_moves() {
        let cold = Look {
            extents: 3,
            is_fetching: true,
            ..Look::default()
        };
        let idle = Look {
            resident_extents: 1,
            is_fetching: false,
            ..cold
        };
        let second = Duration::from_secs(1);
        let mut watch = Watch::default();
        assert_eq!(watch.note(cold, second), None);
        assert_eq!(watch.note(cold, 60 * second), None, "it is at work");
        assert_eq!(watch.note(idle, 61 * second), None);
        assert_eq!(watch.note(idle, 62 * second), None);
        assert_eq!(watch.note(idle, 63 * second), Some(End::Stalled(idle)));
        let failing = Look {
            failures: 1,
            ..idle
        };
        assert_eq!(watch.note(failing, 64 * second), None, "it tries again");
        assert_eq!(watch.note(failing, 124 * second), None, "after a while");
        let end = watch.note(failing, 154 * second);
        assert_eq!(end, Some(End::Stalled(failing)));
        let warm = Look {
            resident_extents: 3,
            ..cold
        };
        assert_eq!(watch.note(warm, 155 * second), Some(End::Warm(warm)));

        let short = Look {
            shortfall_bytes: 5,
            ..idle
        };
        let mut watch = Watch::default();
        assert_eq!(watch.note(short, second), None);
        assert_eq!(watch.note(short, 3 * second), Some(End::Short(short)));
        // What was attached just now has no plan yet.
        let mut watch = Watch::default();
        assert_eq!(watch.note(Look::default(), second), None);
        let end = watch.note(Look::default(), 3 * second);
        assert_eq!(end, Some(End::NothingHot));
    }

    #[test]
    fn an_end_says_what_it_is_the_end_of() {
        let look = Look {
            extents: 3,
            resident_extents: 1,
            resident_bytes: 2_048,
            shortfall_bytes: 4_096,
            ..Look::default()
        };
        let args = args("d --table t");
        let tell = |end: End| end.tell(&args);
        let warm = tell(End::Warm(look)).expect("an end");
        assert!(warm.starts_with("table 't' of database 'd' is warm: 3 extents, 2.0 KiB"));
        let short = tell(End::Short(look)).expect("an end");
        assert!(
            short.contains("1 of 3 extents") && short.contains("lacks 4.0 KiB"),
            "{short}"
        );
        assert!(tell(End::NothingHot).is_ok());
        assert!(tell(End::Stalled(look)).is_err());
    }
}
