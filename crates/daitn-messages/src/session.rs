//! The data plane's sessions: what terminals and gateways say to each other directly.
//!
//! A session is one bidirectional stream: a request frame, then bytes where the request says so; a reply frame, then
//! bytes where the reply says so. Nothing of this passes the control center.

use crate::{
    ids::{ArtifactId, DecisionId, EntityId, JobId, NodeId, OrderId},
    learning::{LocalTraining, ModelVersion, Strategy},
    receipt::Receipt,
    rejection::Rejection,
    signed::Signed,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Whom.
    pub node: NodeId,
    /// Where it listens, as far as known; empty: only by relay or by its own outward connection.
    pub addresses: Vec<SocketAddr>,
    /// URL of the relay that it keeps a connection to.
    pub relay: Option<String>,
}

/// An artifact with its size, so that the receiver can bound what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Its hash.
    pub id: ArtifactId,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The first frame of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionRequest {
    /// Conductor to site: do one training step.
    Train(TrainStep),
    /// Conductor to spare: fetch and keep this state.
    Keep(KeepState),
    /// Dataset node to compute facility: train on the table that follows as bytes.
    Compute(Box<ComputeStep>),
    /// Gateway to model host: answer the query whose input follows as bytes.
    Infer(InferQuery),
    /// Gateway to agent host: relay the HTTP request whose body follows as bytes.
    Agent(AgentCall),
    /// Model host to who has the weights: let me fetch them. The center's signed order to serve them follows as a frame,
    /// by which their holder knows a host that it was not told of.
    Present {
        /// The weights.
        weights: ArtifactId,
    },
}

/// One training step of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainStep {
    /// The conductor's work order, for the record.
    pub order: OrderId,
    /// The job.
    pub job: JobId,
    /// The place of the dataset in the plan's `sites`: with the job it names the site's own order.
    #[serde(default)]
    pub position: u32,
    /// The conductor's epoch: older ones are refused.
    pub epoch: u64,
    /// Which cycle, from 0.
    pub cycle: u32,
    /// The weights to begin from.
    pub input: ArtifactRef,
    /// SCAFFOLD's global control variate.
    pub control: Option<ArtifactRef>,
    /// Who has them, best first: the conductor, or the site before this one in the chain.
    pub holders: Vec<Peer>,
    /// One more than the last cycle whose result has this site's work in it; zero: none has; absent: not known. SCAFFOLD's
    /// own variate is the one after that cycle: what a step made that was not counted has not happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_cycles: Option<u32>,
}

/// Keep a conductor's state. A frame follows: the conductor's signed work order, by which a spare knows that it is one,
/// or nothing once the spare has seen it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepState {
    /// The job.
    pub job: JobId,
    /// The conductor's epoch.
    pub epoch: u64,
    /// The state.
    pub state: ArtifactRef,
    /// Who has it.
    pub holders: Vec<Peer>,
}

/// A training step on a compute facility. The table follows: features row by row, then targets, little-endian f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeStep {
    /// The work order of the dataset's node, for the record.
    pub order: OrderId,
    /// The job and the dataset: with the node that asks they name the facility's own order.
    #[serde(default)]
    pub job: Option<JobId>,
    /// See `job`.
    #[serde(default)]
    pub dataset: Option<EntityId>,
    /// Rows of the table.
    pub n_rows: u32,
    /// What to do; its seed is the step's own.
    pub local: LocalTraining,
    /// The local rule.
    pub strategy: Strategy,
    /// Length of the flat parameter vector. It precedes the table, followed for SCAFFOLD by c and c_k.
    pub n_parameters: u64,
}

/// One query. The input follows: `n_rows` × number of features, little-endian f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InferQuery {
    /// Which model.
    pub model: ModelVersion,
    /// How many rows.
    pub n_rows: u32,
    /// The gateway's decision, for the record.
    pub decision: DecisionId,
}

/// One call of an agent over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentCall {
    /// Which agent.
    pub agent: EntityId,
    /// HTTP method: GET or POST.
    pub method: String,
    /// Headers to pass on, names in lower case; credentials of the gateway's client are not among them.
    pub headers: Vec<(String, String)>,
    /// Length of the body that follows, bytes.
    pub body_bytes: u64,
    /// The gateway's decision, for the record.
    pub decision: DecisionId,
}

/// The reply frame of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionReply {
    /// The step is done; the receipt holds what was trained.
    Trained(Signed<Receipt>),
    /// The state is kept, durably.
    Kept,
    /// The weights may be fetched.
    Permitted,
    /// The new parameters follow (and for SCAFFOLD c_k), little-endian f32.
    Computed {
        /// Optimiser steps taken.
        steps: u64,
        /// Mean loss over the last epoch.
        loss: f64,
        /// Time of the work alone, milliseconds.
        train_ms: f64,
    },
    /// The outputs follow: `n_rows` × number of outputs, little-endian f32: probabilities for a classification,
    /// values for a regression.
    Inferred {
        /// How many rows.
        n_rows: u32,
        /// Time in the host, microseconds.
        host_micros: u64,
        /// Sessions in flight on the host after this one, for the gateway's choice.
        in_flight: u32,
    },
    /// The agent answers; the body follows until the stream ends.
    Agent {
        /// HTTP status.
        status: u16,
        /// Headers to pass on, names in lower case.
        headers: Vec<(String, String)>,
    },
    /// Not done.
    Refused(Rejection),
}
