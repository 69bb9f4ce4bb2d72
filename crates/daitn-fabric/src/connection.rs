//! One authenticated connection to a peer. Either side opens streams on it, whoever dialled: that is how a node that
//! only dials out is reached.

use crate::{
    counters::{Counters, add},
    endpoint::lock,
    error::{Refusal, SessionError},
    session::{Session, StreamKind, Usage},
};
use daitn_messages::{encoding, ids::NodeId};
use iroh::endpoint::Side;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

/// A connection; clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: iroh::endpoint::Connection,
    usage: Arc<Usage>,
    standing: Arc<Standing>,
}

/// Whether the peer has been welcomed; until then it is a stranger.
#[derive(Debug, Default)]
struct Standing {
    stranger: Mutex<Option<Stranger>>,
}

#[derive(Debug)]
struct Stranger {
    /// One of few; none for who has been welcomed before.
    place: Option<OwnedSemaphorePermit>,
    acquaintances: Acquaintances,
}

/// Who was ever welcomed: as many as a domain enrols. They need no place to be greeted again, so that whoever fills the
/// places keeps out newcomers only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acquaintances {
    nodes: Arc<Mutex<HashSet<NodeId>>>,
}

impl Acquaintances {
    pub(crate) fn has(&self, node: NodeId) -> bool {
        lock(&self.nodes).contains(&node)
    }

    pub(crate) fn add(&self, nodes: impl IntoIterator<Item = NodeId>) {
        lock(&self.nodes).extend(nodes);
    }
}

impl Connection {
    pub(crate) fn new(
        inner: iroh::endpoint::Connection,
        counters: Arc<Counters>,
        deliveries: TaskTracker,
    ) -> Self {
        Self {
            inner,
            usage: Arc::new(Usage { counters, deliveries }),
            standing: Arc::default(),
        }
    }

    /// Who is at the other end, proven by its key.
    #[must_use]
    pub fn remote(&self) -> NodeId {
        NodeId(*self.inner.remote_id().as_bytes())
    }

    /// The protocol.
    #[must_use]
    pub fn alpn(&self) -> &[u8] {
        self.inner.alpn()
    }

    /// Whether this side dialled.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.inner.side() == Side::Client
    }

    /// Whether it is open, as far as is known: a lost peer is noticed after three seconds.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inner.close_reason().is_none()
    }

    /// The peer is no stranger any more: its frames may be as long as its protocol allows. Does nothing where it was
    /// none.
    pub fn welcome(&self) {
        let stranger = lock(&self.standing.stranger).take();
        if let Some(stranger) = stranger {
            stranger.acquaintances.add([self.remote()]);
        }
    }

    /// Whether the peer has yet to be welcomed.
    pub(crate) fn is_stranger(&self) -> bool {
        lock(&self.standing.stranger).is_some()
    }

    /// Whether it has yet to be welcomed for the first time.
    pub(crate) fn is_newcomer(&self) -> bool {
        lock(&self.standing.stranger)
            .as_ref()
            .is_some_and(|stranger| stranger.place.is_some())
    }

    /// Makes the peer a stranger, who holds a place, where it needs one, until it is welcomed or gone.
    pub(crate) fn not_welcomed(&self, place: Option<OwnedSemaphorePermit>, acquaintances: Acquaintances) {
        let stranger = Stranger { place, acquaintances };
        *lock(&self.standing.stranger) = Some(stranger);
    }

    /// Waits until it is closed or lost.
    pub async fn closed(&self) -> SessionError {
        self.inner.closed().await.into()
    }

    /// Closes it and tells the other side why.
    pub fn close(&self, refusal: Refusal) {
        self.inner.close(refusal.var(), refusal.to_string().as_bytes());
    }

    /// The transport's estimate of the round trip on the path in use.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.inner
            .paths()
            .iter()
            .find(|path| path.is_selected())
            .map(|path| path.rtt())
    }

    /// Whether bytes pass through a relay now. `None` where no path is chosen yet.
    #[must_use]
    pub fn is_relayed(&self) -> Option<bool> {
        self.inner
            .paths()
            .iter()
            .find(|path| path.is_selected())
            .map(|path| path.is_relay())
    }

    /// Opens a session with this header. Waits at most `within` where the peer allows no more streams now; each later
    /// operation fails when it makes no progress for `within`.
    ///
    /// # Errors
    /// Where the connection is gone or the peer allows no stream in time.
    pub async fn open<T: Serialize>(&self, header: &T, within: Duration) -> Result<Session, SessionError> {
        self.open_kind(StreamKind::Session, header, within).await
    }

    /// One request and its one reply of at most `reply_bytes_max` bytes, all within `within`.
    ///
    /// # Errors
    /// Where the session broke off, the reply does not come in time, is too large or malformed.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        request: &Q,
        reply_bytes_max: usize,
        within: Duration,
    ) -> Result<A, SessionError> {
        let exchange = async {
            let mut session = self.open(request, within).await?;
            session.sender().finish()?;
            session.recv(reply_bytes_max).await
        };
        tokio::time::timeout(within, exchange)
            .await
            .map_err(|_| SessionError::TimedOut(within))?
    }

    pub(crate) async fn open_kind<T: Serialize>(
        &self,
        kind: StreamKind,
        header: &T,
        within: Duration,
    ) -> Result<Session, SessionError> {
        let (send, receive) = tokio::time::timeout(within, self.inner.open_bi())
            .await
            .map_err(|_| SessionError::TimedOut(within))??;
        add(&self.usage.counters.streams_opened_total, 1);
        let mut session = Session::new(send, receive, self.usage.clone(), false);
        session.set_timeout(within);
        session
            .sender()
            .send_header(kind, &encoding::encode(header))
            .await?;
        Ok(session)
    }

    pub(crate) async fn accept(&self) -> Result<Session, SessionError> {
        let (send, receive) = self.inner.accept_bi().await?;
        add(&self.usage.counters.streams_accepted_total, 1);
        Ok(Session::new(send, receive, self.usage.clone(), true))
    }

    /// Whether only the endpoint itself holds it: once where it finds it again, once where it accepts its streams.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.usage) <= 2
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.inner.stable_id() == other.inner.stable_id()
    }
}
