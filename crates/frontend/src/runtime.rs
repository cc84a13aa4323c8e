//! The shell around a node: clock, chance, logging, signals, orderly shutdown.
//!
//! The only place that may read the wall clock and the operating system's randomness; everything
//! below gets them as arguments.

use std::hash::{BuildHasher, RandomState};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use slipstream_model::{Clock, Entropy, Sleep, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::settings::NodeSettings;
use crate::{NodeServer, ServiceError};

/// How long a stopping node waits for its tasks before it leaves them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it says who is late meanwhile.
const DRAIN_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where time comes in"
)]
impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where time comes in"
)]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let micros = since_1970.map_or(0, |duration| duration.as_micros());
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The threads that a node runs on.
///
/// # Errors
/// When the operating system gives none.
pub fn tokio() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .enable_all()
        .thread_stack_size(slipstream_query::THREAD_STACK_BYTES)
        .build()
}

/// Randomness seeded by the operating system. Not for secrets.
pub fn entropy_from_os() -> Entropy {
    // The standard library seeds its hash maps from the operating system; so may we.
    Entropy::from_seed(RandomState::new().hash_one(std::process::id()))
}

/// A secret of 256 bits from the operating system, as text that survives being copied.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn new_secret() -> Result<String, ServiceError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServiceError::internal(format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Starts to log to standard error.
///
/// # Errors
/// When the filter is malformed. A process that logs already goes on as it does.
pub fn init_telemetry(filter: &str, as_json: bool) -> Result<(), ServiceError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| ServiceError::invalid(format!("--log '{filter}': {error}")))?;
    // Both TLS libraries ask for one; there is only this one to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Somebody may have installed one already, as tests do.
    let _ = if as_json {
        subscriber.json().try_init()
    } else {
        subscriber.try_init()
    };
    crate::metrics::install();
    Ok(())
}

/// Fires at the first SIGINT or SIGTERM. A second one ends the process at once.
pub fn shutdown_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let fires = token.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            tracing::error!("cannot listen for signals: only SIGKILL ends this process");
            return;
        };
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_first {
                tracing::info!("stopping; a second signal stops at once");
                fires.cancel();
            }
        }
        std::process::exit(130);
    });
    token
}

/// Waits for the tasks of a stopping node, and says how many are late.
pub async fn drain(tasks: &TaskTracker) {
    let all_ended = tasks.wait();
    tokio::pin!(all_ended);
    let mut left = DRAIN_TIMEOUT;
    while tokio::time::timeout(DRAIN_REPORT_INTERVAL.min(left), &mut all_ended)
        .await
        .is_err()
    {
        left = left.saturating_sub(DRAIN_REPORT_INTERVAL);
        if left.is_zero() {
            tracing::warn!(tasks = tasks.len(), "leaving tasks that do not end");
            return;
        }
        tracing::info!(tasks = tasks.len(), "waiting for tasks to end");
    }
}

/// Where a node answers: `node.json` in its directory, for scripts that start nodes on free
/// ports.
#[derive(Debug, Serialize)]
struct Announcement {
    cluster: String,
    grpc: String,
    http: String,
    pid: u32,
}

/// Says where the node answers: in its log, and in `node.json` in its directory.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(settings: &NodeSettings, server: &NodeServer) -> std::io::Result<()> {
    let (grpc, http) = (server.grpc_addr(), server.http_addr());
    let scheme = if server.has_tls() { "https" } else { "http" };
    tracing::info!(
        cluster = %settings.cluster,
        bucket = %settings.bucket,
        data_dir = %settings.data_dir.display(),
        tls = server.has_tls(),
        "listening for HTTP on {scheme}://{http} and for gRPC and Flight SQL on {grpc}"
    );
    let announcement = Announcement {
        cluster: settings.cluster.to_string(),
        grpc: grpc.to_string(),
        http: http.to_string(),
        pid: std::process::id(),
    };
    replace_file(
        &settings.data_dir.join("node.json"),
        &serde_json::to_vec_pretty(&announcement)?,
    )
}

/// Writes a file of the node's own beside itself and renames it: whoever reads it, and whatever
/// happens meanwhile, it is the old file or the new one, whole. Only its owner can read it.
///
/// # Errors
/// When it cannot be written; the old file is as it was.
pub fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut beside = tempfile::NamedTempFile::new_in(directory)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_all()?;
    beside.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

/// The exit status of a program, its error said on standard error.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub fn exit(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
