//! A leader, followers and a bucket, as processes on this machine.

mod client;
mod disk;
mod host;
mod node;
mod s3;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub(crate) use client::{ApiError, Client, Reply, read_stream, write_stream};
pub(crate) use disk::Disk;
pub(crate) use host::Host;
pub(crate) use node::{Node, program};
pub(crate) use s3::Recorder;
use s3::Server;

/// How long anything may take that is waited for. Only a failing test takes as long: long enough
/// for an unoptimised build on a machine that compiles at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a bucket is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A directory.
    Directory,
    /// S3, as the Python package moto speaks it. In memory; conditional writes are atomic.
    Moto,
    /// S3, as SeaweedFS speaks it. On disk.
    SeaweedFs,
}

/// A place for one test: a directory that goes when the test ends, and an empty bucket.
#[derive(Debug)]
pub(crate) struct Site {
    directory: TempDir,
    bucket: String,
    environment: Vec<(String, String)>,
    server: Option<Server>,
    logs: Mutex<Vec<PathBuf>>,
}

impl Site {
    /// Runs a test on an empty site; shows the logs of its nodes when it fails.
    ///
    /// Without the S3 server that the store asks for, says so and runs nothing.
    pub(crate) async fn run(
        store: Store,
        test: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        Self::run_on(store, &Host::here(), test).await
    }

    /// The same, with the S3 server on a host of its own.
    pub(crate) async fn run_on(
        store: Store,
        host: &Host,
        test: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let directory = tempfile::Builder::new()
            .prefix("slipstream-test-")
            .tempdir()
            .context("make a directory for the test")?;
        let Some(server) = Server::start(store, directory.path(), host).await? else {
            return Ok(());
        };
        let (bucket, environment) = match &server {
            Some(server) => (server.bucket_url(), server.environment()),
            None => (
                format!("file://{}", directory.path().join("bucket").display()),
                Vec::new(),
            ),
        };
        let site = Self {
            directory,
            bucket,
            environment,
            server,
            logs: Mutex::default(),
        };
        let result = test(&site).await;
        if result.is_err() {
            site.show_logs();
        }
        result
    }

    /// Starts a leader and waits until it is ready.
    pub(crate) async fn leader(&self, cluster: &str) -> Result<Node> {
        let mut leader = self.start("leader", cluster, cluster, &[]).await?;
        leader.wait_ready().await?;
        Ok(leader)
    }

    /// Starts a follower of a leader, with nothing attached yet, and waits until it is ready.
    pub(crate) async fn follower(&self, cluster: &str, leader: &Node) -> Result<Node> {
        let mut follower = self.start_follower(cluster, leader).await?;
        follower.wait_ready().await?;
        Ok(follower)
    }

    /// Starts a follower without waiting for more than its ports.
    pub(crate) async fn start_follower(&self, cluster: &str, leader: &Node) -> Result<Node> {
        let address = format!("{}={}", leader.cluster(), leader.grpc_url());
        self.start("follower", cluster, cluster, &["--leader", &address])
            .await
    }

    /// Starts a node with arguments of the test's own. Nodes of one cluster name need different
    /// directory names.
    pub(crate) async fn start(
        &self,
        role: &str,
        cluster: &str,
        directory: &str,
        arguments: &[&str],
    ) -> Result<Node> {
        self.start_on(&Host::here(), role, cluster, directory, arguments)
            .await
    }

    /// The same, on a host of its own.
    pub(crate) async fn start_on(
        &self,
        host: &Host,
        role: &str,
        cluster: &str,
        directory: &str,
        arguments: &[&str],
    ) -> Result<Node> {
        Node::start(self, host, role, cluster, directory, arguments).await
    }

    /// Makes a token for a node that is or will be started in a directory; gives its secret.
    pub(crate) fn token(&self, directory: &str, principal: &str, roles: &[&str]) -> Result<String> {
        let file = self.path().join(directory).join("tokens.json");
        let mut create = program();
        create
            .args(["token", "create", "--principal", principal, "--tokens"])
            .arg(file);
        for role in roles {
            create.args(["--role", role]);
        }
        let made = create.output().context("run slipstream token")?;
        let said = String::from_utf8_lossy(&made.stderr);
        anyhow::ensure!(made.status.success(), "slipstream token create: {said}");
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// The bucket's address.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The bucket's directory; only on [`Store::Directory`].
    pub(crate) fn bucket_directory(&self) -> PathBuf {
        self.path().join("bucket")
    }

    /// The files below a folder of the bucket, by name; only on [`Store::Directory`].
    pub(crate) fn bucket_files(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let folder = self.bucket_directory().join(folder);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            files.push(entry?.path());
        }
        files.sort();
        Ok(files)
    }

    /// The only database's folder in the bucket; only on [`Store::Directory`].
    pub(crate) fn only_database_folder(&self) -> Result<String> {
        let folders = self.bucket_files("databases")?;
        let [folder] = folders.as_slice() else {
            bail!("expected one database in the bucket, found {folders:?}");
        };
        let name = folder.file_name().context("a folder has a name")?;
        Ok(format!("databases/{}", name.to_string_lossy()))
    }

    /// What the S3 server was asked since it started; only on an S3 store.
    pub(crate) fn requests(&self) -> Result<&Recorder> {
        let server = self
            .server
            .as_ref()
            .context("a directory records nothing")?;
        Ok(server.recorder())
    }

    /// Where the S3 server answers; only on an S3 store.
    pub(crate) fn endpoint(&self) -> Result<SocketAddr> {
        let server = self.server.as_ref().context("a directory has no address")?;
        Ok(server.endpoint())
    }

    /// The site's own directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    fn add_log(&self, path: &Path) {
        let mut logs = self
            .logs
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        if !logs.iter().any(|log| log == path) {
            logs.push(path.to_owned());
        }
    }

    fn show_logs(&self) {
        let logs = self
            .logs
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        for log in logs.iter() {
            eprintln!("---- {}\n{}", log.display(), tail(log, 100));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut last_error = None;
    while Instant::now() < deadline {
        match probe().await {
            Ok(true) => return Ok(()),
            Ok(false) => last_error = None,
            Err(error) => last_error = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    match last_error {
        Some(error) => Err(error.context(format!("gave up waiting: {what}"))),
        None => bail!("gave up waiting: {what}"),
    }
}

/// The last lines of a file.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let from = text.lines().count().saturating_sub(lines);
    text.lines()
        .skip(from)
        .fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
}
