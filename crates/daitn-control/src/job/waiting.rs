//! What a job waits for that may never come: how long it waits, and what it tells at once, long before the wait ends in
//! a failure.

use crate::{
    core::Nodes,
    job::{Finding, Job, Step},
    limits::Timing,
};
use daitn_messages::{
    job::{JobPhase, Waiting},
    plan::{Placement, Plan},
    units::UnixMillis,
};

impl Job {
    /// Units, or hosts, must have answered by then.
    pub(super) fn await_answers(&mut self, step: &Step<'_>) {
        self.deadline = Some(step.now.plus(self.answers_within_ms(step.timing)));
    }

    /// How long units, or hosts, may take to answer in this phase.
    fn answers_within_ms(&self, timing: &Timing) -> u64 {
        let weights_bytes = self.weights.map_or(0, |weights| weights.bytes);
        match self.phase {
            // The deployment ends by its own deadline; this one is for a deployment that does not.
            JobPhase::Deploying => timing.placing_ms(weights_bytes).saturating_mul(2),
            _ => timing.reporting_ms(weights_bytes),
        }
    }

    /// What others did while the center was away they still have to say, and what was decided before may not have
    /// reached them: every wait has its whole time again.
    pub(crate) fn center_was_away(&mut self, now: UnixMillis, timing: &Timing) {
        let answers_by = now.plus(self.answers_within_ms(timing));
        if let Some(deadline) = &mut self.deadline {
            *deadline = (*deadline).max(answers_by);
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.deadline = gathering.deadline.max(now.plus(timing.preparing_ms));
        }
        if let Some(conductor) = &mut self.conductor {
            conductor.heard_at = conductor.heard_at.max(now);
        }
        if let Some(since) = &mut self.stranded_since {
            *since = (*since).max(now);
        }
    }

    /// What the job waits for; none while it goes on by itself.
    pub(crate) fn waiting(&self, plan: &Plan, nodes: &Nodes, timing: &Timing) -> Option<Waiting> {
        match self.phase {
            JobPhase::Preparing | JobPhase::Training => self.waits_for_conductor(plan, nodes, timing),
            JobPhase::Verifying => self
                .waits_for_conductor(plan, nodes, timing)
                .or_else(|| self.waits_for_units(nodes)),
            _ => None,
        }
    }

    fn waits_for_conductor(&self, plan: &Plan, nodes: &Nodes, timing: &Timing) -> Option<Waiting> {
        if let Some(since) = self.stranded_since {
            let all = std::iter::once(&plan.aggregator).chain(&plan.aggregator_spares);
            let names: Vec<String> = all.map(|p| p.entity.to_string()).collect();
            return Some(Waiting {
                reason: format!(
                    "no aggregator of the plan is connected ({}); without one the job then fails",
                    names.join(", ")
                ),
                since,
                until: Some(since.plus(timing.conductor_lost_max_ms)),
            });
        }
        let conductor = self.conductor.as_ref()?;
        let since = nodes.offline_since(conductor.placement.node)?;
        let until = self.conductor_wake(plan, nodes, timing)?;
        let then = if self.has_successor(plan, nodes) {
            "another aggregator then takes over"
        } else {
            "no other aggregator is connected, without it the job then fails"
        };
        Some(Waiting {
            reason: format!("{} is not connected; {then}", conductor.placement.entity),
            since,
            until: Some(until),
        })
    }

    fn waits_for_units(&self, nodes: &Nodes) -> Option<Waiting> {
        let waited = self.units.iter().filter(|unit| unit.finding == Finding::Waiting);
        let gone = |placement: &Placement| nodes.offline_since(placement.node);
        let gone: Vec<_> = waited
            .filter_map(|unit| Some((gone(&unit.placement)?, unit.placement.entity.to_string())))
            .collect();
        let since = gone.iter().map(|(since, _)| *since).min()?;
        let names: Vec<&str> = gone.iter().map(|(_, name)| name.as_str()).collect();
        Some(Waiting {
            reason: format!(
                "the reports of {} are missing, which are not connected; then others are asked, or it is judged without",
                names.join(", ")
            ),
            since,
            until: self.deadline,
        })
    }
}
