//! Does what the core decides, for one job, until its training has ended.

use super::{
    ask::{Begin, Field},
    core::{Closing, Core, Course, Effect, Event, Step, Ticket},
    journal::Journal,
    learner::{Files, Learner},
    report::{self, AHEAD_MAX, Unreported},
};
use crate::{
    durable::{DurableError, blocking},
    holds::Readers,
    limits::ANSWERS_KEPT,
    orders::Decided,
    shared::{Shared, only},
    terminal::Attached,
};
use daitn_fabric::{Backoff, artifact::Durability};
use daitn_messages::{
    ids::ArtifactId,
    order::{ConductOrder, Instruction},
    receipt::{CycleReport, Outcome, TrainingDone},
    rejection::{Code, Rejection},
    session::{ArtifactRef, Peer},
};
use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

/// Events that wait for the core: one for each site of a large plan and some room.
const EVENTS_MAX: usize = 1024;

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The epoch of its order.
    pub(crate) epoch: u64,
    /// Ends it.
    pub(crate) stop: CancellationToken,
    /// Cancelled when it has ended.
    pub(crate) ended: CancellationToken,
}

/// Conducts a job until its training has ended or `stop` is cancelled, and reports what came of it.
pub(crate) async fn conduct(
    attached: Arc<Attached>,
    shared: Arc<Shared>,
    known: Arc<Decided>,
    directory: PathBuf,
    stop: CancellationToken,
) {
    let _busy = attached.load.begin();
    let job = known.order.job.clone();
    let result = match Conductor::prepare(&shared, &known, directory, stop.clone()).await {
        Ok(Prepared::Done(done)) => Ok(Some(done)),
        Ok(Prepared::ToDo(conductor)) => conductor.run().await,
        Err(rejection) => Err(rejection),
    };
    let outcome = match result {
        Ok(Some(done)) => Outcome::TrainingDone(done),
        // Stopped from outside: whoever stopped it says so.
        Ok(None) => return,
        Err(rejection) => {
            tracing::error!(?job, "the training cannot go on: {rejection}");
            // Not begun again after a restart: the center decides what comes next.
            if let Err(error) = shared.orders.end(&known.order.id).await {
                tracing::error!(?job, "a failed order was not marked as ended: {error}");
            }
            Outcome::Refused(rejection)
        }
    };
    if let Err(rejection) = shared.report(&known.order, outcome).await {
        tracing::error!(?job, "the end of the training could not be reported: {rejection}");
    }
}

enum Prepared {
    /// It was done before the node was restarted.
    Done(TrainingDone),
    ToDo(Box<Conductor>),
}

struct Conductor {
    field: Arc<Field>,
    core: Core,
    journal: Journal,
    path: PathBuf,
    readers: Readers,
    unreported: Unreported,
    sender: mpsc::Sender<Event>,
    receiver: mpsc::Receiver<Event>,
    closed: mpsc::Sender<CycleReport>,
    reporter: JoinHandle<Result<(), Rejection>>,
    tasks: HashMap<Ticket, AbortHandle>,
    watches: HashMap<u32, (Arc<Mutex<Backoff>>, Option<AbortHandle>)>,
    wake: Option<tokio::time::Instant>,
    cycle_began: Instant,
    stop: CancellationToken,
}

impl Conductor {
    async fn prepare(
        shared: &Arc<Shared>,
        known: &Arc<Decided>,
        directory: PathBuf,
        stop: CancellationToken,
    ) -> Result<Prepared, Rejection> {
        let Instruction::Conduct(conduct) = &known.order.instruction else {
            return Err(crate::shared::wrong_terminal(&known.order));
        };
        let job = known.order.job.clone();
        let job = job.ok_or_else(|| Rejection::malformed("job", "an order to conduct names its job"))?;
        shared.learn(&conduct.peers);
        shared.learn(&conduct.spares);
        let path = Journal::path(&directory, &job);
        let earlier = {
            let path = path.clone();
            blocking(move || Journal::read(&path))
                .await
                .map_err(|error| logged(&error))?
        };
        let learner = {
            let (engine, conduct) = (shared.engine.clone(), conduct.clone());
            let n_sites = conduct.accepted.len();
            blocking(move || Learner::new(&*engine, &conduct.plan, n_sites)).await?
        };
        let peers = conduct
            .peers
            .iter()
            .map(|peer| (peer.node, peer.clone()))
            .collect();
        let within = Duration::from_millis(
            conduct
                .plan
                .round_deadline_ms
                .saturating_add(super::core::CLOSING_MS),
        );
        let field = Arc::new(Field {
            shared: shared.clone(),
            known: known.clone(),
            conduct: Arc::new((**conduct).clone()),
            updates: format!("updates/{job}").into(),
            job,
            learner,
            peers,
            receipts: Mutex::default(),
            bytes_moved: AtomicU64::new(0),
            within,
        });
        let readers = readers_of(shared, conduct);
        Self::from_where_it_stood(field, earlier, path, readers, stop).await
    }

    async fn from_where_it_stood(
        field: Arc<Field>,
        earlier: Option<Journal>,
        path: PathBuf,
        readers: Readers,
        stop: CancellationToken,
    ) -> Result<Prepared, Rejection> {
        let resume = field.conduct.resume.as_ref();
        let own_cycles = earlier.as_ref().map_or(0, |journal| journal.cycles_done);
        let (mut cycles_done, mut unreported) = (0, Vec::new());
        if let Some(journal) = &earlier {
            unreported.clone_from(&journal.unreported);
        }
        if let Some(journal) =
            earlier.filter(|_| resume.is_none_or(|resume| resume.cycles_done <= own_cycles))
        {
            if let Some(done) = &journal.done {
                hold(
                    &field,
                    journal.cycles_done,
                    &[Some(journal.global), Some(journal.state)],
                    &readers,
                )?;
                return Ok(Prepared::Done(done.clone()));
            }
            restore(&field, journal.state, &[]).await?;
            cycles_done = journal.cycles_done;
        } else if let Some(resume) = resume {
            restore(&field, resume.state, &resume.holders).await?;
            cycles_done = resume.cycles_done;
        }
        let (begin, state) = publish(&field, cycles_done, None, &readers).await?;
        // The copy that was fetched to resume from is now held as the cycle's own.
        field.shared.release_all(&field.updates);
        let journal = Journal {
            order: field.known.order.id.clone(),
            epoch: field.known.order.epoch,
            cycles_done,
            global: begin.global,
            control: begin.control,
            state,
            unreported,
            done: None,
        };
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let (closed, to_report) = mpsc::channel(AHEAD_MAX);
        let waiting: VecDeque<CycleReport> = journal.unreported.iter().cloned().collect();
        let unreported: Unreported = Arc::new(Mutex::new(waiting.clone()));
        let reporter = tokio::spawn(report::report(field.clone(), to_report, unreported.clone()));
        for report in waiting {
            closed.send(report).await.map_err(|_| no_reporter())?;
        }
        let core = Core::new(course_of(&field.conduct), cycles_done);
        Ok(Prepared::ToDo(Box::new(Self {
            field,
            core,
            journal,
            path,
            readers,
            unreported,
            sender,
            receiver,
            closed,
            reporter,
            tasks: HashMap::new(),
            watches: HashMap::new(),
            wake: None,
            cycle_began: Instant::now(),
            stop,
        })))
    }

    /// Runs to the end; `None` where it was stopped.
    async fn run(mut self) -> Result<Option<TrainingDone>, Rejection> {
        self.write_journal().await?;
        let mut event = Event::Begin;
        let ended = loop {
            let effects = self.core.on(event, self.field.shared.clock.now());
            match self.act(effects).await {
                Some(After::Event(next)) => event = next,
                Some(After::End(result)) => break result,
                None => match self.next_event().await {
                    Some(next) => event = next,
                    None => break Ok(None),
                },
            }
        };
        self.leave();
        let done = ended?;
        let Some(()) = done else { return Ok(None) };
        drop(self.closed);
        let reported = self.reporter.await;
        reported.map_err(|error| Rejection::new(Code::Internal, format!("the reports: {error}")))??;
        let done = TrainingDone {
            cycles: self.journal.cycles_done,
            weights: self.journal.global,
        };
        self.journal.done = Some(done.clone());
        self.journal.unreported = Vec::new();
        let (journal, path) = (self.journal.clone(), self.path.clone());
        blocking(move || journal.write(&path))
            .await
            .map_err(|error| logged(&error))?;
        Ok(Some(done))
    }

    async fn next_event(&mut self) -> Option<Event> {
        let wake = self.wake;
        let tick = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            event = self.receiver.recv() => event,
            () = tick => {
                self.wake = None;
                Some(Event::Tick)
            }
        }
    }

    /// Does what is to be done; what then happens at once, if anything.
    async fn act(&mut self, effects: Vec<Effect>) -> Option<After> {
        let mut after = None;
        for effect in effects {
            match effect {
                Effect::Ask {
                    ticket,
                    site,
                    cycle,
                    input,
                } => {
                    let begin = Begin {
                        global: self.journal.global,
                        control: self.journal.control,
                    };
                    let field = self.field.clone();
                    self.spawn(ticket, async move {
                        field.ask(ticket, site, cycle, input, begin).await
                    });
                }
                Effect::Check { ticket, step } => {
                    let field = self.field.clone();
                    self.spawn(ticket, async move { field.check(ticket, step).await });
                }
                Effect::Forget(ticket) => {
                    if let Some(task) = self.tasks.remove(&ticket) {
                        task.abort();
                    }
                }
                Effect::Watch { site } => self.watch(site),
                Effect::WakeAt(at) => {
                    let wait = at.since(self.field.shared.clock.now());
                    self.wake = Some(tokio::time::Instant::now() + Duration::from_millis(wait));
                }
                Effect::Combine(closing) => {
                    after = Some(After::Event(match self.close(closing).await {
                        Ok(()) => Event::Combined,
                        Err(reason) => Event::CombineFailed(reason),
                    }));
                }
                Effect::Finish => after = Some(After::End(Ok(Some(())))),
                Effect::Fail(reason) => after = Some(After::End(Err(reason))),
            }
        }
        after
    }

    fn spawn(&mut self, ticket: Ticket, work: impl Future<Output = Event> + Send + 'static) {
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            let event = work.await;
            // Nobody listens any more once the job has ended.
            let _ = sender.send(event).await;
        });
        self.tasks.insert(ticket, task.abort_handle());
    }

    fn watch(&mut self, site: u32) {
        let backoff = || Arc::new(Mutex::new(Backoff::new(u64::from(site))));
        let (backoff, task) = self.watches.entry(site).or_insert_with(|| (backoff(), None));
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (field, backoff, sender) = (self.field.clone(), backoff.clone(), self.sender.clone());
        let watching = tokio::spawn(async move {
            let event = field.watch(site, &backoff).await;
            let _ = sender.send(event).await;
        });
        *task = Some(watching.abort_handle());
    }

    /// Combines a cycle and makes it durable, then lets it be told.
    async fn close(&mut self, closing: Closing) -> Result<(), Rejection> {
        let contributions = self.contributions(&closing);
        let field = self.field.clone();
        let ends = closing.ends.clone();
        let files = blocking(move || field.learner.combine(&field.shared.store, &ends)).await?;
        let cycles_done = closing.cycle + 1;
        let (begin, state) = publish(&self.field, cycles_done, Some(files), &self.readers).await?;
        let report = CycleReport {
            cycle: closing.cycle,
            contributions,
            global: begin.global,
            state,
            holders: vec![self.field.shared.node],
            loss: mean_loss(&closing.ends),
            cycle_ms: self.cycle_began.elapsed().as_secs_f64() * 1e3,
            train_ms: slowest_ms(&closing.ends),
            bytes: self.field.bytes_moved.swap(0, Ordering::Relaxed),
            left_out: closing.left_out,
        };
        self.cycle_began = Instant::now();
        self.journal.cycles_done = cycles_done;
        (self.journal.global, self.journal.control, self.journal.state) =
            (begin.global, begin.control, state);
        self.unreported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(report.clone());
        self.write_journal().await?;
        self.forget_cycle(cycles_done);
        for site in closing.ends.iter().flatten().map(|step| step.site) {
            if let Some((backoff, _)) = self.watches.get(&site) {
                backoff.lock().unwrap_or_else(PoisonError::into_inner).reset();
            }
        }
        if self.closed.send(report).await.is_err() {
            return Err(no_reporter());
        }
        Ok(())
    }

    fn contributions(
        &self,
        closing: &Closing,
    ) -> Vec<daitn_messages::signed::Signed<daitn_messages::receipt::Receipt>> {
        let mut receipts = self.field.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sites: Vec<u32> = closing.ends.iter().flatten().map(|step| step.site).collect();
        sites.sort_unstable();
        let contributions = sites.iter().filter_map(|site| receipts.remove(site)).collect();
        receipts.clear();
        contributions
    }

    /// Lets go what belongs to cycles before the last.
    fn forget_cycle(&mut self, cycles_done: u32) {
        self.tasks.retain(|_, task| !task.is_finished());
        self.field.shared.release_all(&self.field.updates);
        if let Some(old) = cycles_done.checked_sub(ANSWERS_KEPT) {
            self.field.shared.release_all(&scope_of(&self.field, old));
        }
    }

    async fn write_journal(&mut self) -> Result<(), Rejection> {
        self.journal.unreported = {
            let unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
            unreported.iter().cloned().collect()
        };
        let (journal, path) = (self.journal.clone(), self.path.clone());
        blocking(move || journal.write(&path))
            .await
            .map_err(|error| logged(&error))
    }

    /// Ends everything that still runs for the job here.
    fn leave(&mut self) {
        for task in self
            .tasks
            .values()
            .chain(self.watches.values().filter_map(|(_, task)| task.as_ref()))
        {
            task.abort();
        }
        self.field.shared.release_all(&self.field.updates);
    }
}

enum After {
    Event(Event),
    /// The training is over, well or not.
    End(Result<Option<()>, Rejection>),
}

/// Stores the files of a cycle's result, durably, for all who may have them.
async fn publish(
    field: &Arc<Field>,
    cycles_done: u32,
    files: Option<Files>,
    readers: &Readers,
) -> Result<(Begin, ArtifactRef), Rejection> {
    let files = match files {
        Some(files) => files,
        None => {
            let field = field.clone();
            blocking(move || field.learner.files()).await?
        }
    };
    let scope = scope_of(field, cycles_done);
    let put = |bytes| field.shared.put(&scope, bytes, readers, Durability::Durable);
    let global = put(files.global).await?;
    let control = match files.control {
        Some(control) => Some(put(control).await?),
        None => None,
    };
    let state = match files.state {
        Some(state) => put(state).await?,
        // What remembers nothing is its weights.
        None => global,
    };
    Ok((Begin { global, control }, state))
}

async fn restore(field: &Arc<Field>, state: ArtifactRef, holders: &[Peer]) -> Result<(), Rejection> {
    if state.bytes != field.learner.state_bytes() {
        let message = format!(
            "it has {} bytes, not {}",
            state.bytes,
            field.learner.state_bytes()
        );
        return Err(Rejection::malformed("conductor's state", &message));
    }
    field
        .shared
        .fetch(&field.updates, state, holders, Durability::Durable)
        .await?;
    let field = field.clone();
    blocking(move || {
        let reader = field
            .shared
            .store
            .reader(state.id)
            .map_err(|error| error.rejection())?;
        field.learner.restore(reader)
    })
    .await
}

fn hold(
    field: &Field,
    cycles_done: u32,
    artifacts: &[Option<ArtifactRef>],
    readers: &Readers,
) -> Result<(), Rejection> {
    let scope = scope_of(field, cycles_done);
    let ids: Vec<ArtifactId> = artifacts.iter().flatten().map(|artifact| artifact.id).collect();
    ids.into_iter()
        .try_for_each(|id| field.shared.holds.hold(&scope, id, readers))
}

fn scope_of(field: &Field, cycles_done: u32) -> Arc<str> {
    scope_name(&field.job, cycles_done).into()
}

/// The scope under which the results of a cycle are held.
pub(crate) fn scope_name(job: &daitn_messages::ids::JobId, cycles_done: u32) -> String {
    format!("conduct/{job}/{cycles_done}")
}

fn readers_of(shared: &Shared, conduct: &ConductOrder) -> Readers {
    let sites = conduct.plan.sites.iter().map(|site| site.node);
    let spares = conduct.spares.iter().map(|peer| peer.node);
    only(
        sites
            .chain(spares)
            .chain(conduct.readers.iter().copied())
            .filter(|node| *node != shared.node),
    )
}

fn course_of(conduct: &ConductOrder) -> Course {
    let plan = &conduct.plan;
    let accepted = |chain: &Vec<u32>| {
        chain
            .iter()
            .copied()
            .filter(|site| conduct.accepted.contains(site))
            .collect()
    };
    Course {
        chains: plan.chains.iter().map(accepted).collect(),
        shuffle: plan.shuffle,
        seed: plan.request.training.local.seed,
        quorum: plan.quorum,
        cycles: plan.rounds,
        deadline_ms: plan.round_deadline_ms,
    }
}

fn mean_loss(ends: &[Vec<Step>]) -> f64 {
    let steps = || ends.iter().flatten();
    let n_examples: u64 = steps().map(|step| step.examples).sum();
    steps().map(|step| step.loss * step.examples as f64).sum::<f64>() / n_examples.max(1) as f64
}

fn slowest_ms(ends: &[Vec<Step>]) -> f64 {
    let chain = |steps: &Vec<Step>| steps.iter().map(|step| step.train_ms).sum::<f64>();
    ends.iter().map(chain).fold(0.0, f64::max)
}

fn logged(error: &DurableError) -> Rejection {
    tracing::error!("the journal of a job cannot be read or written: {error}");
    error.rejection()
}

fn no_reporter() -> Rejection {
    Rejection::new(
        Code::Internal,
        "closed cycles cannot be reported; the log says why",
    )
}
