//! Where the domain's policies are asked of what is under way, not only of what is planned: a job that trains, a model
//! that is served.

use crate::{
    core::{Core, Turn},
    job,
};
use daitn_messages::{
    ids::{DeploymentId, EntityId, EntityKind, JobId, OrganisationId},
    job::JobPhase,
    learning::ModelVersion,
    policy::{PolicyAnswer, Verb},
    rejection::{Code, Rejection},
};

impl Core {
    /// The policies have changed: what they do not permit any more ends.
    pub(super) fn end_what_is_forbidden(&mut self, turn: &mut Turn<'_>) {
        let is_early = |phase| {
            matches!(
                phase,
                JobPhase::Preparing | JobPhase::Training | JobPhase::Verifying
            )
        };
        for id in self.active_jobs(|entry| is_early(entry.job.phase)) {
            let Some(cause) = self.job_refused(&id) else {
                continue;
            };
            if let Err(rejection) = self.step_job(turn, &id, job::Input::Forbidden(cause)) {
                tracing::error!(job = %id, %rejection, "a job refused to end");
            }
        }
        self.review_all_deployments(turn);
    }

    /// Why a job may not go on: a site of it may not be trained on, or a unit may not evaluate for its requester.
    fn job_refused(&mut self, id: &JobId) -> Option<Rejection> {
        let entry = self.jobs.by_id.get(id)?;
        let (plan, job) = (&entry.plan, &entry.job);
        let who = &plan.request.organisation;
        if job.phase != JobPhase::Verifying {
            let takes_part = plan.sites.iter().enumerate().zip(job.sites.iter());
            let takes_part = takes_part.filter(|(_, state)| state.refusal().is_none());
            for ((position, site), _) in takes_part {
                let Some(descriptor) = self.topology.get(&site.dataset) else {
                    continue;
                };
                let context = daitn_topology::site_context(plan, position);
                let answer = self.policies.permit(who, Verb::Train, descriptor, &context);
                if !answer.allowed {
                    return Some(refusal(who, "train on", &site.dataset, answer));
                }
            }
        }
        let context = daitn_topology::evaluation_context(&plan.request);
        let of_job = job.units.iter().map(|unit| &unit.placement);
        let planned = plan.verifiers.iter().filter(|_| job.units.is_empty());
        for unit in of_job.chain(planned) {
            let Some(descriptor) = self.topology.get(&unit.entity) else {
                continue;
            };
            let answer = self.policies.permit(who, Verb::Evaluate, descriptor, &context);
            if !answer.allowed {
                return Some(refusal(who, "evaluate with", &unit.entity, answer));
            }
        }
        None
    }

    /// Why a model may not be served for its organisation.
    pub(super) fn serving_refused(
        &mut self,
        owner: &OrganisationId,
        model: &ModelVersion,
    ) -> Option<Rejection> {
        let entity = super::access::model_entity(owner, model);
        let descriptor = self.topology.get(&entity)?;
        let text = self.models.policy(&entity, u64::from(model.version));
        let answer = self.policies.may_serve(owner, descriptor, &text);
        (!answer.allowed).then(|| refusal(owner, "serve", &entity, answer))
    }

    /// The same of a deployment's.
    pub(super) fn deployment_refused(&mut self, id: &DeploymentId) -> Option<Rejection> {
        let deployment = &self.deployments.by_id.get(id)?.deployment;
        if deployment.has_ended() {
            return None;
        }
        let (owner, model) = (deployment.organisation.clone(), deployment.model.clone());
        self.serving_refused(&owner, &model)
    }
}

/// A no of policies, with those that determined it.
fn refusal(who: &OrganisationId, what: &str, entity: &EntityId, answer: PolicyAnswer) -> Rejection {
    let PolicyAnswer {
        determining, errors, ..
    } = answer;
    let why = match (determining.is_empty(), errors.is_empty()) {
        (true, true) => "no policy permits it".to_owned(),
        (true, false) => format!("a policy could not be evaluated: {}", errors.join("; ")),
        (false, _) => determining.join(", "),
    };
    let verb = match entity.kind {
        EntityKind::Dataset => Verb::Train,
        EntityKind::Verifier => Verb::Evaluate,
        _ => Verb::Serve,
    };
    let mut rejection = Rejection::new(
        Code::PolicyForbids,
        format!("policies do not let {who} {what} {entity}: {why}"),
    )
    .with_hint(format!(
        "Try it with: daitn policy can {who} {} {entity}",
        verb.as_str()
    ));
    rejection.policies = determining;
    rejection
}
