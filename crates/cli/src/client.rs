//! HTTP requests to a node, and its errors.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use reqwest::{Certificate, ClientBuilder, RequestBuilder, Response, Url};
use serde::Deserialize;

/// Where a leader answers when nothing is said.
pub(crate) const LEADER_URL: &str = "http://127.0.0.1:7411";
/// Where a follower answers when nothing is said.
pub(crate) const FOLLOWER_URL: &str = "http://127.0.0.1:7421";

/// How a command gets into a node.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Credentials {
    /// The token to show the node; 'slipstream token create' makes one.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SLIPSTREAM_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// Who signs the certificate of a node at an https:// address, as PEM [default: the
    /// authorities that this machine trusts].
    #[arg(long, value_name = "FILE", env = "SLIPSTREAM_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// A node, by its HTTP address.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ErrorDetails,
}

#[derive(Debug, Deserialize)]
struct ErrorDetails {
    code: String,
    message: String,
}

/// A request that a node did not do, or is not known to have done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No node answers at the address: it heard nothing of the request.
    Unreachable(String),
    /// The connection broke before there was an answer.
    Lost(String),
    /// The node answered an error.
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
}

impl Failure {
    /// Whether the same request may succeed in a moment.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) => true,
            Self::Refused { code, .. } => matches!(
                code.as_str(),
                "unavailable" | "outcome_unknown" | "storage_unavailable" | "overloaded"
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) | Self::Lost(message) => f.write_str(message),
            Self::Refused { code, message } => write!(f, "{message} [{code}]"),
        }
    }
}

impl std::error::Error for Failure {}

impl Client {
    pub(crate) fn new(url: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let text = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let url = Url::parse(&text).with_context(|| format!("--url {text} is not an address"))?;
        if url.cannot_be_a_base() {
            bail!("--url {text} is not the address of a node, such as {LEADER_URL}");
        }
        // No timeout: a query may take long, and the node has a deadline of its own.
        let mut http = reqwest::Client::builder();
        if let Some(ca) = &credentials.ca {
            let pem =
                std::fs::read(ca).with_context(|| format!("cannot read --ca {}", ca.display()))?;
            let ca = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("--ca {} is no certificate in PEM", ca.display()))?;
            http = ca
                .into_iter()
                .fold(http, ClientBuilder::add_root_certificate);
        }
        Ok(Self {
            http: http.build().context("cannot set up HTTP")?,
            url,
            token: credentials.token.clone(),
        })
    }

    /// A request to a path, each part of which may hold anything.
    pub(crate) fn request(&self, method: reqwest::Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that is an error becomes a [`Failure`] here.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.explain(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(ErrorBody { error }) => Err(Failure::Refused {
                code: error.code,
                message: error.message,
            }
            .into()),
            Err(_) => bail!("{} answered {status}: {}", self.url, text.trim()),
        }
    }

    /// What it means that a request was not answered.
    pub(crate) fn explain(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            return Failure::Unreachable(format!(
                "no node answers at {}: start one with 'slipstream leader' or 'slipstream \
                 follower', or give its address with --url",
                self.url
            ));
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure::Lost(format!("the request to {} failed: {cause}", self.url))
    }
}
