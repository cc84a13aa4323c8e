//! Binds the ports, and serves all doors until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slipstream_proto::DESCRIPTORS;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;

use crate::{Engine, flight, http};

/// Requests that still run when a node stops get this long to end.
const GRACE: Duration = Duration::from_secs(10);
/// How often the gRPC health service looks whether the node is ready.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// An idle gRPC connection is tested this often, so that clients that vanished are let go.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// For gRPC and Flight SQL.
    pub grpc: SocketAddr,
    /// For HTTP.
    pub http: SocketAddr,
    /// Listen also where other machines reach, although nobody is authenticated.
    pub allow_remote_without_authentication: bool,
}

/// A node that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken, or the address is not of this machine.
    #[error("cannot listen on {address}: {source}. Choose another address with {flag}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Other machines would be let in without a token.
    #[error(
        "{address} can be reached by other machines, and this version authenticates nobody: \
         listen on 127.0.0.1, or say {flag} ... --insecure-listen if the network itself is closed"
    )]
    Exposed {
        /// Where.
        address: SocketAddr,
        /// The flag that chose it.
        flag: &'static str,
    },
    /// Serving failed.
    #[error("serving failed: {0}")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A node whose ports are taken, and which does not serve yet.
#[derive(Debug)]
pub struct NodeServer {
    grpc: TcpListener,
    http: TcpListener,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
}

impl NodeServer {
    /// Takes the ports; port 0 takes a free one.
    ///
    /// # Errors
    /// When a port is taken, or reachable from elsewhere without leave.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServeError> {
        let is_open = options.allow_remote_without_authentication;
        let (grpc, grpc_addr) = listen(options.grpc, "--grpc", is_open).await?;
        let (http, http_addr) = listen(options.http, "--http", is_open).await?;
        Ok(Self {
            grpc,
            http,
            grpc_addr,
            http_addr,
        })
    }

    /// Where gRPC listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Serves all doors, and `services` beside them on the gRPC port, until `shutdown` fires.
    /// Then requests that run get a while to end.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn serve(
        self,
        engine: Arc<dyn Engine>,
        services: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = services
            .add_service(flight::service(Arc::clone(&engine)))
            .add_service(health_service)
            .add_service(reflection_v1()?)
            .add_service(reflection_v1alpha()?);
        let watching = tokio::spawn(report_health(health, Arc::clone(&engine), shutdown.clone()));

        let grpc = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .tcp_nodelay(true)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.grpc),
                shutdown.clone().cancelled_owned(),
            );
        let http = axum::serve(
            self.http,
            http::router(engine).into_make_service_with_connect_info::<SocketAddr>(),
        )
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let both = async {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| ServeError::Serve(error);
            tokio::try_join!(
                async { grpc.await.map_err(|error| failed(error.into())) },
                async {
                    http.into_future()
                        .await
                        .map_err(|error| failed(error.into()))
                }
            )
        };
        let late = async {
            shutdown.cancelled().await;
            tokio::time::timeout(GRACE, std::future::pending::<()>())
                .await
                .ok();
        };
        let result = tokio::select! {
            result = both => result.map(drop),
            () = late => {
                tracing::warn!("some requests did not end within {GRACE:?}; cutting them off");
                Ok(())
            }
        };
        watching.abort();
        result
    }
}

async fn listen(
    address: SocketAddr,
    flag: &'static str,
    is_open: bool,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    if !address.ip().is_loopback() {
        if !is_open {
            return Err(ServeError::Exposed { address, flag });
        }
        tracing::warn!(%address, "listening for other machines without authentication");
    }
    let fail = |source| ServeError::Bind {
        address,
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn reflection_v1() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    ServeError,
> {
    reflection()
        .build_v1()
        .map_err(|error| ServeError::Serve(error.into()))
}

fn reflection_v1alpha() -> Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<
        impl tonic_reflection::server::v1alpha::ServerReflection,
    >,
    ServeError,
> {
    reflection()
        .build_v1alpha()
        .map_err(|error| ServeError::Serve(error.into()))
}

/// Keeps the gRPC health service (`""`, the whole server) in step with readiness.
async fn report_health(
    reporter: HealthReporter,
    engine: Arc<dyn Engine>,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        let status = if engine.readiness().ready && !shutdown.is_cancelled() {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
        }
    }
}
