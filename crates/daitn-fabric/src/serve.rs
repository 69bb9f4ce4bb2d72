//! What an endpoint answers: accepted connections, and the streams that peers open on any connection.
//!
//! Tasks: one accepts connections; one for each connection accepts its streams; one for each stream reads its header
//! and runs its handler. All end with their endpoint. A handler that panics ends its own stream only.

use crate::{
    artifact::{MayFetch, Serving, Store},
    connection::Connection,
    counters::{Open, add},
    endpoint::{Shared, lock},
    error::{Refusal, SessionError},
    limits::{HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, SESSION_TIMEOUT, WELCOME_WITHIN},
    probe,
    session::{Session, StreamKind},
};
use bytes::Bytes;
use daitn_messages::{encoding, ids::NodeId};
use futures_util::{FutureExt, future::BoxFuture};
use iroh::endpoint::IncomingAddr;
use serde::de::DeserializeOwned;
use std::{collections::HashMap, fmt, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// A session that a peer has opened, its header read.
#[derive(Debug)]
pub struct IncomingSession {
    /// Who opened it, proven by its key.
    pub remote: NodeId,
    /// The protocol of its connection.
    pub alpn: Vec<u8>,
    /// The bytes of the header frame.
    pub header: Bytes,
    /// The session, after its header.
    pub session: Session,
    /// The connection that it came on, for sessions the other way.
    pub connection: Connection,
}

impl IncomingSession {
    /// The header as a value.
    ///
    /// # Errors
    /// Where it does not decode; the caller should then [`Session::refuse`] as malformed.
    pub fn header<T: DeserializeOwned>(&self) -> Result<T, SessionError> {
        encoding::decode_at_most(&self.header, self.header.len()).map_err(SessionError::Malformed)
    }
}

type Handler = Arc<dyn Fn(IncomingSession) -> BoxFuture<'static, ()> + Send + Sync>;

struct Route {
    header_bytes_max: usize,
    /// The same for who has not been welcomed; none: everybody is welcome.
    stranger_bytes_max: Option<usize>,
    handler: Handler,
}

/// Which protocols are accepted and who answers their sessions.
#[derive(Default)]
pub struct Routes {
    sessions: HashMap<Vec<u8>, Route>,
    artifacts: Option<Serving>,
}

impl Routes {
    /// Nothing is accepted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sessions of a protocol, whose header is at most `header_bytes_max` bytes, go to this handler.
    #[must_use]
    pub fn on<H, F>(mut self, alpn: &[u8], header_bytes_max: usize, handler: H) -> Self
    where
        H: Fn(IncomingSession) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |incoming| handler(incoming).boxed());
        self.sessions.insert(
            alpn.to_vec(),
            Route {
                header_bytes_max,
                stranger_bytes_max: None,
                handler,
            },
        );
        self
    }

    /// Who dials in for a protocol is a stranger until [`Connection::welcome`]: the headers of its sessions have at most
    /// this many bytes, and they are not there for long. Those who were never welcomed
    /// ([`crate::Endpoint::acquaint`]) are few at once.
    #[must_use]
    pub fn strangers(mut self, alpn: &[u8], header_bytes_max: usize) -> Self {
        if let Some(route) = self.sessions.get_mut(alpn) {
            route.stranger_bytes_max = Some(header_bytes_max);
        }
        self
    }

    fn knows_strangers(&self, alpn: &[u8]) -> bool {
        self.sessions
            .get(alpn)
            .is_some_and(|route| route.stranger_bytes_max.is_some())
    }

    /// Artifacts of this store are served to whom `may_fetch` allows them. Without this call nothing is served.
    #[must_use]
    pub fn artifacts(mut self, store: Store, may_fetch: MayFetch) -> Self {
        self.artifacts = Some(Serving::new(store, may_fetch));
        self
    }

    pub(crate) fn alpns(&self) -> Vec<Vec<u8>> {
        let mut alpns: Vec<Vec<u8>> = self.sessions.keys().cloned().collect();
        let data = crate::DATA_ALPN.to_vec();
        if self.artifacts.is_some() && !alpns.contains(&data) {
            alpns.push(data);
        }
        alpns.sort();
        alpns
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("alpns", &self.alpns())
            .finish_non_exhaustive()
    }
}

pub(crate) async fn accept_connections(shared: Arc<Shared>) {
    loop {
        let incoming = tokio::select! {
            incoming = shared.iroh.accept() => incoming,
            () = shared.stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        let Ok(permit) = shared.connections.clone().try_acquire_owned() else {
            add(&shared.counters.connections_refused_total, 1);
            incoming.refuse();
            continue;
        };
        let scarce = shared.connections.available_permits() < shared.limits.connections_max / 2;
        if scarce && !incoming.remote_addr_validated() {
            // Costs a round trip, and a forged source address its chance to fill the table.
            if incoming.retry().is_err() {
                tracing::debug!("a peer could not be asked to prove its address");
            }
            continue;
        }
        shared
            .tasks
            .spawn(accept_connection(shared.clone(), incoming, permit));
    }
}

async fn accept_connection(
    shared: Arc<Shared>,
    incoming: iroh::endpoint::Incoming,
    _permit: OwnedSemaphorePermit,
) {
    let address = match incoming.remote_addr() {
        IncomingAddr::Ip(address) => Some(address),
        _ => None,
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming.into_future());
    let connection = match handshake.await {
        Ok(Ok(connection)) => shared.connection(connection),
        Ok(Err(error)) => {
            add(&shared.counters.connections_refused_total, 1);
            tracing::debug!("a handshake failed: {error:#}");
            return;
        }
        Err(_) => {
            add(&shared.counters.connections_refused_total, 1);
            tracing::debug!("a handshake took longer than {HANDSHAKE_TIMEOUT:?}");
            return;
        }
    };
    let node = connection.remote();
    if !(shared.admit)(node, connection.alpn()) {
        add(&shared.counters.connections_refused_total, 1);
        tracing::info!(%node, "a node that is not admitted dialled in");
        connection.close(Refusal::Denied);
        return;
    }
    if shared
        .routes()
        .is_some_and(|routes| routes.knows_strangers(connection.alpn()))
    {
        let place = shared.strangers.clone().try_acquire_owned().ok();
        let is_known = shared.acquaintances.has(node);
        if place.is_none() && !is_known {
            add(&shared.counters.connections_refused_total, 1);
            connection.close(Refusal::Overloaded);
            return;
        }
        connection.not_welcomed(place.filter(|_| !is_known), shared.acquaintances.clone());
    }
    {
        let mut inbound = lock(&shared.inbound);
        let of_node = inbound.entry(node).or_default();
        if of_node.len() >= shared.limits.connections_per_peer_max {
            add(&shared.counters.connections_refused_total, 1);
            connection.close(Refusal::Overloaded);
            return;
        }
        of_node.push(connection.clone());
    }
    if let Some(address) = address {
        // A node dials and answers on one socket: others may find it there too.
        let address = (address.ip().to_canonical(), address.port());
        lock(&shared.peers).seen(node, address.into());
    }
    shared.is_there(node);
    add(&shared.counters.connections_total, 1);
    tokio::select! {
        () = accept_streams(&shared, &connection) => {}
        () = outstay(&connection) => {}
    }
    let mut inbound = lock(&shared.inbound);
    if let Some(of_node) = inbound.get_mut(&node) {
        of_node.retain(|other| !other.is_same(&connection));
        if of_node.is_empty() {
            inbound.remove(&node);
        }
    }
}

/// Ends once a stranger has been one for too long, and then only.
async fn outstay(connection: &Connection) {
    tokio::time::sleep(WELCOME_WITHIN).await;
    if !connection.is_stranger() {
        return std::future::pending().await;
    }
    tracing::info!(node = %connection.remote(), "a peer that was not welcomed within {WELCOME_WITHIN:?} is sent away");
    connection.close(Refusal::Denied);
}

/// Accepts streams on a connection that this side has dialled.
pub(crate) fn attend(shared: &Arc<Shared>, connection: Connection) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        accept_streams(&shared, &connection).await;
        shared.forget_closed_slot(connection.remote(), connection.alpn());
    });
}

async fn accept_streams(shared: &Arc<Shared>, connection: &Connection) {
    let _open = shared.count_open(connection);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            // The endpoint closes the connection itself, after what runs on it has ended.
            () = shared.stop.cancelled() => return,
        };
        let session = match accepted {
            Ok(session) => session,
            Err(error) => {
                tracing::debug!(node = %connection.remote(), "connection ended: {error}");
                return;
            }
        };
        let streams = if connection.is_newcomer() {
            &shared.stranger_streams
        } else {
            &shared.streams
        };
        let Ok(permit) = streams.clone().try_acquire_owned() else {
            add(&shared.counters.streams_refused_total, 1);
            session.refuse(Refusal::Overloaded);
            continue;
        };
        shared
            .tasks
            .spawn(answer(shared.clone(), connection.clone(), session, permit));
    }
}

async fn answer(
    shared: Arc<Shared>,
    connection: Connection,
    session: Session,
    _permit: OwnedSemaphorePermit,
) {
    let _open = Open::new(shared.counters.clone(), |counters| &counters.streams_handled_open);
    let node = connection.remote();
    let handled = AssertUnwindSafe(dispatch(&shared, connection, session))
        .catch_unwind()
        .await;
    match handled {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            add(&shared.counters.streams_refused_total, 1);
            tracing::debug!(%node, "a session was not answered: {error}");
        }
        Err(_) => {
            add(&shared.counters.handler_panics_total, 1);
            tracing::error!(%node, "a session handler panicked; its session is broken off");
        }
    }
}

/// Reads the kind and the header of a stream and hands it to who answers it.
async fn dispatch(
    shared: &Arc<Shared>,
    connection: Connection,
    mut session: Session,
) -> Result<(), SessionError> {
    session.set_timeout(HEADER_TIMEOUT);
    let kind = session.receiver().recv_kind().await?;
    let routes = shared.routes();
    let refuse = |session: Session, refusal: Refusal| {
        session.refuse(refusal);
        Err(SessionError::Refused(refusal))
    };
    match StreamKind::from_byte(kind) {
        Some(StreamKind::Session) => {
            let route = routes
                .as_ref()
                .and_then(|routes| routes.sessions.get(connection.alpn()));
            let Some(route) = route else {
                return refuse(session, Refusal::Unsupported);
            };
            let stranger = connection
                .is_stranger()
                .then_some(route.stranger_bytes_max)
                .flatten();
            let header_bytes_max = stranger.unwrap_or(route.header_bytes_max);
            let header = match session.receiver().recv_frame(header_bytes_max).await {
                Ok(Some(header)) => header,
                Ok(None) => return Err(SessionError::EndedEarly),
                Err(error) => {
                    if matches!(error, SessionError::TooLarge { .. }) {
                        session.refuse(Refusal::TooLarge);
                    }
                    return Err(error);
                }
            };
            session.set_timeout(SESSION_TIMEOUT);
            let alpn = connection.alpn().to_vec();
            let incoming = IncomingSession {
                remote: connection.remote(),
                alpn,
                header,
                session,
                connection,
            };
            (route.handler)(incoming).await;
            Ok(())
        }
        Some(StreamKind::Artifact) => match routes.as_ref().and_then(|routes| routes.artifacts.as_ref()) {
            Some(serving) => {
                serving
                    .answer(connection.remote(), session, &shared.counters)
                    .await
            }
            None => refuse(session, Refusal::Unsupported),
        },
        Some(StreamKind::Probe) => probe::answer(&shared.probes, session).await,
        None => refuse(session, Refusal::Unsupported),
    }
}
