//! How an endpoint is bound, and how that is said to the transport.

use crate::{
    error::{BindError, PeerError},
    limits,
};
use daitn_messages::{ids::NodeId, limits::ADDRESSES_MAX, session::Peer};
use iroh::{
    EndpointAddr, PublicKey, RelayConfig, RelayMap, RelayMode, RelayUrl, TransportAddr,
    dns::{DnsResolver, FallbackMode},
    endpoint::{NetReportConfig, QuicTransportConfig, VarInt},
};
use iroh_relay::RelayQuicConfig;
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

/// Whether a peer that dials in is admitted to a protocol.
pub type Admit = Arc<dyn Fn(NodeId, &[u8]) -> bool + Send + Sync>;

/// How much an endpoint takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections at once, each direction.
    pub connections_max: usize,
    /// Inbound connections at once of peers who were never welcomed, where that matters
    /// ([`crate::Routes::strangers`]).
    pub strangers_max: usize,
    /// Inbound connections at once from one peer.
    pub connections_per_peer_max: usize,
    /// Streams that one peer may have open on one connection; its further ones wait.
    pub streams_per_connection_max: u32,
    /// Inbound streams handled at once; further ones are refused as overloaded.
    pub streams_max: usize,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            strangers_max: limits::STRANGERS_MAX,
            connections_per_peer_max: limits::CONNECTIONS_PER_PEER_MAX,
            streams_per_connection_max: limits::STREAMS_PER_CONNECTION_MAX,
            streams_max: limits::STREAMS_MAX,
        }
    }
}

/// How to bind an endpoint.
#[derive(Clone)]
pub struct EndpointOptions {
    pub(crate) secret: [u8; 32],
    /// UDP addresses to bind; empty for any port on all interfaces. Ignored without [`Self::direct`].
    pub bind: Vec<SocketAddr>,
    /// URLs of our own relays; empty for none, until [`crate::Endpoint::set_relay`] names one.
    pub relays: Vec<String>,
    /// What is shown to relays beside the key, for instance by who is about to join.
    pub relay_pass: Option<String>,
    /// Whether to use UDP at all. Without it everything goes through a relay.
    pub direct: bool,
    /// Certificates (DER) of authorities that relays may use besides the well-known ones.
    pub relay_authorities: Vec<Vec<u8>>,
    /// Bounds.
    pub limits: EndpointLimits,
    /// Who may dial in. Everybody by default: sessions authorise.
    pub admit: Admit,
}

impl EndpointOptions {
    /// With this Ed25519 secret key, on any port of all interfaces, without a relay.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            bind: Vec::new(),
            relays: Vec::new(),
            relay_pass: None,
            direct: true,
            relay_authorities: Vec::new(),
            limits: EndpointLimits::default(),
            admit: Arc::new(|_, _| true),
        }
    }

    /// Bound to this address only.
    #[must_use]
    pub fn bound_to(mut self, address: SocketAddr) -> Self {
        self.bind = vec![address];
        self
    }
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the secret.
        f.debug_struct("EndpointOptions")
            .field("bind", &self.bind)
            .field("relays", &self.relays)
            .field("direct", &self.direct)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

pub(crate) fn address_of(peer: &Peer) -> Result<EndpointAddr, PeerError> {
    let key = PublicKey::from_bytes(&peer.node.0).map_err(|_| PeerError::NotAKey(peer.node))?;
    let mut addresses: Vec<TransportAddr> = peer
        .addresses
        .iter()
        .take(ADDRESSES_MAX)
        .map(|address| TransportAddr::Ip(*address))
        .collect();
    if let Some(url) = &peer.relay {
        let relay: RelayUrl = url
            .parse()
            .map_err(|_| PeerError::RelayUrl { url: url.clone() })?;
        addresses.push(TransportAddr::Relay(relay));
    }
    Ok(EndpointAddr::from_parts(key, addresses))
}

/// Our own relays. There may be none now and one later, so relays are never switched off altogether: without a URL
/// nothing is contacted.
pub(crate) fn relay_mode(
    urls: &[String],
    pass: Option<&str>,
) -> Result<(RelayMode, Vec<RelayUrl>), BindError> {
    let mut relays = Vec::new();
    for url in urls {
        let url: RelayUrl = url
            .parse()
            .map_err(|_| BindError::RelayUrl { url: url.clone() })?;
        relays.push(url);
    }
    let configs = relays.iter().map(|url| relay_config(url, pass));
    Ok((RelayMode::Custom(RelayMap::from_iter(configs)), relays))
}

/// A relay of ours, and where it answers from which address a node is seen: on the UDP port of the same number, and
/// only with TLS.
pub(crate) fn relay_config(url: &RelayUrl, pass: Option<&str>) -> RelayConfig {
    let port = url.port_or_known_default().filter(|_| url.scheme() == "https");
    let config = RelayConfig::new(url.clone(), port.map(RelayQuicConfig::new));
    match pass {
        Some(pass) => config.with_auth_token(pass),
        None => config,
    }
}

/// The machine's name servers and no others: the transport's own choice would fall back on public ones.
pub(crate) fn own_resolver() -> DnsResolver {
    DnsResolver::builder()
        .with_system_defaults()
        .with_fallback_mode(FallbackMode::Never)
        .build()
}

pub(crate) fn net_report() -> NetReportConfig {
    let mut config = NetReportConfig::default();
    // It would ask each relay for a page over plain HTTP, to tell whether the network answers in its place: one more
    // request in the clear that nothing here reads the answer of.
    config.captive_portal_check = false;
    config
}

/// The windows stay at their defaults: a stream window of 4 MiB or more breaks connections in mid-transfer.
pub(crate) fn transport(keep_alive: Duration, limits: EndpointLimits) -> QuicTransportConfig {
    let idle = limits::IDLE_TIMEOUT
        .try_into()
        .expect("three seconds fit the transport's idle timeout");
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .default_path_max_idle_timeout(limits::IDLE_TIMEOUT)
        .default_path_keep_alive_interval(keep_alive)
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_per_connection_max))
        // Sessions are bidirectional; nothing else is spoken.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .build()
}
