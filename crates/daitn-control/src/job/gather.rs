//! Asking the sites, before the first cycle and again for each new conductor, and waiting for their answers.

use crate::{
    job::{Answer, Gathering, Job, Output, Site, Step},
    limits::CONDUCTORS_MAX,
};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    job::{JobEvent, JobPhase, LeftOut},
    plan::Placement,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
};

/// Refusals that a cause names before it says "and so many more".
const REASONS_MAX: usize = 5;

impl Job {
    /// Chooses a conductor and asks the sites to work for it. Where all cycles are done it needs no sites.
    pub(super) fn gather(&mut self, step: &mut Step<'_>) {
        let Some(conductor) = self.choose_conductor(step) else {
            self.strand(step);
            return;
        };
        if self.n_conductors >= CONDUCTORS_MAX {
            let message = format!("{CONDUCTORS_MAX} conductors were appointed and none came to an end");
            self.end(
                JobPhase::Failed,
                Some(Rejection::new(Code::NodeLost, message)),
                step,
            );
            return;
        }
        self.stranded_since = None;
        self.n_conductors += 1;
        self.epoch += 1;
        if self
            .resume
            .as_ref()
            .is_some_and(|point| point.cycles_done >= step.plan.rounds)
        {
            self.appoint(conductor, step);
            return;
        }
        for position in self.sites.positions(|site| site.refusal().is_none()) {
            self.ask_site(position, &conductor, step);
        }
        self.gathering = Some(Gathering {
            deadline: step.now.plus(step.timing.preparing_ms),
            conductor,
        });
    }

    /// The plan's aggregator or one of its spares: the first that is connected and has not refused.
    pub(super) fn choose_conductor(&self, step: &Step<'_>) -> Option<Placement> {
        let all = std::iter::once(&step.plan.aggregator).chain(&step.plan.aggregator_spares);
        let fit = |p: &&Placement| {
            !step.nodes.is_revoked(p.node) && self.conductors_out.iter().all(|(out, _)| *out != p.entity)
        };
        // A state that another holds already saves the transfer, but being there counts first.
        let (mut first, mut holder) = (None, None);
        for placement in all.filter(fit).filter(|p| step.nodes.is_online(p.node)) {
            let holds = self
                .resume
                .as_ref()
                .is_some_and(|point| point.holders.contains(&placement.node));
            holder = holder.or(Some(placement).filter(|_| holds));
            first = first.or(Some(placement));
        }
        holder.or(first).cloned()
    }

    /// Nobody is there to conduct. The job waits for a while.
    pub(super) fn strand(&mut self, step: &mut Step<'_>) {
        self.conductor = None;
        self.gathering = None;
        let since = *self.stranded_since.get_or_insert(step.now);
        if step.now.since(since) < step.timing.conductor_lost_max_ms {
            return;
        }
        let refusals: Vec<String> = self
            .conductors_out
            .iter()
            .map(|(who, why)| format!("{who}: {why}"))
            .collect();
        let message = if refusals.is_empty() {
            format!("neither {} nor a spare came back", step.plan.aggregator.entity)
        } else {
            format!("no aggregator is left: {}", refusals.join("; "))
        };
        self.end(
            JobPhase::Failed,
            Some(Rejection::new(Code::NodeLost, message)),
            step,
        );
    }

    pub(super) fn site_answered(
        &mut self,
        position: u32,
        receipt: &Receipt,
        hash: ArtifactId,
        step: &mut Step<'_>,
    ) {
        let Some(site) = self.sites.get(position) else {
            return;
        };
        let (is_site, is_compute) = (
            site.order.as_ref() == Some(&receipt.order),
            site.compute_order.as_ref() == Some(&receipt.order),
        );
        let answer = match &receipt.outcome {
            Outcome::Accepted { .. } => Answer::Accepted,
            Outcome::Refused(rejection) => Answer::Refused(rejection.clone()),
            // A step's receipt reaches the center within its cycle's report.
            _ => return,
        };
        if !is_site && !is_compute {
            return;
        }
        step.out.push(Output::Settle(receipt.order.clone()));
        step.out.push(Output::WitnessReceipt(receipt.order.clone(), hash));
        // Before the first cycle a late answer is too late. Later the conductor asks whoever did not say no.
        let is_asked = self.gathering.is_some();
        let takes_back = self.phase == JobPhase::Training && matches!(answer, Answer::Refused(_));
        let done = self.resume.as_ref().map(|point| point.cycles_done);
        self.sites.update(position, |site| {
            let place = if is_site {
                &mut site.answer
            } else {
                &mut site.compute_answer
            };
            if (is_asked && *place == Answer::Waiting) || takes_back {
                *place = answer;
            }
            if is_site {
                site.receipt = Some(hash);
            }
            site.was_in |= site.is_in();
            site.out_from = site.refusal().and(done);
        });
        self.tell_refusal(position, step);
        step.out.push(Output::KeepSite(position));
        self.review_gathering(step);
    }

    fn tell_refusal(&self, position: u32, step: &mut Step<'_>) {
        if let Some(reason) = self.sites.get(position).and_then(Site::refusal) {
            let left_out = LeftOut {
                last_cycle: None,
                dataset: step.plan.sites[position as usize].dataset.clone(),
                cycle: self.resume.as_ref().map(|point| point.cycles_done),
                reason: reason.clone(),
            };
            step.out.push(Output::Event(JobEvent::LeftOut { left_out }));
        }
    }

    /// Leaves a site out from here on.
    fn leave_out(&mut self, position: u32, reason: Rejection, step: &mut Step<'_>) {
        let done = self.resume.as_ref().map(|point| point.cycles_done);
        self.sites.update(position, |site| {
            site.answer = Answer::Refused(reason);
            site.out_from = done;
            let orders = [site.order.take(), site.compute_order.take()];
            step.out.extend(orders.into_iter().flatten().map(Output::Cancel));
        });
        self.tell_refusal(position, step);
        step.out.push(Output::KeepSite(position));
    }

    /// All have answered, or time is up, or the quorum cannot be reached any more.
    pub(super) fn review_gathering(&mut self, step: &mut Step<'_>) {
        let Some(gathering) = self.gathering.clone() else {
            return;
        };
        let quorum = step.plan.quorum as usize;
        let may_reach = self.sites.n_in() + self.sites.n_waiting() >= quorum;
        if may_reach && self.sites.n_waiting() > 0 {
            if step.now < gathering.deadline {
                return;
            }
            for position in self.sites.positions(Site::is_waiting) {
                self.give_up_waiting(position, step);
            }
        }
        if self.sites.n_in() < quorum {
            let cause = self.quorum_missed(step);
            self.end(JobPhase::Failed, Some(cause), step);
            return;
        }
        self.gathering = None;
        self.appoint(gathering.conductor, step);
    }

    /// Time is up for a site. One that worked in this job before is counted on: its node does nothing before it has
    /// accepted the new order, and the conductor finds out.
    fn give_up_waiting(&mut self, position: u32, step: &mut Step<'_>) {
        if self.sites.get(position).is_some_and(|site| site.was_in) {
            self.sites.update(position, |site| {
                site.answer = Answer::Accepted;
                site.compute_answer = Answer::Accepted;
            });
            step.out.push(Output::KeepSite(position));
            return;
        }
        let message = format!("no answer within {} ms", step.timing.preparing_ms);
        self.leave_out(position, Rejection::new(Code::DeadlinePassed, message), step);
    }

    fn quorum_missed(&self, step: &Step<'_>) -> Rejection {
        let refusals = self.refusals(step.plan);
        let mut reasons: Vec<String> = refusals
            .iter()
            .take(REASONS_MAX)
            .map(|out| format!("{}: {}", out.dataset, out.reason))
            .collect();
        if refusals.len() > REASONS_MAX {
            reasons.push(format!("and {} more", refusals.len() - REASONS_MAX));
        }
        let message = format!(
            "{} of {} sites take part, {} are needed ({})",
            self.sites.n_in(),
            self.sites.len(),
            step.plan.quorum,
            reasons.join("; ")
        );
        let mut rejection = if step.plan.quorum_why.is_empty() {
            Rejection::new(Code::QuorumMissed, message)
        } else {
            // Owners agreed to this cohort only: the job does not go on with fewer.
            let message = format!("{message}: {}", step.plan.quorum_why);
            Rejection::new(Code::QuorumMissed, message)
                .with_hint("Plan again: a new plan leaves out whoever asks for more sites than there are.")
        };
        rejection.policies = refusals
            .into_iter()
            .flat_map(|out| out.reason.policies)
            .take(REASONS_MAX)
            .collect();
        rejection
    }

    /// Sites of a node that was thrown out take no further part: the conductor is told by a new order.
    pub(super) fn drop_sites_of(&mut self, node: NodeId, step: &mut Step<'_>) {
        if !matches!(self.phase, JobPhase::Preparing | JobPhase::Training) {
            return;
        }
        let mut dropped = false;
        for (position, site) in (0u32..).zip(&step.plan.sites) {
            let is_of_node = site.node == node || site.compute.as_ref().is_some_and(|c| c.node == node);
            if is_of_node
                && self
                    .sites
                    .get(position)
                    .is_some_and(|site| site.refusal().is_none())
            {
                let message = format!("the node of {} was thrown out of the domain", site.dataset);
                self.leave_out(position, Rejection::new(Code::NotEnrolled, message), step);
                dropped = true;
            }
        }
        if !dropped || self.gathering.is_some() {
            return;
        }
        if self.sites.n_in() < step.plan.quorum as usize {
            let cause = self.quorum_missed(step);
            self.end(JobPhase::Failed, Some(cause), step);
        } else if self.conductor.is_some() {
            self.replace_conductor("a site was thrown out of the domain", step);
        }
    }
}
