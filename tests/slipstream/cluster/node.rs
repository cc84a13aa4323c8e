//! One node: a process that can be killed and started again.

use std::fs::{File, OpenOptions};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Client, Host, PATIENCE, Site, eventually, tail};

/// What a leader does by itself is off, unless a test's own arguments say otherwise: a test's
/// extents are those that it made.
const UNTOUCHED: [(&str, &str); 3] = [
    ("SLIPSTREAM_MERGE_INTERVAL", "0"),
    ("SLIPSTREAM_RETENTION_INTERVAL", "0"),
    ("SLIPSTREAM_GC_INTERVAL", "0"),
];

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream-under-test"));
    // What the developer has set must not reach the test.
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("SLIPSTREAM_")) {
        command.env_remove(key);
    }
    command.env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command
}

/// A leader or follower process. Killed when dropped. Derefs to a [`Client`] of it.
#[derive(Debug)]
pub(crate) struct Node {
    process: Option<Child>,
    host: Host,
    role: String,
    cluster: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data_directory: PathBuf,
    log: PathBuf,
    grpc: String,
    http: String,
    client: Client,
    token: Option<String>,
}

impl Node {
    pub(super) async fn start(
        site: &Site,
        host: &Host,
        role: &str,
        cluster: &str,
        directory: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let own = ["--bucket", site.bucket()];
        let bucket: &[&str] = if arguments.contains(&"--bucket") {
            &[]
        } else {
            &own
        };
        let log = site.path().join(format!("{directory}.log"));
        site.add_log(&log);
        let mut node = Self {
            process: None,
            host: host.clone(),
            role: role.to_owned(),
            cluster: cluster.to_owned(),
            arguments: bucket
                .iter()
                .chain(arguments)
                .map(|&text| text.to_owned())
                .collect(),
            environment: [site.environment(), host.environment()].concat(),
            data_directory: site.path().join(directory),
            log,
            grpc: format!("{}:0", host.address()),
            http: format!("{}:0", host.address()),
            client: Client::new("http://127.0.0.1:0"),
            token: None,
        };
        node.launch().await?;
        Ok(node)
    }

    /// Starts the process; its ports are the ones it had before, if it ran before.
    async fn launch(&mut self) -> Result<()> {
        let address_file = self.data_directory.join("node.json");
        let _ = std::fs::remove_file(&address_file);
        let log = self.open_log()?;
        let mut command = program();
        command
            .arg(&self.role)
            .args(["--cluster", &self.cluster])
            .arg("--data-dir")
            .arg(&self.data_directory)
            .args(["--grpc", &self.grpc, "--http", &self.http])
            .args(&self.arguments)
            .envs([("SLIPSTREAM_LOG", "info"), ("NO_COLOR", "1")])
            .envs(UNTOUCHED)
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        if !self.host.address().is_loopback() {
            // Only the test and its nodes reach it there.
            command.arg("--insecure-listen");
        }
        let process = self
            .host
            .place(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the program under test")?;
        self.process = Some(process);
        let addresses = self.wait_for_addresses(&address_file).await?;
        self.grpc = field(&addresses, "grpc")?;
        self.http = field(&addresses, "http")?;
        self.client = self.as_caller(self.token.as_deref());
        Ok(())
    }

    fn open_log(&self) -> Result<File> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        log.with_context(|| format!("open {}", self.log.display()))
    }

    /// The addresses that the node writes into its directory once its ports are open.
    async fn wait_for_addresses(&mut self, path: &Path) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read_to_string(path)
                && let Ok(addresses) = serde_json::from_str(&text)
            {
                return Ok(addresses);
            }
            if let Some(status) = self.exit_status()? {
                bail!("{self} ended at its start, {status}:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!(
                    "{self} never wrote {}:\n{}",
                    path.display(),
                    self.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the node says that it can answer.
    pub(crate) async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::from("nothing");
        loop {
            if let Ok((status, answer)) = self.client.get_json("/readyz").await {
                if status == 200 {
                    return Ok(());
                }
                last = answer.to_string();
            }
            if let Some(status) = self.exit_status()? {
                bail!("{self} ended, {status}:\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{self} never got ready, it last said {last}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Attaches a database of the leader under its own name, and waits until it is served.
    pub(crate) async fn attach(&self, leader: &Node, database: &str) -> Result<Value> {
        self.attach_as(leader, database, database).await
    }

    /// Attaches a database by a configuration of that name, and waits until it is served.
    pub(crate) async fn attach_as(
        &self,
        leader: &Node,
        database: &str,
        name: &str,
    ) -> Result<Value> {
        let request = serde_json::json!({
            "name": name, "leader": leader.cluster(), "database": database,
        });
        let (status, answer) = self.client.post_json("/v1/attachments", &request).await?;
        ensure!(
            (200..300).contains(&status),
            "attach {database}: {status} {answer}"
        );
        let mut attachment = Value::Null;
        eventually(&format!("{self} serves {name}"), async || {
            let (_, all) = self.client.get_json("/v1/attachments").await?;
            let found = all
                .as_array()
                .and_then(|all| all.iter().find(|one| one["name"] == name));
            attachment = found.cloned().unwrap_or_default();
            ensure!(
                attachment["provisioning_state"] != "Failed",
                "attach failed: {attachment}"
            );
            Ok(attachment["provisioning_state"] == "Succeeded")
        })
        .await?;
        Ok(attachment)
    }

    /// Waits until this node serves a version of a database, or a newer one.
    pub(crate) async fn wait_for_version(&self, database: &str, version: u64) -> Result<()> {
        let ask = self.ask(database, "SELECT 1").min_version(version);
        ask.send()
            .await
            .with_context(|| format!("{self}, version {version} of {database}"))?;
        Ok(())
    }

    /// Kills the process as a power cut would: SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().context("kill")?;
            process.wait().context("wait for a killed process")?;
        }
        Ok(())
    }

    /// Asks the process to stop, SIGTERM, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus> {
        let process = self.process.as_ref().context("the node runs")?;
        let sent = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status()
            .context("run kill")?;
        ensure!(sent.success(), "kill -TERM: {sent}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exit_status()? {
                self.process = None;
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{self} does not stop:\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the process again, on the same ports, over the same directory.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch().await
    }

    /// Sends a signal, as `kill` does: `-STOP`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process_id().context("the node runs")?.to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &process])
            .status()?;
        ensure!(sent.success(), "kill {signal} {process}");
        Ok(())
    }

    /// The process, while there is one.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How the process ended; `None` while it lives.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?),
            None => Ok(None),
        }
    }

    /// Fails when the process is gone.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self.exit_status()? {
            None if self.process.is_some() => Ok(()),
            status => bail!("{self} is gone ({status:?}):\n{}", self.log_tail()),
        }
    }

    /// What the node logged, all of it.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        tail(&self.log, 40)
    }

    /// A client of this node that shows a token.
    pub(crate) fn as_caller(&self, token: Option<&str>) -> Client {
        Client::with_token(&self.http_url(), token)
    }

    /// From now on the node's own client shows a token.
    pub(crate) fn set_token(&mut self, token: &str) {
        self.token = Some(token.to_owned());
        self.client = self.as_caller(Some(token));
    }

    /// The node's own directory.
    pub(crate) fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// The name of the node's cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where the node answers gRPC.
    pub(crate) fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Where the node answers HTTP.
    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }
}

impl Deref for Node {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} '{}'", self.role, self.cluster)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing to do about a failure: the process has ended by itself.
        let _ = self.kill();
    }
}

fn field(addresses: &Value, name: &str) -> Result<String> {
    let text = addresses[name].as_str();
    let text = text.with_context(|| format!("node.json names no {name}: {addresses}"))?;
    Ok(text.trim_start_matches("http://").to_owned())
}
