//! Verification: units judge the final weights on data that no trainer saw; k of n must find the target reached.

use crate::{
    core::{Decision, OrderDraft, OrderKind},
    job::{Finding, Job, Output, Step, Unit},
    limits::{ORDER_VALID_MS, VERIFY_ATTEMPTS_MAX},
};
use daitn_messages::{
    ids::ArtifactId,
    job::{Candidate, JobEvent, JobPhase},
    learning::Metric,
    order::{Instruction, VerifyOrder},
    plan::Placement,
    receipt::{Outcome, Receipt, VerificationReport},
    rejection::{Code, Rejection},
    request::Verification,
};

impl Job {
    /// Training is done: asks every unit that has not reported yet.
    pub(super) fn verify(&mut self, step: &mut Step<'_>) {
        if self.weights.is_none() {
            return;
        }
        if self.units.is_empty() {
            let unit = |placement: &Placement| Unit {
                placement: placement.clone(),
                order: None,
                attempts: 0,
                finding: Finding::Waiting,
                replaced: false,
            };
            self.units = step.plan.verifiers.iter().map(unit).collect();
        }
        self.enter(JobPhase::Verifying, step);
        self.await_answers(step);
        for place in 0..self.units.len() {
            if !matches!(self.units[place].finding, Finding::Reported { .. }) {
                self.ask_unit(place, step);
            }
        }
        self.judge(step);
    }

    fn ask_unit(&mut self, place: usize, step: &mut Step<'_>) {
        let Some(weights) = self.weights else { return };
        let holders = self
            .conductor
            .iter()
            .map(|conductor| step.nodes.peer(conductor.placement.node));
        let order = VerifyOrder {
            spec: step.plan.model_spec(),
            weights,
            holders: holders.collect(),
            metric: step.plan.request.verification.metric,
            target: step.plan.request.verification.target,
            readers: step.readers(),
        };
        let id = step.new_order_id();
        let unit = &mut self.units[place];
        let old = unit.order.replace(id.clone());
        unit.attempts += 1;
        unit.finding = Finding::Waiting;
        let draft = OrderDraft {
            id,
            kind: OrderKind::Verify(u32::try_from(place).expect("a request asks at most 1,000 units")),
            epoch: self.epoch,
            node: unit.placement.node,
            terminal: unit.placement.entity.clone(),
            valid_ms: ORDER_VALID_MS,
            instruction: Instruction::Verify(Box::new(order)),
        };
        step.out.extend(old.map(Output::Settle));
        step.order(draft);
    }

    pub(super) fn unit_reported(
        &mut self,
        place: u32,
        receipt: &Receipt,
        hash: ArtifactId,
        step: &mut Step<'_>,
    ) -> Result<(), Rejection> {
        let Some(unit) = self.units.get_mut(place as usize) else {
            return Ok(());
        };
        if matches!(unit.finding, Finding::Reported { .. }) {
            return Ok(());
        }
        let is_current = unit.order.as_ref() == Some(&receipt.order);
        match &receipt.outcome {
            // A report on these weights counts, whichever order asked for it.
            Outcome::Verified(report) => {
                let Some(weights) = self.weights else {
                    return Ok(());
                };
                check_report(report, weights.id, &step.plan.request.verification)?;
                unit.finding = Finding::Reported {
                    receipt: hash,
                    report: report.clone(),
                };
                let entity = unit.placement.entity.clone();
                step.out.push(Output::Settle(receipt.order.clone()));
                step.out.push(Output::WitnessReport(entity.clone(), hash));
                let report = report.clone();
                step.out
                    .push(Output::Event(JobEvent::Report { unit: entity, report }));
            }
            Outcome::Refused(rejection) if is_current => {
                step.out.push(Output::Settle(receipt.order.clone()));
                step.out.push(Output::WitnessReceipt(receipt.order.clone(), hash));
                let again = matches!(
                    rejection.code,
                    Code::Unreachable | Code::NodeLost | Code::HashMismatch | Code::Overloaded
                );
                unit.finding = Finding::Refused(rejection.clone());
                if again && unit.attempts < VERIFY_ATTEMPTS_MAX && self.phase == JobPhase::Verifying {
                    self.ask_unit(place as usize, step);
                }
            }
            _ => {}
        }
        self.judge(step);
        Ok(())
    }

    fn n_reached(&self) -> usize {
        let reached =
            |unit: &&Unit| matches!(&unit.finding, Finding::Reported { report, .. } if report.reached);
        self.units.iter().filter(reached).count()
    }

    fn n_waiting(&self) -> usize {
        self.units
            .iter()
            .filter(|unit| unit.finding == Finding::Waiting)
            .count()
    }

    /// Whether the conductor is still needed: some unit has not got the weights from it.
    pub(super) fn needs_conductor(&self) -> bool {
        self.n_waiting() > 0
    }

    pub(super) fn review_units(&mut self, step: &mut Step<'_>) {
        if self.phase != JobPhase::Verifying {
            return;
        }
        if self.deadline.is_some_and(|deadline| step.now >= deadline) {
            for unit in &mut self.units {
                if unit.finding == Finding::Waiting {
                    let message = "no report within the time for verification".to_owned();
                    unit.finding = Finding::Refused(Rejection::new(Code::DeadlinePassed, message));
                    step.out.extend(unit.order.clone().map(Output::Cancel));
                }
            }
        }
        for unit in &mut self.units {
            if unit.finding == Finding::Waiting && step.nodes.is_revoked(unit.placement.node) {
                let message = "its node was thrown out of the domain".to_owned();
                unit.finding = Finding::Refused(Rejection::new(Code::NotEnrolled, message));
            }
        }
        self.judge(step);
    }

    /// Enough agree, or enough cannot agree any more.
    fn judge(&mut self, step: &mut Step<'_>) {
        if self.phase != JobPhase::Verifying {
            return;
        }
        let required = step.plan.request.verification.required as usize;
        if self.n_reached() >= required {
            self.decide_verification(true, step);
            self.register(step);
        } else if self.n_reached() + self.n_waiting() < required && !self.replace_units(required, step) {
            let cause = self.decide_verification(false, step);
            self.end(JobPhase::NotVerified, Some(cause), step);
        }
    }

    /// Asks other units in the place of those that did not report, if enough are there to reach the number that must
    /// agree. One that has reported is never replaced: nobody shops for a better finding.
    fn replace_units(&mut self, required: usize, step: &mut Step<'_>) -> bool {
        let n_missing = required.saturating_sub(self.n_reached() + self.n_waiting());
        let silent: Vec<usize> = (0..self.units.len())
            .filter(|place| {
                let unit = &self.units[*place];
                matches!(unit.finding, Finding::Refused(_)) && !unit.replaced
            })
            .collect();
        let is_new = |p: &&Placement| self.units.iter().all(|unit| unit.placement.entity != p.entity);
        let is_there = |p: &&Placement| step.nodes.get(p.node).is_some_and(|node| node.is_available());
        // Policies may have changed since they were chosen.
        let may = |p: &&Placement| (step.may_evaluate)(&p.entity);
        let spares = self
            .spare_units
            .iter()
            .filter(is_new)
            .filter(is_there)
            .filter(may);
        let spares: Vec<Placement> = spares.take(n_missing).cloned().collect();
        if spares.len() < n_missing || silent.len() < n_missing {
            return false;
        }
        let mut candidates = Vec::new();
        for (place, placement) in silent.into_iter().zip(spares) {
            let lost = &mut self.units[place];
            lost.replaced = true;
            if let Finding::Refused(rejection) = &lost.finding {
                candidates.push(candidate(&lost.placement, false, rejection.to_string()));
            }
            candidates.push(candidate(&placement, true, "fits and is connected".to_owned()));
            self.units.push(Unit {
                placement,
                order: None,
                attempts: 0,
                finding: Finding::Waiting,
                replaced: false,
            });
            self.ask_unit(self.units.len() - 1, step);
        }
        self.await_answers(step);
        step.out.push(Output::Decide(Decision {
            kind: "verification",
            subject: self.id.to_string(),
            outcome: format!("{n_missing} other units are asked in the place of those that did not report"),
            candidates,
            ..Decision::default()
        }));
        true
    }

    fn decide_verification(&self, verified: bool, step: &mut Step<'_>) -> Rejection {
        let wanted = &step.plan.request.verification;
        let candidates = self.units.iter().map(|unit| {
            let (chosen, reason) = match &unit.finding {
                Finding::Waiting => (false, "has not reported".to_owned()),
                Finding::Refused(rejection) => (false, rejection.to_string()),
                Finding::Reported { report, .. } => (report.reached, describe(report)),
            };
            Candidate {
                name: unit.placement.entity.to_string(),
                chosen,
                reason,
                policies: Vec::new(),
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let outcome = format!(
            "{} of {} units found {} to reach {}, {} are required: {}",
            self.n_reached(),
            self.units.len(),
            wanted.metric.as_str(),
            wanted.target,
            wanted.required,
            if verified { "verified" } else { "not verified" },
        );
        let found: Vec<String> = candidates
            .iter()
            .map(|c| format!("{}: {}", c.name, c.reason))
            .collect();
        let cause = Rejection::new(Code::NotVerified, format!("{outcome} ({})", found.join("; ")));
        step.out.push(Output::Decide(Decision {
            kind: "verification",
            subject: self.id.to_string(),
            outcome,
            reasons: Vec::new(),
            candidates,
            prediction: None,
        }));
        cause
    }
}

fn candidate(placement: &Placement, chosen: bool, reason: String) -> Candidate {
    Candidate {
        name: placement.entity.to_string(),
        chosen,
        reason,
        policies: Vec::new(),
    }
}

fn describe(report: &VerificationReport) -> String {
    let value = report.evaluation.metric(report.metric).unwrap_or(f64::NAN);
    format!(
        "{} {value:.4} on {} examples",
        report.metric.as_str(),
        report.evaluation.n_examples
    )
}

/// A report must be about these weights and this target, and its conclusion must follow from its own numbers.
fn check_report(
    report: &VerificationReport,
    weights: ArtifactId,
    wanted: &Verification,
) -> Result<(), Rejection> {
    let wrong = |why: &str| Err(Rejection::malformed("verification report", why));
    if report.weights != weights {
        return wrong("it is about other weights");
    }
    if report.metric != wanted.metric || report.target.to_bits() != wanted.target.to_bits() {
        return wrong("it is about another metric or target");
    }
    let Some(value) = report.evaluation.metric(report.metric) else {
        return wrong("it does not say the metric's value");
    };
    if report.reached != reaches(report.metric, value, wanted.target) {
        return wrong("what it concludes does not follow from what it found");
    }
    Ok(())
}

/// Not a number reaches nothing.
fn reaches(metric: Metric, value: f64, target: f64) -> bool {
    if metric.more_is_better() {
        value >= target
    } else {
        value <= target
    }
}
