//! Verdicts and plans: what will be done where, in which order, at what predicted time, bytes and cost.

use crate::{
    ids::{ArtifactId, DecisionId, EntityId, NodeId, OrganisationId, PlanId},
    learning::{ModelSpec, Strategy},
    request::{PlanKind, TrainingRequest},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// It can be done like this.
    Feasible {
        /// How.
        plan: Box<Plan>,
    },
    /// It cannot be done as asked.
    Infeasible {
        /// The decision record of the verdict; none from a control center that did not tell it.
        #[serde(default)]
        decision: Option<DecisionId>,
        /// What stands against it.
        binding: Vec<Constraint>,
        /// The nearest request that would be feasible, where there is one.
        nearest: Option<Box<TrainingRequest>>,
        /// Every dataset that has the columns but does not qualify, with the reason.
        excluded: Vec<Exclusion>,
    },
}

/// A bound that a request runs into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Constraint {
    /// Which.
    pub name: ConstraintName,
    /// What the request needs.
    pub needed: f64,
    /// What there is.
    pub available: f64,
    /// In which unit: `sites`, `records`, `ms`, `bytes`, `micros`.
    pub unit: String,
    /// In words, with what would help.
    pub explanation: String,
}

/// The bounds that a request can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ConstraintName {
    /// No data with these columns.
    Schema,
    /// Policies leave too few sites.
    Policy,
    /// Too few sites that are online and reachable.
    Reachability,
    /// Too few sites.
    Sites,
    /// Too few records.
    Records,
    /// Not in time.
    Deadline,
    /// Too many bytes.
    Bytes,
    /// Too expensive.
    Cost,
    /// Too few verification units.
    Verifiers,
    /// Too few hosts.
    Hosts,
    /// No aggregator.
    Aggregator,
    /// Not enough memory or compute.
    Resources,
    /// The kind of plan and the strategy do not go together.
    Algorithm,
}

/// A dataset that was looked at and left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exclusion {
    /// Which.
    pub entity: EntityId,
    /// Under which bound it fell.
    pub constraint: ConstraintName,
    /// In words.
    pub reason: String,
    /// Determining policies, where a policy decided.
    #[serde(default)]
    pub policies: Vec<String>,
}

/// What will be done where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Its name.
    pub id: PlanId,
    /// The decision record of the verdict.
    pub decision: DecisionId,
    /// What was asked.
    pub request: TrainingRequest,
    /// When it was made.
    pub made_at: UnixMillis,
    /// Until when it can be applied.
    pub valid_until: UnixMillis,
    /// The version of the registry that it was made from: it is stale when that has moved.
    pub state_version: u64,
    /// Rounds, itinerary or hybrid.
    pub kind: PlanKind,
    /// How updates are combined.
    pub strategy: Strategy,
    /// Rounds or cycles.
    pub rounds: u32,
    /// The sites, in the order of their entity ids.
    pub sites: Vec<Site>,
    /// Each cycle runs the chains side by side, the sites (indices into `sites`) of one chain in order.
    pub chains: Vec<Vec<u32>>,
    /// Whether the order within a chain is shuffled anew each cycle (seeded), against recency.
    pub shuffle: bool,
    /// A cycle counts when this many sites' work is in it. So many that every site's policy permits the cohort.
    pub quorum: u32,
    /// Organisations besides the requester's that have work in every cycle, at least: what policies call the cohort.
    /// 1 where the model travels; 0, which no owner who asks for company permits, where an older version did not tell it.
    #[serde(default)]
    pub cohort: u32,
    /// Why the quorum is larger than was asked for: whose policies want it; empty: it is not.
    #[serde(default)]
    pub quorum_why: String,
    /// A cycle closes at the latest after this time.
    pub round_deadline_ms: u64,
    /// Who combines and drives.
    pub aggregator: Placement,
    /// Others that can take over, in order.
    pub aggregator_spares: Vec<Placement>,
    /// Who judges.
    pub verifiers: Vec<Placement>,
    /// Who will serve.
    pub hosts: Vec<Placement>,
    /// Looked at and left out.
    pub excluded: Vec<Exclusion>,
    /// What is expected.
    pub prediction: Prediction,
    /// Other ways that were considered, with what was expected of them.
    pub alternatives: Vec<Alternative>,
    /// Why this kind was chosen, in words.
    pub why: String,
}

impl Plan {
    /// The content address of the plan, for orders and provenance.
    #[must_use]
    pub fn hash(&self) -> ArtifactId {
        ArtifactId::of(&crate::encoding::encode(self))
    }
    /// The model that sites build.
    #[must_use]
    pub fn model_spec(&self) -> ModelSpec {
        self.request.model_spec()
    }
}

/// A terminal that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// Which terminal.
    pub entity: EntityId,
    /// On which node.
    pub node: NodeId,
}

/// A dataset that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Site {
    /// Which dataset.
    pub dataset: EntityId,
    /// The descriptor version that was agreed to.
    pub descriptor_version: u64,
    /// The node that holds the data.
    pub node: NodeId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// The compute facility that trains, where it is not the node itself.
    #[serde(default)]
    pub compute: Option<Placement>,
    /// Records that are expected to be used.
    pub records: u64,
    /// Policies that permit it.
    pub policies: Vec<String>,
    /// Predicted time of one round's local work, milliseconds.
    pub train_ms: u64,
    /// Predicted time to move the model to it, milliseconds.
    pub transfer_ms: u64,
}

/// What is expected of a plan: kept beside what then happened.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prediction {
    /// Lower end of the time, milliseconds.
    pub ms_low: u64,
    /// Expected time, milliseconds.
    pub ms: u64,
    /// Upper end of the time, milliseconds.
    pub ms_high: u64,
    /// Bytes moved between nodes.
    pub bytes: u64,
    /// Price in micro-units.
    pub cost_micros: u64,
    /// Share of the centralised quality that the kind is expected to reach on data as skewed as this, 0 to 1.
    pub quality: f64,
    /// How skewed the labels are: 0 is the same mix everywhere, 1 is one class a site. What is assumed, where too few
    /// owners tell their label shares.
    pub skew: f64,
}

/// A way that was considered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alternative {
    /// Which kind.
    pub kind: PlanKind,
    /// With which strategy.
    pub strategy: Strategy,
    /// What was expected.
    pub prediction: Prediction,
    /// Why it was not chosen; empty for the chosen one.
    pub why_not: String,
}
