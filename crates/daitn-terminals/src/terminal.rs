//! The terminals of a node, under one face: each is opened, described, asked about an order, lets an order begin and
//! stops it.

use crate::{
    agent::Agent,
    aggregator::Aggregator,
    compute::Compute,
    dataset::Dataset,
    host::Host,
    load::Load,
    options::TerminalOptions,
    orders::Decided,
    shared::{Shared, wrong_terminal},
    verifier::Verifier,
};
use daitn_messages::{
    descriptor::{Body, Descriptor, Telemetry},
    ids::EntityId,
    order::{Instruction, WorkOrder},
    rejection::Rejection,
    signed::Signed,
    units::UnixMillis,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

/// One of the terminals that a node may have.
pub(crate) enum Terminal {
    /// Data that can be trained on where it is.
    Dataset(Box<Dataset>),
    /// Compute for others.
    Compute(Compute),
    /// Combines updates and drives jobs.
    Aggregator(Aggregator),
    /// Judges models.
    Verifier(Verifier),
    /// Serves models.
    Host(Host),
    /// Relays to an agent.
    Agent(Agent),
}

/// How fast the node's engine is on this machine, multiply-adds a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// When training.
    pub train: u64,
    /// When answering.
    pub infer: u64,
}

impl Terminal {
    /// Opens what the options name.
    ///
    /// # Errors
    /// What makes it unusable.
    pub(crate) async fn open(options: TerminalOptions, state: &Path) -> Result<Self, Rejection> {
        let state = state.to_owned();
        Ok(match options {
            TerminalOptions::Dataset(options) => Self::Dataset(
                crate::durable::blocking(move || Dataset::open(*options, &state))
                    .await
                    .map(Box::new)?,
            ),
            TerminalOptions::Verifier(options) => {
                Self::Verifier(crate::durable::blocking(move || Verifier::open(options)).await?)
            }
            TerminalOptions::Compute(options) => Self::Compute(Compute::open(options)),
            TerminalOptions::Aggregator(options) => Self::Aggregator(Aggregator::open(options, &state)?),
            TerminalOptions::ModelHost(options) => Self::Host(Host::open(options)),
            TerminalOptions::Agent(options) => Self::Agent(Agent::open(&options).await?),
        })
    }

    /// What it tells others. Blocks for a moment.
    ///
    /// # Errors
    /// Where something that it needs cannot be read any more.
    pub(crate) fn body(&self, rates: Rates) -> Result<Body, Rejection> {
        Ok(match self {
            Self::Dataset(dataset) => Body::Dataset(Box::new(dataset.describe(rates.train)?)),
            Self::Compute(compute) => Body::Compute(compute.describe(rates.train)),
            Self::Aggregator(aggregator) => Body::Aggregator(aggregator.describe()),
            Self::Verifier(verifier) => Body::Verifier(verifier.describe()),
            Self::Host(host) => Body::ModelHost(host.describe(rates.infer)),
            Self::Agent(agent) => Body::Agent(Box::new(agent.describe())),
        })
    }

    async fn admit(
        &self,
        shared: &Shared,
        descriptor: &Descriptor,
        order: &WorkOrder,
    ) -> Result<Vec<String>, Rejection> {
        match (self, &order.instruction) {
            (Self::Dataset(dataset), Instruction::Train(train)) => {
                dataset.admit(shared, descriptor, train).await
            }
            (Self::Compute(compute), Instruction::Compute(order)) => compute.admit(shared, order),
            (Self::Aggregator(aggregator), Instruction::Conduct(conduct)) => {
                aggregator.admit(shared, order, conduct)
            }
            (Self::Verifier(verifier), Instruction::Verify(verify)) => verifier.admit(shared, verify),
            (Self::Host(host), Instruction::Serve(serve)) => host.admit(shared, serve),
            _ => Err(wrong_terminal(order)),
        }
    }
}

/// A terminal that is part of the node.
pub(crate) struct Attached {
    /// Its name.
    pub entity: EntityId,
    /// What it is.
    pub terminal: Terminal,
    /// What it has to do.
    pub load: Load,
    card: RwLock<(Descriptor, Signed<Descriptor>)>,
}

impl Attached {
    /// A terminal with its descriptor.
    #[must_use]
    pub(crate) fn new(terminal: Terminal, descriptor: Descriptor, signed: Signed<Descriptor>) -> Self {
        Self {
            entity: descriptor.entity.clone(),
            terminal,
            load: Load::default(),
            card: RwLock::new((descriptor, signed)),
        }
    }

    /// The descriptor in force.
    #[must_use]
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.card.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The descriptor in force, signed.
    #[must_use]
    pub(crate) fn signed(&self) -> Signed<Descriptor> {
        self.card.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Puts a new version in force.
    pub(crate) fn describe_anew(&self, descriptor: Descriptor, signed: Signed<Descriptor>) {
        *self.card.write().unwrap_or_else(PoisonError::into_inner) = (descriptor, signed);
    }

    /// Whether the terminal takes the order, and under which policies.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn admit(&self, shared: &Shared, order: &WorkOrder) -> Result<Vec<String>, Rejection> {
        self.terminal.admit(shared, &self.descriptor(), order).await
    }

    /// Begins, or after a restart resumes, what an accepted order asks for.
    pub(crate) async fn begin(self: &Arc<Self>, shared: &Arc<Shared>, known: &Arc<Decided>) {
        match (&self.terminal, &known.order.instruction) {
            (Terminal::Dataset(dataset), Instruction::Train(train)) => {
                dataset.resume(shared, known, train).await;
            }
            (Terminal::Aggregator(_), Instruction::Conduct(_)) => {
                Aggregator::begin(self, shared, known);
            }
            (Terminal::Verifier(_), Instruction::Verify(_)) => Verifier::begin(self, shared, known),
            (Terminal::Host(_), Instruction::Serve(_)) => Host::begin(self, shared, known),
            _ => {}
        }
    }

    /// Stops what an order began and forgets its working state.
    pub(crate) async fn halt(&self, shared: &Arc<Shared>, known: &Arc<Decided>) {
        match (&self.terminal, &known.order.instruction) {
            (Terminal::Dataset(dataset), Instruction::Train(train)) => {
                dataset.halt(shared, known, train).await;
            }
            (Terminal::Aggregator(aggregator), Instruction::Conduct(_)) => {
                aggregator.halt(shared, known).await;
            }
            (Terminal::Verifier(verifier), Instruction::Verify(_)) => verifier.halt(shared, known),
            (Terminal::Host(host), Instruction::Serve(serve)) => host.halt(shared, known, serve),
            _ => {}
        }
    }

    /// Makes room for another of its name: what goes on in tasks of its own ends, what is durable stays.
    pub(crate) async fn retire(&self, shared: &Arc<Shared>) {
        match &self.terminal {
            Terminal::Aggregator(aggregator) => aggregator.retire().await,
            Terminal::Verifier(verifier) => {
                for known in shared.orders.accepted(&self.entity) {
                    verifier.halt(shared, &known);
                }
            }
            _ => {}
        }
    }

    /// Its dynamic properties.
    #[must_use]
    pub(crate) fn telemetry(&self, now: UnixMillis) -> Telemetry {
        let (capacity, free_memory_bytes) = match &self.terminal {
            Terminal::Host(host) => (crate::limits::QUERIES_MAX, host.free_memory_bytes()),
            Terminal::Agent(_) => (crate::limits::AGENT_CALLS_MAX, 0),
            Terminal::Compute(compute) => (1, compute.free_memory_bytes()),
            Terminal::Dataset(_) | Terminal::Verifier(_) | Terminal::Aggregator(_) => (1, 0),
        };
        self.load
            .telemetry(&self.entity, now, capacity, free_memory_bytes)
    }
}

/// The terminals of a node, by name.
#[derive(Default)]
pub(crate) struct Terminals {
    attached: RwLock<BTreeMap<EntityId, Arc<Attached>>>,
}

impl Terminals {
    /// The terminal of this name.
    #[must_use]
    pub(crate) fn get(&self, entity: &EntityId) -> Option<Arc<Attached>> {
        self.attached
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(entity)
            .cloned()
    }

    /// All, by name.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Attached>> {
        self.attached
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Adds one, in the place of another of its name.
    pub(crate) fn insert(&self, attached: Arc<Attached>) {
        let mut all = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(attached.entity.clone(), attached);
    }

    /// Takes one out.
    pub(crate) fn remove(&self, entity: &EntityId) -> Option<Arc<Attached>> {
        self.attached
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(entity)
    }
}
