//! Reading from web servers on behalf of whoever names one.
//!
//! A machine in a cloud asks services at fixed addresses who it is, and gets the credentials of its role.
//! Whoever may name an address must not read those by way of a node, whatever leads there: a number, a name,
//! or a redirection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, Error};
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use url::{Host, Url};

use crate::url::CONNECT_TIMEOUT;

/// One request, until its last byte: what stores of other kinds take by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Redirections of one request: as many as reqwest follows by default.
const REDIRECTIONS_MAX: usize = 10;
/// What tells a machine who it is, besides link-local addresses: Azure, Alibaba Cloud, Oracle Cloud, and AWS.
const METADATA_SERVICES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why an address is not read.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to what tells this machine its own credentials, and is not read")]
pub(crate) struct Forbidden(String);

/// Whether an address may be read, as far as it tells: a name is looked at when it is resolved.
pub(crate) fn check(url: &Url) -> Result<(), Forbidden> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if is_forbidden(address) {
        return Err(Forbidden(address.to_string()));
    }
    Ok(())
}

fn is_forbidden(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_link_local || METADATA_SERVICES.contains(&address)
}

/// Connects to what may be read.
#[derive(Debug)]
pub(crate) struct WebConnector;

impl HttpConnector for WebConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = client().map_err(|error| Error::Generic {
            store: "HTTP",
            source: error.into(),
        })?;
        Ok(HttpClient::new(client))
    }
}

fn client() -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("slipstream/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(Policy::custom(|attempt: Attempt<'_>| {
            if attempt.previous().len() > REDIRECTIONS_MAX {
                return attempt.error("it redirects too often");
            }
            match check(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(forbidden) => attempt.error(forbidden),
            }
        }))
        .dns_resolver(Arc::new(Resolver))
        .build()
}

/// The system's, without the addresses that are not read.
#[derive(Debug)]
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str();
            let found = tokio::net::lookup_host((name, 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            let mut addresses = found.clone();
            addresses.retain(|address| !is_forbidden(address.ip()));
            if addresses.is_empty() && !found.is_empty() {
                return Err(Forbidden(name.to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_that_tell_a_machine_who_it_is_are_not_read() {
        for (address, is_read) in [
            ("http://169.254.169.254/latest/meta-data/", false),
            ("http://169.254.170.2/v2/credentials/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://2852039166/", false),
            ("http://[fe80::1]/", false),
            ("http://[fd00:ec2::254]/", false),
            ("http://168.63.129.16/machine", false),
            ("http://127.0.0.1:8080/x.csv", true),
            ("http://10.0.0.7/x.csv", true),
            ("https://example.org/x.csv", true),
        ] {
            let url: Url = address.parse().expect("an address");
            assert_eq!(check(&url).is_ok(), is_read, "{address}");
        }
    }

    #[tokio::test]
    async fn nor_when_another_server_leads_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let answer = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\n\
                      Content-Length: 0\r\n\r\n";
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.expect("a caller");
            let mut request = [0; 1_024];
            let read = connection.read(&mut request).await.expect("a request");
            assert!(read > 0);
            connection.write_all(answer.as_bytes()).await.expect("sent");
            connection.shutdown().await.expect("sent");
        });
        let client = client().expect("built");
        let asked = client.get(format!("http://127.0.0.1:{port}/x.csv")).send();
        let error = asked.await.expect_err("it is not followed");
        let mut reason = error.source();
        while let Some(found) = reason
            && !found.is::<Forbidden>()
        {
            reason = found.source();
        }
        assert!(reason.is_some(), "{error:?}");
        server.await.expect("it ends");
    }
}
