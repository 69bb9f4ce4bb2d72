//! Work orders: instructions to a terminal, signed by the control center.
//!
//! An order names the node and the terminal that it is for, expires, and carries the epoch of its process: when the
//! center replaces an order it raises the epoch, and older ones are refused. Orders are delivered at least once; a
//! node recognises a repeated one by its id.

use crate::{
    ids::{ArtifactId, DeploymentId, EntityId, JobId, NodeId, OrderId, OrganisationId},
    learning::{LocalTraining, Metric, ModelSpec, ModelVersion, Strategy},
    plan::Plan,
    policy::UseContext,
    session::{ArtifactRef, Peer},
    signed::Statement,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// An instruction to one terminal on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// Its name: a node acts on it once.
    pub id: OrderId,
    /// The job that it serves; none for a deployment that was asked for by itself.
    pub job: Option<JobId>,
    /// Fences: a node refuses an order of a process whose epoch is lower than one that it has seen.
    pub epoch: u64,
    /// For which node.
    pub node: NodeId,
    /// For which terminal of it.
    pub terminal: EntityId,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// Not to be begun after this.
    pub expires_at: UnixMillis,
    /// What is to be done.
    pub instruction: Instruction,
}

impl Statement for WorkOrder {
    const CONTEXT: &'static str = "daitn/v1/work-order";
}

/// What a terminal is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instruction {
    /// To a dataset terminal: train whenever the conductor asks.
    Train(Box<TrainOrder>),
    /// To a compute facility: train for a dataset's node whenever it asks.
    Compute(Box<ComputeOrder>),
    /// To an aggregator: drive the job's cycles.
    Conduct(Box<ConductOrder>),
    /// To a verification unit: judge a model.
    Verify(Box<VerifyOrder>),
    /// To a model host: load a model and serve it.
    Serve(Box<ServeOrder>),
    /// To any terminal: stop what this order began and forget its working state.
    Stop {
        /// The order to stop.
        order: OrderId,
    },
}

/// Take part in a job with a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainOrder {
    /// The organisation that the model is trained for.
    pub requester: OrganisationId,
    /// With which dataset.
    pub dataset: EntityId,
    /// The descriptor version that the plan agreed to: another one is refused.
    pub descriptor_version: u64,
    /// The circumstances, for the owner's policy.
    pub context: UseContext,
    /// Hash of the plan.
    pub plan: ArtifactId,
    /// How to build and feed the model.
    pub spec: ModelSpec,
    /// What to do in each cycle.
    pub local: LocalTraining,
    /// How updates are combined: decides the local rule (proximal term, control variates).
    pub strategy: Strategy,
    /// At most this many cycles.
    pub cycles: u32,
    /// The place of this dataset in the plan's `sites`.
    pub position: u32,
    /// Who may ask for training steps.
    pub conductor: Peer,
    /// Who may fetch this site's updates: the conductor, and in a chain the other sites.
    pub peers: Vec<Peer>,
    /// The facility that trains, where it is not the node itself. Refused unless the descriptor names it.
    #[serde(default)]
    pub compute: Option<Peer>,
    /// Which facility that is: the owner's configuration allows facilities by this name.
    #[serde(default)]
    pub compute_entity: Option<EntityId>,
}

/// Train for a dataset's node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeOrder {
    /// The dataset's node, which will ask.
    pub client: Peer,
    /// For which dataset.
    pub dataset: EntityId,
    /// How to build and feed the model.
    pub spec: ModelSpec,
}

/// Drive the cycles of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConductOrder {
    /// What is to be done where.
    pub plan: Plan,
    /// Indices into the plan's `sites` that have accepted; others are left out.
    pub accepted: Vec<u32>,
    /// How to reach the sites.
    pub peers: Vec<Peer>,
    /// Where to begin, if not at the first cycle.
    pub resume: Option<Resume>,
    /// Who else keeps the state after each cycle, so that it can take over.
    pub spares: Vec<Peer>,
    /// Who may fetch the final model: verification units and hosts.
    pub readers: Vec<NodeId>,
}

/// Where a replaced conductor stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// This many cycles are complete.
    pub cycles_done: u32,
    /// The conductor's state after them.
    pub state: ArtifactRef,
    /// Who has it.
    pub holders: Vec<Peer>,
}

/// Judge a model on the private hold-out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyOrder {
    /// How to build and feed the model.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ArtifactRef,
    /// Who has them.
    pub holders: Vec<Peer>,
    /// What is measured.
    pub metric: Metric,
    /// The value to reach.
    pub target: f64,
    /// Who may fetch the weights from this unit afterwards.
    pub readers: Vec<NodeId>,
}

/// Load a model and serve it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServeOrder {
    /// Of which deployment this is a replica.
    pub deployment: DeploymentId,
    /// What clients call it.
    pub model: ModelVersion,
    /// How to build and feed it.
    pub spec: ModelSpec,
    /// Its weights: the host refuses others.
    pub weights: ArtifactRef,
    /// Who has them.
    pub holders: Vec<Peer>,
    /// Gateways that may send queries.
    pub gateways: Vec<NodeId>,
    /// Other hosts that may fetch the weights from this one.
    pub readers: Vec<NodeId>,
}
