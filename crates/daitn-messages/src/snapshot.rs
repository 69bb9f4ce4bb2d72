//! The topology snapshot for queries (QRRT): what gateways decide from, pushed to them whenever it changes.

use crate::{
    descriptor::Telemetry,
    ids::{ArtifactId, DeploymentId, EntityId, NodeId, OrganisationId},
    learning::{ModelSpec, ModelVersion},
    operation::Principal,
    session::Peer,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Everything a gateway needs to route without asking.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with every change.
    pub version: u64,
    /// When it was made.
    pub made_at: UnixMillis,
    /// Models that are served, by name and version.
    pub models: Vec<ServedModel>,
    /// Agents that can be called.
    pub agents: Vec<RoutedAgent>,
    /// API keys that are in force, hashed.
    pub keys: Vec<KeyEntry>,
}

/// An API key as a gateway knows it: enough to recognise it, not enough to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// BLAKE3 of the key's secret text (256 random bits, so that a plain hash is enough).
    pub hash: ArtifactId,
    /// Who asks with it.
    pub principal: Principal,
}

/// A model with its replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Name and version.
    pub model: ModelVersion,
    /// Whether this version answers when a query names no version.
    pub default_version: bool,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// How it is fed and what it answers.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ArtifactId,
    /// Where it runs.
    pub replicas: Vec<Replica>,
}

/// One replica that is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Of which deployment.
    pub deployment: DeploymentId,
    /// On which host.
    pub host: EntityId,
    /// On which node, and how to reach it.
    pub peer: Peer,
    /// The host's newest telemetry.
    pub telemetry: Option<Telemetry>,
}

/// An agent behind a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutedAgent {
    /// Which.
    pub agent: EntityId,
    /// How to reach its node.
    pub peer: Peer,
    /// Its origin's card, byte for byte.
    pub card: String,
    /// Whether it streams.
    pub streaming: bool,
    /// The node that holds it.
    pub node: NodeId,
}
