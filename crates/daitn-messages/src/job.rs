//! A training job and a deployment as others see them: phases, events, views. The state machines that move them live
//! in the control center.

use crate::{
    ids::{ArtifactId, DecisionId, DeploymentId, EntityId, JobId, NodeId, OrganisationId},
    learning::ModelVersion,
    plan::{Plan, Prediction},
    receipt::VerificationReport,
    rejection::Rejection,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Where a job is. The last four are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JobPhase {
    /// Orders are out; sites look at their policies.
    Preparing,
    /// Cycles run.
    Training,
    /// Verification units judge.
    Verifying,
    /// The model is registered and on its way to hosts.
    Deploying,
    /// All done.
    Succeeded,
    /// Verification did not reach the target: nothing was registered.
    NotVerified,
    /// It could not be done; the cause says why.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl JobPhase {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::NotVerified | Self::Failed | Self::Stopped
        )
    }
}

/// A job as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// Who asked.
    pub organisation: OrganisationId,
    /// Where it is.
    pub phase: JobPhase,
    /// Raised with every new conductor.
    pub epoch: u64,
    /// What is done.
    pub plan: Plan,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// Why it ended as it did, unless it succeeded.
    pub cause: Option<Rejection>,
    /// Each closed cycle.
    pub cycles: Vec<CycleView>,
    /// Sites that refused or were left out, with the reason and the cycle (none: before the first).
    pub left_out: Vec<LeftOut>,
    /// Reports of verification units.
    pub reports: Vec<(EntityId, VerificationReport)>,
    /// The model that came out.
    pub model: Option<ModelVersion>,
    /// Its deployment.
    pub deployment: Option<DeploymentId>,
    /// What then happened, beside the plan's prediction.
    pub actual: Actual,
    /// What it waits for that may never come; none: it goes on by itself.
    #[serde(default)]
    pub waiting: Option<Waiting>,
}

/// What a process waits for that may never come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Waiting {
    /// For what, in words.
    pub reason: String,
    /// Since when.
    pub since: UnixMillis,
    /// Until when, then it does without or ends; none: until it comes or somebody stops the process.
    pub until: Option<UnixMillis>,
}

/// A closed cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CycleView {
    /// Which, from 0.
    pub cycle: u32,
    /// Mean training loss.
    pub loss: f64,
    /// Sites in it.
    pub n_sites: u32,
    /// Examples in it, rounded to tens: cycles with and without a site must not tell its exact count.
    pub n_examples: u64,
    /// Its time, milliseconds.
    pub cycle_ms: f64,
    /// The slowest chain's own training in it, milliseconds.
    pub train_ms: f64,
    /// Bytes moved.
    pub bytes: u64,
    /// Hash of the combined weights.
    pub global: ArtifactId,
}

/// A site that was left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftOut {
    /// Which.
    pub dataset: EntityId,
    /// From which cycle, from 0; none: before the first.
    pub cycle: Option<u32>,
    /// Up to which cycle without a break, where that is a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cycle: Option<u32>,
    /// Why, as told first.
    pub reason: Rejection,
}

impl LeftOut {
    /// Whether it is the same site for the same kind of reason.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.dataset == other.dataset && self.reason.code == other.reason.code
    }
}

/// What happened, to be held against the prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Actual {
    /// From acceptance until all sites had answered, milliseconds.
    pub preparing_ms: u64,
    /// Training, milliseconds.
    pub training_ms: u64,
    /// Verification, milliseconds.
    pub verifying_ms: u64,
    /// Registration and deployment, milliseconds.
    pub deploying_ms: u64,
    /// Bytes moved while training.
    pub bytes: u64,
}

/// A line of a job's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSummary {
    /// Its name.
    pub id: JobId,
    /// What it makes.
    pub model: String,
    /// Who asked.
    pub organisation: OrganisationId,
    /// Where it is.
    pub phase: JobPhase,
    /// Cycles closed.
    pub cycles_done: u32,
    /// Cycles planned.
    pub cycles: u32,
    /// When it was accepted.
    pub accepted_at: UnixMillis,
}

/// What happened to a job, as streamed to who watches it. A late watcher first gets the newest view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum JobEvent {
    /// The whole view, first of all.
    View {
        /// The job.
        job: Box<JobView>,
    },
    /// A new phase.
    Phase {
        /// Which.
        phase: JobPhase,
        /// When.
        at: UnixMillis,
    },
    /// A closed cycle.
    Cycle {
        /// It.
        cycle: CycleView,
    },
    /// A site was left out.
    LeftOut {
        /// Which and why.
        left_out: LeftOut,
    },
    /// A verification unit reported.
    Report {
        /// Which unit.
        unit: EntityId,
        /// What it found.
        report: Box<VerificationReport>,
    },
    /// A new conductor took over.
    Conductor {
        /// Its node.
        node: NodeId,
        /// The new epoch.
        epoch: u64,
    },
    /// It waits for something that may never come, or (none) it no longer does.
    Waiting {
        /// For what.
        waiting: Option<Waiting>,
    },
}

/// Where a deployment is. The last two are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentPhase {
    /// Hosts fetch and load.
    Placing,
    /// As many replicas as asked for are ready.
    Ready,
    /// Fewer replicas than asked for are ready; the center tries to place more.
    Degraded,
    /// Somebody stopped it, or a newer one took its place.
    Stopped,
    /// No host could serve.
    Failed,
}

/// A deployment as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentView {
    /// Its name.
    pub id: DeploymentId,
    /// What is served.
    pub model: ModelVersion,
    /// Where it is.
    pub phase: DeploymentPhase,
    /// How many replicas were asked for.
    pub replicas: u32,
    /// Where it runs, and whether each is ready.
    pub hosts: Vec<(EntityId, NodeId, bool)>,
    /// Why it failed.
    pub cause: Option<Rejection>,
    /// What it waits for, where it has fewer replicas than were asked for.
    #[serde(default)]
    pub waiting: Option<Waiting>,
}

/// A decision, as `daitn explain` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionRecord {
    /// Its name.
    pub id: DecisionId,
    /// When it was made.
    pub at: UnixMillis,
    /// What was decided: `verdict`, `conductor`, `verification`, `placement`, `enrolment`, `policy`.
    pub kind: String,
    /// About what, by id.
    pub subject: String,
    /// The outcome in one line.
    pub outcome: String,
    /// The reasons, one a line.
    pub reasons: Vec<String>,
    /// Candidates that were looked at: who, whether chosen, why or why not.
    pub candidates: Vec<Candidate>,
    /// What was predicted, where that was part of it.
    pub prediction: Option<Prediction>,
}

/// One that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    /// Who or what.
    pub name: String,
    /// Whether it was taken.
    pub chosen: bool,
    /// Why or why not.
    pub reason: String,
    /// Determining policies.
    #[serde(default)]
    pub policies: Vec<String>,
}
