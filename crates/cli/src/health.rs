//! `slipstream health`: whether a node can answer, as an exit status: for a container's health check,
//! where there is no other program that could ask.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use serde::Deserialize;

use crate::client::{Client, Credentials, LEADER_URL};

/// Flags of `slipstream health`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream health
  slipstream health --url http://127.0.0.1:7421 --timeout 2s
  slipstream health --url https://leader:7411 --ca ca.pem
  slipstream health --live

Needs no token; with one it also says which database a node waits for. A node is ready when each of \
its databases had its first synchronisation and none stands still: a follower whose leader is away \
stays ready. Exit status: 0 it is, 1 it is not or does not answer.")]
pub(crate) struct HealthArgs {
    /// HTTP address of a node, leader or follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = LEADER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// Ask only whether the process lives, not whether it is ready.
    #[arg(long)]
    live: bool,
    /// How long the node may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What of a node's answer matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Readiness {
    reason: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let path = if args.live { "healthz" } else { "readyz" };
    let request = client.request(Method::GET, &[path]).timeout(args.timeout);
    let response = request
        .send()
        .await
        .map_err(|error| client.explain(&error))?;
    let status = response.status();
    let text = response
        .text()
        .await
        .context("the node's answer broke off")?;
    if status.is_success() {
        crate::print(if args.live { "lives" } else { "ready" })?;
        return Ok(());
    }
    bail!("not ready: {}", reason(status.as_u16(), &text))
}

/// Why a node is not ready, in its own words where it has any.
fn reason(status: u16, text: &str) -> String {
    let readiness = serde_json::from_str::<Readiness>(text).unwrap_or_default();
    readiness
        .reason
        .unwrap_or_else(|| format!("it answered {status}: {}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_reason_is_told() {
        let text = r#"{"ready": false, "reason": "database 'd' stands still: x", "databases": []}"#;
        assert_eq!(reason(503, text), "database 'd' stands still: x");
    }

    #[test]
    fn what_is_no_slipstream_node_is_told_as_it_is() {
        assert_eq!(
            reason(404, "no such page\n"),
            "it answered 404: no such page"
        );
        assert_eq!(reason(503, "{}"), "it answered 503: {}");
    }
}
