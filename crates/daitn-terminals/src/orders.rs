//! The orders that a node has decided on, durable: by id, so that a repeated one is recognised, and by process, so that
//! an older epoch is refused. [`Orders::examine`] is what every order passes before a terminal looks at it.

use crate::{
    durable::{self, DurableError, blocking},
    limits::ORDERS_MAX,
};
use daitn_messages::{
    ids::{DeploymentId, EntityId, JobId, NodeId, OrderId},
    limits::{CLOCK_SKEW_MS_MAX, ROUNDS_MAX, SITES_MAX},
    order::{Instruction, TrainOrder, WorkOrder},
    receipt::Receipt,
    rejection::{Code, Rejection},
    signed::Signed,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// An order that nobody has ended for so long after its expiry makes room when room is needed: 30 days.
const FORGOTTEN_AFTER_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// What became of an order at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderState {
    /// It is, or will be, acted on.
    Accepted,
    /// It was done; what it gave is kept until somebody ends it.
    Done,
    /// It was refused.
    Refused,
    /// It was done, stopped or replaced.
    Ended,
}

/// An order with the decision.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    /// The order, its signature checked.
    pub order: WorkOrder,
    /// As it was signed: what proves to a spare that it may keep a state.
    pub signed: Signed<WorkOrder>,
    /// What became of it.
    pub state: OrderState,
    /// The receipt that tells the decision.
    pub receipt: Signed<Receipt>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    order: Signed<WorkOrder>,
    state: OrderState,
    receipt: Signed<Receipt>,
}

/// What an order is to a node that has not decided yet.
#[derive(Debug)]
pub(crate) enum Examined {
    /// It was decided on before.
    Known(Arc<Decided>),
    /// It may be put to its terminal.
    New(Box<WorkOrder>),
}

/// What an order belongs to. Epochs count within a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Process {
    Job(JobId),
    Deployment(DeploymentId),
}

fn process(order: &WorkOrder) -> Option<Process> {
    match &order.instruction {
        // A job's deployment outlives it: replicas of one deployment fence each other, whoever asked for it.
        Instruction::Serve(serve) => Some(Process::Deployment(serve.deployment.clone())),
        _ => order.job.clone().map(Process::Job),
    }
}

/// The orders of a node.
#[derive(Debug)]
pub(crate) struct Orders {
    directory: PathBuf,
    node: NodeId,
    center: NodeId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    decided: HashMap<OrderId, Arc<Decided>>,
    /// Highest epoch seen, for each process at each terminal.
    fences: BTreeMap<(Process, EntityId), u64>,
}

impl Orders {
    /// Opens the orders in a directory. Blocks.
    ///
    /// # Errors
    /// What the disk says. A damaged record is an error: forgetting a decision could let a stopped use go on.
    pub(crate) fn open(directory: &Path, node: NodeId, center: NodeId) -> Result<Self, DurableError> {
        durable::make_directory(directory)?;
        let mut inner = Inner::default();
        for path in durable::list(directory, "rec")? {
            let Some(record) = durable::read::<Record>(&path)? else {
                continue;
            };
            let unreadable = |cause: Rejection| DurableError::Unreadable {
                path: path.clone(),
                cause: cause.to_string(),
            };
            let order = record.order.open(center).map_err(unreadable)?;
            inner.remember(Decided {
                order,
                signed: record.order,
                state: record.state,
                receipt: record.receipt,
            });
        }
        Ok(Self {
            directory: directory.to_owned(),
            node,
            center,
            inner: Mutex::new(inner),
        })
    }

    /// Checks what can be checked without the terminal: signature, addressee, time, epoch, bounds.
    ///
    /// # Errors
    /// Why the order is not for this node to act on. Nothing is remembered of it.
    pub(crate) fn examine(&self, signed: &Signed<WorkOrder>, now: UnixMillis) -> Result<Examined, Rejection> {
        let order = signed.open(self.center)?;
        if order.node != self.node {
            let message = format!(
                "the order is for node {}, this is {}",
                order.node.short(),
                self.node.short()
            );
            return Err(Rejection::new(Code::Malformed, message));
        }
        let inner = self.inner();
        if let Some(known) = inner.decided.get(&order.id) {
            return Ok(Examined::Known(known.clone()));
        }
        let stops = matches!(order.instruction, Instruction::Stop { .. });
        if let Some(process) = process(&order).filter(|_| !stops) {
            let fence = inner
                .fences
                .get(&(process, order.terminal.clone()))
                .copied()
                .unwrap_or(0);
            if order.epoch < fence {
                let message = format!("the order has epoch {}, and {fence} was seen", order.epoch);
                return Err(Rejection::new(Code::StaleEpoch, message));
            }
        }
        if !stops {
            check_time(&order, now)?;
        }
        check_bounds(&order.instruction)?;
        Ok(Examined::New(Box::new(order)))
    }

    /// Remembers a decision; durable when this returns.
    ///
    /// # Errors
    /// Where too many orders are under way or the disk fails.
    pub(crate) async fn keep(&self, decided: Decided) -> Result<Arc<Decided>, Rejection> {
        let forgotten = {
            let inner = self.inner();
            if inner.decided.len() < ORDERS_MAX || inner.decided.contains_key(&decided.order.id) {
                None
            } else {
                let now = decided.order.issued_at;
                let done = |known: &&Arc<Decided>| {
                    known.state != OrderState::Accepted
                        || now.since(known.order.expires_at) > FORGOTTEN_AFTER_MS
                };
                let oldest = inner
                    .decided
                    .values()
                    .filter(done)
                    .min_by_key(|known| known.order.issued_at);
                let oldest = oldest.map(|known| known.order.id.clone());
                let full = || {
                    Rejection::new(
                        Code::Overloaded,
                        format!("{ORDERS_MAX} orders are under way already"),
                    )
                };
                Some(oldest.ok_or_else(full)?)
            }
        };
        let path = self.path(&decided.order.id);
        let record = Record {
            order: decided.signed.clone(),
            state: decided.state,
            receipt: decided.receipt.clone(),
        };
        let old = forgotten.as_ref().map(|id| self.path(id));
        let written = blocking(move || {
            if let Some(old) = old {
                durable::remove(&old)?;
            }
            durable::write(&path, &record)
        });
        written.await.map_err(|error| {
            tracing::error!("an order could not be kept: {error}");
            error.rejection()
        })?;
        let mut inner = self.inner();
        if let Some(id) = forgotten {
            inner.decided.remove(&id);
        }
        Ok(inner.remember(decided))
    }

    /// Notes that an order was done; durable when this returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(crate) async fn done(&self, id: &OrderId) -> Result<(), Rejection> {
        self.settle(id, OrderState::Done).await
    }

    /// Notes that an order has ended; durable when this returns.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(crate) async fn end(&self, id: &OrderId) -> Result<(), Rejection> {
        self.settle(id, OrderState::Ended).await
    }

    async fn settle(&self, id: &OrderId, state: OrderState) -> Result<(), Rejection> {
        let live =
            |known: &Arc<Decided>| known.state == OrderState::Accepted || known.state == OrderState::Done;
        let Some(known) = self.get(id).filter(|known| live(known) && known.state != state) else {
            return Ok(());
        };
        self.keep(Decided {
            state,
            ..(*known).clone()
        })
        .await
        .map(|_| ())
    }

    /// An order that was decided on.
    #[must_use]
    pub(crate) fn get(&self, id: &OrderId) -> Option<Arc<Decided>> {
        self.inner().decided.get(id).cloned()
    }

    /// Every accepted order of a terminal, oldest epoch first.
    #[must_use]
    pub(crate) fn accepted(&self, terminal: &EntityId) -> Vec<Arc<Decided>> {
        self.in_state(terminal, OrderState::Accepted)
    }

    /// Every order of a terminal in this state, oldest epoch first.
    #[must_use]
    pub(crate) fn in_state(&self, terminal: &EntityId, state: OrderState) -> Vec<Arc<Decided>> {
        let of_terminal = |known: &&Arc<Decided>| known.state == state && known.order.terminal == *terminal;
        let mut found: Vec<_> = self
            .inner()
            .decided
            .values()
            .filter(of_terminal)
            .cloned()
            .collect();
        found.sort_by(|a, b| (a.order.epoch, &a.order.id).cmp(&(b.order.epoch, &b.order.id)));
        found
    }

    /// The newest accepted order to train in a job at a place of its plan.
    #[must_use]
    pub(crate) fn train(&self, job: &JobId, position: u32) -> Option<(Arc<Decided>, TrainOrder)> {
        let inner = self.inner();
        let of_step = inner
            .decided
            .values()
            .filter_map(|known| match &known.order.instruction {
                Instruction::Train(train)
                    if known.order.job.as_ref() == Some(job)
                        && train.position == position
                        && known.state == OrderState::Accepted =>
                {
                    Some((known, train))
                }
                _ => None,
            });
        of_step
            .max_by_key(|(known, _)| (known.order.epoch, known.order.id.clone()))
            .map(|(known, train)| (known.clone(), (**train).clone()))
    }

    /// How many are accepted and have not ended.
    #[must_use]
    pub(crate) fn n_accepted(&self) -> usize {
        self.inner()
            .decided
            .values()
            .filter(|known| known.state == OrderState::Accepted)
            .count()
    }

    fn path(&self, id: &OrderId) -> PathBuf {
        self.directory.join(format!("{id}.rec"))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, decided: Decided) -> Arc<Decided> {
        if let Some(process) = process(&decided.order) {
            let fence = self
                .fences
                .entry((process, decided.order.terminal.clone()))
                .or_default();
            *fence = (*fence).max(decided.order.epoch);
        }
        let decided = Arc::new(decided);
        self.decided.insert(decided.order.id.clone(), decided.clone());
        decided
    }
}

fn check_time(order: &WorkOrder, now: UnixMillis) -> Result<(), Rejection> {
    if now > order.expires_at {
        let message = format!("the order expired {} ms ago", now.since(order.expires_at));
        return Err(Rejection::new(Code::DeadlinePassed, message));
    }
    if order.issued_at > now.plus(CLOCK_SKEW_MS_MAX) {
        let message = format!(
            "the order was signed {} ms in the future",
            order.issued_at.since(now)
        );
        return Err(Rejection::new(Code::ClockSkew, message));
    }
    Ok(())
}

fn check_bounds(instruction: &Instruction) -> Result<(), Rejection> {
    match instruction {
        Instruction::Train(train) => {
            train.spec.validate()?;
            train.local.validate()?;
            daitn_learning::server::check(&train.strategy)
                .map_err(|error| Rejection::malformed("strategy", &error.to_string()))?;
            check_count("cycles", u64::from(train.cycles), u64::from(ROUNDS_MAX))?;
            check_count("peers", train.peers.len() as u64 + 1, u64::from(SITES_MAX) + 2)
        }
        Instruction::Compute(compute) => compute.spec.validate(),
        Instruction::Conduct(conduct) => {
            conduct.plan.request.validate()?;
            daitn_learning::server::check(&conduct.plan.strategy)
                .map_err(|error| Rejection::malformed("strategy", &error.to_string()))?;
            check_count("rounds", u64::from(conduct.plan.rounds), u64::from(ROUNDS_MAX))?;
            check_count("sites", conduct.plan.sites.len() as u64, u64::from(SITES_MAX))
        }
        Instruction::Verify(verify) => verify.spec.validate(),
        Instruction::Serve(serve) => serve.spec.validate(),
        Instruction::Stop { .. } => Ok(()),
    }
}

fn check_count(what: &str, found: u64, max: u64) -> Result<(), Rejection> {
    if (1..=max).contains(&found) {
        Ok(())
    } else {
        Err(Rejection::out_of_range(what, found as f64, 1.0, max as f64))
    }
}
