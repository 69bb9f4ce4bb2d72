//! The loop.

use crate::{
    center::{
        CenterError, Clock, OnRevoked,
        faults::Faults,
        input,
        input::{Envelope, Input, Waiting},
        links::Links,
        read_records, reads,
        stats::Counters,
        timers::Timers,
    },
    core::{ConnectionId, Core, CoreConfig, Effect, Event, PlanTask, RequestId, Timer, Transition},
    entropy::Entropy,
    text::TextIndex,
};
use daitn_fabric::Connection;
use daitn_messages::{
    control::{Accepted, NodeMessage},
    ids::JobId,
    job::JobEvent,
    rejection::{Code, Rejection},
    snapshot::Snapshot,
};
use daitn_store::{Batch, Store};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::sync::{broadcast, mpsc, watch};

/// Events that share one transaction: the same bound as the store's.
const TURN_EVENTS_MAX: usize = 256;
/// Events that a watcher of a job may be behind.
const WATCH_QUEUE_MAX: usize = 1_024;

/// What a loop is made of.
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) core_config: CoreConfig,
    pub(crate) store: Store,
    pub(crate) text: TextIndex,
    pub(crate) entropy: Entropy,
    pub(crate) clock: Clock,
    pub(crate) queue: mpsc::WeakSender<Envelope>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) failed: watch::Sender<Option<CenterError>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) on_revoked: OnRevoked,
}

/// See the module.
pub(crate) struct Loop {
    parts: Parts,
    timers: Timers,
    links: Links,
    watchers: HashMap<JobId, broadcast::Sender<JobEvent>>,
    waiting: HashMap<RequestId, Waiting>,
    /// Connections whose greeting has not been answered yet.
    greeted: HashMap<RequestId, (ConnectionId, Connection)>,
    faults: Faults,
    next_id: u64,
}

/// What has been decided and waits for its commit.
#[derive(Default)]
struct Pending {
    batch: Batch,
    effects: Vec<Effect>,
    name: Option<&'static str>,
}

impl Pending {
    fn add(&mut self, name: &'static str, transition: Transition) {
        if !transition.batch.is_empty() {
            self.name = Some(match self.name {
                None => name,
                Some(before) if before == name => name,
                Some(_) => "mixed",
            });
        }
        self.batch.append(transition.batch);
        self.effects.extend(transition.effects);
    }
}

impl Loop {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            timers: Timers::default(),
            links: Links::default(),
            watchers: HashMap::new(),
            waiting: HashMap::new(),
            greeted: HashMap::new(),
            faults: Faults::default(),
            next_id: 0,
        }
    }

    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Envelope>) {
        let result = match self.start().await {
            Ok(()) => self.take_turns(&mut inputs).await,
            Err(error) => Err(error),
        };
        let rejection = match result {
            Ok(()) => Rejection::new(Code::ControlUnavailable, "the control center is shutting down"),
            Err(error) => {
                tracing::error!(%error, "the control center stopped");
                let rejection = error.rejection();
                self.parts.failed.send_replace(Some(error));
                rejection
            }
        };
        inputs.close();
        for (_, waiting) in self.waiting.drain() {
            waiting.refuse(rejection.clone());
        }
        while let Ok(envelope) = inputs.try_recv() {
            envelope.waiting.refuse(rejection.clone());
        }
        self.links.close_all();
    }

    /// Lets the core arm its timers and publish its first snapshot.
    async fn start(&mut self) -> Result<(), CenterError> {
        let now = self.parts.clock.now();
        let transition = self.parts.core.start(now, &mut self.parts.entropy);
        let mut pending = Pending::default();
        pending.add("start", transition);
        self.commit(pending).await
    }

    async fn take_turns(&mut self, inputs: &mut mpsc::Receiver<Envelope>) -> Result<(), CenterError> {
        loop {
            let next = self.timers.next().map(|at| self.parts.clock.instant(at));
            let first = tokio::select! {
                envelope = inputs.recv() => match envelope {
                    Some(envelope) => Some(envelope),
                    None => return Ok(()),
                },
                () = sleep_until(next) => None,
            };
            let mut pending = Pending::default();
            let mut n_events = 0;
            let mut is_last = false;
            let mut envelope = first;
            while n_events < TURN_EVENTS_MAX {
                let Some(taken) = envelope
                    .take()
                    .or_else(|| self.due())
                    .or_else(|| inputs.try_recv().ok())
                else {
                    break;
                };
                if matches!(taken.input, Input::Shutdown) {
                    is_last = true;
                    break;
                }
                n_events += 1;
                if !self.decide(taken, &mut pending) {
                    self.commit(std::mem::take(&mut pending)).await?;
                    self.reload().await?;
                }
            }
            self.parts.counters.turns.fetch_add(1, Ordering::Relaxed);
            self.parts
                .counters
                .events
                .fetch_add(n_events as u64, Ordering::Relaxed);
            self.commit(pending).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// A timer whose moment has come.
    fn due(&mut self) -> Option<Envelope> {
        let timer: Timer = self.timers.take_due(self.parts.clock.now())?;
        Some(Envelope::silent(Input::Timer(timer)))
    }

    /// Lets the core decide; false where it panicked, so that its state must be made anew.
    fn decide(&mut self, envelope: Envelope, pending: &mut Pending) -> bool {
        self.next_id += 1;
        let request = RequestId(self.next_id);
        let name = envelope.input.name();
        let now = self.parts.clock.now();
        if !matches!(envelope.waiting, Waiting::Nobody) {
            self.waiting.insert(request, envelope.waiting);
        }
        let receipt = match &envelope.input {
            Input::Message {
                message: NodeMessage::Report(signed),
                ..
            } => Some(signed.hash()),
            _ => None,
        };
        // Who hears of a panic: a plan is told to whoever asked for it, before it was made apart.
        let asker = match &envelope.input {
            Input::Planned(planned) => planned.request,
            _ => request,
        };
        let (core, entropy) = (&mut self.parts.core, &mut self.parts.entropy);
        let begun = Instant::now();
        // After a panic the core is made anew from the store: nothing of what it held is used again.
        let decided = match envelope.input {
            Input::Hello { connection, hello } => {
                let id = ConnectionId(self.next_id);
                let node = connection.remote();
                self.greeted.insert(request, (id, connection));
                let event = Event::Hello {
                    request,
                    node,
                    connection: id,
                    hello,
                };
                catch_unwind(AssertUnwindSafe(|| core.handle(event, now, entropy)))
            }
            Input::Relay { node, pass, answer } => {
                // Whoever no longer waits asks again.
                let _ = answer.send(core.may_relay(node, pass.as_deref(), now));
                return true;
            }
            Input::Bootstrap { organisation } => catch_unwind(AssertUnwindSafe(|| {
                core.bootstrap(request, organisation, now, entropy)
            })),
            other => match other.into_event(request) {
                Some(event) => catch_unwind(AssertUnwindSafe(|| core.handle(event, now, entropy))),
                None => return true,
            },
        };
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.parts
            .counters
            .decide_micros_total
            .fetch_add(micros, Ordering::Relaxed);
        self.parts
            .counters
            .decide_micros_max
            .fetch_max(micros, Ordering::Relaxed);
        match decided {
            Ok(transition) => {
                pending.add(name, transition);
                true
            }
            Err(_) => {
                self.parts.counters.faults.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    input = name,
                    "the core panicked; its state is restored from the store"
                );
                let refusal = self.faults.refusal(receipt);
                if let Some(waiting) = self.waiting.remove(&asker) {
                    waiting.refuse(refusal);
                }
                self.greeted.remove(&request);
                false
            }
        }
    }

    /// Makes the core anew from what is durable. Nodes are cut off and greet again.
    async fn reload(&mut self) -> Result<(), CenterError> {
        let fault = |error: &dyn std::fmt::Display| CenterError::Fault(error.to_string());
        let records = read_records(&self.parts.store)
            .await
            .map_err(CenterError::Store)?;
        let now = self.parts.clock.now();
        self.parts.core =
            Core::restore(self.parts.core_config.clone(), &records, now).map_err(|error| fault(&error))?;
        self.timers.clear();
        self.links.close_all();
        self.start().await
    }

    /// Writes what was decided, then lets its effects out.
    async fn commit(&mut self, pending: Pending) -> Result<(), CenterError> {
        if !pending.batch.is_empty() {
            let name = pending.name.unwrap_or("start");
            self.parts
                .store
                .commit(name, pending.batch)
                .await
                .map_err(CenterError::Store)?;
        }
        self.parts
            .counters
            .effects
            .fetch_add(pending.effects.len() as u64, Ordering::Relaxed);
        // Before the answers: who was told of a key, or of a model, finds it in the snapshot.
        if pending
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::PublishSnapshot))
        {
            let snapshot = self.parts.core.snapshot(self.parts.clock.now());
            self.parts.snapshot.send_replace(Arc::new(snapshot));
        }
        for effect in pending.effects {
            self.release(effect);
        }
        let n_online = self.parts.core.n_nodes_online() as u64;
        self.parts
            .counters
            .nodes_online
            .store(n_online, Ordering::Relaxed);
        Ok(())
    }

    fn release(&mut self, effect: Effect) {
        let waiting = input::answers(&effect).and_then(|request| self.waiting.remove(&request));
        match (effect, waiting) {
            (Effect::ReplyNode { request, reply }, waiting) => {
                if let Some((id, connection)) = self.greeted.remove(&request)
                    && matches!(reply, Ok(Accepted::Welcome(_)))
                {
                    connection.welcome();
                    self.links.open(id, connection, self.parts.queue.clone());
                }
                if let Some(Waiting::Node(waiting)) = waiting {
                    // A node that no longer waits asks again.
                    let _ = waiting.send(reply);
                }
            }
            (Effect::Reply { mut result, .. }, Some(Waiting::Client(waiting))) => {
                if let Ok(answer) = &mut result {
                    self.links.tell_ways(answer);
                }
                let _ = waiting.send(result);
            }
            (Effect::Watching { view, .. }, Some(Waiting::Watcher(waiting))) => {
                let _ = waiting.send(
                    view.map(|view| (self.subscribe(&view), view))
                        .map(|(feed, view)| (*view, feed)),
                );
            }
            (
                Effect::ReadDecision {
                    decision,
                    organisation,
                    ..
                },
                Some(Waiting::Client(waiting)),
            ) => {
                let store = self.parts.store.clone();
                tokio::spawn(async move {
                    let _ = waiting.send(reads::decision(&store, &decision, organisation.as_ref()).await);
                });
            }
            (Effect::ReadLeaves { from, limit, .. }, Some(Waiting::Client(waiting))) => {
                let store = self.parts.store.clone();
                tokio::spawn(async move {
                    let _ = waiting.send(reads::leaves(&store, from, limit).await);
                });
            }
            (
                Effect::ReadJob {
                    job, organisation, ..
                },
                Some(Waiting::Client(waiting)),
            ) => {
                let store = self.parts.store.clone();
                tokio::spawn(async move {
                    let _ = waiting.send(reads::job(&store, &job, organisation.as_ref()).await);
                });
            }
            (Effect::Plan(task), _) => self.make_plan(*task),
            (Effect::Send { node, message }, _) => self.links.send(node, *message),
            (Effect::Disconnect { node }, _) => {
                self.links.close(node);
                self.parts.on_revoked.tell(node);
            }
            (Effect::Arm { timer, at }, _) => self.timers.arm(timer, at),
            (Effect::JobEvent { job, event }, _) => self.tell_watchers(&job, *event),
            (Effect::Index(descriptor), _) => self.parts.text.put(descriptor),
            (Effect::Unindex(entity), _) => self.parts.text.remove(entity),
            (Effect::PublishSnapshot, _) => {}
            (other, _) => tracing::debug!(?other, "nobody waits for an answer"),
        }
    }

    /// Makes a plan on a thread that may be held; how many are made at once is the core's to bound.
    fn make_plan(&self, task: PlanTask) {
        let queue = self.parts.queue.clone();
        tokio::task::spawn_blocking(move || {
            let planned = Box::new(task.run());
            // Without a queue the center has stopped, and whoever waited was told.
            if let Some(queue) = queue.upgrade() {
                let _ = queue.blocking_send(Envelope::silent(Input::Planned(planned)));
            }
        });
    }

    fn subscribe(&mut self, view: &daitn_messages::job::JobView) -> broadcast::Receiver<JobEvent> {
        if view.phase.is_terminal() {
            // Nothing more will come: the receiver is closed from the beginning.
            return broadcast::channel(1).1;
        }
        let sender = self.watchers.entry(view.id.clone());
        sender
            .or_insert_with(|| broadcast::channel(WATCH_QUEUE_MAX).0)
            .subscribe()
    }

    fn tell_watchers(&mut self, job: &JobId, event: JobEvent) {
        let is_end = matches!(&event, JobEvent::Phase { phase, .. } if phase.is_terminal());
        let Some(sender) = self.watchers.get(job) else {
            return;
        };
        // An error means that nobody watches any more.
        let nobody = sender.send(event).is_err();
        if is_end || nobody {
            self.watchers.remove(job);
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
