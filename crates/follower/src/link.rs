//! How a follower reaches a leader.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use slipstream_proto::sync::admin_client::AdminClient;
use slipstream_proto::sync::metadata_sync_client::MetadataSyncClient;
use slipstream_proto::sync::{FollowerIdentity, RenewLeaseRequest};
use tokio::io::DuplexStream;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};
use tower::service_fn;
use uuid::Uuid;

/// A leader that has no connection ready within this, encryption included, is taken for silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One short request: attach, detach, renew a lease.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection is tested: a leader that vanished without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The largest commit that is accepted: as large as a leader makes one, with room.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Where a leader cluster answers gRPC: `NAME=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderAddress {
    /// The cluster's name.
    pub name: String,
    /// Its gRPC address, such as `http://127.0.0.1:7410`.
    pub url: String,
}

impl FromStr for LeaderAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, url)) = text.split_once('=') else {
            return Err(format!(
                "'{text}' is not NAME=URL, such as leader=http://127.0.0.1:7410"
            ));
        };
        let url = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        Endpoint::from_shared(url.clone())
            .map_err(|error| format!("'{url}' is not an address: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            url,
        })
    }
}

/// A connection on which every call says who this node is.
pub(crate) type LeaderChannel = InterceptedService<Channel, ShowToken>;

/// Puts this node's token into a call.
#[derive(Clone)]
pub(crate) struct ShowToken(Option<AsciiMetadataValue>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

/// What carries connections in place of TCP: a simulation's network.
pub trait Carrier: Send + Sync + 'static {
    /// Opens a connection to an address.
    fn open(&self, url: &str) -> BoxFuture<'static, std::io::Result<DuplexStream>>;
}

/// Opens connections to leaders, as whom and how the node was told.
#[derive(Clone)]
pub struct Dialer {
    /// By the leader's name; `None`: for every other one.
    tokens: Arc<BTreeMap<Option<String>, String>>,
    tls: ClientTlsConfig,
    /// `None`: TCP.
    carrier: Option<Arc<dyn Carrier>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are secrets.
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// With tokens by leader, `None` standing for all others.
    pub(crate) fn new(tokens: BTreeMap<Option<String>, String>, tls: ClientTlsConfig) -> Self {
        Self {
            tokens: Arc::new(tokens),
            // A connection that broke is opened again behind the calls that wait for it. Nothing else bounds
            // a handshake then.
            tls: tls.timeout(CONNECT_TIMEOUT),
            carrier: None,
        }
    }

    /// Without tokens and TLS, over connections that are not TCP's.
    pub fn over(carrier: Arc<dyn Carrier>) -> Self {
        Self {
            carrier: Some(carrier),
            ..Self::new(BTreeMap::new(), ClientTlsConfig::new())
        }
    }

    /// A connection without this node's token, for calls of somebody else's.
    pub(crate) async fn connect(&self, url: &str) -> Result<Channel, Status> {
        connect(url, &self.tls, self.carrier.as_ref()).await
    }

    async fn channel(&self, leader: &str, url: &str) -> Result<LeaderChannel, Status> {
        let token = self.tokens.get(&Some(leader.to_owned()));
        let token = token.or_else(|| self.tokens.get(&None));
        let bearer = token.map(|token| {
            let bearer = format!("Bearer {token}").parse();
            bearer.map_err(|_| Status::invalid_argument("--leader-token is not a token"))
        });
        let channel = self.connect(url).await?;
        Ok(InterceptedService::new(
            channel,
            ShowToken(bearer.transpose()?),
        ))
    }

    /// A client for the sync stream.
    pub(crate) async fn sync_client(
        &self,
        leader: &str,
        url: &str,
    ) -> Result<MetadataSyncClient<LeaderChannel>, Status> {
        let client = MetadataSyncClient::new(self.channel(leader, url).await?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A client for attaching and detaching.
    pub(crate) async fn admin_client(
        &self,
        leader: &str,
        url: &str,
    ) -> Result<AdminClient<LeaderChannel>, Status> {
        Ok(AdminClient::new(self.channel(leader, url).await?))
    }
}

/// Opens a connection to a leader.
async fn connect(
    url: &str,
    tls: &ClientTlsConfig,
    carrier: Option<&Arc<dyn Carrier>>,
) -> Result<Channel, Status> {
    let unreachable = |error: &dyn std::error::Error| {
        let cause = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        Status::unavailable(format!("the leader at {url} does not answer{cause}"))
    };
    let mut endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|error| unreachable(&error))?;
    if url.starts_with("https://") {
        let encrypted = endpoint.tls_config(tls.clone());
        endpoint = encrypted.map_err(|error| unreachable(&error))?;
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    // The endpoint's own bound ends where TCP is connected: who accepts and says nothing more is silent too.
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, open(&endpoint, carrier)).await;
    let connected = connected.map_err(|late| unreachable(&late))?;
    connected.map_err(|error| unreachable(&error))
}

async fn open(
    endpoint: &Endpoint,
    carrier: Option<&Arc<dyn Carrier>>,
) -> Result<Channel, tonic::transport::Error> {
    let Some(carrier) = carrier else {
        return endpoint.connect().await;
    };
    let carrier = Arc::clone(carrier);
    let open = move |uri: Uri| {
        let opening = carrier.open(&uri.to_string());
        async move { opening.await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector(service_fn(open)).await
}

/// Who this node is to its leaders.
#[derive(Debug, Clone)]
pub struct NodeName {
    /// Its cluster.
    pub cluster: String,
    /// New with each start of the process.
    pub node: Uuid,
}

impl NodeName {
    pub(crate) fn identity(&self, configuration: &str) -> FollowerIdentity {
        FollowerIdentity {
            cluster: self.cluster.clone(),
            node_id: self.node.as_bytes().to_vec().into(),
            configuration: configuration.to_owned(),
        }
    }
}

/// Puts a deadline on a short request.
pub(crate) fn with_deadline(request: RenewLeaseRequest) -> tonic::Request<RenewLeaseRequest> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_leader_that_accepts_and_says_nothing_more_is_taken_for_silent() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", silent.local_addr().expect("bound"));
        let dialer = Dialer::new(BTreeMap::new(), ClientTlsConfig::new());
        let dialing = tokio::time::timeout(CONNECT_TIMEOUT * 5, dialer.connect(&url));
        // What was accepted is kept, so that nothing is said by closing it either.
        let (dialed, _accepted) = tokio::join!(dialing, silent.accept());
        let refused = dialed.expect("bounded").expect_err("silent");
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
        assert!(refused.message().contains(&url), "{refused}");
    }

    #[test]
    fn a_leader_is_a_name_and_an_address() {
        let address: LeaderAddress = "prod=http://10.0.0.1:7410".parse().expect("valid");
        assert_eq!(
            (address.name.as_str(), address.url.as_str()),
            ("prod", "http://10.0.0.1:7410")
        );
        let bare: LeaderAddress = "prod=localhost:7410".parse().expect("valid");
        assert_eq!(bare.url, "http://localhost:7410");
        assert!("http://10.0.0.1:7410".parse::<LeaderAddress>().is_err());
    }
}
