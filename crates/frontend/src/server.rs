//! Binds the ports, and serves all doors until told to stop.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use slipstream_proto::DESCRIPTORS;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic_health::server::HealthReporter;

use crate::settings::TlsFiles;
use crate::{Gate, flight, http};

/// Requests that still run when a node stops get this long to end.
const GRACE: Duration = Duration::from_secs(10);
/// How often the gRPC health service looks whether the node is ready.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// An idle gRPC connection is tested this often, so that clients that vanished are let go.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where a node listens.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// For gRPC and Flight SQL.
    pub grpc: SocketAddr,
    /// For HTTP.
    pub http: SocketAddr,
    /// Listen also where other machines reach: callers need a token, or the user has said so.
    pub allow_remote: bool,
    /// The node's certificate; none: connections are not encrypted.
    pub tls: Option<TlsFiles>,
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
        "{address} can be reached by other machines, and this node has no tokens, so it would let \
         everybody in: make one with 'slipstream token create', listen on 127.0.0.1, or say {flag} \
         ... --insecure-listen if the network itself is closed"
    )]
    Exposed {
        /// Where.
        address: SocketAddr,
        /// The flag that chose it.
        flag: &'static str,
    },
    /// The certificate or its key cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
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
    tls: Option<LoadedTls>,
}

impl NodeServer {
    /// Takes the ports; port 0 takes a free one.
    ///
    /// # Errors
    /// When a port is taken, or reachable from elsewhere without leave.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServeError> {
        let is_open = options.allow_remote;
        let tls = options.tls.as_ref().map(LoadedTls::read).transpose()?;
        let (grpc, grpc_addr) = listen(options.grpc, "--grpc", is_open).await?;
        let (http, http_addr) = listen(options.http, "--http", is_open).await?;
        Ok(Self {
            grpc,
            http,
            grpc_addr,
            http_addr,
            tls,
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

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves all doors, and `services` beside them on the gRPC port, until `shutdown` fires.
    /// Then requests that run get a while to end.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn serve(
        self,
        gate: Gate,
        services: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let gate = gate.encrypted(self.has_tls());
        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = services
            .add_service(InterceptedService::new(
                flight::service(&gate),
                gate.interceptor(),
            ))
            .add_service(health_service)
            .add_service(reflection_v1()?)
            .add_service(reflection_v1alpha()?);
        let watching = tokio::spawn(report_health(health, gate.clone(), shutdown.clone()));

        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = &self.tls {
            let fail = |error: tonic::transport::Error| ServeError::Serve(error.into());
            server = server.tls_config(tls.grpc()).map_err(fail)?;
        }
        let grpc = server
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .tcp_nodelay(true)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.grpc),
                shutdown.clone().cancelled_owned(),
            );
        let http = serve_http(self.http, self.tls, gate, shutdown.clone());
        let both = async {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| ServeError::Serve(error);
            tokio::try_join!(
                async { grpc.await.map_err(|error| failed(error.into())) },
                async { http.await.map_err(|error| failed(error.into())) }
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

async fn serve_http(
    listener: TcpListener,
    tls: Option<LoadedTls>,
    gate: Gate,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let handle = axum_server::Handle::new();
    let stops = handle.clone();
    let stopping = tokio::spawn(async move {
        shutdown.cancelled().await;
        stops.graceful_shutdown(None);
    });
    // An answer is written in several pieces, and the last of them must not wait for the client to have
    // acknowledged the first.
    let service = http::router(gate).into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.into_std()?;
    let served = match tls {
        None => {
            let server = axum_server::from_tcp(listener)?.acceptor(NoDelayAcceptor);
            server.handle(handle).serve(service).await
        }
        Some(tls) => {
            let config = RustlsConfig::from_pem(tls.certificate, tls.key).await?;
            let server = axum_server::from_tcp_rustls(listener, config)?;
            let server = server.map(|tls| tls.acceptor(NoDelayAcceptor));
            server.handle(handle).serve(service).await
        }
    };
    stopping.abort();
    served
}

/// The files of [`TlsFiles`], read and found to be what they should.
struct LoadedTls {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for LoadedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedTls").finish_non_exhaustive()
    }
}

impl LoadedTls {
    fn read(files: &TlsFiles) -> Result<Self, ServeError> {
        let fail = |path: &Path, reason: String| ServeError::Tls {
            path: path.to_owned(),
            reason,
        };
        let read = |path: &Path| std::fs::read(path).map_err(|error| fail(path, error.to_string()));
        let loaded = Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        };
        let certificates = CertificateDer::pem_slice_iter(&loaded.certificate);
        let certificates = certificates.collect::<Result<Vec<_>, _>>();
        let certificates =
            certificates.map_err(|error| fail(&files.certificate, error.to_string()))?;
        if certificates.is_empty() {
            let reason = "it holds no certificate in PEM".to_owned();
            return Err(fail(&files.certificate, reason));
        }
        let key = PrivateKeyDer::from_pem_slice(&loaded.key)
            .map_err(|error| fail(&files.key, format!("no private key in PEM: {error}")))?;
        rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                let config = config.with_no_client_auth();
                config.with_single_cert(certificates, key)
            })
            .map_err(|error| {
                let reason = format!("it does not go with {}: {error}", files.key.display());
                fail(&files.certificate, reason)
            })?;
        Ok(loaded)
    }

    /// Followers show a certificate when asked; clients of Flight SQL need none.
    fn grpc(&self) -> ServerTlsConfig {
        let identity = Identity::from_pem(&self.certificate, &self.key);
        let config = ServerTlsConfig::new().identity(identity);
        match &self.client_ca {
            None => config,
            Some(ca) => config
                .client_ca_root(Certificate::from_pem(ca))
                .client_auth_optional(true),
        }
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
        tracing::info!(%address, "listening for other machines");
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
async fn report_health(reporter: HealthReporter, gate: Gate, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        let status = if gate.readiness(None).ready && !shutdown.is_cancelled() {
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
