//! The end of a job: registration, deployment, and every way to end, each with its cause.

use crate::job::{Finding, Job, Output, Step};
use daitn_messages::{
    BUILD,
    descriptor::{ModelBody, Provenance},
    job::{DeploymentPhase, JobPhase},
    learning::ModelVersion,
    rejection::{Code, Rejection},
};

impl Job {
    /// The model is verified: what will be registered, with everything that it comes from.
    pub(super) fn register(&mut self, step: &mut Step<'_>) {
        let Some(weights) = self.weights else { return };
        let plan = step.plan;
        let mut receipts: Vec<_> = self
            .sites
            .iter()
            .filter(|site| site.is_in())
            .filter_map(|site| site.receipt)
            .collect();
        receipts.extend(step.cycles.values().map(|cycle| cycle.receipt));
        let reported = self.units.iter().filter_map(|unit| match &unit.finding {
            Finding::Reported { receipt, report } => Some((*receipt, report)),
            _ => None,
        });
        let (reports, evaluations) = reported
            .map(|(hash, report)| (hash, report.evaluation.clone()))
            .unzip();
        let datasets = self
            .sites
            .iter()
            .zip(&plan.sites)
            .filter(|(state, _)| state.is_in());
        let datasets = datasets
            .map(|(_, site)| (site.dataset.clone(), site.descriptor_version))
            .collect();
        self.enter(JobPhase::Deploying, step);
        self.await_answers(step);
        // Last, since the registry answers at once.
        step.out.push(Output::Register(Box::new(ModelBody {
            // The registry knows which versions there are.
            model_version: 0,
            spec: plan.model_spec(),
            weights: weights.id,
            weights_bytes: weights.bytes,
            provenance: Provenance {
                job: self.id.clone(),
                request: plan.request.hash(),
                plan: step.plan_hash,
                datasets,
                receipts,
                reports,
                build: BUILD.to_owned(),
            },
            evaluations,
        })));
    }

    pub(super) fn registered(&mut self, model: ModelVersion, step: &mut Step<'_>) {
        self.model = Some(model);
        if step.plan.request.deployment.is_some() {
            step.out.push(Output::Deploy);
        } else {
            self.end(JobPhase::Succeeded, None, step);
        }
    }

    pub(super) fn deployed(
        &mut self,
        phase: DeploymentPhase,
        n_ready: usize,
        cause: Option<Rejection>,
        step: &mut Step<'_>,
    ) {
        if self.phase != JobPhase::Deploying {
            return;
        }
        match phase {
            DeploymentPhase::Ready => self.end(JobPhase::Succeeded, None, step),
            DeploymentPhase::Failed | DeploymentPhase::Stopped => {
                let told = cause
                    .as_ref()
                    .map_or("its deployment ended", |cause| &cause.message);
                let message = format!("the model is verified and registered but is not served: {told}");
                let ended = match cause {
                    Some(cause) if cause.code == Code::PolicyForbids => Rejection { message, ..cause },
                    _ => Rejection::new(Code::ModelUnavailable, message),
                };
                self.end(JobPhase::Failed, Some(ended), step);
            }
            // Served, if by fewer than asked for; the deployment goes on looking for more.
            DeploymentPhase::Degraded if n_ready > 0 => self.end(JobPhase::Succeeded, None, step),
            DeploymentPhase::Placing | DeploymentPhase::Degraded => {}
        }
    }

    pub(super) fn review_deploying(&mut self, step: &mut Step<'_>) {
        if self.deadline.is_some_and(|deadline| step.now >= deadline) {
            let message = "the model is verified and registered, but no host served it in time".to_owned();
            self.end(
                JobPhase::Failed,
                Some(Rejection::new(Code::DeadlinePassed, message)),
                step,
            );
        }
    }

    /// Ends the job. What was begun for it is stopped at its terminals; after success the units and the last conductor
    /// keep the weights, for hosts to come.
    pub(crate) fn end(&mut self, phase: JobPhase, cause: Option<Rejection>, step: &mut Step<'_>) {
        self.gathering = None;
        self.stranded_since = None;
        self.deadline = None;
        for site in self.sites.iter() {
            let orders = [&site.order, &site.compute_order];
            step.out
                .extend(orders.into_iter().flatten().cloned().map(Output::Cancel));
        }
        if self.model.is_none() {
            let units = self.units.iter().filter_map(|unit| unit.order.clone());
            let conductor = self.conductor.as_ref().map(|conductor| conductor.order.clone());
            step.out.extend(units.chain(conductor).map(Output::Cancel));
        }
        self.cause = cause;
        self.ended_at = Some(step.now);
        self.enter(phase, step);
    }
}
