//! Nodes as processes of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::client::{Client, Credentials};

/// A node that is not ready after this will not be.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a node's log that are shown when something fails.
const LOG_LINES: usize = 15;

/// A running node.
pub(super) struct Node {
    role: &'static str,
    pub(super) url: String,
    pub(super) grpc: String,
    log: PathBuf,
    process: Child,
}

/// `node.json`, which a node writes once it listens.
#[derive(Debug, Deserialize)]
struct Announcement {
    grpc: String,
    http: String,
    pid: u32,
}

impl Node {
    /// Starts a node on free ports.
    pub(super) async fn start(
        directory: &Path,
        role: &'static str,
        leader: Option<&str>,
    ) -> anyhow::Result<Self> {
        Self::start_on(directory, role, leader, ["127.0.0.1:0", "127.0.0.1:0"]).await
    }

    /// Starts a node again where it was.
    pub(super) async fn restart(
        directory: &Path,
        node: &Self,
        leader: Option<&str>,
    ) -> anyhow::Result<Self> {
        let http = node.url.trim_start_matches("http://");
        Self::start_on(directory, node.role, leader, [&node.grpc, http]).await
    }

    async fn start_on(
        directory: &Path,
        role: &'static str,
        leader: Option<&str>,
        [grpc, http]: [&str; 2],
    ) -> anyhow::Result<Self> {
        let data_dir = directory.join(role);
        std::fs::create_dir_all(&data_dir)?;
        let announced = data_dir.join("node.json");
        let _ = std::fs::remove_file(&announced);
        let log = directory.join(format!("{role}.log"));
        let log_file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)?;
        let mut command = Command::new(std::env::current_exe().context("where am I?")?);
        command
            .args([role, "--cluster", role, "--grpc", grpc, "--http", http])
            .arg("--bucket")
            .arg(directory.join("bucket"))
            .arg("--data-dir")
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .kill_on_drop(true);
        if let Some(leader) = leader {
            command
                .arg("--leader")
                .arg(format!("leader=http://{leader}"));
        }
        let process = command
            .spawn()
            .with_context(|| format!("cannot start the {role}"))?;
        let mut node = Self {
            role,
            url: String::new(),
            grpc: String::new(),
            log,
            process,
        };
        let ready = tokio::time::timeout(READY_TIMEOUT, node.wait_until_ready(&announced)).await;
        match ready {
            Ok(Ok(())) => Ok(node),
            Ok(Err(error)) => Err(error.context(node.log_tail())),
            Err(_) => bail!(
                "the {role} is not ready after {READY_TIMEOUT:?}\n{}",
                node.log_tail()
            ),
        }
    }

    async fn wait_until_ready(&mut self, announced: &Path) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(POLL);
        loop {
            poll.tick().await;
            if let Some(status) = self.process.try_wait()? {
                bail!("the {} ended with {status}", self.role);
            }
            let Ok(bytes) = std::fs::read(announced) else {
                continue;
            };
            let Ok(announcement) = serde_json::from_slice::<Announcement>(&bytes) else {
                continue;
            };
            if Some(announcement.pid) == self.process.id() {
                self.url = format!("http://{}", announcement.http);
                self.grpc = announcement.grpc;
                break;
            }
        }
        let client = Client::new(&self.url, &Credentials::default())?;
        while client
            .send(client.request(reqwest::Method::GET, &["readyz"]))
            .await
            .is_err()
        {
            poll.tick().await;
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// SIGKILL: no goodbye.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process
            .kill()
            .await
            .with_context(|| format!("cannot kill the {}", self.role))
    }

    /// Ends the process; the demo's nodes hold nothing that is not in the bucket.
    pub(super) async fn stop(mut self) {
        let _ = self.process.kill().await;
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("--- {}\n{}", self.log.display(), tail.join("\n"))
    }
}
