//! The embedded relay: carries encrypted packets between nodes that cannot reach each other directly. It sees who
//! talks to whom and how much, never what.
//!
//! The relay library does not bound how many connections it accepts, so connections are accepted here and handed to
//! it: so many that have not yet proven a key, so many that have.

use crate::{
    error::RelayError,
    limits::{RELAY_CLIENTS_MAX, RELAY_HANDSHAKE_TIMEOUT, RELAY_HANDSHAKES_MAX, RELAY_PASS_BYTES_MAX},
};
use daitn_messages::ids::NodeId;
use futures_util::future::BoxFuture;
use iroh::PublicKey;
use iroh_relay::server::{
    Access, AccessControl, ClientRequest, ConnectionId, QuicConfig, RelayConfig, Server, ServerConfig,
    http_server::{RelayService, TlsConfig},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;

/// Whom a relay serves: asked with the key that was proven and the pass that was shown with it.
pub type RelayAccess = Arc<dyn Fn(NodeId, Option<String>) -> BoxFuture<'static, bool> + Send + Sync>;

/// How to run a relay.
pub struct RelayOptions {
    /// TCP address to listen on: 443 where the network outside should reach it.
    pub bind: SocketAddr,
    /// Whom it serves.
    pub access: RelayAccess,
    /// TLS. Without it nodes are still encrypted end to end, but cannot learn their public address from the relay, so
    /// two nodes behind NAT stay relayed.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Nodes served at once.
    pub clients_max: usize,
}

impl RelayOptions {
    /// Without TLS.
    #[must_use]
    pub fn new(bind: SocketAddr, access: RelayAccess) -> Self {
        Self {
            bind,
            access,
            tls: None,
            clients_max: RELAY_CLIENTS_MAX,
        }
    }
}

impl fmt::Debug for RelayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOptions")
            .field("bind", &self.bind)
            .field("tls", &self.tls.is_some())
            .field("clients_max", &self.clients_max)
            .finish_non_exhaustive()
    }
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    service: RelayService,
    address: SocketAddr,
    tls: bool,
    accepting: AbortOnDropHandle<()>,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn bind(options: RelayOptions) -> Result<Self, RelayError> {
        let bind = options.bind;
        let failed = |cause: String| RelayError::Address { address: bind, cause };
        let listener = TcpListener::bind(bind)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
        let guard = Guard {
            access: options.access,
            clients_max: options.clients_max,
            clients: AtomicUsize::new(0),
        };
        // The library insists on a listener of its own; it gets a loopback port that nobody is told of.
        let mut relay = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
        relay.access = Arc::new(guard);
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        if let Some(tls) = &options.tls {
            let mut quic = QuicConfig::new(SocketAddr::new(address.ip(), address.port()));
            quic.server_config = Some(tls.as_ref().clone());
            config.quic = Some(quic);
        }
        let server = Server::spawn(config)
            .await
            .map_err(|error| failed(format!("{error:#}")))?;
        let service = server
            .relay_service()
            .expect("the relay service was configured above")
            .clone();
        let tls = options.tls.is_some();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, service.clone(), options.tls)));
        Ok(Self {
            server,
            service,
            address,
            tls,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL by address. With TLS, tell nodes the name in the certificate instead.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Bytes relayed towards nodes so far.
    #[must_use]
    pub fn bytes_relayed(&self) -> u64 {
        self.server.metrics().server.bytes_sent.get()
    }

    /// What breaks off nodes, also where the relay itself is not at hand.
    #[must_use]
    pub fn door(&self) -> RelayDoor {
        RelayDoor(self.service.clone())
    }

    /// Stops it.
    pub async fn shutdown(self) {
        drop(self.accepting);
        if let Err(error) = self.server.shutdown().await {
            tracing::debug!("the relay did not stop in order: {error:#}");
        }
    }
}

/// Breaks off nodes; clones are of the same relay.
#[derive(Debug, Clone)]
pub struct RelayDoor(RelayService);

impl RelayDoor {
    /// Breaks off a node, for instance because its key was revoked. It is asked about anew when it comes back.
    pub fn disconnect(&self, node: NodeId) {
        if let Ok(key) = PublicKey::from_bytes(&node.0) {
            self.0.clients().disconnect(key, None);
        }
    }
}

/// A relay's certificate and key, and what a node must trust to believe it.
#[derive(Clone)]
pub struct RelayTls {
    /// For [`RelayOptions::tls`].
    pub server: Arc<rustls::ServerConfig>,
    /// The chain (DER), for [`crate::EndpointOptions::relay_authorities`] of who runs the relay.
    pub chain: Vec<Vec<u8>>,
}

impl RelayTls {
    /// From a certificate chain and its key, PEM.
    ///
    /// # Errors
    /// Where they cannot be read or do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, RelayError> {
        let failed = |cause: String| RelayError::Certificate { cause };
        let der = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let chain = der.iter().cloned().map(CertificateDer::from).collect();
                builder.with_no_client_auth().with_single_cert(chain, key)
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            server: Arc::new(server),
            chain: der,
        })
    }
}

impl fmt::Debug for RelayTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("RelayTls")
            .field("n_certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// The certificates (DER) in a PEM file's bytes.
///
/// # Errors
/// Where there is none, or one cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, RelayError> {
    let failed = |cause: String| RelayError::Certificate { cause };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}

async fn accept(listener: TcpListener, service: RelayService, tls: Option<Arc<rustls::ServerConfig>>) {
    let handshakes = Arc::new(Semaphore::new(RELAY_HANDSHAKES_MAX));
    loop {
        // A permit first: while there is none, further connections wait in the system's bounded backlog.
        let Ok(permit) = handshakes.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (service, tls) = (service.clone(), tls.clone().map(TlsConfig::new));
                tokio::spawn(async move {
                    service
                        .handle_connection(stream, tls, RELAY_HANDSHAKE_TIMEOUT)
                        .await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: without a pause this would spin.
                tracing::warn!("the relay cannot accept a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

struct Guard {
    access: RelayAccess,
    clients_max: usize,
    clients: AtomicUsize,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

impl AccessControl for Guard {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let pass = request
            .auth_token()
            .filter(|pass| pass.len() <= RELAY_PASS_BYTES_MAX);
        if !(self.access)(NodeId(*request.endpoint_id().as_bytes()), pass).await {
            return Access::Deny {
                reason: Some("this node is not enrolled here, and showed no join token".to_owned()),
            };
        }
        let admitted = self
            .clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |clients| {
                (clients < self.clients_max).then_some(clients + 1)
            });
        match admitted {
            Ok(_) => Access::Allow,
            Err(_) => Access::Deny {
                reason: Some("this relay serves its most of nodes".to_owned()),
            },
        }
    }

    fn on_disconnect(&self, _node: PublicKey, _connection: ConnectionId) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
