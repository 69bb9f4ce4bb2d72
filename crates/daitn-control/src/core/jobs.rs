//! Training jobs: carries what happens to their state machines and does what they want.

use crate::{
    core::{
        Core, StoredDecision, Timer, Turn, Who,
        event::{Effect, RequestId},
        orders::{OrderRecord, Process},
    },
    job::{Finding, Input, Job, Output, Site, Sites, Step},
    limits::{JOBS_ACTIVE_MAX, JOBS_ENDED_MAX, JOBS_LISTED_MAX, LEFT_OUT_MAX, SPARE_UNITS_MAX},
};
use daitn_messages::{
    control::CenterMessage,
    descriptor::Descriptor,
    encoding,
    ids::{ArtifactId, EntityId, JobId, NodeId, OrganisationId},
    job::{CycleView, JobEvent, JobPhase, JobSummary, JobView, LeftOut, Waiting},
    leaf::LeafKind,
    operation::{Answer as Told, Principal, Scope},
    plan::Plan,
    policy::Verb,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    session::Peer,
    units::UnixMillis,
};
use daitn_store::Family;
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// A closed cycle as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CycleRecord {
    pub(crate) view: CycleView,
    pub(crate) left_out: Vec<LeftOut>,
    /// Hash of the conductor's report.
    pub(crate) receipt: ArtifactId,
}

/// A job with everything that is kept apart from it.
#[derive(Debug, Clone)]
pub(crate) struct JobEntry {
    pub(crate) job: Job,
    pub(crate) plan: Arc<Plan>,
    pub(crate) plan_hash: ArtifactId,
    pub(crate) cycles: BTreeMap<u32, CycleRecord>,
    /// Receipts that were taken, so that a repeated one changes nothing.
    pub(crate) receipts: BTreeSet<ArtifactId>,
    /// The job as it was last written.
    pub(crate) written: ArtifactId,
    /// The moment that is waited for.
    pub(crate) wake: Option<UnixMillis>,
    /// What it waits for that may never come, as last told.
    pub(crate) waiting: Option<Waiting>,
}

impl JobEntry {
    pub(crate) fn new(job: Job, plan: Arc<Plan>) -> Self {
        Self {
            job,
            plan_hash: plan.hash(),
            plan,
            cycles: BTreeMap::new(),
            receipts: BTreeSet::new(),
            written: ArtifactId([0; 32]),
            wake: None,
            waiting: None,
        }
    }

    pub(crate) fn view(&self) -> JobView {
        let job = &self.job;
        let mut left_out = job.refusals(&self.plan);
        let of_cycles = self.cycles.values().map(|cycle| cycle.left_out.as_slice());
        let all = of_cycles.chain([job.failed_without.as_slice()]);
        left_out.extend(merged(all, LEFT_OUT_MAX.saturating_sub(left_out.len())));
        let reports = job.units.iter().filter_map(|unit| match &unit.finding {
            Finding::Reported { report, .. } => {
                Some((unit.placement.entity.clone(), report.as_ref().clone()))
            }
            _ => None,
        });
        JobView {
            id: job.id.clone(),
            organisation: job.organisation.clone(),
            phase: job.phase,
            epoch: job.epoch,
            plan: self.plan.as_ref().clone(),
            accepted_at: job.accepted_at,
            ended_at: job.ended_at,
            cause: job.cause.clone(),
            cycles: self.cycles.values().map(|cycle| cycle.view.clone()).collect(),
            left_out,
            reports: reports.collect(),
            model: job.model.clone(),
            deployment: job.deployment.clone(),
            actual: job.actual,
            waiting: self.waiting.clone(),
        }
    }

    /// Organisations that the job is about: the requester and everybody who takes part.
    fn concerns(&self) -> Vec<OrganisationId> {
        let plan = &self.plan;
        let placed = plan
            .verifiers
            .iter()
            .chain(&plan.hosts)
            .chain(&plan.aggregator_spares);
        let placed = placed
            .chain([&plan.aggregator])
            .map(|p| p.entity.organisation.clone());
        let sites = plan.sites.iter().map(|site| site.organisation.clone());
        let all: BTreeSet<_> = placed
            .chain(sites)
            .chain([self.job.organisation.clone()])
            .collect();
        all.into_iter().collect()
    }
}

/// A line of the list of jobs.
pub(crate) fn summary(job: &Job) -> JobSummary {
    JobSummary {
        id: job.id.clone(),
        model: job.name.to_string(),
        organisation: job.organisation.clone(),
        phase: job.phase,
        cycles_done: job.resume.as_ref().map_or(0, |point| point.cycles_done),
        cycles: job.rounds,
        accepted_at: job.accepted_at,
    }
}

/// All jobs. Ended ones beyond a bound are in the store only, but for their line in the list.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) by_id: BTreeMap<JobId, JobEntry>,
    pub(crate) active: BTreeSet<JobId>,
    pub(crate) archived: BTreeMap<JobId, JobSummary>,
}

impl Jobs {
    /// Whether a job has taken this receipt already.
    pub(crate) fn has_receipt(
        &self,
        job: &JobId,
        _record: &OrderRecord,
        _receipt: &Receipt,
        hash: ArtifactId,
    ) -> bool {
        self.by_id
            .get(job)
            .is_some_and(|entry| entry.receipts.contains(&hash))
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
        let spare_units = || {
            let context = daitn_topology::evaluation_context(&plan.request);
            let who = &plan.request.organisation;
            let mut may = |unit: &Descriptor| {
                let mut policies = policies.borrow_mut();
                policies.shown_to(who, unit) && policies.permit(who, Verb::Evaluate, unit, &context).allowed
            };
            daitn_topology::spare_units(topology, &plan, SPARE_UNITS_MAX, &mut may)
        };
        let mut step = Step {
            now: turn.now,
            timing: &self.config.timing,
            plan: &entry.plan,
            plan_hash: entry.plan_hash,
            nodes: &self.nodes,
            cycles: &entry.cycles,
            spare_units: &spare_units,
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
        let owner = Process::Job(id.clone());
        let orders: Vec<_> = self
            .orders
            .by_owner
            .get(&owner)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for order in orders {
            self.cancel(turn, &order, &[]);
        }
        if let Some(entry) = self.jobs.by_id.get_mut(id) {
            let message = "a fault in the job's own state machine; the control center's log holds its cause";
            entry.job.phase = JobPhase::Failed;
            entry.job.cause = Some(Rejection::new(Code::Internal, message));
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
        let bytes = encoding::encode(&entry.job);
        let hash = ArtifactId::of(&bytes);
        if entry.written != hash {
            entry.written = hash;
            turn.batch.put_bytes(Family::Jobs, id.as_str(), bytes);
        }
        if entry.job.phase.is_terminal() {
            entry.waiting = None;
            if self.jobs.active.remove(id) {
                let concerns = entry.concerns();
                turn.leaf(LeafKind::JobEnd, id, hash, &concerns);
                self.drop_orders_of(turn, &Process::Job(id.clone()));
            }
            return;
        }
        let wake = entry.job.next_wake(&entry.plan, &self.nodes, &self.config.timing);
        if entry.wake != wake {
            entry.wake = wake;
            if let Some(at) = wake {
                let timer = Timer::Job(id.clone());
                turn.effect(Effect::Arm { timer, at });
            }
        }
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

    pub(super) fn list_jobs(&self, who: &Who) -> Told {
        let here = self.jobs.by_id.values().map(|entry| summary(&entry.job));
        let mut all: Vec<JobSummary> = self.jobs.archived.values().cloned().chain(here).collect();
        all.retain(|job| who.sees(&job.organisation));
        all.sort_by(|a, b| b.id.cmp(&a.id));
        Told::Jobs(all)
    }

    pub(super) fn get_job(&self, turn: &mut Turn<'_>, request: RequestId, who: &Who, id: &JobId) {
        match self.jobs.by_id.get(id) {
            Some(entry) if who.sees(&entry.job.organisation) => {
                turn.reply(request, Ok(Told::Job(Box::new(entry.view()))));
            }
            Some(_) => turn.reply(request, Err(Rejection::not_found("job", id))),
            None => turn.effect(Effect::ReadJob {
                request,
                job: id.clone(),
                organisation: who.only(),
            }),
        }
    }

    pub(super) fn watch(&self, turn: &mut Turn<'_>, request: RequestId, principal: &Principal, id: &JobId) {
        let view = self.authorise(principal, Scope::Read).and_then(|who| {
            let entry = self
                .jobs
                .by_id
                .get(id)
                .filter(|entry| who.sees(&entry.job.organisation));
            entry
                .map(|entry| Box::new(entry.view()))
                .ok_or_else(|| Rejection::not_found("job", id))
        });
        turn.effect(Effect::Watching { request, view });
    }

    pub(super) fn stop_job(&mut self, turn: &mut Turn<'_>, who: &Who, id: &JobId) -> Result<Told, Rejection> {
        let known = self
            .jobs
            .by_id
            .get(id)
            .filter(|entry| who.sees(&entry.job.organisation));
        let Some(entry) = known else {
            let archived = self.jobs.archived.get(id);
            return match archived.filter(|job| who.sees(&job.organisation)) {
                Some(job) => Err(has_ended(id, job.phase)),
                None => Err(Rejection::not_found("job", id)),
            };
        };
        if entry.job.phase.is_terminal() {
            return Err(has_ended(id, entry.job.phase));
        }
        let deployment = entry.job.deployment.clone();
        self.step_job(
            turn,
            id,
            Input::Stop {
                by: who.organisation.as_str(),
            },
        )?;
        if let Some(deployment) = deployment {
            let cause = Rejection::new(Code::Stopped, format!("its job {id} was stopped"));
            self.end_deployment(turn, &deployment, cause);
        }
        let entry = self.jobs.by_id.get(id).expect("it was looked up above");
        Ok(Told::Job(Box::new(entry.view())))
    }

    /// Lets go of ended jobs beyond the bound, oldest first.
    pub(super) fn forget_jobs(&mut self) {
        let ended = self
            .jobs
            .by_id
            .values()
            .filter(|entry| entry.job.phase.is_terminal());
        let mut ended: Vec<(UnixMillis, JobId)> = ended
            .map(|entry| (entry.job.ended_at.unwrap_or_default(), entry.job.id.clone()))
            .collect();
        ended.sort_unstable();
        let n_over = ended.len().saturating_sub(JOBS_ENDED_MAX);
        for (_, id) in ended.into_iter().take(n_over) {
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

/// The refusal to stop what is over.
fn has_ended(id: &JobId, phase: JobPhase) -> Rejection {
    let how = match phase {
        JobPhase::Succeeded => "succeeded",
        JobPhase::NotVerified => "ended without being verified",
        JobPhase::Stopped => "was stopped",
        _ => "failed",
    };
    Rejection::new(
        Code::Conflict,
        format!("job {id} {how} already; there is nothing to stop"),
    )
    .with_hint(format!("Look at it: daitn job get {id}"))
}

/// The key of a site's record among the parts of a job.
pub(crate) fn site_key(job: &JobId, position: u32) -> String {
    format!("{job}/site/{position:06}")
}

/// The key of a cycle's record among the parts of a job.
pub(crate) fn cycle_key(job: &JobId, cycle: u32) -> String {
    format!("{job}/cycle/{cycle:06}")
}

/// The key of a receipt's record.
pub(crate) fn receipt_key(job: &JobId, hash: ArtifactId) -> String {
    format!("{job}/{hash}")
}

/// A decision's record, for the edge that reads it.
pub(crate) fn may_read(stored: &StoredDecision, organisation: Option<&OrganisationId>) -> bool {
    organisation.is_none_or(|organisation| stored.concerns.contains(organisation))
}

/// Sites from their records.
pub(crate) fn sites_from(n_sites: usize, records: impl IntoIterator<Item = (u32, Site)>) -> Sites {
    let mut sites = Sites::new(n_sites);
    for (position, site) in records {
        sites.update(position, |place| *place = site);
    }
    sites
}

/// Who was left out of each cycle, one entry for each run of cycles without a break, in the order of their beginnings:
/// at most `max`.
fn merged<'a>(of_cycles: impl Iterator<Item = &'a [LeftOut]>, max: usize) -> Vec<LeftOut> {
    let mut runs: Vec<LeftOut> = Vec::new();
    let mut newest: HashMap<(&EntityId, Code), usize> = HashMap::new();
    for out in of_cycles.flatten() {
        let key = (&out.dataset, out.reason.code);
        let goes_on = |index: &&usize| {
            let run = &runs[**index];
            run.last_cycle.or(run.cycle).map(|last| last + 1) == out.cycle
        };
        if let Some(index) = newest.get(&key).filter(goes_on) {
            runs[*index].last_cycle = out.cycle;
        } else if runs.len() < max {
            newest.insert(key, runs.len());
            runs.push(out.clone());
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_out_again_and_again_is_told_of_once_for_each_run() {
        let out = |site: &str, cycle: u32, code: Code| LeftOut {
            dataset: site.parse().unwrap(),
            cycle: Some(cycle),
            last_cycle: None,
            reason: Rejection::new(code, format!("in {cycle}")),
        };
        let (a, b) = ("dataset:a/d", "dataset:b/d");
        let cycles = [
            vec![out(a, 0, Code::NodeLost)],
            vec![out(a, 1, Code::NodeLost), out(b, 1, Code::NodeLost)],
            vec![out(a, 2, Code::DeadlinePassed), out(b, 2, Code::NodeLost)],
            vec![],
            vec![out(b, 4, Code::NodeLost)],
        ];
        let found = merged(cycles.iter().map(Vec::as_slice), 10);
        let short: Vec<_> = found
            .iter()
            .map(|out| {
                (
                    out.dataset.organisation.as_str(),
                    out.cycle,
                    out.last_cycle,
                    out.reason.code,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                ("a", Some(0), Some(1), Code::NodeLost),
                ("b", Some(1), Some(2), Code::NodeLost),
                ("a", Some(2), None, Code::DeadlinePassed),
                ("b", Some(4), None, Code::NodeLost),
            ]
        );
        assert_eq!(found[0].reason.message, "in 0");
        assert_eq!(merged(cycles.iter().map(Vec::as_slice), 2), found[..2]);
    }
}
