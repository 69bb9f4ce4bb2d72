//! Training: appointing a conductor, taking its reports, replacing it when it is lost.

use crate::{
    core::{CycleRecord, Decision, Nodes, OrderDraft, OrderKind},
    job::{Conductor, Job, Output, Point, Site, Step},
    limits::{HOLDERS_MAX, ORDER_VALID_MS, Timing},
};
use daitn_messages::{
    ids::{ArtifactId, NodeId, OrderId},
    job::{Candidate, CycleView, JobEvent, JobPhase, LeftOut},
    order::{ConductOrder, Instruction, Resume},
    plan::{Placement, Plan},
    receipt::{CycleReport, Outcome, Receipt, TrainingDone, TrainingFailed},
    rejection::{Code, Rejection},
    session::Peer,
    units::UnixMillis,
};
use std::collections::BTreeSet;

/// A site's work in a cycle, as its receipt says.
struct Contribution {
    order: OrderId,
    hash: ArtifactId,
    examples: u64,
}

impl Job {
    /// Orders a conductor to begin, or to go on where the last one stopped.
    pub(super) fn appoint(&mut self, placement: Placement, step: &mut Step<'_>) {
        let accepted = self.sites.positions(Site::is_in);
        let peers: Vec<Peer> = accepted
            .iter()
            .map(|p| step.nodes.peer(step.plan.sites[*p as usize].node))
            .collect();
        let others = std::iter::once(&step.plan.aggregator).chain(&step.plan.aggregator_spares);
        let spares = others.filter(|p| p.node != placement.node && !step.nodes.is_revoked(p.node));
        let spares: Vec<Peer> = spares.map(|p| step.nodes.peer(p.node)).collect();
        if self.units.is_empty() {
            self.spare_units = (step.spare_units)();
        }
        let units = step.plan.verifiers.iter().chain(&self.spare_units);
        let mut readers: Vec<NodeId> = units.map(|p| p.node).collect();
        readers.extend(step.readers());
        readers.sort_unstable();
        readers.dedup();
        let resume = self.resume.as_ref().map(|point| Resume {
            cycles_done: point.cycles_done,
            state: point.state,
            holders: point
                .holders
                .iter()
                .take(HOLDERS_MAX)
                .map(|node| step.nodes.peer(*node))
                .collect(),
        });
        let id = step.new_order_id();
        step.order(OrderDraft {
            id: id.clone(),
            kind: OrderKind::Conduct,
            epoch: self.epoch,
            node: placement.node,
            terminal: placement.entity.clone(),
            valid_ms: ORDER_VALID_MS,
            instruction: Instruction::Conduct(Box::new(ConductOrder {
                plan: step.plan.clone(),
                accepted,
                peers,
                resume,
                spares,
                readers,
            })),
        });
        step.out.push(Output::Event(JobEvent::Conductor {
            node: placement.node,
            epoch: self.epoch,
        }));
        self.conductor = Some(Conductor {
            placement,
            order: id,
            heard_at: step.now,
        });
        if self.phase != JobPhase::Training {
            self.deadline = None;
            self.enter(JobPhase::Training, step);
        }
    }

    pub(super) fn conductor_reported(
        &mut self,
        receipt: &Receipt,
        hash: ArtifactId,
        step: &mut Step<'_>,
    ) -> Result<(), Rejection> {
        let Some(conductor) = self.conductor.as_mut().filter(|c| c.order == receipt.order) else {
            return Err(fenced());
        };
        conductor.heard_at = step.now;
        let placement = conductor.placement.clone();
        step.out.push(Output::Settle(receipt.order.clone()));
        step.out.push(Output::WitnessReceipt(receipt.order.clone(), hash));
        match &receipt.outcome {
            Outcome::Accepted { .. } => Ok(()),
            Outcome::Refused(rejection) => {
                self.conductor_refused(placement, rejection.clone(), step);
                Ok(())
            }
            Outcome::Cycle(report) => match self.check_cycle(report, step) {
                Ok(contributions) => {
                    self.cycle_closed(report, &contributions, hash, step);
                    Ok(())
                }
                Err(rejection) => {
                    self.conductor_refused(placement, rejection.clone(), step);
                    Err(rejection)
                }
            },
            Outcome::TrainingFailed(failed) => {
                if let Err(rejection) = check_failed(failed, step.plan) {
                    self.conductor_refused(placement, rejection.clone(), step);
                    return Err(rejection);
                }
                self.failed_without = left_out_of(step.plan, failed.cycle, &failed.left_out);
                self.conductor_refused(placement, failed.reason.clone(), step);
                Ok(())
            }
            Outcome::TrainingDone(done) => {
                let checked = self.check_done(done, step);
                if let Err(rejection) = &checked {
                    self.conductor_refused(placement, rejection.clone(), step);
                    return checked;
                }
                if self.phase == JobPhase::Training {
                    self.weights = Some(done.weights);
                    self.verify(step);
                }
                Ok(())
            }
            _ => Err(Rejection::malformed(
                "receipt",
                "an aggregator does not report such an outcome",
            )),
        }
    }

    /// A cycle's report must follow from receipts that its sites signed: each once, of this cycle, of sites that take
    /// part, and at least the quorum.
    fn check_cycle(&self, report: &CycleReport, step: &Step<'_>) -> Result<Vec<Contribution>, Rejection> {
        let wrong = |why: String| Err(Rejection::malformed("cycle report", &why));
        if report.cycle >= step.plan.rounds {
            return wrong(format!("cycle {} of {}", report.cycle, step.plan.rounds));
        }
        if !report.loss.is_finite() || !report.cycle_ms.is_finite() || !report.train_ms.is_finite() {
            return wrong("a number is not finite".to_owned());
        }
        let mut seen = BTreeSet::new();
        let mut contributions = Vec::with_capacity(report.contributions.len());
        for signed in &report.contributions {
            let receipt = signed.open(signed.signer())?;
            // A plan's sites are in the order of their ids.
            let site = step
                .plan
                .sites
                .binary_search_by(|site| site.dataset.cmp(&receipt.terminal))
                .ok();
            let site = site.filter(|position| step.plan.sites[*position].node == signed.signer());
            let Some(position) = site.and_then(|position| u32::try_from(position).ok()) else {
                return wrong(format!("{} is no site of the job", receipt.terminal));
            };
            let Outcome::Trained(trained) = &receipt.outcome else {
                return wrong("a contribution is not of a training step".to_owned());
            };
            let of_this = receipt.job.as_ref() == Some(&self.id)
                && trained.cycle == report.cycle
                && receipt.epoch <= self.epoch;
            if !of_this || !self.sites.get(position).is_some_and(Site::is_in) {
                return wrong(format!(
                    "a contribution of {} is not of this cycle",
                    receipt.terminal
                ));
            }
            if !seen.insert(position) {
                return wrong(format!("{} is counted twice", receipt.terminal));
            }
            contributions.push(Contribution {
                order: receipt.order,
                hash: signed.hash(),
                examples: trained.examples,
            });
        }
        if seen.len() < step.plan.quorum as usize {
            return wrong(format!(
                "{} sites are in it, the quorum is {}",
                seen.len(),
                step.plan.quorum
            ));
        }
        Ok(contributions)
    }

    fn cycle_closed(
        &mut self,
        report: &CycleReport,
        contributions: &[Contribution],
        hash: ArtifactId,
        step: &mut Step<'_>,
    ) {
        if step.cycles.contains_key(&report.cycle) {
            return;
        }
        let witnessed = contributions
            .iter()
            .map(|c| Output::WitnessContribution(c.order.clone(), c.hash));
        step.out.extend(witnessed);
        let newest = self.resume.as_ref().map_or(0, |point| point.cycles_done);
        if report.cycle >= newest {
            self.resume = Some(Point {
                cycles_done: report.cycle + 1,
                global: report.global,
                state: report.state,
                holders: report.holders.clone(),
            });
        }
        self.actual.bytes += report.bytes;
        let view = CycleView {
            cycle: report.cycle,
            loss: report.loss,
            n_sites: u32::try_from(report.contributions.len()).unwrap_or(u32::MAX),
            n_examples: to_tens(
                contributions
                    .iter()
                    .fold(0, |sum, c| c.examples.saturating_add(sum)),
            ),
            cycle_ms: report.cycle_ms,
            train_ms: report.train_ms,
            bytes: report.bytes,
            global: report.global.id,
        };
        let left_out = left_out_of(step.plan, report.cycle, &report.left_out);
        step.out
            .push(Output::Event(JobEvent::Cycle { cycle: view.clone() }));
        tell_left_out(&left_out, report.cycle, step);
        step.out.push(Output::KeepCycle(Box::new(CycleRecord {
            view,
            left_out,
            receipt: hash,
        })));
    }

    fn check_done(&self, done: &TrainingDone, step: &Step<'_>) -> Result<(), Rejection> {
        if done.cycles != step.plan.rounds {
            let why = format!("{} cycles instead of {}", done.cycles, step.plan.rounds);
            return Err(Rejection::malformed("end of training", &why));
        }
        match &self.resume {
            // The last cycle's report may still be on its way.
            Some(point) if point.cycles_done == done.cycles && point.global.id != done.weights.id => Err(
                Rejection::malformed("end of training", "the weights are not those of the last cycle"),
            ),
            _ => Ok(()),
        }
    }

    fn conductor_refused(&mut self, placement: Placement, rejection: Rejection, step: &mut Step<'_>) {
        if matches!(rejection.code, Code::QuorumMissed | Code::DeadlinePassed) {
            // Another conductor would find the same sites.
            if let Some(cycle) = self.failed_without.first().and_then(|out| out.cycle) {
                tell_left_out(&self.failed_without, cycle, step);
            }
            self.end(JobPhase::Failed, Some(rejection), step);
            return;
        }
        let why = format!("{} refused: {rejection}", placement.entity);
        self.conductors_out.push((placement.entity, rejection.clone()));
        let is_left = |p: &Placement| self.conductors_out.iter().all(|(out, _)| *out != p.entity);
        if !std::iter::once(&step.plan.aggregator)
            .chain(&step.plan.aggregator_spares)
            .any(is_left)
        {
            self.end(JobPhase::Failed, Some(rejection), step);
            return;
        }
        self.replace_conductor(&why, step);
    }

    /// Raises the epoch and goes on with another conductor, or the same where there is no other.
    pub(super) fn replace_conductor(&mut self, why: &str, step: &mut Step<'_>) {
        if let Some(old) = self.conductor.take() {
            step.out.push(Output::Cancel(old.order));
        }
        let all = std::iter::once(&step.plan.aggregator).chain(&step.plan.aggregator_spares);
        let candidates = all.map(|p| Candidate {
            name: p.entity.to_string(),
            chosen: false,
            reason: match self.conductors_out.iter().find(|(out, _)| *out == p.entity) {
                Some((_, rejection)) => rejection.to_string(),
                None if step.nodes.is_online(p.node) => "connected".to_owned(),
                None => "not connected".to_owned(),
            },
            policies: Vec::new(),
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        self.gather(step);
        if self.phase.is_terminal() {
            return;
        }
        // Whom the last conductor failed without may well be in the cycles of the next one.
        self.failed_without.clear();
        let next = self.gathering.as_ref().map(|g| &g.conductor);
        let next = next
            .or(self.conductor.as_ref().map(|c| &c.placement))
            .map(|p| p.entity.to_string());
        for candidate in &mut candidates {
            candidate.chosen = next.as_ref() == Some(&candidate.name);
        }
        step.out.push(Output::Decide(Decision {
            kind: "conductor",
            subject: self.id.to_string(),
            outcome: match &next {
                Some(next) => format!("{next} conducts from epoch {}", self.epoch),
                None => "nobody can conduct now; the job waits".to_owned(),
            },
            reasons: vec![why.to_owned()],
            candidates,
            prediction: None,
        }));
    }

    /// Whether somebody else could conduct now.
    fn has_other_conductor(&self, current: NodeId, step: &Step<'_>) -> bool {
        self.choose_conductor(step)
            .is_some_and(|placement| placement.node != current)
    }

    /// Looks after the conductor: gone, silent, thrown out, or none.
    pub(super) fn review_conductor(&mut self, step: &mut Step<'_>) {
        let Some(conductor) = self.conductor.clone() else {
            if self.phase == JobPhase::Training || self.phase == JobPhase::Preparing {
                self.gather(step);
            }
            return;
        };
        let node = conductor.placement.node;
        if self.phase == JobPhase::Verifying && !self.needs_conductor() {
            return;
        }
        if step.nodes.is_revoked(node) {
            self.replace_conductor("the conductor's node was thrown out of the domain", step);
            return;
        }
        match step.nodes.offline_since(node) {
            Some(since) => {
                let gone_ms = step.now.since(since);
                if gone_ms >= step.timing.conductor_lost_ms && self.has_other_conductor(node, step) {
                    self.replace_conductor(&format!("the conductor's node was gone for {gone_ms} ms"), step);
                } else if gone_ms >= step.timing.conductor_lost_max_ms {
                    let message = format!(
                        "{} was gone for {gone_ms} ms and no spare is there",
                        conductor.placement.entity
                    );
                    self.end(
                        JobPhase::Failed,
                        Some(Rejection::new(Code::NodeLost, message)),
                        step,
                    );
                }
            }
            None if self.phase == JobPhase::Training => {
                let silent_ms = step.now.since(silent_since(&conductor, step.nodes, step.timing));
                if silent_ms >= silence_ms(step.plan, step.timing) {
                    self.replace_conductor(
                        &format!("the conductor reported nothing for {silent_ms} ms"),
                        step,
                    );
                }
            }
            None => {}
        }
    }

    /// Whether somebody else could conduct in place of the conductor.
    pub(super) fn has_successor(&self, plan: &Plan, nodes: &Nodes) -> bool {
        let current = self.conductor.as_ref().map(|conductor| conductor.placement.node);
        let out = |p: &Placement| self.conductors_out.iter().any(|(o, _)| *o == p.entity);
        let mut others = std::iter::once(&plan.aggregator).chain(&plan.aggregator_spares);
        others.any(|p| {
            Some(p.node) != current && nodes.is_online(p.node) && !nodes.is_revoked(p.node) && !out(p)
        })
    }

    /// When the conductor must be looked at again.
    pub(super) fn conductor_wake(&self, plan: &Plan, nodes: &Nodes, timing: &Timing) -> Option<UnixMillis> {
        let conductor = self.conductor.as_ref()?;
        let matters =
            self.phase == JobPhase::Training || (self.phase == JobPhase::Verifying && self.needs_conductor());
        if !matters {
            return None;
        }
        match nodes.offline_since(conductor.placement.node) {
            Some(since) => {
                let grace = if self.has_successor(plan, nodes) {
                    timing.conductor_lost_ms
                } else {
                    timing.conductor_lost_max_ms
                };
                Some(since.plus(grace))
            }
            None if self.phase == JobPhase::Training => {
                Some(silent_since(conductor, nodes, timing).plus(silence_ms(plan, timing)))
            }
            None => None,
        }
    }
}

/// As descriptors tell counts.
fn to_tens(n: u64) -> u64 {
    n.saturating_add(5) / 10 * 10
}

/// From when on a connected conductor should have been heard. One that was cut off works on and tells it all once it is
/// back: its silence begins anew then, though not for ever if it comes and goes.
fn silent_since(conductor: &Conductor, nodes: &Nodes, timing: &Timing) -> UnixMillis {
    let back = nodes
        .online_since(conductor.placement.node)
        .unwrap_or(conductor.heard_at);
    let latest = conductor.heard_at.plus(timing.conductor_lost_max_ms);
    conductor.heard_at.max(back.min(latest))
}

/// A connected conductor that works reports at the latest after this time: three rounds that ran to their deadline.
fn silence_ms(plan: &Plan, timing: &Timing) -> u64 {
    timing
        .conductor_silent_ms
        .saturating_add(plan.round_deadline_ms.saturating_mul(3))
}

fn fenced() -> Rejection {
    Rejection::new(Code::StaleEpoch, "another conductor has taken over")
}

/// Whether the end that a conductor tells of is one that its plan can come to.
fn check_failed(failed: &TrainingFailed, plan: &Plan) -> Result<(), Rejection> {
    let wrong = |why: String| Err(Rejection::malformed("end of training", &why));
    if failed.cycle >= plan.rounds {
        return wrong(format!("cycle {} of {}", failed.cycle, plan.rounds));
    }
    let mut seen = BTreeSet::new();
    for (position, _) in &failed.left_out {
        if *position as usize >= plan.sites.len() || !seen.insert(position) {
            return wrong(format!("site {position} is not in the plan, or left out twice"));
        }
    }
    Ok(())
}

/// Sites by their index in the plan, as records name them.
fn left_out_of(plan: &Plan, cycle: u32, left_out: &[(u32, Rejection)]) -> Vec<LeftOut> {
    let named = left_out.iter().filter_map(|(position, reason)| {
        let site = plan.sites.get(*position as usize)?;
        Some(LeftOut {
            dataset: site.dataset.clone(),
            cycle: Some(cycle),
            last_cycle: None,
            reason: reason.clone(),
        })
    });
    named.collect()
}

/// Tells who is left out of a cycle. Who was left out for the same reason in the cycle before was told of then.
fn tell_left_out(left_out: &[LeftOut], cycle: u32, step: &mut Step<'_>) {
    let before = cycle.checked_sub(1).and_then(|before| step.cycles.get(&before));
    let told_of = |out: &LeftOut| {
        before.is_some_and(|before| before.left_out.iter().any(|earlier| earlier.is_same(out)))
    };
    let news: Vec<LeftOut> = left_out.iter().filter(|out| !told_of(out)).cloned().collect();
    step.out.extend(
        news.into_iter()
            .map(|left_out| Output::Event(JobEvent::LeftOut { left_out })),
    );
}
