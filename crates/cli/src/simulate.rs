//! `slipstream simulate`: what followers would see, keep and cost, before anyone buys a machine.

mod model;
mod outages;
mod plot;
mod report;
mod scenario;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use scenario::{
    Bucket, DISK_BYTES, Faults, Follower, Ingest, Policies, Policy, Prices, Queries, Scenario,
};

/// Steps of the progress bar.
const STEPS: u64 = 1_000;

/// Flags of `slipstream simulate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream simulate --followers 3 --duration 7d --report out.html
  slipstream simulate --duration 30d --history 90d --policy caching=30d --policy retention=120d \\
      --follower name=recent,hot=3d,disk=20GB --follower name=history,disk=500GB
  slipstream simulate --ingest rows=50000,every=1s --queries rate=20,look=1h:80+1d:15+all:5 \\
      --faults some --seed 7 --json
  slipstream simulate --faults leader=1d/2m,cut=12h/10m      down once a day for two minutes, ...

It is a model, and quick: merges, hot sets and what a cache keeps are decided by the functions that
the product decides with; latencies and faults are drawn from the seed. The same flags give the same
report. The report says what is taken for granted. Amounts of money are in the currency of --prices;
its defaults are the list prices of S3 Standard in us-east-1, in US dollars.")]
pub(crate) struct SimulateArgs {
    /// How many followers that are alike.
    #[arg(long, value_name = "N")]
    followers: Option<u16>,
    /// Their override of the caching policy, such as 3d [default: the leader's policy].
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    hot: Option<Duration>,
    /// What each of their caches takes of the disk [default: 100GB].
    #[arg(long, value_name = "BYTES")]
    cache_disk_bytes: Option<bytesize::ByteSize>,
    /// A follower of its own kind: name=N,hot=SPAN,disk=BYTES. Can be repeated.
    #[arg(long, value_name = "SETTINGS")]
    follower: Vec<Follower>,
    /// How much time is simulated.
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How far back rows go that are there when it begins.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = humantime::parse_duration)]
    history: Duration,
    /// Rows that come in: rows=a second,row-bytes=N,every=SPAN between commits,
    /// compression=times,daily=swing of a day from 0 to 1 [default:
    /// rows=1000,row-bytes=200,every=10s,compression=5,daily=0.5].
    #[arg(long, value_name = "SETTINGS")]
    ingest: Option<Ingest>,
    /// What each follower is asked: rate=a second,columns=percent of an extent's bytes,
    /// look=SPAN:weight+... how far back [default: rate=1,columns=25,look=1h:80+1d:15+7d:5].
    #[arg(long, value_name = "SETTINGS")]
    queries: Option<Queries>,
    /// A policy of the leader: caching=SPAN, retention=SPAN, merge=off or merge=JSON as in
    /// '.alter table T policy merge'. Can be repeated [default: all is hot, kept and merged].
    #[arg(long, value_name = "POLICY")]
    policy: Vec<Policy>,
    /// What fails: none, some, harsh, or leader=, cut=, silent= (a follower does not reach its
    /// leader), bucket=, each how often/for how long on average.
    #[arg(long, value_name = "FAULTS", default_value = "none")]
    faults: Faults,
    /// The bucket: p50= and p99= of a request, bandwidth=bytes a second of a follower [default:
    /// p50=30ms,p99=200ms,bandwidth=100MB].
    #[arg(long, value_name = "SETTINGS")]
    bucket: Option<Bucket>,
    /// Prices: put= and get= of a thousand, storage= of a GB for a month, egress= of a GB,
    /// machine= of a node for an hour [default: put=0.005,get=0.0004,storage=0.023].
    #[arg(long, value_name = "PRICES")]
    prices: Option<Prices>,
    /// Draws latencies and faults.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print everything as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl SimulateArgs {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let alike = match self.followers {
            Some(followers) => followers,
            // Those that are described are all there are.
            None => u16::from(self.follower.is_empty()),
        };
        ensure!(
            alike > 0 || (self.hot.is_none() && self.cache_disk_bytes.is_none()),
            "--hot and --cache-disk-bytes are for --followers N; --follower has its own: hot=, disk="
        );
        let disk_bytes = self
            .cache_disk_bytes
            .map_or(DISK_BYTES, |size| size.as_u64());
        let alike = (1..=alike).map(|number| Follower {
            name: format!("follower-{number}"),
            hot: self.hot,
            disk_bytes,
        });
        let scenario = Scenario {
            followers: self.follower.iter().cloned().chain(alike).collect(),
            duration: self.duration,
            history: self.history,
            ingest: self.ingest.clone().unwrap_or_default(),
            queries: self.queries.clone().unwrap_or_default(),
            policies: Policies::of(&self.policy),
            faults: self.faults,
            bucket: self.bucket.unwrap_or_default(),
            prices: self.prices.unwrap_or_default(),
            seed: self.seed,
        };
        scenario.check()?;
        Ok(scenario)
    }
}

/// Runs the model, and shows what it found.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let scenario = args.scenario()?;
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %  {eta} left") {
        bar.set_style(style);
    }
    let outcome = model::run(&scenario, |part| {
        bar.set_position((part * STEPS as f64) as u64);
    });
    bar.finish_and_clear();
    if let Some(path) = &args.report {
        let command: Vec<_> = std::env::args().skip(1).map(quoted).collect();
        let command = format!("slipstream {}", command.join(" "));
        let page = report::page(&command, &scenario, &outcome)?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        let found = serde_json::json!({ "scenario": scenario, "outcome": outcome });
        crate::print(serde_json::to_string_pretty(&found)?)?;
    } else {
        crate::print(report::text(&scenario, &outcome).trim_end())?;
    }
    if let Some(path) = &args.report {
        eprintln!("the report is {}", path.display());
    }
    Ok(())
}

/// An argument as a shell takes it.
fn quoted(argument: String) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(letter);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}
