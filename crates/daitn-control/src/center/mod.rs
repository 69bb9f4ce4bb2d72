//! The edge around the core.
//!
//! ```text
//!   nodes ──sessions──▶ connections ──┐                      ┌──▶ links (one task a node) ──▶ nodes
//!   clients ──CenterHandle::call──────┼─▶ queue ─▶ loop ─────┼──▶ replies
//!   timers ──────────────────────────┘   (core, store)       ├──▶ snapshot watch, job broadcasts
//!                                                             └──▶ text index (one thread)
//! ```
//!
//! The loop runs on a thread of its own. Plans are made on further threads, from a topology that stays as it was when
//! they were asked for: for thousands of sites they take longer than everybody else may be kept waiting. The loop takes
//! what waits (at most a fixed number), lets the core decide, writes all of it in one transaction,
//! and only then lets the effects out.

mod connections;
mod faults;
mod input;
mod links;
mod reads;
mod run;
mod stats;
mod timers;

pub use stats::CenterStats;

use crate::{
    core::{Core, CoreConfig, Records, RestoreError},
    entropy::Entropy,
    limits::Timing,
    text::TextIndex,
};
use daitn_fabric::{CONTROL_ALPN, Endpoint, Routes};
use daitn_messages::{
    ids::{JobId, NodeId, OrganisationId},
    job::{JobEvent, JobView},
    limits::{FRAME_BYTES_MAX, STRANGER_FRAME_BYTES_MAX},
    operation::{Answer, CreatedKey, Operation, Principal},
    rejection::{Code, Rejection},
    session::Peer,
    signed::NodeKey,
    snapshot::Snapshot,
    units::UnixMillis,
};
use daitn_store::{Store, StoreError};
use input::{Envelope, Input, QUEUE_MAX};
use run::Loop;
use stats::Counters;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Sessions with nodes get this long to end when the center shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How a center is started.
#[derive(Debug, Clone)]
pub struct CenterConfig {
    /// The domain's name.
    pub domain: String,
    /// The organisation that operates it.
    pub operator: OrganisationId,
    /// The control center's key; the endpoint must be of the same.
    pub key: NodeKey,
    /// How nodes outside reach the center; none: as the endpoint knows itself.
    pub peer: Option<Peer>,
    /// The domain's relay; none: nodes reach each other directly only.
    pub relay: Option<String>,
    /// Gateways of the domain.
    pub gateways: Vec<Peer>,
    /// How long the center waits for others.
    pub timing: Timing,
    /// Who is told of each node that is thrown out.
    pub on_revoked: OnRevoked,
}

/// Who is told of each node that is thrown out: it must not wait. Nobody by default.
#[derive(Clone, Default)]
pub struct OnRevoked(Option<Arc<dyn Fn(NodeId) + Send + Sync>>);

impl OnRevoked {
    /// This one.
    pub fn new(tell: impl Fn(NodeId) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    fn tell(&self, node: NodeId) {
        if let Some(tell) = &self.0 {
            tell(node);
        }
    }
}

impl fmt::Debug for OnRevoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnRevoked").field(&self.0.is_some()).finish()
    }
}

/// Why a center did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error("the control center's state cannot be read: {0}")]
    Store(#[from] StoreError),
    /// What it holds does not make a state.
    #[error("the control center's state cannot be restored: {0}")]
    Restore(#[from] RestoreError),
    /// The text index cannot be made.
    #[error("the text index cannot be made: {0}")]
    Text(String),
    /// The system gives no randomness or no thread.
    #[error("the system refused: {0}")]
    System(String),
    /// Endpoint and key are not of one node.
    #[error("the endpoint is of node {endpoint}, the key of node {key}")]
    OtherKey {
        /// The endpoint's.
        endpoint: String,
        /// The key's.
        key: String,
    },
}

impl StartError {
    /// What to do, where the disk or what is on it is at fault and not this program.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.is_of_storage().then(|| error.remedy()),
            Self::Restore(error) => error.remedy(),
            Self::Text(_) | Self::System(_) | Self::OtherKey { .. } => None,
        }
    }
}

/// Why a running center stopped deciding. What was acknowledged is on disk; a restart goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CenterError {
    /// A transaction failed.
    #[error("the control center stopped: {0}")]
    Store(StoreError),
    /// Its state could not be restored after a fault.
    #[error("the control center stopped after a fault: {0}")]
    Fault(String),
}

impl CenterError {
    /// What to do, where the disk or what is on it is at fault and not this program.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.is_of_storage().then(|| error.remedy()),
            Self::Fault(_) => None,
        }
    }

    fn rejection(&self) -> Rejection {
        match self {
            Self::Store(error) => error.rejection(),
            Self::Fault(_) => Rejection::new(Code::ControlUnavailable, self.to_string()),
        }
    }
}

/// The control center.
#[derive(Debug)]
pub struct Center;

/// A running control center; clones are the same one.
#[derive(Debug, Clone)]
pub struct CenterHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Envelope>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    text: TextIndex,
    counters: Arc<Counters>,
    failed: watch::Receiver<Option<CenterError>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
    endpoint: Endpoint,
    store: Store,
    peer: Peer,
}

impl Center {
    /// Restores the state from the store and begins to answer nodes on the endpoint.
    ///
    /// # Errors
    /// Where the state cannot be read or restored, or the system refuses a thread or randomness.
    pub async fn start(
        config: CenterConfig,
        store: Store,
        endpoint: Endpoint,
    ) -> Result<CenterHandle, StartError> {
        if endpoint.node() != config.key.id() {
            return Err(StartError::OtherKey {
                endpoint: endpoint.node().to_string(),
                key: config.key.id().to_string(),
            });
        }
        let clock = Clock::start();
        let peer = config.peer.unwrap_or_else(|| endpoint.peer());
        let core_config = CoreConfig {
            domain: config.domain,
            operator: config.operator,
            key: config.key,
            peer: peer.clone(),
            relay: config.relay,
            gateways: config.gateways,
            timing: config.timing,
            plans_apart: true,
        };
        let records = read_records(&store).await?;
        let core = Core::restore(core_config.clone(), &records, clock.now())?;
        drop(records);
        // After a restart all members come at once, and strangers may have been waiting for that.
        endpoint.acquaint(core.members());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| StartError::System(error.to_string()))?;
        let (text, _text_thread) = TextIndex::start().map_err(|error| StartError::Text(error.to_string()))?;
        let (queue, inputs) = mpsc::channel(QUEUE_MAX);
        let (snapshot_sender, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (failed_sender, failed) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let event_loop = Loop::new(run::Parts {
            core,
            core_config,
            store: store.clone(),
            text: text.clone(),
            entropy: Entropy::new(seed),
            clock,
            queue: queue.downgrade(),
            snapshot: snapshot_sender,
            failed: failed_sender,
            counters: counters.clone(),
            on_revoked: config.on_revoked,
        });
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("daitn-center".to_owned())
            .spawn(move || {
                runtime.block_on(event_loop.run(inputs));
                // Nobody may wait any more.
                let _ = ended_sender.send(true);
            });
        let thread = thread.map_err(|error| StartError::System(error.to_string()))?;
        let desk = connections::Desk::new(queue.clone());
        let routes = Routes::new()
            .on(CONTROL_ALPN, FRAME_BYTES_MAX, move |incoming| {
                desk.clone().answer(incoming)
            })
            .strangers(CONTROL_ALPN, STRANGER_FRAME_BYTES_MAX);
        endpoint.serve(routes);
        Ok(CenterHandle {
            inner: Arc::new(Inner {
                queue,
                snapshot,
                text,
                counters,
                failed,
                thread: Mutex::new(Some(thread)),
                ended,
                endpoint,
                store,
                peer,
            }),
        })
    }
}

impl CenterHandle {
    /// Asks for something with the authority of a principal. What changes something is durable when this returns.
    ///
    /// # Errors
    /// The refusal, or `E0703` where the center has stopped.
    pub async fn call(&self, principal: Principal, operation: Operation) -> Result<Answer, Rejection> {
        let input = match operation {
            Operation::Search(search) if !search.text.is_empty() => {
                let (index, words) = (self.inner.text.clone(), search.text.clone());
                let found = tokio::task::spawn_blocking(move || index.search(&words)).await;
                let text = match found {
                    Ok(Ok(found)) => found,
                    Ok(Err(error)) => {
                        return Err(Rejection::new(Code::Internal, format!("text search: {error}")));
                    }
                    Err(error) => {
                        return Err(Rejection::new(Code::Internal, format!("text search: {error}")));
                    }
                };
                Input::Search {
                    principal,
                    search,
                    text,
                }
            }
            operation => Input::Operation {
                principal,
                operation: Box::new(operation),
            },
        };
        self.ask(|reply| Envelope::client(input, reply)).await?
    }

    /// The newest snapshot for gateways, and every later one.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshot.clone()
    }

    /// A job as it is now, and every event from here on, with no gap between. A receiver that falls behind is told and
    /// should watch anew.
    ///
    /// # Errors
    /// `E0104` where there is no such job that the principal may see.
    pub async fn watch_job(
        &self,
        principal: Principal,
        job: JobId,
    ) -> Result<(JobView, broadcast::Receiver<JobEvent>), Rejection> {
        self.ask(|reply| Envelope::watch(principal, job, reply)).await?
    }

    /// Makes the first key that can operate the domain. Its secret is shown only here.
    ///
    /// # Errors
    /// `E0106` where such a key is in force already.
    pub async fn bootstrap_key(&self, organisation: OrganisationId) -> Result<CreatedKey, Rejection> {
        match self
            .ask(|reply| Envelope::client(Input::Bootstrap { organisation }, reply))
            .await??
        {
            Answer::Key(key) => Ok(key),
            _ => Err(Rejection::new(
                Code::Internal,
                "something else than a key was made",
            )),
        }
    }

    /// Whether a node may use the domain's relay, with this pass or without one: members, who holds a join token, and
    /// the center's own endpoints. False where the center has stopped.
    pub async fn may_relay(&self, node: NodeId, pass: Option<String>) -> bool {
        self.ask(|answer| Envelope::silent(Input::Relay { node, pass, answer }))
            .await
            .unwrap_or(false)
    }

    /// How nodes reach the center: what join tokens name.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.peer.clone()
    }

    /// Counters, for metrics and health.
    #[must_use]
    pub fn stats(&self) -> CenterStats {
        let queued = self.inner.queue.max_capacity() - self.inner.queue.capacity();
        self.inner.counters.read(queued, self.inner.store.stats())
    }

    /// Why the center stopped deciding, if it did.
    #[must_use]
    pub fn failed(&self) -> Option<CenterError> {
        self.inner.failed.borrow().clone()
    }

    /// Waits until the center has stopped deciding: after [`Self::shutdown`], or by a fault.
    pub async fn ended(&self) -> Option<CenterError> {
        let mut ended = self.inner.ended.clone();
        // An error means that the thread is gone, which is the end as well.
        let _ = ended.wait_for(|ended| *ended).await;
        self.failed()
    }

    /// Answers what waits, stops, and closes endpoint and store. Nodes go on with what they do.
    pub async fn shutdown(&self) {
        // An error means that the loop has ended already.
        let _ = self.inner.queue.send(Envelope::shutdown()).await;
        self.ended().await;
        let thread = self
            .inner
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::warn!("the center's thread could not be joined");
        }
        self.inner.endpoint.shutdown(SHUTDOWN_GRACE).await;
        self.inner.store.close().await;
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Envelope) -> Result<T, Rejection> {
        let (reply, answer) = oneshot::channel();
        if self.inner.queue.send(make(reply)).await.is_err() {
            return Err(self.unavailable());
        }
        answer.await.map_err(|_| self.unavailable())
    }

    fn unavailable(&self) -> Rejection {
        match self.failed() {
            Some(error) => error.rejection(),
            None => Rejection::new(Code::ControlUnavailable, "the control center is shutting down"),
        }
    }
}

/// Everything that a restart needs.
pub(crate) async fn read_records(store: &Store) -> Result<Records, StoreError> {
    let mut records = Records {
        n_leaves: store.n_leaves().await?,
        ..Records::default()
    };
    for family in Records::NEEDED {
        records.by_family.insert(family, store.load(family, "").await?);
    }
    Ok(records)
}

/// Wall-clock time that never goes back: the system's clock at the start, and a monotonic one from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    started_at: UnixMillis,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Instant::now(),
            started_at: UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.started_at
            .plus(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When a moment comes.
    pub(crate) fn instant(&self, at: UnixMillis) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + Duration::from_millis(at.since(self.started_at)))
    }
}
