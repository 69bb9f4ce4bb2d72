//! An endpoint: this node's one place on the network, named by its key. It dials peers of its address book, keeps
//! one connection per peer and protocol, and knows which peers have dialled in.

use crate::{
    backoff::split_mix,
    book::{Book, Heard},
    connection::{Acquaintances, Connection},
    counters::{Counters, FabricMetrics, Open, add},
    error::{BindError, ConnectError, PeerError, Refusal},
    limits,
    link::Link,
    news::News,
    options::{
        Admit, EndpointLimits, EndpointOptions, address_of, net_report, own_resolver, relay_config,
        relay_mode, transport,
    },
    probe::ProbeLimit,
    serve::{self, Routes},
};
use daitn_messages::{ids::NodeId, limits::ADDRESSES_MAX, session::Peer};
use iroh::{
    SecretKey,
    endpoint::{ConnectOptions, presets},
};
use std::{
    collections::HashMap,
    fmt,
    mem::ManuallyDrop,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// This node's place on the network; clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) iroh: iroh::Endpoint,
    pub(crate) node: NodeId,
    pub(crate) limits: EndpointLimits,
    pub(crate) admit: Admit,
    pub(crate) counters: Arc<Counters>,
    pub(crate) routes: RwLock<Option<Arc<Routes>>>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) connections: Arc<Semaphore>,
    /// Connections of peers who have not been welcomed.
    pub(crate) strangers: Arc<Semaphore>,
    /// Streams of theirs.
    pub(crate) stranger_streams: Arc<Semaphore>,
    /// Who needs no place among the strangers.
    pub(crate) acquaintances: Acquaintances,
    pub(crate) inbound: Mutex<HashMap<NodeId, Vec<Connection>>>,
    pub(crate) probes: ProbeLimit,
    pub(crate) tasks: TaskTracker,
    /// Replies that are finished but may not have arrived.
    deliveries: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Relays in use.
    relays: Mutex<Vec<iroh::RelayUrl>>,
    relay_pass: Option<String>,
    pub(crate) peers: Mutex<Book>,
    dialled: Mutex<HashMap<Key, Slot>>,
    random: AtomicU64,
    news: broadcast::Sender<NodeId>,
}

type Key = (NodeId, Vec<u8>);
/// One dial at a time for each peer and protocol; whoever comes meanwhile waits for its result.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

impl Endpoint {
    /// Binds the sockets. Nothing is accepted before [`Self::serve`].
    ///
    /// # Errors
    /// Where an address cannot be bound or a relay's URL is none.
    pub async fn bind(options: EndpointOptions) -> Result<Self, BindError> {
        let failed = |cause: String| BindError::Address {
            addresses: options.bind.clone(),
            cause,
        };
        let secret = SecretKey::from_bytes(&options.secret);
        let node = NodeId(*secret.public().as_bytes());
        let (relay_mode, relays) = relay_mode(&options.relays, options.relay_pass.as_deref())?;
        let mut builder = iroh::Endpoint::builder(presets::Minimal)
            .secret_key(secret)
            .relay_mode(relay_mode)
            .dns_resolver(own_resolver())
            .net_report_config(net_report())
            .transport_config(transport(limits::KEEP_ALIVE_ACCEPTED, options.limits))
            .clear_address_lookup();
        if !options.relay_authorities.is_empty() {
            let extra = options.relay_authorities.iter().map(|der| der.clone().into());
            builder = builder.ca_tls_config(iroh::tls::CaTlsConfig::embedded().with_extra_roots(extra));
        }
        if !options.direct || !options.bind.is_empty() {
            builder = builder.clear_ip_transports();
        }
        if options.direct {
            for address in &options.bind {
                builder = builder
                    .bind_addr(*address)
                    .map_err(|error| failed(error.to_string()))?;
            }
        }
        let iroh = builder
            .bind()
            .await
            .map_err(|error| failed(format!("{error:#}")))?;
        let mut seed = [0u8; 8];
        // Without randomness there is no jitter, which is no reason not to start.
        let _ = getrandom::fill(&mut seed);
        Ok(Self {
            shared: Arc::new(Shared::new(
                iroh,
                node,
                (options, relays),
                u64::from_le_bytes(seed),
            )),
        })
    }

    /// Who this node is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// How others reach this node, as far as it knows: to be told to the control center.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let found = self.shared.iroh.addr();
        let bound = self.shared.iroh.bound_sockets();
        let mut addresses: Vec<SocketAddr> = bound
            .into_iter()
            .filter(|address| !address.ip().is_unspecified())
            .collect();
        addresses.extend(found.ip_addrs().copied());
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        // Before the relay has answered it is still where this node will be found.
        let relays = lock(&self.shared.relays);
        let relay = found
            .relay_urls()
            .find(|url| relays.contains(url))
            .or(relays.first())
            .map(ToString::to_string);
        Peer {
            node: self.shared.node,
            addresses,
            relay,
        }
    }

    /// Waits until a relay is connected; false where none is within this time.
    pub async fn relay_connected(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.shared.iroh.online())
            .await
            .is_ok()
    }

    /// Uses this relay from now on, and no other; none: no relay. Connections stay while their way does.
    ///
    /// # Errors
    /// Where the URL is none; what was in use stays in use.
    pub async fn set_relay(&self, url: Option<&str>) -> Result<(), PeerError> {
        let parsed = url.map(|url| {
            url.parse::<iroh::RelayUrl>()
                .map_err(|_| PeerError::RelayUrl { url: url.to_owned() })
        });
        let wanted: Vec<iroh::RelayUrl> = parsed.transpose()?.into_iter().collect();
        let before = std::mem::replace(&mut *lock(&self.shared.relays), wanted.clone());
        for new in wanted.iter().filter(|url| !before.contains(url)) {
            let config = relay_config(new, self.shared.relay_pass.as_deref());
            self.shared.iroh.insert_relay(new.clone(), Arc::new(config)).await;
        }
        for old in before.iter().filter(|url| !wanted.contains(url)) {
            self.shared.iroh.remove_relay(old).await;
        }
        Ok(())
    }

    /// Takes a peer into the address book, with these ways and no others.
    ///
    /// # Errors
    /// Where the peer's key or relay is malformed, or the book is full.
    pub fn set_peer(&self, peer: Peer) -> Result<(), PeerError> {
        let node = peer.node;
        let is_news = lock(&self.shared.peers).set(peer)?;
        if is_news {
            self.is_there(node);
        }
        Ok(())
    }

    /// Adds ways to a peer to those that the address book has of it.
    ///
    /// # Errors
    /// Where the peer's key or relay is malformed, or the book is full.
    pub fn add_peer(&self, peer: Peer, heard: Heard) -> Result<(), PeerError> {
        let node = peer.node;
        let is_news = lock(&self.shared.peers).add(peer, heard)?;
        if is_news {
            self.is_there(node);
        }
        Ok(())
    }

    /// A peer is there again, as somebody who knows says: whoever waits to dial it does so now.
    pub fn is_there(&self, node: NodeId) {
        self.shared.is_there(node);
    }

    /// Signs that peers are there, from now on.
    #[must_use]
    pub fn news(&self) -> News {
        News::new(self.shared.news.subscribe())
    }

    /// What the address book says of a peer.
    #[must_use]
    pub fn known_peer(&self, node: NodeId) -> Option<Peer> {
        lock(&self.shared.peers).get(node).cloned()
    }

    /// Forgets how a peer is reached. Its connections stay.
    pub fn forget_peer(&self, node: NodeId) {
        lock(&self.shared.peers).remove(node);
    }

    /// Closes every connection with a node, for instance because its key was revoked.
    pub fn disconnect(&self, node: NodeId) {
        let mut gone: Vec<Connection> = lock(&self.shared.inbound).get(&node).cloned().unwrap_or_default();
        lock(&self.shared.dialled).retain(|(remote, _), slot| {
            if *remote == node {
                gone.extend(slot.try_lock().ok().and_then(|slot| slot.clone()));
            }
            *remote != node
        });
        for connection in gone {
            connection.close(Refusal::Denied);
        }
    }

    /// The open connection to a peer for a protocol, or a new one to what the address book says.
    ///
    /// # Errors
    /// Where the peer is unknown, does not answer within this time, or refuses.
    pub async fn connect(
        &self,
        node: NodeId,
        alpn: &[u8],
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        let shared = &self.shared;
        if shared.stop.is_cancelled() {
            return Err(ConnectError::ShuttingDown);
        }
        if node == shared.node {
            return Err(ConnectError::ToSelf(node));
        }
        let mut news = self.news();
        let dial = async {
            loop {
                tokio::select! {
                    result = shared.reach(node, alpn) => return result,
                    // What is dialled may be where the peer was before.
                    () = news.of(std::slice::from_ref(&node)) => {}
                }
            }
        };
        let result = tokio::select! {
            result = tokio::time::timeout(within, dial) => result,
            () = shared.stop.cancelled() => return Err(ConnectError::ShuttingDown),
        };
        let result = result.unwrap_or(Err(ConnectError::TimedOut { node, within }));
        if result.is_err() {
            shared.forget_closed_slot(node, alpn);
        }
        result
    }

    /// A connection with a node for a protocol: one that the node has dialled itself if there is one, since a node
    /// behind NAT is reached on that only; else as [`Self::connect`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connection_to(
        &self,
        node: NodeId,
        alpn: &[u8],
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        let mut news = self.news();
        let reaching = async {
            loop {
                if let Some(connection) = self.inbound(node, alpn) {
                    return Ok(connection);
                }
                tokio::select! {
                    result = self.connect(node, alpn, within) => return result,
                    // It may have dialled in meanwhile.
                    () = news.of(std::slice::from_ref(&node)) => {}
                }
            }
        };
        let reached = tokio::time::timeout(within, reaching).await;
        reached.unwrap_or(Err(ConnectError::TimedOut { node, within }))
    }

    /// The newest open connection that a node has dialled itself, if any.
    #[must_use]
    pub fn inbound(&self, node: NodeId, alpn: &[u8]) -> Option<Connection> {
        let inbound = lock(&self.shared.inbound);
        inbound
            .get(&node)?
            .iter()
            .rev()
            .find(|c| c.alpn() == alpn && c.is_open())
            .cloned()
    }

    /// The nodes that have dialled in and are connected.
    #[must_use]
    pub fn inbound_nodes(&self) -> Vec<NodeId> {
        let inbound = lock(&self.shared.inbound);
        let open = inbound
            .iter()
            .filter(|(_, connections)| connections.iter().any(Connection::is_open));
        open.map(|(node, _)| *node).collect()
    }

    /// Keeps a connection to a peer, dialling again with backoff whenever it is lost, until the link is dropped.
    #[must_use]
    pub fn keep_connected(&self, node: NodeId, alpn: &'static [u8]) -> Link {
        Link::new(self.clone(), node, alpn)
    }

    /// These are known already, as if each had been welcomed: where strangers are few at once, these come in beside them.
    pub fn acquaint(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.shared.acquaintances.add(nodes);
    }

    /// Answers sessions by these routes, on connections of both directions, and accepts connections for their
    /// protocols. Called again it replaces the routes.
    pub fn serve(&self, routes: Routes) {
        let alpns = routes.alpns();
        let previous = {
            let mut current = self.shared.routes.write().unwrap_or_else(PoisonError::into_inner);
            current.replace(Arc::new(routes))
        };
        self.shared.iroh.set_alpns(alpns);
        if previous.is_none() {
            self.shared
                .tasks
                .spawn(serve::accept_connections(self.shared.clone()));
        }
    }

    /// What the endpoint has done so far.
    #[must_use]
    pub fn metrics(&self) -> FabricMetrics {
        self.shared.counters.snapshot()
    }

    /// Accepts nothing more, gives running handlers this long to end, closes every connection.
    pub async fn shutdown(&self, grace: Duration) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tasks.close();
        shared.deliveries.close();
        let ended = async {
            shared.tasks.wait().await;
            shared.deliveries.wait().await;
            // Delivered is not yet read, and a closed connection is not read from.
            if self.metrics().connections_total > 0 {
                tokio::time::sleep(limits::LINGER).await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!("sessions were still running after {grace:?} and are broken off");
        }
        shared
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        lock(&shared.dialled).clear();
        lock(&shared.inbound).clear();
        // The transport waits for whoever was dialled and has not answered, longer than anybody here does. It goes on beside
        // us. Where the process ends first it lets go of the socket; the endpoint, dropped half closed, would report that as
        // an error.
        let iroh = ManuallyDrop::new(shared.iroh.clone());
        let closing = tokio::spawn(async move {
            iroh.close().await;
            drop(ManuallyDrop::into_inner(iroh));
        });
        if tokio::time::timeout(limits::CLOSE_TIMEOUT, closing)
            .await
            .is_err()
        {
            tracing::debug!("not every peer took notice of the shutdown in time");
        }
    }

    pub(crate) fn random(&self) -> u64 {
        self.shared.random()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("node", &self.shared.node)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(
        iroh: iroh::Endpoint,
        node: NodeId,
        (options, relays): (EndpointOptions, Vec<iroh::RelayUrl>),
        seed: u64,
    ) -> Self {
        Self {
            iroh,
            node,
            limits: options.limits,
            admit: options.admit,
            counters: Arc::default(),
            routes: RwLock::default(),
            streams: Arc::new(Semaphore::new(options.limits.streams_max)),
            connections: Arc::new(Semaphore::new(options.limits.connections_max)),
            inbound: Mutex::default(),
            probes: ProbeLimit::default(),
            tasks: TaskTracker::new(),
            deliveries: TaskTracker::new(),
            stop: CancellationToken::new(),
            relays: Mutex::new(relays),
            relay_pass: options.relay_pass,
            strangers: Arc::new(Semaphore::new(options.limits.strangers_max)),
            stranger_streams: Arc::new(Semaphore::new(limits::STRANGER_STREAMS_MAX)),
            acquaintances: Acquaintances::default(),
            peers: Mutex::default(),
            dialled: Mutex::default(),
            random: AtomicU64::new(seed),
            news: broadcast::Sender::new(limits::NEWS_KEPT),
        }
    }

    pub(crate) fn random(&self) -> u64 {
        split_mix(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    /// What is answered now.
    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, node: NodeId, alpn: &[u8]) -> Result<Slot, ConnectError> {
        let mut dialled = lock(&self.dialled);
        let key = (node, alpn.to_vec());
        if let Some(slot) = dialled.get(&key) {
            return Ok(slot.clone());
        }
        let max = self.limits.connections_max;
        if dialled.len() >= max {
            // Room is made at the cost of a connection that nobody uses: no other clone of it is in anyone's hand.
            let idle = dialled.iter().find(|(_, slot)| {
                slot.try_lock()
                    .is_ok_and(|slot| slot.as_ref().is_none_or(|c| !c.is_open() || c.is_idle()))
            });
            let Some(idle) = idle.map(|(key, _)| key.clone()) else {
                return Err(ConnectError::TooMany { max });
            };
            if let Some(slot) = dialled.remove(&idle)
                && let Ok(mut slot) = slot.try_lock()
                && let Some(connection) = slot.take()
            {
                connection.close(Refusal::Cancelled);
            }
        }
        Ok(dialled.entry(key).or_default().clone())
    }

    /// The open connection that this side has dialled, or a new one.
    async fn reach(self: &Arc<Self>, node: NodeId, alpn: &[u8]) -> Result<Connection, ConnectError> {
        let slot = self.slot(node, alpn)?;
        let mut current = slot.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        *current = None;
        let connection = self.dial(node, alpn).await?;
        *current = Some(connection.clone());
        serve::attend(self, connection.clone());
        Ok(connection)
    }

    #[cfg(test)]
    pub(crate) fn set_peer_silently(&self, peer: Peer) {
        lock(&self.peers).set(peer).expect("a peer of a test");
    }

    pub(crate) fn is_there(&self, node: NodeId) {
        // An error means that nobody waits for anybody.
        let _ = self.news.send(node);
    }

    async fn dial(&self, node: NodeId, alpn: &[u8]) -> Result<Connection, ConnectError> {
        let failed = |cause: String| ConnectError::Failed { node, cause };
        let peer = lock(&self.peers)
            .get(node)
            .cloned()
            .ok_or(ConnectError::UnknownPeer(node))?;
        if peer.addresses.is_empty() && peer.relay.is_none() {
            return Err(ConnectError::UnknownPeer(node));
        }
        let address = address_of(&peer).map_err(|error| failed(error.to_string()))?;
        let options =
            ConnectOptions::new().with_transport_config(transport(limits::KEEP_ALIVE_DIALLED, self.limits));
        let connecting = self
            .iroh
            .connect_with_opts(address, alpn, options)
            .await
            .map_err(|error| failed(format!("{error:#}")))?;
        let connection = connecting.await.map_err(|error| failed(format!("{error:#}")))?;
        add(&self.counters.connections_total, 1);
        Ok(self.connection(connection))
    }

    /// Drops the slot of a connection that is gone, unless somebody is dialling in it.
    pub(crate) fn forget_closed_slot(&self, node: NodeId, alpn: &[u8]) {
        let mut dialled = lock(&self.dialled);
        let key = (node, alpn.to_vec());
        let closed = dialled.get(&key).is_some_and(|slot| {
            slot.try_lock()
                .is_ok_and(|slot| slot.as_ref().is_none_or(|connection| !connection.is_open()))
        });
        if closed {
            dialled.remove(&key);
        }
    }

    pub(crate) fn connection(&self, connection: iroh::endpoint::Connection) -> Connection {
        Connection::new(connection, self.counters.clone(), self.deliveries.clone())
    }

    /// Counts a connection as open until the result is dropped.
    pub(crate) fn count_open(&self, connection: &Connection) -> Open<fn(&Counters) -> &AtomicU64> {
        let which: fn(&Counters) -> &AtomicU64 = if connection.is_dialled() {
            |counters| &counters.connections_dialled_open
        } else {
            |counters| &counters.connections_accepted_open
        };
        Open::new(self.counters.clone(), which)
    }
}

/// A lock whose holder never panics while it holds it; if one did, the map is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
