//! One training step: asked for by the job's conductor, allowed by the owner once more, made once.

use super::{
    Dataset, Seat,
    answers::{Answer, Answers},
    away,
};
use crate::{
    durable::blocking,
    holds::Readers,
    orders::Decided,
    shared::{Shared, file_bytes, only},
    terminal::Attached,
};
use daitn_engine::{Layout, LocalRule, Table, TrainOutcome, Work, weights};
use daitn_fabric::{DATA_ALPN, Heard, artifact::Durability};
use daitn_learning::{local::SiteControl, random::SplitMix64};
use daitn_messages::{
    ids::{ArtifactId, JobId, NodeId},
    learning::{LocalTraining, ModelSpec, Strategy},
    order::TrainOrder,
    receipt::{Outcome, Receipt, Trained},
    rejection::{Code, Rejection},
    session::{ArtifactRef, TrainStep},
    signed::Signed,
};
use std::{
    ops::ControlFlow,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

/// Name of the tensor in which control variates travel.
pub(crate) const CONTROL_TENSOR: &str = "control";

/// What one step needs.
struct Step<'a> {
    shared: &'a Arc<Shared>,
    train: &'a TrainOrder,
    asked: &'a TrainStep,
    layout: Arc<Layout>,
    answers: Arc<Answers>,
    scope: Arc<str>,
    readers: Readers,
    policies: Vec<String>,
}

/// What the arithmetic made.
pub(crate) struct Made {
    pub(crate) outcome: TrainOutcome,
    /// Time of the arithmetic alone.
    pub(crate) took: Duration,
}

impl Dataset {
    /// Does a step, or answers from memory.
    ///
    /// # Errors
    /// Why not; [`Code::Unreachable`], [`Code::HashMismatch`] and [`Code::UpdateRefused`] say that it lies at what the
    /// step was to begin from.
    pub(crate) async fn train(
        &self,
        attached: &Attached,
        shared: &Arc<Shared>,
        remote: NodeId,
        asked: &TrainStep,
    ) -> Result<Signed<Receipt>, Rejection> {
        let known = shared.orders.train(&asked.job, asked.position);
        let (known, train) = known.ok_or_else(|| {
            Rejection::not_found(
                "accepted order for",
                format!("site {} of {}", asked.position, asked.job),
            )
        })?;
        check_asker(&known, &train, remote, asked)?;
        // The owner may have changed the policy since the order was accepted.
        let policies = self.ask_policy(shared, &attached.descriptor(), &train).await?;
        let seat = self.seat(&asked.job, asked.position);
        seat.newest.fetch_max(asked.cycle + 1, Ordering::Relaxed);
        let mut turn = seat.turn.lock().await;
        let answers = match &*turn {
            Some(answers) => answers.clone(),
            None => turn
                .insert(self.answers(&asked.job, asked.position).await?)
                .clone(),
        };
        let step = prepare(shared, &train, asked, policies, answers)?;
        let answer = match step.remembered()? {
            Some(answer) => answer,
            None => {
                let _busy = attached.load.begin();
                let answer = self.make(&step, &seat).await;
                shared.release(&step.scope, asked.input.id);
                if let Some(control) = asked.control {
                    shared.release(&step.scope, control.id);
                }
                let answer = answer?;
                attached
                    .load
                    .served(answer.trained.train_ms / answer.trained.examples.max(1) as f64);
                answer
            }
        };
        Ok(shared.receipt_of_epoch(&known.order, asked.epoch, Outcome::Trained(answer.trained)))
    }

    /// Holds again what an accepted order's answers name: after a restart, peers fetch on.
    pub(crate) async fn resume(&self, shared: &Arc<Shared>, known: &Decided, train: &TrainOrder) {
        let Some(job) = known.order.job.clone() else {
            return;
        };
        shared.learn(std::slice::from_ref(&train.conductor), Heard::Now);
        if train.conductor.node != shared.node {
            let link = shared.endpoint.keep_connected(train.conductor.node, DATA_ALPN);
            *self
                .seat(&job, train.position)
                .link
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(link);
        }
        let scope = scope_of(&job.to_string(), train.position);
        let answers = match self.answers(&job, train.position).await {
            Ok(answers) => answers.all(),
            Err(rejection) => {
                return tracing::warn!(%job, "earlier answers are not known any more: {rejection}");
            }
        };
        let readers = readers_of(train);
        for output in answers.iter().flat_map(Answer::outputs) {
            if let Err(error) = shared.holds.hold(&scope, output.id, &readers) {
                tracing::warn!("an update of an earlier cycle is not offered any more: {error}");
            }
        }
    }

    /// Stops what an order began and forgets its working state.
    pub(crate) async fn halt(&self, shared: &Arc<Shared>, known: &Decided, train: &TrainOrder) {
        let Some(job) = known.order.job.clone() else {
            return;
        };
        if shared.orders.train(&job, train.position).is_some() {
            // A later order of the same job has taken the place of this one.
            return;
        }
        if let Some(seat) = self.forget_seat(&job, train.position) {
            seat.newest.store(u32::MAX, Ordering::Relaxed);
        }
        shared.release_all(&scope_of(&job.to_string(), train.position));
        self.file.forget();
        let removed = match self.answers(&job, train.position).await {
            Ok(answers) => blocking(move || answers.remove()).await,
            Err(rejection) => Err(rejection),
        };
        if let Err(error) = removed {
            tracing::warn!("the working state of a stopped job stays on disk: {error}");
        }
    }

    async fn answers(&self, job: &JobId, position: u32) -> Result<Arc<Answers>, Rejection> {
        let (base, job) = (self.directory.clone(), job.clone());
        blocking(move || Answers::open(&base, &job, position))
            .await
            .map(Arc::new)
    }

    async fn make(&self, step: &Step<'_>, seat: &Arc<Seat>) -> Result<Answer, Rejection> {
        let (shared, asked) = (step.shared, step.asked);
        shared
            .fetch(&step.scope, asked.input, &asked.holders, Durability::Transient)
            .await?;
        let parameters = shared
            .read_numbers(asked.input.id, &step.layout)
            .await
            .map_err(|error| unusable_input(&error))?;
        let controls = step.controls().await?;
        let table = self.file.table(&step.train.spec).await?;
        let seed = step_seed(step.train.local.seed, asked.cycle, asked.position);
        let made = match &step.train.compute {
            Some(facility) => {
                let work = away::Work {
                    train: step.train,
                    asked,
                    parameters: &parameters,
                    controls: controls.as_ref(),
                    table: &table,
                    seed,
                };
                away::train(shared, facility, &work).await?
            }
            None => {
                let work = OwnWork {
                    spec: step.train.spec.clone(),
                    local: step.train.local,
                    strategy: step.train.strategy,
                    parameters,
                    controls,
                    table,
                    seed,
                };
                let (engine, seat, cycle) = (shared.engine.clone(), seat.clone(), asked.cycle);
                let stop = shared.stop.clone();
                let wanted = move || seat.newest.load(Ordering::Relaxed) <= cycle + 1 && !stop.is_cancelled();
                shared.cpu.run(move || work.run(&*engine, &wanted)).await??
            }
        };
        step.keep(made).await
    }
}

impl Step<'_> {
    /// The answer that was given to the same question before, if its artifacts are still here.
    fn remembered(&self) -> Result<Option<Answer>, Rejection> {
        let answer = self.answers.of(self.asked.cycle);
        let control = self.asked.control.map(|control| control.id);
        let same = |answer: &Answer| {
            answer.input == self.asked.input.id
                && answer.control == control
                && answer.outputs().all(|output| self.shared.store.has(output.id))
        };
        let Some(answer) = answer.filter(same) else {
            return Ok(None);
        };
        for output in answer.outputs() {
            self.shared.holds.hold(&self.scope, output.id, &self.readers)?;
        }
        Ok(Some(answer))
    }

    /// SCAFFOLD's control variates: of all, and of this site.
    async fn controls(&self) -> Result<Option<(Vec<f32>, Vec<f32>)>, Rejection> {
        if self.train.strategy != Strategy::Scaffold {
            return Ok(None);
        }
        let missing = || Rejection::malformed("control", "SCAFFOLD needs the global control variate");
        let control = self.asked.control.ok_or_else(missing)?;
        let layout = Arc::new(control_layout(self.layout.n_elements())?);
        check_size("control variate", control, &layout)?;
        self.shared
            .fetch(&self.scope, control, &self.asked.holders, Durability::Transient)
            .await?;
        let c = self
            .shared
            .read_numbers(control.id, &layout)
            .await
            .map_err(|error| unusable_input(&error))?;
        let (answers, cycle, counted) = (self.answers.clone(), self.asked.cycle, self.asked.counted_cycles);
        let c_k = blocking(move || answers.control_before(cycle, counted, &layout)).await?;
        Ok(Some((c, c_k)))
    }

    /// Stores what was made: the two files that a receipt may name, and nothing else, can be fetched by the peers.
    async fn keep(&self, made: Made) -> Result<Answer, Rejection> {
        let Made { outcome, took } = made;
        let layout = self.layout.clone();
        let (n_examples, n_steps, loss) = (outcome.n_examples, outcome.n_steps, outcome.loss);
        let file = blocking(move || weights::write(&outcome.parameters, &layout)).await?;
        let output = self
            .shared
            .put(&self.scope, file, &self.readers, Durability::Transient)
            .await?;
        let mut control = None;
        if let Some(SiteControl { next, delta }) = outcome.control {
            let layout = Arc::new(control_layout(next.len())?);
            let (answers, cycle, counted) =
                (self.answers.clone(), self.asked.cycle, self.asked.counted_cycles);
            let file = blocking(move || {
                answers.keep_control(cycle, counted, &next, &layout)?;
                weights::write(&delta, &layout).map_err(Rejection::from)
            });
            control = Some(
                self.shared
                    .put(&self.scope, file.await?, &self.readers, Durability::Transient)
                    .await?,
            );
        }
        let trained = Trained {
            cycle: self.asked.cycle,
            input: self.asked.input.id,
            output,
            control,
            examples: n_examples,
            steps: n_steps,
            loss,
            train_ms: took.as_secs_f64() * 1e3,
            policies: self.policies.clone(),
        };
        let answer = Answer {
            input: self.asked.input.id,
            control: self.asked.control.map(|c| c.id),
            trained,
        };
        let (answers, kept) = (self.answers.clone(), answer.clone());
        let forgotten = blocking(move || answers.keep(kept)).await?;
        let current: Vec<ArtifactId> = answer.outputs().map(|output| output.id).collect();
        for output in forgotten
            .iter()
            .flat_map(Answer::outputs)
            .filter(|old| !current.contains(&old.id))
        {
            self.shared.release(&self.scope, output.id);
        }
        Ok(answer)
    }
}

fn prepare<'a>(
    shared: &'a Arc<Shared>,
    train: &'a TrainOrder,
    asked: &'a TrainStep,
    policies: Vec<String>,
    answers: Arc<Answers>,
) -> Result<Step<'a>, Rejection> {
    let layout = Arc::new(shared.engine.layout(&train.spec).map_err(Rejection::from)?);
    check_size("weights", asked.input, &layout)?;
    let scope = scope_of(&asked.job.to_string(), asked.position);
    Ok(Step {
        shared,
        train,
        asked,
        layout,
        answers,
        scope,
        readers: readers_of(train),
        policies,
    })
}

/// A step on the node's own pool.
pub(crate) struct OwnWork {
    pub(crate) spec: ModelSpec,
    pub(crate) local: LocalTraining,
    pub(crate) strategy: Strategy,
    pub(crate) parameters: Vec<f32>,
    pub(crate) controls: Option<(Vec<f32>, Vec<f32>)>,
    pub(crate) table: Arc<Table>,
    pub(crate) seed: u64,
}

impl OwnWork {
    /// Runs until the end, or until nobody wants it.
    pub(crate) fn run(
        self,
        engine: &dyn daitn_engine::Engine,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Made, Rejection> {
        let rule = match (&self.strategy, &self.controls) {
            (Strategy::FedProx { mu }, _) => LocalRule::Prox { mu: *mu },
            (Strategy::Scaffold, Some((c, c_k))) => LocalRule::Scaffold { c, c_k },
            _ => LocalRule::Plain,
        };
        let work = Work {
            training: self.local,
            seed: self.seed,
            rule,
        };
        let begun = Instant::now();
        let mut report = |_| {
            if wanted() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let outcome = engine.train(&self.spec, &self.parameters, &self.table, &work, &mut report)?;
        Ok(Made {
            outcome,
            took: begun.elapsed(),
        })
    }
}

fn check_asker(
    known: &Decided,
    train: &TrainOrder,
    remote: NodeId,
    asked: &TrainStep,
) -> Result<(), Rejection> {
    if asked.epoch < known.order.epoch {
        let message = format!("epoch {} was replaced by {}", asked.epoch, known.order.epoch);
        return Err(Rejection::new(Code::StaleEpoch, message));
    }
    if remote != train.conductor.node {
        let message = format!("{} does not conduct this job", remote.short());
        return Err(Rejection::new(Code::Unauthorised, message));
    }
    if asked.cycle >= train.cycles {
        let max = f64::from(train.cycles.saturating_sub(1));
        return Err(Rejection::out_of_range("cycle", f64::from(asked.cycle), 0.0, max));
    }
    Ok(())
}

fn check_size(what: &str, artifact: ArtifactRef, layout: &Layout) -> Result<(), Rejection> {
    let expected = file_bytes(layout);
    if artifact.bytes == expected {
        return Ok(());
    }
    let message = format!(
        "{what} of {} bytes, where the model's take {expected}",
        artifact.bytes
    );
    Err(Rejection::new(Code::UpdateRefused, message))
}

/// What makes an input unusable is told with one code, so that the conductor looks at who made it.
fn unusable_input(error: &Rejection) -> Rejection {
    Rejection::new(
        Code::UpdateRefused,
        format!("the weights to begin from: {}", error.message),
    )
}

/// The layout of a file that holds a control variate.
pub(crate) fn control_layout(n_parameters: usize) -> Result<Layout, Rejection> {
    Layout::vectors(&[(CONTROL_TENSOR, n_parameters)])
        .map_err(|error| Rejection::malformed("control variate", &error.to_string()))
}

/// The seed of one step: another one for each cycle and site of a job.
pub(crate) fn step_seed(seed: u64, cycle: u32, position: u32) -> u64 {
    let mixed =
        |seed: u64, word: u32| SplitMix64::new(SplitMix64::new(seed).next_u64() ^ u64::from(word)).next_u64();
    mixed(mixed(seed, cycle), position)
}

fn scope_of(job: &str, position: u32) -> Arc<str> {
    format!("train/{job}/{position}").into()
}

fn readers_of(train: &TrainOrder) -> Readers {
    only(train.peers.iter().chain([&train.conductor]).map(|peer| peer.node))
}
