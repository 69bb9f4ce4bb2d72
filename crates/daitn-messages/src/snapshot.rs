//! The topology snapshot for queries (QRRT): what gateways decide from, pushed to them whenever it changes.

use crate::{
    descriptor::Telemetry,
    ids::{ArtifactId, DeploymentId, EntityId, NodeId, OrganisationId},
    learning::{ModelSpec, ModelVersion},
    operation::{Principal, Scope},
    policy::PolicyAnswer,
    rejection::{Code, Rejection},
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
    /// Models of which no version has a ready replica, by name: what a query of them is told.
    #[serde(default)]
    pub unserved: Vec<UnservedModel>,
    /// Agents that can be called.
    pub agents: Vec<RoutedAgent>,
    /// API keys that are in force, hashed.
    pub keys: Vec<KeyEntry>,
    /// Nodes with a model host or an agent, sorted: they keep a connection to each gateway, so that it reaches them
    /// behind NAT, and nobody else is let in.
    #[serde(default)]
    pub hosts: Vec<NodeId>,
}

/// An API key as a gateway knows it: enough to recognise it, not enough to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// BLAKE3 of the key's secret text (256 random bits, so that a plain hash is enough).
    pub hash: ArtifactId,
    /// Who asks with it.
    pub principal: Principal,
}

/// Which organisations may query a model or call an agent, as the control center has evaluated the policies. Made again
/// whenever a policy, an entity or the organisations with keys change, never for a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// Whether an organisation that is not named below may.
    pub others: bool,
    /// Organisations for which a policy decided, or for which it is otherwise than for others. Sorted.
    pub named: Vec<(OrganisationId, PolicyAnswer)>,
}

impl Access {
    /// Everybody may.
    #[must_use]
    pub fn open() -> Self {
        Self {
            others: true,
            named: Vec::new(),
        }
    }

    /// Whether whoever asks may query this. A key that acts for every organisation of the domain needs no permit; a
    /// policy that forbids holds for it as well.
    ///
    /// # Errors
    /// [`Code::PolicyForbids`] with the determining policies and what would help.
    pub fn check(&self, principal: &Principal, what: &EntityId) -> Result<(), Rejection> {
        let who = &principal.organisation;
        let named = self
            .named
            .binary_search_by(|(organisation, _)| organisation.cmp(who))
            .ok()
            .map(|place| &self.named[place].1);
        if named.map_or(self.others, |answer| answer.allowed) {
            return Ok(());
        }
        let determining = named.map(|answer| answer.determining.clone()).unwrap_or_default();
        let errors = named.map(|answer| answer.errors.join("; ")).unwrap_or_default();
        if principal.scopes.contains(&Scope::Admin) && determining.is_empty() && errors.is_empty() {
            return Ok(());
        }
        let why = match (determining.is_empty(), errors.is_empty()) {
            (true, true) => format!("no policy permits {who} to query {what}"),
            (true, false) => format!("a policy on {what} could not be evaluated: {errors}"),
            (false, _) => format!(
                "a policy forbids {who} to query {what}: {}",
                determining.join(", ")
            ),
        };
        let hint = format!(
            "Ask {} for a policy of the model that permits the action `query`, or the operator for one of the domain's; \
             try it with: daitn policy can {who} query {what}",
            what.organisation
        );
        let mut rejection = Rejection::new(Code::PolicyForbids, why).with_hint(hint);
        rejection.policies = determining;
        Err(rejection)
    }
}

/// A model with its replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Name and version.
    pub model: ModelVersion,
    /// Whether this version answers when a query names no version.
    pub default_version: bool,
    /// The newest version that is registered under the name, served or not; zero where the control center does not say.
    #[serde(default)]
    pub newest: u32,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// How it is fed and what it answers.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ArtifactId,
    /// Who may query it. Nobody where the control center does not say.
    #[serde(default)]
    pub access: Access,
    /// Where it runs.
    pub replicas: Vec<Replica>,
}

/// A model that is registered, and none of whose versions is served now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnservedModel {
    /// Name and version: the one that is being deployed, or else the newest.
    pub model: ModelVersion,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Who may query it, and so may know of it. Nobody where the control center does not say.
    #[serde(default)]
    pub access: Access,
    /// What it waits for, in words.
    pub why: String,
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
    /// Who may call it. Nobody where the control center does not say.
    #[serde(default)]
    pub access: Access,
}
