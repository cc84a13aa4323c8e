//! The leaders of a node, and how it shows them who it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::link::{Dialer, LeaderAddress};

/// The flags about leaders, which both programs have.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct UpstreamArgs {
    /// A leader that databases can be attached from; may be given several times [default of a
    /// follower: leader=http://127.0.0.1:7410].
    #[arg(
        long = "leader",
        value_name = "NAME=GRPC_URL",
        env = "SLIPSTREAM_LEADER",
        value_delimiter = ','
    )]
    pub leaders: Vec<LeaderAddress>,

    /// The token that this node shows a leader; without NAME, every leader that has none of its
    /// own.
    #[arg(
        long = "leader-token",
        value_name = "[NAME=]TOKEN",
        env = "SLIPSTREAM_LEADER_TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub leader_tokens: Vec<String>,

    /// Who signs the certificates of leaders at https:// addresses, as PEM [default: the
    /// authorities that this machine trusts].
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_LEADER_CA")]
    pub leader_ca: Option<PathBuf>,

    /// The certificate that this node shows leaders (mutual TLS), as PEM.
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_LEADER_CERT")]
    pub leader_cert: Option<PathBuf>,

    /// That certificate's private key, as PEM.
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_LEADER_KEY")]
    pub leader_key: Option<PathBuf>,

    /// Whether rows that were streamed into a followed database are seen here at once, or when
    /// their leader has moved them into files [default: true].
    #[arg(
        long,
        value_name = "BOOL",
        env = "SLIPSTREAM_STREAMING_INGESTION",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub streaming_ingestion: Option<bool>,
}

/// What these settings come to.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The leaders that are named.
    pub leaders: Vec<LeaderAddress>,
    /// Reaches them.
    pub dialer: Dialer,
    /// Whether streamed rows are seen before they are moved into files.
    pub shows_streamed: bool,
}

impl UpstreamArgs {
    /// Their names in a settings file.
    pub const KEYS: [&'static str; 6] = [
        "leader",
        "leader-token",
        "leader-ca",
        "leader-cert",
        "leader-key",
        "streaming-ingestion",
    ];

    /// Takes what was not given from the settings file, and reads the files that are named.
    ///
    /// # Errors
    /// When a value makes no sense, or a file cannot be read.
    pub fn resolve(mut self, file: &toml::Table) -> anyhow::Result<Upstream> {
        if self.leaders.is_empty() {
            let parse = |text: String| {
                text.parse()
                    .map_err(|error: String| anyhow::anyhow!("leader: {error}"))
            };
            let texts = strings(file, "leader")?.into_iter();
            self.leaders = texts.map(parse).collect::<anyhow::Result<_>>()?;
        }
        if self.leader_tokens.is_empty() {
            self.leader_tokens = strings(file, "leader-token")?;
        }
        let path = |given: Option<PathBuf>, key: &str| -> anyhow::Result<Option<PathBuf>> {
            let of_file = strings(file, key)?.into_iter().next();
            Ok(given.or(of_file.map(PathBuf::from)))
        };
        let tls = tls(
            path(self.leader_ca, "leader-ca")?.as_deref(),
            path(self.leader_cert, "leader-cert")?.as_deref(),
            path(self.leader_key, "leader-key")?.as_deref(),
        )?;
        let mut tokens = BTreeMap::new();
        for token in self.leader_tokens {
            let (name, token) = match token.split_once('=') {
                Some((name, token)) => (Some(name.to_owned()), token.to_owned()),
                None => (None, token),
            };
            tokens.insert(name, token);
        }
        let shows_streamed = match (self.streaming_ingestion, file.get("streaming-ingestion")) {
            (Some(given), _) => given,
            (None, None) => true,
            (None, Some(toml::Value::Boolean(given))) => *given,
            (None, Some(other)) => bail!("streaming-ingestion: {other} is neither true nor false"),
        };
        Ok(Upstream {
            leaders: self.leaders,
            dialer: Dialer::new(tokens, tls),
            shows_streamed,
        })
    }
}

/// A text, or several, of a settings file.
fn strings(file: &toml::Table, key: &str) -> anyhow::Result<Vec<String>> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        other => bail!("{key}: {other} is not a text"),
    };
    match file.get(key) {
        None => Ok(Vec::new()),
        Some(toml::Value::Array(several)) => several.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

fn tls(
    ca: Option<&Path>,
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> anyhow::Result<ClientTlsConfig> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut config = ClientTlsConfig::new();
    config = match ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => config.with_native_roots(),
    };
    match (certificate, key) {
        (None, None) => Ok(config),
        (Some(certificate), Some(key)) => {
            Ok(config.identity(Identity::from_pem(read(certificate)?, read(key)?)))
        }
        _ => bail!("--leader-cert and --leader-key go together"),
    }
}
