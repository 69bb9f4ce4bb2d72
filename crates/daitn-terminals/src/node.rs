//! A running node: opens its state and its terminals, answers sessions and the center, stays connected, shuts down.

use crate::{
    admin,
    center::Desk,
    contact::Uplink,
    cpu::Cpu,
    describe_all::describe,
    durable::{self, DurableError, blocking},
    gateways::Gateways,
    holds::Holds,
    limits::{SESSIONS_GRACE, SHUTDOWN_GRACE},
    options::{self, NodeOptions, OptionsError, TerminalOptions},
    orders::Orders,
    outbox::Outbox,
    sessions,
    shared::Shared,
    status::{Contact, NodeStatus, TerminalStatus},
    terminal::{Attached, Terminal, Terminals},
    uplink,
    verifier::Verifier,
};
use daitn_engine::builtin::Builtin;
use daitn_fabric::{
    Backoff, CONTROL_ALPN, DATA_ALPN, Endpoint, Routes,
    artifact::{Store, StoreError},
};
use daitn_messages::{
    control::{Enrolment, JoinToken, Welcome},
    ids::{EntityId, NodeId},
    limits::{FRAME_BYTES_MAX, SESSION_HEADER_BYTES_MAX, STRANGER_FRAME_BYTES_MAX},
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest wait before a terminal that could not be opened is tried again.
const REOPEN_MAX: Duration = Duration::from_secs(60);
/// First wait.
const REOPEN_FIRST: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint has another key than the options.
    #[error("the endpoint is that of node {endpoint}, and the options' key is that of {options}")]
    OtherKey {
        /// The endpoint's node.
        endpoint: NodeId,
        /// The options' node.
        options: NodeId,
    },
    /// Its state cannot be read or written.
    #[error("the node's state: {0}")]
    State(#[from] DurableError),
    /// Its artifacts cannot be opened.
    #[error(transparent)]
    Artifacts(#[from] StoreError),
    /// Its terminals do not go together.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The way to the center is none.
    #[error("the control center's address: {0}")]
    Center(#[from] daitn_fabric::PeerError),
    /// The local socket cannot be made.
    #[error("the local socket {path}: {source}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A node that runs.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) uplink: Arc<Uplink>,
    /// Terminals that could not be opened yet.
    pub(crate) unopened: Mutex<Vec<(TerminalOptions, Rejection)>>,
    pub(crate) reopen: Notify,
}

/// A node.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node: returns once its terminals are open, or known to be unusable for now, and it answers. The center is
    /// reached in the background.
    ///
    /// # Errors
    /// Why it cannot start at all.
    pub async fn start(options: NodeOptions, endpoint: Endpoint) -> Result<NodeHandle, StartError> {
        options::check(&options.terminals)?;
        if endpoint.node() != options.key.id() {
            return Err(StartError::OtherKey {
                endpoint: endpoint.node(),
                options: options.key.id(),
            });
        }
        endpoint.set_peer(options.center.clone())?;
        let shared = Arc::new(open(&options, endpoint).await?);
        let uplink = {
            let (enrolment, clock, path) = (
                options.enrolment.clone(),
                options.clock.clone(),
                options.state.join("joined.rec"),
            );
            Arc::new(blocking(move || Uplink::open(enrolment, clock, path)).await?)
        };
        if let Some(relay) = uplink.relay_before() {
            uplink::use_relay(&shared, relay).await;
        }
        let gateways = Arc::new(Gateways::open(&options.state, &shared)?);
        let inner = Arc::new(Inner {
            name: options.name.clone(),
            shared: shared.clone(),
            uplink: uplink.clone(),
            unopened: Mutex::default(),
            reopen: Notify::new(),
        });
        let handle = NodeHandle { inner };
        for terminal in options.terminals {
            if let Err((terminal, rejection)) = handle.open_terminal(terminal).await {
                tracing::error!(kind = %terminal.kind(), name = %terminal.name(), "a terminal cannot be opened: {rejection}");
                handle.unopened().push((terminal, rejection));
            }
        }
        handle.resume().await;
        serve(&shared, &gateways, &uplink);
        admin::listen(&handle, &options.state.join("node.sock")).await?;
        let known = handle.clone();
        let unopened = move || known.unopened_entities();
        shared.tasks.spawn(uplink::keep(shared.clone(), uplink, unopened));
        shared.tasks.spawn(reopen(handle.clone()));
        Ok(handle)
    }
}

/// Joins a domain once, without running: so that a command can say at once what is wrong.
///
/// # Errors
/// The center's refusal, or that it cannot be reached.
pub async fn enrol(
    endpoint: &Endpoint,
    token: &JoinToken,
    name: &str,
    now: UnixMillis,
) -> Result<Welcome, Rejection> {
    let center = token.center.clone();
    endpoint
        .set_peer(center.clone())
        .map_err(|error| Rejection::new(Code::TokenInvalid, error.to_string()))?;
    let enrolment = Enrolment {
        token: token.token.clone(),
        secret: token.secret.clone(),
        name: name.to_owned(),
    };
    let (connection, welcome) = uplink::hello(endpoint, center.node, now, Some(enrolment)).await?;
    connection.close(daitn_fabric::Refusal::ShuttingDown);
    Ok(welcome)
}

async fn open(options: &NodeOptions, endpoint: Endpoint) -> Result<Shared, StartError> {
    let (state, key, clock) = (options.state.clone(), options.key.clone(), options.clock.clone());
    let (center, organisation) = (options.center.node, options.organisation.clone());
    let (bytes_max, threads) = (options.artifacts_bytes_max, options.threads);
    blocking(move || {
        durable::make_directory(&state)?;
        durable::make_directory(&state.join("descriptors"))?;
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        let node = key.id();
        Ok(Shared {
            endpoint,
            store: Store::open(&state.join("artifacts"), bytes_max)?,
            holds: Holds::default(),
            node,
            center,
            organisation,
            clock,
            engine: Arc::new(Builtin),
            cpu: Cpu::new(threads),
            orders: Orders::open(&state.join("orders"), node, center)?,
            outbox: Outbox::open(&state.join("outbox"))?,
            terminals: Terminals::default(),
            changed: Notify::new(),
            described: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            key,
            state,
        })
    })
    .await
}

fn serve(shared: &Arc<Shared>, gateways: &Arc<Gateways>, uplink: &Arc<Uplink>) {
    let desk = Arc::new(Desk {
        shared: shared.clone(),
        gateways: gateways.clone(),
        uplink: uplink.clone(),
        turn: tokio::sync::Mutex::default(),
    });
    let may_fetch = {
        let shared = shared.clone();
        Arc::new(move |node: NodeId, artifact| shared.holds.may_fetch(node, artifact))
    };
    let of_data = {
        let (shared, gateways) = (shared.clone(), gateways.clone());
        move |incoming| sessions::answer(shared.clone(), gateways.clone(), incoming)
    };
    let routes = Routes::new()
        .on(CONTROL_ALPN, FRAME_BYTES_MAX, move |incoming| {
            let desk = desk.clone();
            async move { desk.answer(incoming).await }
        })
        .strangers(CONTROL_ALPN, STRANGER_FRAME_BYTES_MAX)
        .on(DATA_ALPN, SESSION_HEADER_BYTES_MAX, of_data)
        .artifacts(shared.store.clone(), may_fetch);
    shared.endpoint.serve(routes);
}

/// Tries terminals that could not be opened, an agent that was not up for instance, again and again.
async fn reopen(handle: NodeHandle) {
    let stop = handle.inner.shared.stop.clone();
    let mut backoff = Backoff::between(1, REOPEN_FIRST, REOPEN_MAX);
    let trying = async {
        loop {
            if handle.unopened().is_empty() {
                handle.inner.reopen.notified().await;
                backoff.reset();
            }
            tokio::time::sleep(backoff.after_failure()).await;
            let all: Vec<TerminalOptions> = handle
                .unopened()
                .iter()
                .map(|(options, _)| options.clone())
                .collect();
            for options in all {
                let (kind, name) = (options.kind(), options.name().clone());
                let result = handle.open_terminal(options).await;
                let mut unopened = handle.unopened();
                let place = unopened
                    .iter()
                    .position(|(other, _)| (other.kind(), other.name()) == (kind, &name));
                match (place, result) {
                    (Some(place), Ok(_)) => {
                        unopened.remove(place);
                    }
                    (Some(place), Err((_, rejection))) => unopened[place].1 = rejection,
                    (None, _) => {}
                }
            }
        }
    };
    tokio::select! {
        () = trying => {}
        () = stop.cancelled() => {}
    }
}

impl NodeHandle {
    /// Who it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.shared.node
    }

    /// How it stands with its center, now and whenever that, or what the center says of a terminal, changes.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.inner.uplink.contact()
    }

    /// The node as it sees itself.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let shared = &self.inner.shared;
        let open = shared.terminals.all();
        let mut terminals: Vec<TerminalStatus> = open
            .iter()
            .map(|attached| {
                let version = attached.descriptor().version;
                let said = self.inner.uplink.said(&attached.entity, version);
                TerminalStatus {
                    entity: attached.entity.to_string(),
                    version,
                    attached: matches!(said, Some(Ok(()))),
                    problem: said.and_then(Result::err),
                    in_flight: attached.load.in_flight(),
                    served_total: attached.load.served_total(),
                }
            })
            .collect();
        terminals.extend(self.unopened().iter().map(|(options, rejection)| TerminalStatus {
            entity: format!("{}:{}/{}", options.kind(), shared.organisation, options.name()),
            version: 0,
            problem: Some(rejection.clone()),
            attached: false,
            in_flight: 0,
            served_total: 0,
        }));
        NodeStatus {
            node: shared.node,
            name: self.inner.name.clone(),
            organisation: shared.organisation.clone(),
            center: shared.center,
            contact: self.inner.uplink.contact().borrow().clone(),
            terminals,
            receipts_waiting: shared.outbox.len(),
            receipts_aside: shared.outbox.n_aside(),
            orders_accepted: shared.orders.n_accepted(),
            artifact_bytes: shared.store.bytes_used(),
        }
    }

    /// Attaches a terminal, or opens it anew with other options.
    ///
    /// # Errors
    /// Why it cannot be opened; a terminal of its name that is attached stays as it is.
    pub async fn attach(&self, options: TerminalOptions) -> Result<EntityId, Rejection> {
        self.unopened()
            .retain(|(other, _)| (other.kind(), other.name()) != (options.kind(), options.name()));
        let attached = self
            .open_terminal(options)
            .await
            .map_err(|(_, rejection)| rejection)?;
        Ok(attached.entity.clone())
    }

    /// Detaches a terminal: what runs on it is stopped. One that could not be opened is not tried again. Whether it was
    /// open.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn detach(&self, entity: &EntityId) -> Result<bool, Rejection> {
        let shared = &self.inner.shared;
        let n_unopened = self.unopened().len();
        self.unopened()
            .retain(|(other, _)| (other.kind(), other.name()) != (entity.kind, &entity.name));
        if self.unopened().len() < n_unopened && shared.terminals.get(entity).is_none() {
            shared.described.notify_one();
            return Ok(false);
        }
        let attached = shared.terminals.remove(entity);
        let attached = attached.ok_or_else(|| Rejection::not_found("terminal", entity))?;
        for known in shared.orders.accepted(entity) {
            shared.orders.end(&known.order.id).await?;
            attached.halt(shared, &known).await;
        }
        shared.described.notify_one();
        Ok(true)
    }

    /// Accepts nothing more, lets what runs end or come to a durable point, and leaves.
    pub async fn shutdown(&self) {
        let shared = &self.inner.shared;
        shared.stop.cancel();
        shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "work was still running after {SHUTDOWN_GRACE:?}; it goes on after the next start"
            );
        }
        shared.endpoint.shutdown(SESSIONS_GRACE).await;
    }

    async fn open_terminal(
        &self,
        options: TerminalOptions,
    ) -> Result<Arc<Attached>, (TerminalOptions, Rejection)> {
        let shared = &self.inner.shared;
        let opened = async {
            let terminal = Terminal::open(options.clone(), &shared.state).await?;
            describe(shared, options.name().clone(), options.card(), terminal).await
        };
        let (terminal, descriptor, signed) = match opened.await {
            Ok(opened) => opened,
            Err(rejection) => {
                self.inner.reopen.notify_one();
                return Err((options, rejection));
            }
        };
        let attached = Arc::new(Attached::new(terminal, descriptor, signed));
        if let Some(before) = shared.terminals.get(&attached.entity) {
            before.retire(shared).await;
        }
        shared.terminals.insert(attached.clone());
        self.begin_all(&attached).await;
        shared.described.notify_one();
        Ok(attached)
    }

    /// Takes up what a terminal was ordered before a restart.
    async fn begin_all(&self, attached: &Arc<Attached>) {
        let shared = &self.inner.shared;
        match &attached.terminal {
            Terminal::Aggregator(aggregator) => {
                aggregator.hold_kept(shared);
                aggregator.hold_journals(shared).await;
            }
            Terminal::Verifier(_) => Verifier::hold_judged(attached, shared),
            _ => {}
        }
        for known in shared.orders.accepted(&attached.entity) {
            attached.begin(shared, &known).await;
        }
    }

    /// Clears away artifacts that nothing holds, once every terminal has taken up its work.
    async fn resume(&self) {
        let shared = self.inner.shared.clone();
        // A terminal that could not be opened may still need its artifacts.
        if !self.unopened().is_empty() {
            return;
        }
        blocking(move || match shared.store.list() {
            Ok(all) => {
                for (id, _) in all {
                    shared.holds.unless_held(id, || {
                        if let Err(error) = shared.store.remove(id) {
                            tracing::warn!(artifact = %id, "an artifact that nobody needs stays: {error}");
                        }
                    });
                }
            }
            Err(error) => tracing::warn!("artifacts that nobody needs stay: {error}"),
        })
        .await;
    }

    /// Terminals that the node has but could not open.
    fn unopened_entities(&self) -> Vec<EntityId> {
        let organisation = &self.inner.shared.organisation;
        let entity = |(options, _): &(TerminalOptions, Rejection)| EntityId {
            kind: options.kind(),
            organisation: organisation.clone(),
            name: options.name().clone(),
        };
        self.unopened().iter().map(entity).collect()
    }

    pub(crate) fn unopened(&self) -> MutexGuard<'_, Vec<(TerminalOptions, Rejection)>> {
        self.inner.unopened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
