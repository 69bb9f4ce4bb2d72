//! Does what the core decides, for one job, until its training has ended.

use super::{
    ask::{Begin, Field},
    core::Core,
    events::{Closing, Effect, Event, Step, Ticket},
    journal::{HISTORY_MAX, Journal},
    learner::{CombineError, Files},
    publish::{publish, scope_of},
    report::Unreported,
    roster::reasons,
};
use crate::{
    durable::{DurableError, blocking},
    holds::Readers,
    limits::ANSWERS_KEPT,
    orders::Decided,
    shared::Shared,
    terminal::Attached,
};
use daitn_fabric::Backoff;
use daitn_messages::{
    receipt::{CycleReport, Outcome, TrainingDone, TrainingFailed},
    rejection::{Code, Rejection},
};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

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
        Err(reason) => Err(nobody_left_out(reason)),
    };
    let outcome = match result {
        Ok(Some(done)) => Outcome::TrainingDone(done),
        // Stopped from outside: whoever stopped it says so.
        Ok(None) => return,
        Err(failed) => {
            tracing::error!(?job, "the training cannot go on: {}", failed.reason);
            // Not begun again after a restart: the center decides what comes next.
            if let Err(error) = shared.orders.end(&known.order.id).await {
                tracing::error!(?job, "a failed order was not marked as ended: {error}");
            }
            if failed.left_out.is_empty() {
                Outcome::Refused(failed.reason)
            } else {
                Outcome::TrainingFailed(Box::new(failed))
            }
        }
    };
    if let Err(rejection) = shared.report(&known.order, outcome).await {
        tracing::error!(?job, "the end of the training could not be reported: {rejection}");
    }
}

pub(super) enum Prepared {
    /// It was done before the node was restarted.
    Done(TrainingDone),
    ToDo(Box<Conductor>),
}

pub(super) struct Conductor {
    pub(super) field: Arc<Field>,
    pub(super) core: Core,
    pub(super) journal: Journal,
    pub(super) path: PathBuf,
    pub(super) readers: Readers,
    pub(super) unreported: Unreported,
    pub(super) sender: mpsc::Sender<Event>,
    pub(super) receiver: mpsc::Receiver<Event>,
    pub(super) closed: mpsc::Sender<CycleReport>,
    pub(super) reporter: JoinHandle<Result<(), Rejection>>,
    pub(super) tasks: HashMap<Ticket, AbortHandle>,
    pub(super) watches: HashMap<u32, (Arc<Mutex<Backoff>>, Option<AbortHandle>)>,
    pub(super) wake: Option<tokio::time::Instant>,
    pub(super) cycle_began: Instant,
    pub(super) stop: CancellationToken,
}

impl Conductor {
    /// Runs to the end; `None` where it was stopped.
    async fn run(mut self) -> Result<Option<TrainingDone>, TrainingFailed> {
        self.write_journal().await.map_err(nobody_left_out)?;
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
        let Some(()) = ended.map_err(|failed| self.named(failed))? else {
            return Ok(None);
        };
        self.finish().await.map(Some).map_err(nobody_left_out)
    }

    /// Waits until all cycles are reported, and notes that the job's training is done.
    async fn finish(mut self) -> Result<TrainingDone, Rejection> {
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
        Ok(done)
    }

    /// Says in the reason which sites were left out, as far as a message has room; the list has them all.
    fn named(&self, mut failed: TrainingFailed) -> TrainingFailed {
        let sites = &self.field.conduct.plan.sites;
        let name = |site: u32| Some(sites.get(site as usize)?.dataset.to_string());
        let told = reasons(&failed.left_out, name);
        if !told.is_empty() {
            failed.reason.message = format!("{}; left out: {told}", failed.reason.message);
        }
        failed
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
                        counted: self.journal.counted_cycles(site),
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
    async fn close(&mut self, mut closing: Closing) -> Result<(), Rejection> {
        let files = self.combine(&mut closing).await?;
        let contributions = self.contributions(&closing);
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
        self.journal
            .history
            .push((self.journal.cycles_done, self.journal.state.id));
        let surplus = self.journal.history.len().saturating_sub(HISTORY_MAX);
        self.journal.history.drain(..surplus);
        self.journal.cycles_done = cycles_done;
        let counted = closing.ends.iter().flatten().map(|step| (step.site, cycles_done));
        self.journal.counted.extend(counted);
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

    /// Combines what sites made. An update that cannot be read any more is left out, if the quorum allows.
    async fn combine(&self, closing: &mut Closing) -> Result<Files, Rejection> {
        loop {
            let (field, ends) = (self.field.clone(), closing.ends.clone());
            let combined = blocking(move || field.learner.combine(&field.shared.store, &ends)).await;
            let (end, reason) = match combined {
                Ok(files) => return Ok(files),
                Err(CombineError::Failed(reason)) => return Err(reason),
                Err(CombineError::Blamed { end, reason }) => (end, reason),
            };
            tracing::warn!(job = %self.field.job, round = closing.cycle, "an admitted update is left out after all: {reason}");
            let steps = closing.ends.remove(end);
            closing
                .left_out
                .extend(steps.iter().map(|step| (step.site, reason.clone())));
            closing.left_out.sort_by_key(|(site, _)| *site);
            let n_sites = closing.ends.iter().flatten().count();
            if n_sites < self.field.conduct.plan.quorum as usize {
                return Err(reason);
            }
        }
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

/// A failure that no site has to do with.
fn nobody_left_out(reason: Rejection) -> TrainingFailed {
    TrainingFailed {
        cycle: 0,
        reason,
        left_out: Vec::new(),
    }
}

enum After {
    Event(Event),
    /// The training is over, well or not.
    End(Result<Option<()>, TrainingFailed>),
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

pub(super) fn logged(error: &DurableError) -> Rejection {
    tracing::error!("the journal of a job cannot be read or written: {error}");
    error.rejection()
}

pub(super) fn no_reporter() -> Rejection {
    Rejection::new(
        Code::Internal,
        "closed cycles cannot be reported; the log says why",
    )
}
