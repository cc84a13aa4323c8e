//! The settings that leader and follower have in common, and how they are layered:
//! defaults < TOML file < environment (`SLIPSTREAM_...`) < flags.
//!
//! The same raw struct, all of it optional, is what the command line gives and what a file
//! holds. [`NodeArgs::resolve`] turns it into [`NodeSettings`], where everything is decided.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use slipstream_model::{Clock, ClusterName, Entropy};
use slipstream_query::{
    ExtentAccess, ExtentPaths, QueryError, QueryOptions, QueryRuntime, StoredExtents,
};
use slipstream_storage::{BucketConnection, BucketPath, BucketUrl};

use crate::{NodeRole, ServerOptions, TokenFileError, Tokens};

/// Where everything goes when nothing is said: a leader and a follower started in one folder
/// find each other.
const DEFAULT_ROOT: &str = "slipstream-data";
/// How long a query may run when nothing is said: Kusto's default of four minutes.
const DEFAULT_QUERY_TIMEOUT: Duration = Duration::from_secs(240);
/// How many queries run at once when nothing is said. Each uses all cores; more of them share
/// memory and finish later, not sooner.
const DEFAULT_QUERY_CONCURRENCY: usize = 16;
/// How many queries may wait for one of those places.
const DEFAULT_QUERY_QUEUE: usize = 256;
/// Memory for queries when nothing is said and the machine does not tell how much it has.
const DEFAULT_QUERY_MEMORY: ByteSize = ByteSize::gib(2);
/// Spill files may take this much disk.
const DEFAULT_SPILL: ByteSize = ByteSize::gib(64);

/// Settings as they are given: on the command line, or in a file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NodeArgs {
    /// Name of the cluster this node belongs to [default: leader or follower].
    #[arg(long, value_name = "NAME", env = "SLIPSTREAM_CLUSTER")]
    pub cluster: Option<String>,

    /// The bucket: file://, s3://, az://, gs://, or a directory [default:
    /// slipstream-data/bucket]. Credentials come from the environment (AWS_..., AZURE_...,
    /// GOOGLE_...).
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_BUCKET")]
    pub bucket: Option<String>,

    /// Where this node keeps its own files [default: slipstream-data/CLUSTER].
    #[arg(long, value_name = "DIR", env = "SLIPSTREAM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where to listen for gRPC and Flight SQL [default: leader 127.0.0.1:7410, follower
    /// 127.0.0.1:7420].
    #[arg(long, value_name = "ADDR", env = "SLIPSTREAM_GRPC")]
    pub grpc: Option<SocketAddr>,

    /// Where to listen for HTTP [default: leader 127.0.0.1:7411, follower 127.0.0.1:7421].
    #[arg(long, value_name = "ADDR", env = "SLIPSTREAM_HTTP")]
    pub http: Option<SocketAddr>,

    /// Region of the cluster; leader and follower must agree [default: local].
    #[arg(long, value_name = "REGION", env = "SLIPSTREAM_LOCATION")]
    pub location: Option<String>,

    /// A TOML file with these settings, by the names of the flags.
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Memory for queries, such as 4GiB [default: half of the machine's].
    #[arg(long, value_name = "BYTES", env = "SLIPSTREAM_QUERY_MEMORY")]
    pub query_memory: Option<ByteSize>,

    /// How long a query may run, such as 30s [default: 4m].
    #[arg(long, value_name = "DURATION", env = "SLIPSTREAM_QUERY_TIMEOUT", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    pub query_timeout: Option<Duration>,

    /// How many queries run at once; more wait [default: 16].
    #[arg(long, value_name = "N", env = "SLIPSTREAM_QUERY_CONCURRENCY")]
    pub query_concurrency: Option<usize>,

    /// The file with the tokens that let callers in; 'slipstream token' writes it. While there is
    /// none, everybody on this machine is let in, and nobody else [default: DATA_DIR/tokens.json].
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_TOKENS")]
    pub tokens: Option<PathBuf>,

    /// Certificate chain for gRPC and HTTP, as PEM; with it all connections are encrypted.
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, as PEM.
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Ask nodes of other clusters for a certificate of this authority, as PEM (mutual TLS).
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// A directory of this machine whose files external tables may read; may be given several times [default: none].
    #[arg(
        long,
        value_name = "DIR",
        env = "SLIPSTREAM_EXTERNAL_FILES",
        value_delimiter = ','
    )]
    pub external_files: Vec<PathBuf>,

    /// Listen on an address that other machines reach, although there are no tokens and
    /// everybody is let in.
    #[arg(long, env = "SLIPSTREAM_INSECURE_LISTEN")]
    pub insecure_listen: bool,

    /// What to log, in the syntax of tracing's EnvFilter [default: info].
    #[arg(long, value_name = "FILTER", env = "SLIPSTREAM_LOG")]
    pub log: Option<String>,

    /// Log one JSON object a line instead of text.
    #[arg(long, env = "SLIPSTREAM_LOG_JSON")]
    pub log_json: bool,
}

/// Settings that are decided and checked.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The bucket's address.
    pub bucket: BucketUrl,
    /// The node's own directory.
    pub data_dir: PathBuf,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// The region.
    pub location: String,
    /// Memory for queries, in bytes.
    pub query_memory_bytes: u64,
    /// Disk for spilled intermediate results, in bytes.
    pub spill_bytes_max: u64,
    /// How long a query may run.
    pub query_timeout: Duration,
    /// How many queries run at once.
    pub query_concurrency: usize,
    /// How many queries may wait.
    pub query_queue: usize,
    /// The token file.
    pub tokens: PathBuf,
    /// The node's certificate; none: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// Directories of this machine whose files external tables may read.
    pub external_files: Vec<PathBuf>,
    /// Whether other machines may connect without authentication.
    pub insecure_listen: bool,
    /// What to log.
    pub log: String,
    /// Whether to log JSON.
    pub log_json: bool,
}

/// A node's certificate, as files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates of other clusters' nodes; none: they need none.
    pub client_ca: Option<PathBuf>,
}

impl NodeSettings {
    /// The tokens that let callers in.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn tokens(&self, clock: &Arc<dyn Clock>) -> Result<Arc<Tokens>, TokenFileError> {
        Tokens::open(self.tokens.clone(), Arc::clone(clock)).map(Arc::new)
    }

    /// Where and how to listen.
    pub fn server_options(&self, tokens: &Tokens) -> ServerOptions {
        ServerOptions {
            grpc: self.grpc,
            http: self.http,
            allow_remote: self.insecure_listen || tokens.are_required(),
            tls: self.tls.clone(),
        }
    }

    /// Whether other clusters' nodes must show a certificate.
    pub fn asks_nodes_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
    /// The query engine of a node, reading extents from its bucket.
    ///
    /// # Errors
    /// When the spill directory cannot be used.
    pub fn query_runtime(
        &self,
        bucket: &BucketConnection,
        clock: &Arc<dyn Clock>,
        entropy: &Entropy,
    ) -> Result<Arc<QueryRuntime>, QueryError> {
        let watched = bucket.clone();
        let extents = StoredExtents {
            store: bucket.object_store(),
            paths: extent_paths(bucket),
            pace: Some(Arc::new(move || watched.pace())),
        };
        self.query_runtime_over(Arc::new(extents), bucket, clock, entropy)
    }

    /// The same, with something nearer than the bucket.
    ///
    /// # Errors
    /// When the spill directory cannot be used.
    pub fn query_runtime_over(
        &self,
        extents: Arc<dyn ExtentAccess>,
        bucket: &BucketConnection,
        clock: &Arc<dyn Clock>,
        entropy: &Entropy,
    ) -> Result<Arc<QueryRuntime>, QueryError> {
        let options = QueryOptions {
            memory_bytes_max: usize::try_from(self.query_memory_bytes).unwrap_or(usize::MAX),
            spill_directory: Some(self.data_dir.join("spill")),
            spill_bytes_max: self.spill_bytes_max,
            external_files: self.external_files.clone(),
            bucket: Some(bucket.clone()),
            concurrency_max: self.query_concurrency,
            queue_max: self.query_queue,
            deadline: self.query_timeout,
            ..QueryOptions::default()
        };
        QueryRuntime::new(options, extents, Arc::clone(clock), entropy.clone())
    }
}

/// Where extents stand in a bucket.
pub fn extent_paths(bucket: &BucketConnection) -> ExtentPaths {
    let bucket = bucket.clone();
    Arc::new(move |database, extent| bucket.object_path(&BucketPath::extent(database, extent)))
}

/// Settings that cannot be used: says which, where it was given, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

impl NodeArgs {
    /// Layers defaults, file, environment and flags. Keys of the file that belong to one program
    /// only (`own_keys`) come back apart.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown key, or a value makes no sense.
    pub fn resolve(
        self,
        role: NodeRole,
        own_keys: &[&str],
    ) -> Result<(NodeSettings, toml::Table), SettingsError> {
        let (file, own) = match &self.config {
            Some(path) => read_file(path, own_keys)?,
            None => Default::default(),
        };
        let cluster = self
            .cluster
            .or(file.cluster)
            .unwrap_or_else(|| role.to_string());
        let cluster = ClusterName::new(cluster).map_err(|e| SettingsError(e.to_string()))?;
        let root = PathBuf::from(DEFAULT_ROOT);
        let bucket = self
            .bucket
            .or(file.bucket)
            .unwrap_or_else(|| root.join("bucket").to_string_lossy().into_owned());
        let bucket = bucket
            .parse()
            .map_err(|e| SettingsError(format!("--bucket: {e}")))?;
        let ports = match role {
            NodeRole::Leader => (7410, 7411),
            NodeRole::Follower => (7420, 7421),
        };
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let query_concurrency = self
            .query_concurrency
            .or(file.query_concurrency)
            .unwrap_or(DEFAULT_QUERY_CONCURRENCY);
        if query_concurrency == 0 {
            return Err(SettingsError(
                "--query-concurrency: at least 1 is needed".into(),
            ));
        }
        let data_dir = self.data_dir.or(file.data_dir);
        let data_dir = data_dir.unwrap_or_else(|| root.join(cluster.as_str()));
        let tokens = self.tokens.or(file.tokens);
        let settings = NodeSettings {
            tokens: tokens.unwrap_or_else(|| data_dir.join("tokens.json")),
            tls: tls_files(
                self.tls_cert.or(file.tls_cert),
                self.tls_key.or(file.tls_key),
                self.tls_client_ca.or(file.tls_client_ca),
            )?,
            data_dir,
            cluster,
            bucket,
            grpc: self.grpc.or(file.grpc).unwrap_or(loopback(ports.0)),
            http: self.http.or(file.http).unwrap_or(loopback(ports.1)),
            location: self
                .location
                .or(file.location)
                .unwrap_or_else(|| "local".into()),
            query_memory_bytes: self
                .query_memory
                .or(file.query_memory)
                .unwrap_or_else(default_query_memory)
                .as_u64(),
            spill_bytes_max: DEFAULT_SPILL.as_u64(),
            query_timeout: self
                .query_timeout
                .or(file.query_timeout)
                .unwrap_or(DEFAULT_QUERY_TIMEOUT),
            query_concurrency,
            query_queue: DEFAULT_QUERY_QUEUE,
            external_files: if self.external_files.is_empty() {
                file.external_files
            } else {
                self.external_files
            },
            insecure_listen: self.insecure_listen || file.insecure_listen,
            log: self.log.or(file.log).unwrap_or_else(|| "info".into()),
            log_json: self.log_json || file.log_json,
        };
        Ok((settings, own))
    }
}

/// Reads a span of time such as `30s` or `4m`; `0` is none.
///
/// # Errors
/// When it is no such text.
pub fn parse_duration(text: &str) -> Result<Duration, SettingsError> {
    humantime::parse_duration(text).map_err(|error| SettingsError(format!("'{text}': {error}")))
}

fn tls_files(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, SettingsError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate,
            key,
            client_ca,
        })),
        (None, None) if client_ca.is_none() => Ok(None),
        _ => Err(SettingsError(
            "--tls-cert and --tls-key go together, and --tls-client-ca needs both".into(),
        )),
    }
}

/// Reads a settings file; the keys of one program only come back apart.
fn read_file(
    path: &std::path::Path,
    own_keys: &[&str],
) -> Result<(NodeArgs, toml::Table), SettingsError> {
    let fail = |error: &dyn std::fmt::Display| {
        SettingsError(format!("--config {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let mut table: toml::Table = text.parse().map_err(|error| fail(&error))?;
    let own = own_keys
        .iter()
        .filter_map(|key| table.remove(*key).map(|value| ((*key).to_owned(), value)))
        .collect();
    let args = table.try_into().map_err(|error| fail(&error))?;
    Ok((args, own))
}

/// Half of the machine's memory, where the machine tells.
fn default_query_memory() -> ByteSize {
    machine_memory().map_or(DEFAULT_QUERY_MEMORY, |bytes| ByteSize::b(bytes / 2))
}

/// Bytes of memory that the machine has, where it tells.
pub fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    fn resolve(args: NodeArgs) -> Result<NodeSettings, SettingsError> {
        args.resolve(NodeRole::Follower, &["leader"])
            .map(|(settings, _)| settings)
    }

    #[test]
    fn a_first_try_needs_no_setting() {
        let settings = resolve(NodeArgs::default()).expect("defaults");
        assert_eq!(settings.cluster.as_str(), "follower");
        assert_eq!(settings.grpc.port(), 7420);
        assert_eq!(settings.data_dir, PathBuf::from("slipstream-data/follower"));
        assert!(
            settings
                .bucket
                .to_string()
                .ends_with("slipstream-data/bucket")
        );
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file =
            file("cluster = 'a'\nlocation = 'north'\nquery-timeout = '7s'\nleader = ['x=y']");
        let args = NodeArgs {
            cluster: Some("b".into()),
            config: Some(file.path().to_owned()),
            ..NodeArgs::default()
        };
        let settings = resolve(args).expect("valid");
        assert_eq!(settings.cluster.as_str(), "b");
        assert_eq!(settings.location, "north");
        assert_eq!(settings.query_timeout, Duration::from_secs(7));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let file = file("clutser = 'a'");
        let args = NodeArgs {
            config: Some(file.path().to_owned()),
            ..NodeArgs::default()
        };
        let error = resolve(args).expect_err("unknown key");
        assert!(error.to_string().contains("clutser"), "{error}");
    }
}
