//! Training jobs: carries what happens to their state machines and does what they want.

mod asked;

mod entry;
pub(crate) use entry::{CycleRecord, JobEntry, sites_from, summary};
use entry::{cycle_key, receipt_key, site_key};

use crate::{
    core::{
        Core, Timer, Turn,
        event::Effect,
        orders::{OrderRecord, Process},
        processes,
    },
    job::{Input, Job, Output, Step},
    limits::{JOBS_ACTIVE_MAX, JOBS_ENDED_MAX, JOBS_LISTED_MAX, SPARE_UNITS_MAX},
};
use daitn_messages::{
    control::CenterMessage,
    descriptor::Descriptor,
    ids::{ArtifactId, EntityId, JobId, NodeId, OrganisationId},
    job::{JobEvent, JobPhase, JobSummary},
    leaf::LeafKind,
    plan::Plan,
    policy::Verb,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    session::Peer,
};
use daitn_store::Family;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// All jobs. Ended ones beyond a bound are in the store only, but for their line in the list.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) by_id: BTreeMap<JobId, JobEntry>,
    pub(crate) active: BTreeSet<JobId>,
    pub(crate) archived: BTreeMap<JobId, JobSummary>,
}

impl Jobs {
    /// Whether a job has taken this receipt already.
    pub(crate) fn has_receipt(&self, job: &JobId, hash: ArtifactId) -> bool {
        let entry = self.by_id.get(job);
        entry.is_some_and(|entry| entry.receipts.contains(&hash))
    }
}

impl Core {
    /// Begins a job of a plan that was applied.
    pub(super) fn begin_job(
        &mut self,
        turn: &mut Turn<'_>,
        organisation: OrganisationId,
        plan: Arc<Plan>,
    ) -> Result<JobId, Rejection> {
        if self.jobs.active.len() >= JOBS_ACTIVE_MAX {
            let message = format!("{JOBS_ACTIVE_MAX} jobs are under way, which is the most");
            return Err(Rejection::new(Code::Overloaded, message));
        }
        let id = JobId::new(turn.now.0, turn.entropy.bytes());
        let job = Job::new(id.clone(), organisation, &plan, turn.now);
        let entry = JobEntry::new(job, plan);
        turn.leaf(LeafKind::Plan, &entry.plan.id, entry.plan_hash, &entry.concerns());
        self.jobs.by_id.insert(id.clone(), entry);
        self.jobs.active.insert(id.clone());
        if let Err(rejection) = self.step_job(turn, &id, Input::Begin) {
            tracing::error!(job = %id, %rejection, "a job refused to begin");
        }
        Ok(id)
    }

    /// Moves a job by one input and does what it wants.
    pub(super) fn step_job(
        &mut self,
        turn: &mut Turn<'_>,
        id: &JobId,
        input: Input<'_>,
    ) -> Result<(), Rejection> {
        let Some(entry) = self.jobs.by_id.get_mut(id) else {
            return Ok(());
        };
        if entry.job.phase.is_terminal() {
            return Ok(());
        }
        let (topology, plan) = (&self.topology, entry.plan.clone());
        let policies = RefCell::new(&mut self.policies);
        let may = |unit: &Descriptor| {
            let context = daitn_topology::evaluation_context(&plan.request);
            let (who, mut policies) = (&plan.request.organisation, policies.borrow_mut());
            policies.shown_to(who, unit) && policies.permit(who, Verb::Evaluate, unit, &context).allowed
        };
        let spare_units =
            || daitn_topology::spare_units(topology, &plan, SPARE_UNITS_MAX, &mut |unit| may(unit));
        let may_evaluate = |unit: &EntityId| topology.get(unit).is_some_and(|unit| may(unit));
        let mut step = Step {
            now: turn.now,
            timing: &self.config.timing,
            plan: &entry.plan,
            plan_hash: entry.plan_hash,
            nodes: &self.nodes,
            cycles: &entry.cycles,
            spare_units: &spare_units,
            may_evaluate: &may_evaluate,
            entropy: &mut *turn.entropy,
            out: Vec::new(),
        };
        let job = &mut entry.job;
        // After a panic the job may be half moved; nothing is done with it any more but to end it.
        let moved = catch_unwind(AssertUnwindSafe(|| job.take(input, &mut step)));
        let outputs = step.out;
        let result = match moved {
            Ok(result) => {
                self.apply_job(turn, id, outputs);
                result
            }
            Err(_) => {
                tracing::error!(job = %id, "the job's state machine panicked; the job ends");
                self.crash_job(turn, id);
                Ok(())
            }
        };
        self.keep_job(turn, id);
        result
    }

    fn crash_job(&mut self, turn: &mut Turn<'_>, id: &JobId) {
        self.cancel_all(turn, &Process::Job(id.clone()));
        if let Some(entry) = self.jobs.by_id.get_mut(id) {
            entry.job.phase = JobPhase::Failed;
            entry.job.cause = Some(processes::fault("job"));
            entry.job.ended_at = Some(turn.now);
            let event = JobEvent::Phase {
                phase: JobPhase::Failed,
                at: turn.now,
            };
            let event = Box::new(event);
            turn.effect(Effect::JobEvent {
                job: id.clone(),
                event,
            });
        }
    }

    fn apply_job(&mut self, turn: &mut Turn<'_>, id: &JobId, outputs: Vec<Output>) {
        for output in outputs {
            let Some(entry) = self.jobs.by_id.get_mut(id) else {
                return;
            };
            let requester = entry.job.organisation.clone();
            match output {
                Output::Order(draft) => {
                    let concerns = [requester, draft.terminal.organisation.clone()];
                    self.issue(turn, Process::Job(id.clone()), *draft, &concerns);
                }
                Output::Cancel(order) => self.cancel(turn, &order, &[requester]),
                Output::Settle(order) => self.settle(turn, &order),
                Output::KeepSite(position) => {
                    if let Some(site) = entry.job.sites.get(position) {
                        turn.batch.put(Family::JobParts, site_key(id, position), site);
                    }
                }
                Output::KeepCycle(cycle) => {
                    turn.batch
                        .put(Family::JobParts, cycle_key(id, cycle.view.cycle), &cycle);
                    entry.cycles.insert(cycle.view.cycle, *cycle);
                }
                Output::WitnessReceipt(order, hash) => {
                    entry.receipts.insert(hash);
                    turn.batch.put(Family::Receipts, receipt_key(id, hash), &order);
                    turn.leaf(LeafKind::Receipt, &order, hash, [&requester]);
                }
                Output::WitnessContribution(order, hash) => {
                    turn.leaf(LeafKind::Receipt, &order, hash, [&requester]);
                }
                Output::WitnessReport(unit, hash) => {
                    entry.receipts.insert(hash);
                    turn.batch.put(Family::Receipts, receipt_key(id, hash), &unit);
                    turn.leaf(LeafKind::Report, id, hash, [&requester, &unit.organisation]);
                }
                Output::Event(event) => {
                    let event = Box::new(event);
                    turn.effect(Effect::JobEvent {
                        job: id.clone(),
                        event,
                    });
                }
                Output::Decide(decision) => {
                    let concerns = entry.concerns();
                    turn.decide(decision, concerns);
                }
                Output::Register(body) => self.register_model(turn, id, *body),
                Output::Deploy => self.deploy_for_job(turn, id),
            }
        }
    }

    /// Writes a job where it has changed, ends it where it has ended, arms its timer.
    fn keep_job(&mut self, turn: &mut Turn<'_>, id: &JobId) {
        let Some(entry) = self.jobs.by_id.get_mut(id) else {
            return;
        };
        turn.keep(Family::Jobs, id.as_str(), &entry.job, &mut entry.written);
        if entry.job.phase.is_terminal() {
            entry.waiting = None;
            if self.jobs.active.remove(id) {
                let concerns = entry.concerns();
                turn.leaf(LeafKind::JobEnd, id, entry.written, &concerns);
                self.drop_orders_of(turn, &Process::Job(id.clone()));
            }
            return;
        }
        let wake = entry.job.next_wake(&entry.plan, &self.nodes, &self.config.timing);
        turn.wake(Timer::Job(id.clone()), &mut entry.wake, wake);
        self.tell_waiting(turn, id);
    }

    /// Tells the watchers where a job began to wait for something that may never come, or no longer does.
    pub(super) fn tell_waiting(&mut self, turn: &mut Turn<'_>, id: &JobId) {
        let Some(entry) = self.jobs.by_id.get_mut(id) else {
            return;
        };
        let (job, nodes, timing) = (&entry.job, &self.nodes, &self.config.timing);
        let waiting = match (job.phase, &job.deployment) {
            (phase, _) if phase.is_terminal() => None,
            (JobPhase::Deploying, Some(deployment)) => self.deployments.waiting(deployment, nodes, timing),
            _ => job.waiting(&entry.plan, nodes, timing),
        };
        if entry.waiting == waiting {
            return;
        }
        entry.waiting.clone_from(&waiting);
        turn.effect(Effect::JobEvent {
            job: id.clone(),
            event: Box::new(JobEvent::Waiting { waiting }),
        });
    }

    pub(super) fn job_receipt(
        &mut self,
        turn: &mut Turn<'_>,
        job: &JobId,
        record: &OrderRecord,
        receipt: &Receipt,
        hash: ArtifactId,
    ) -> Result<(), Rejection> {
        let kind = record.kind;
        if receipt.job.as_ref().is_some_and(|named| named != job) || receipt.epoch != record.epoch {
            return Err(Rejection::malformed(
                "receipt",
                "it names another job or epoch than its order",
            ));
        }
        if let Outcome::Refused(rejection) = &receipt.outcome {
            tracing::info!(%job, node = %receipt.node.short(), %rejection, "an order was refused");
        }
        self.step_job(turn, job, Input::Receipt { kind, receipt, hash })
    }

    pub(super) fn wake_job(&mut self, turn: &mut Turn<'_>, job: &JobId) {
        if let Some(entry) = self.jobs.by_id.get_mut(job) {
            // The timer has fired: the next moment is armed anew even where it is the same.
            entry.wake = None;
        }
        self.review_job(turn, job);
    }

    fn review_job(&mut self, turn: &mut Turn<'_>, job: &JobId) {
        if let Err(rejection) = self.step_job(turn, job, Input::Review) {
            tracing::error!(%job, %rejection, "a review refused something");
        }
    }

    /// Lets the jobs look that a node's coming or going concerns.
    pub(super) fn review_jobs(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        let concerned: Vec<JobId> = self.active_jobs(|entry| entry.job.watches(node, &entry.plan));
        for job in concerned {
            self.review_job(turn, &job);
        }
    }

    pub(super) fn active_jobs(&self, holds: impl Fn(&JobEntry) -> bool) -> Vec<JobId> {
        let active = self
            .jobs
            .active
            .iter()
            .filter(|id| self.jobs.by_id.get(id).is_some_and(&holds));
        active.cloned().collect()
    }

    /// A node was thrown out.
    pub(super) fn revoke_in_jobs(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        for job in self.active_jobs(|_| true) {
            if let Err(rejection) = self.step_job(turn, &job, Input::Revoked(node)) {
                tracing::error!(%job, %rejection, "a revocation was refused");
            }
        }
    }

    /// Arms the timers of everything that was under way before a start.
    pub(super) fn arm_all(&mut self, turn: &mut Turn<'_>) {
        let timing = self.config.timing;
        for job in self.active_jobs(|_| true) {
            if let Some(entry) = self.jobs.by_id.get_mut(&job) {
                entry.job.center_was_away(turn.now, &timing);
            }
            self.keep_job(turn, &job);
            self.wake_job(turn, &job);
        }
        self.arm_deployments(turn);
    }

    /// A node is reached elsewhere now, or is back: those who work with it are told.
    pub(super) fn tell_of_move(&self, turn: &mut Turn<'_>, peer: &Peer) {
        for job in &self.jobs.active {
            let Some(entry) = self.jobs.by_id.get(job) else {
                continue;
            };
            let Some(conductor) = entry.job.conductor.as_ref().map(|c| c.placement.node) else {
                continue;
            };
            let plan = &entry.plan;
            let told: BTreeSet<NodeId> = if peer.node == conductor {
                let sites = plan.sites.iter().map(|site| site.node);
                sites
                    .chain(plan.verifiers.iter().chain(&plan.hosts).map(|p| p.node))
                    .collect()
            } else if let Some(position) = plan.sites.iter().position(|site| site.node == peer.node) {
                let mates = plan
                    .chains
                    .iter()
                    .filter(|chain| chain.iter().any(|p| *p as usize == position));
                mates
                    .flatten()
                    .map(|p| plan.sites[*p as usize].node)
                    .chain([conductor])
                    .collect()
            } else {
                BTreeSet::new()
            };
            for node in told
                .into_iter()
                .filter(|node| *node != peer.node && self.nodes.is_online(*node))
            {
                turn.send(node, CenterMessage::Peers(vec![peer.clone()]));
            }
        }
    }

    /// Lets go of ended jobs beyond the bound, oldest first.
    pub(super) fn forget_jobs(&mut self) {
        let jobs = self.jobs.by_id.values().map(|entry| &entry.job);
        let ended = jobs.filter(|job| job.phase.is_terminal());
        let ended = ended.map(|job| (job.ended_at, job.id.clone()));
        for id in processes::oldest_over(ended, JOBS_ENDED_MAX) {
            if let Some(entry) = self.jobs.by_id.remove(&id) {
                self.jobs.archived.insert(id, summary(&entry.job));
            }
        }
        while self.jobs.archived.len() > JOBS_LISTED_MAX
            && let Some((id, _)) = self.jobs.archived.pop_first()
        {
            self.plans.applied.retain(|_, (_, job)| *job != id);
        }
    }
}
