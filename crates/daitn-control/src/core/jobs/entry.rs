//! A job with everything that is kept apart from it: its plan, its cycles, the receipts that it took.

use crate::{
    job::{Finding, Job, Site, Sites},
    limits::LEFT_OUT_MAX,
};
use daitn_messages::{
    ids::{ArtifactId, EntityId, JobId, OrganisationId},
    job::{CycleView, JobSummary, JobView, LeftOut, Waiting},
    plan::Plan,
    rejection::Code,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    pub(crate) fn concerns(&self) -> Vec<OrganisationId> {
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
    use daitn_messages::rejection::Rejection;

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
