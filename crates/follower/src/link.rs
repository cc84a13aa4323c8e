//! How a follower reaches a leader.

use std::str::FromStr;
use std::time::Duration;

use slipstream_proto::sync::admin_client::AdminClient;
use slipstream_proto::sync::metadata_sync_client::MetadataSyncClient;
use slipstream_proto::sync::{FollowerIdentity, RenewLeaseRequest};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// A leader that does not answer within this is taken for silent.
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

/// Opens a connection to a leader.
pub(crate) async fn connect(url: &str) -> Result<Channel, tonic::Status> {
    let unreachable = |error: &dyn std::error::Error| {
        let cause = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        tonic::Status::unavailable(format!("the leader at {url} does not answer{cause}"))
    };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| unreachable(&error))?;
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|error| unreachable(&error))
}

/// A client for the sync stream.
pub(crate) async fn sync_client(url: &str) -> Result<MetadataSyncClient<Channel>, tonic::Status> {
    let client = MetadataSyncClient::new(connect(url).await?);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// A client for attaching and detaching.
pub(crate) async fn admin_client(url: &str) -> Result<AdminClient<Channel>, tonic::Status> {
    Ok(AdminClient::new(connect(url).await?))
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
    use super::*;

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
