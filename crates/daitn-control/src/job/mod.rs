//! The state machine of a training job. Pure: what happens goes in, what is to be done comes out.
//!
//! ```text
//!               accepted sites >= quorum      last cycle       k of n units agree      replicas ready
//!   Preparing ──────────────────────▶ Training ─────▶ Verifying ───────────▶ Deploying ─────▶ Succeeded
//!       │                              ▲    │             │ │                    │
//!       │                              └────┘             │ └──▶ NotVerified     │
//!       │                        new conductor, epoch + 1 │                      │
//!       └──────────────────────────────┴──────────────────┴──────────────────────┴──▶ Failed, Stopped
//! ```
//!
//! Each deadline follows from the state (see [`Job::next_wake`]), so that a restart of the center needs no timers on
//! disk. Whoever wakes a job too early does no harm.

mod conduct;
mod gather;
mod prepare;
mod settle;
mod sites;
mod verify;
mod waiting;

pub(crate) use sites::{Answer, Site, Sites};

use crate::{
    core::{CycleRecord, Decision, Nodes, OrderDraft, OrderKind},
    entropy::Entropy,
    limits::{READERS_MAX, Timing},
};
use daitn_messages::{
    descriptor::ModelBody,
    ids::{
        ArtifactId, DeploymentId, EntityId, EntityKind, JobId, NodeId, OrderId, OrganisationId, PlanId, Slug,
    },
    job::{Actual, DeploymentPhase, JobEvent, JobPhase, LeftOut},
    learning::ModelVersion,
    plan::{Placement, Plan},
    receipt::{Receipt, VerificationReport},
    rejection::{Code, Rejection},
    session::ArtifactRef,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A job but for its plan, its sites' answers and its cycles, which are kept apart since they are many.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) organisation: OrganisationId,
    pub(crate) plan: PlanId,
    /// What the plan says, for lists of jobs that are read without their plans.
    pub(crate) name: Slug,
    pub(crate) rounds: u32,
    pub(crate) phase: JobPhase,
    pub(crate) phase_since: UnixMillis,
    /// Raised with every conductor.
    pub(crate) epoch: u64,
    pub(crate) accepted_at: UnixMillis,
    pub(crate) ended_at: Option<UnixMillis>,
    pub(crate) cause: Option<Rejection>,
    /// In the order of the plan's sites.
    #[serde(skip)]
    pub(crate) sites: Sites,
    /// Present while the sites' answers are waited for.
    pub(crate) gathering: Option<Gathering>,
    pub(crate) conductor: Option<Conductor>,
    /// Since when there has been neither a conductor nor one to come.
    pub(crate) stranded_since: Option<UnixMillis>,
    pub(crate) n_conductors: u32,
    /// Sites without which the last conductor could not go on.
    #[serde(default)]
    pub(crate) failed_without: Vec<LeftOut>,
    /// Conductors that would not or could not.
    pub(crate) conductors_out: Vec<(EntityId, Rejection)>,
    pub(crate) resume: Option<Point>,
    pub(crate) weights: Option<ArtifactRef>,
    /// In the order of the plan's verifiers, then those that took another's place.
    pub(crate) units: Vec<Unit>,
    /// Units that may take the place of one that is lost: the conductor lets them fetch the weights.
    #[serde(default)]
    pub(crate) spare_units: Vec<Placement>,
    /// Until when units, or hosts, must have answered.
    pub(crate) deadline: Option<UnixMillis>,
    pub(crate) model: Option<ModelVersion>,
    pub(crate) deployment: Option<DeploymentId>,
    pub(crate) actual: Actual,
}

/// The sites' answers are waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gathering {
    pub(crate) deadline: UnixMillis,
    /// Who will conduct.
    pub(crate) conductor: Placement,
}

/// Who conducts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conductor {
    pub(crate) placement: Placement,
    pub(crate) order: OrderId,
    /// When it last reported, or was appointed.
    pub(crate) heard_at: UnixMillis,
}

/// From where another conductor can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) cycles_done: u32,
    pub(crate) global: ArtifactRef,
    pub(crate) state: ArtifactRef,
    pub(crate) holders: Vec<NodeId>,
}

/// A verification unit of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) placement: Placement,
    pub(crate) order: Option<OrderId>,
    pub(crate) attempts: u32,
    pub(crate) finding: Finding,
    /// Another one was asked in its place.
    #[serde(default)]
    pub(crate) replaced: bool,
}

/// What a unit said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Finding {
    Waiting,
    Refused(Rejection),
    Reported {
        receipt: ArtifactId,
        report: Box<VerificationReport>,
    },
}

/// What happens to a job.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// It was accepted.
    Begin,
    /// A terminal answered an order.
    Receipt {
        kind: OrderKind,
        receipt: &'a Receipt,
        hash: ArtifactId,
    },
    /// A node came or went, or a deadline may have passed.
    Review,
    /// A node was thrown out of the domain.
    Revoked(NodeId),
    /// Somebody stopped it.
    Stop { by: &'a str },
    /// Policies do not permit it any more.
    Forbidden(Rejection),
    /// The model was registered.
    Registered(ModelVersion),
    /// The model's deployment moved.
    Deployed {
        phase: DeploymentPhase,
        n_ready: usize,
        cause: Option<Rejection>,
    },
}

/// What a job wants.
#[derive(Debug)]
pub(crate) enum Output {
    /// Sign and send an order.
    Order(Box<OrderDraft>),
    /// End an order at its terminal.
    Cancel(OrderId),
    /// An order was answered and need not be sent again.
    Settle(OrderId),
    /// A site's answer is to be kept.
    KeepSite(u32),
    /// A closed cycle is to be kept.
    KeepCycle(Box<CycleRecord>),
    /// A receipt is to be witnessed, and known when it comes again.
    WitnessReceipt(OrderId, ArtifactId),
    /// A site's receipt within a cycle's report is to be witnessed.
    WitnessContribution(OrderId, ArtifactId),
    /// A verification report is to be witnessed.
    WitnessReport(EntityId, ArtifactId),
    /// Tell the watchers.
    Event(JobEvent),
    /// A decision was made.
    Decide(Decision),
    /// The model is verified: register it.
    Register(Box<ModelBody>),
    /// Deploy the model.
    Deploy,
}

/// What a job may look at while it moves.
pub(crate) struct Step<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) timing: &'a Timing,
    pub(crate) plan: &'a Plan,
    pub(crate) plan_hash: ArtifactId,
    pub(crate) nodes: &'a Nodes,
    pub(crate) cycles: &'a BTreeMap<u32, CycleRecord>,
    /// Units that could judge besides the plan's, best first.
    pub(crate) spare_units: &'a dyn Fn() -> Vec<Placement>,
    /// Whether policies let a unit judge for the job's requester now.
    pub(crate) may_evaluate: &'a dyn Fn(&EntityId) -> bool,
    pub(crate) entropy: &'a mut Entropy,
    pub(crate) out: Vec<Output>,
}

impl Step<'_> {
    fn new_order_id(&mut self) -> OrderId {
        OrderId::new(self.now.0, self.entropy.bytes())
    }

    /// Nodes that may fetch the final weights besides the verification units: those that could serve them.
    fn readers(&self) -> Vec<NodeId> {
        self.nodes
            .with_kind(EntityKind::ModelHost)
            .map(|node| node.record.node)
            .take(READERS_MAX)
            .collect()
    }

    fn order(&mut self, draft: OrderDraft) {
        self.out.push(Output::Order(Box::new(draft)));
    }
}

impl Job {
    pub(crate) fn new(id: JobId, organisation: OrganisationId, plan: &Plan, now: UnixMillis) -> Self {
        Self {
            id,
            organisation,
            plan: plan.id.clone(),
            name: plan.request.model.clone(),
            rounds: plan.rounds,
            phase: JobPhase::Preparing,
            phase_since: now,
            epoch: 0,
            accepted_at: now,
            ended_at: None,
            cause: None,
            sites: Sites::new(plan.sites.len()),
            gathering: None,
            conductor: None,
            stranded_since: None,
            n_conductors: 0,
            failed_without: Vec::new(),
            conductors_out: Vec::new(),
            resume: None,
            weights: None,
            units: Vec::new(),
            spare_units: Vec::new(),
            deadline: None,
            model: None,
            deployment: None,
            actual: Actual::default(),
        }
    }

    /// Moves the job. An error is for who sent a receipt; the job may have moved none the less.
    pub(crate) fn take(&mut self, input: Input<'_>, step: &mut Step<'_>) -> Result<(), Rejection> {
        if self.phase.is_terminal() {
            return Ok(());
        }
        #[cfg(test)]
        assert!(
            step.plan.request.model.as_str() != "panics",
            "a job that a test lets panic"
        );
        match input {
            Input::Begin => self.gather(step),
            Input::Receipt { kind, receipt, hash } => {
                self.take_receipt(kind, receipt, hash, step)?;
            }
            Input::Review => self.review(step),
            Input::Revoked(node) => {
                self.drop_sites_of(node, step);
                self.review(step);
            }
            Input::Stop { by } => {
                let cause = Rejection::new(Code::Stopped, format!("{by} stopped the job"));
                self.end(JobPhase::Stopped, Some(cause), step);
            }
            Input::Forbidden(cause) => self.end(JobPhase::Failed, Some(cause), step),
            Input::Registered(model) => self.registered(model, step),
            Input::Deployed {
                phase,
                n_ready,
                cause,
            } => self.deployed(phase, n_ready, cause, step),
        }
        Ok(())
    }

    fn take_receipt(
        &mut self,
        kind: OrderKind,
        receipt: &Receipt,
        hash: ArtifactId,
        step: &mut Step<'_>,
    ) -> Result<(), Rejection> {
        match kind {
            OrderKind::Train(position) | OrderKind::Compute(position) => {
                self.site_answered(position, receipt, hash, step);
                Ok(())
            }
            OrderKind::Conduct => self.conductor_reported(receipt, hash, step),
            OrderKind::Verify(place) => self.unit_reported(place, receipt, hash, step),
            OrderKind::Serve | OrderKind::Stop => Ok(()),
        }
    }

    /// Looks at everything that time or the coming and going of nodes can change.
    fn review(&mut self, step: &mut Step<'_>) {
        if let Some(deadline) = self.sla_deadline(step.plan)
            && step.now >= deadline
        {
            let message = format!(
                "the job did not end within {} ms",
                deadline.since(self.accepted_at)
            );
            self.end(
                JobPhase::Failed,
                Some(Rejection::new(Code::DeadlinePassed, message)),
                step,
            );
            return;
        }
        match self.phase {
            JobPhase::Preparing | JobPhase::Training => {
                if self.gathering.is_some() {
                    self.review_gathering(step);
                } else {
                    self.review_conductor(step);
                }
            }
            JobPhase::Verifying => {
                self.review_conductor(step);
                self.review_units(step);
            }
            JobPhase::Deploying => self.review_deploying(step),
            _ => {}
        }
    }

    /// When the job must be looked at again, if nothing happens before.
    pub(crate) fn next_wake(&self, plan: &Plan, nodes: &Nodes, timing: &Timing) -> Option<UnixMillis> {
        if self.phase.is_terminal() {
            return None;
        }
        let gathering = self.gathering.as_ref().map(|gathering| gathering.deadline);
        let stranded = self
            .stranded_since
            .map(|since| since.plus(timing.conductor_lost_max_ms));
        [
            self.sla_deadline(plan),
            gathering,
            stranded,
            self.deadline,
            self.conductor_wake(plan, nodes, timing),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The request's deadline, which ends with registration.
    fn sla_deadline(&self, plan: &Plan) -> Option<UnixMillis> {
        let deadline = plan.request.sla.deadline_ms?;
        self.model.is_none().then(|| self.accepted_at.plus(deadline))
    }

    fn enter(&mut self, phase: JobPhase, step: &mut Step<'_>) {
        let spent = step.now.since(self.phase_since);
        match self.phase {
            JobPhase::Preparing => self.actual.preparing_ms += spent,
            JobPhase::Training => self.actual.training_ms += spent,
            JobPhase::Verifying => self.actual.verifying_ms += spent,
            JobPhase::Deploying => self.actual.deploying_ms += spent,
            _ => {}
        }
        self.phase = phase;
        self.phase_since = step.now;
        step.out
            .push(Output::Event(JobEvent::Phase { phase, at: step.now }));
    }

    /// Whether a node's coming and going concerns the job. A site's is its conductor's concern.
    pub(crate) fn watches(&self, node: NodeId, plan: &Plan) -> bool {
        let conducts = |p: &Placement| p.node == node;
        conducts(&plan.aggregator)
            || plan.aggregator_spares.iter().any(conducts)
            || self.units.iter().any(|unit| unit.placement.node == node)
    }

    /// Sites that were left out as a whole, not of a single cycle.
    pub(crate) fn refusals(&self, plan: &Plan) -> Vec<LeftOut> {
        let refused = self.sites.iter().zip(&plan.sites);
        refused
            .filter_map(|(state, site)| {
                state.refusal().map(|reason| LeftOut {
                    dataset: site.dataset.clone(),
                    cycle: state.out_from,
                    last_cycle: None,
                    reason: reason.clone(),
                })
            })
            .collect()
    }
}
