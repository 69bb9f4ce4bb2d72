//! Receipts: a terminal's signed statement of what it did: hashes in, hashes out, under which policy.

use crate::{
    ids::{ArtifactId, EntityId, JobId, NodeId, OrderId},
    learning::{Evaluation, Metric},
    rejection::Rejection,
    session::ArtifactRef,
    signed::{Signed, Statement},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// What a terminal did about an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// About which order.
    pub order: OrderId,
    /// Of which job.
    pub job: Option<JobId>,
    /// The order's epoch.
    pub epoch: u64,
    /// Who did it.
    pub node: NodeId,
    /// With which terminal.
    pub terminal: EntityId,
    /// When, by the node's clock.
    pub at: UnixMillis,
    /// What came of it.
    pub outcome: Outcome,
}

impl Statement for Receipt {
    const CONTEXT: &'static str = "daitn/v1/receipt";
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The terminal will do it.
    Accepted {
        /// Policies that permit it at the node.
        policies: Vec<String>,
    },
    /// The terminal will not do it, or could not.
    Refused(Rejection),
    /// A dataset terminal did one training step.
    Trained(Trained),
    /// An aggregator closed a cycle.
    Cycle(Box<CycleReport>),
    /// An aggregator ended the job's training.
    TrainingDone(TrainingDone),
    /// An aggregator could not go on with the job's training.
    TrainingFailed(Box<TrainingFailed>),
    /// A verification unit judged.
    Verified(Box<VerificationReport>),
    /// A model host serves.
    Serving,
    /// The terminal stopped what the order began.
    Stopped,
}

/// One training step of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// In which cycle, from 0.
    pub cycle: u32,
    /// The weights it began from.
    pub input: ArtifactId,
    /// The weights it ended with.
    pub output: ArtifactRef,
    /// SCAFFOLD's change of the control variate.
    #[serde(default)]
    pub control: Option<ArtifactRef>,
    /// Examples used.
    pub examples: u64,
    /// Optimiser steps taken.
    pub steps: u64,
    /// Mean loss over the last local epoch.
    pub loss: f64,
    /// Time of the local work alone, milliseconds.
    pub train_ms: f64,
    /// Policies that permitted it, evaluated at the node for this job.
    pub policies: Vec<String>,
}

/// A closed cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleReport {
    /// Which, from 0.
    pub cycle: u32,
    /// Receipts of the sites whose work is in the result.
    pub contributions: Vec<Signed<Receipt>>,
    /// Sites that are not in it, by their index in the plan, with the reason.
    pub left_out: Vec<(u32, Rejection)>,
    /// The combined weights.
    pub global: ArtifactRef,
    /// The conductor's state from which a successor can go on.
    pub state: ArtifactRef,
    /// Nodes that have the state.
    pub holders: Vec<NodeId>,
    /// Mean training loss over the sites, weighted by examples.
    pub loss: f64,
    /// Time of the cycle, milliseconds.
    pub cycle_ms: f64,
    /// Time of the slowest chain's own training in it, milliseconds.
    pub train_ms: f64,
    /// Bytes of artifacts moved in it.
    pub bytes: u64,
}

/// The end of a job's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingDone {
    /// Cycles that were closed.
    pub cycles: u32,
    /// The final weights.
    pub weights: ArtifactRef,
}

/// Why a job's training cannot go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingFailed {
    /// In which cycle, from 0.
    pub cycle: u32,
    /// Why.
    pub reason: Rejection,
    /// Sites that were not in that cycle, by their index in the plan, with the reason.
    pub left_out: Vec<(u32, Rejection)>,
}

/// What a verification unit found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerificationReport {
    /// The weights that were judged.
    pub weights: ArtifactId,
    /// What was found.
    pub evaluation: Evaluation,
    /// What was measured against the target.
    pub metric: Metric,
    /// The target.
    pub target: f64,
    /// Whether it was reached.
    pub reached: bool,
}
