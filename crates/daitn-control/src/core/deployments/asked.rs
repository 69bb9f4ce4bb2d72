//! What clients ask of deployments: lists, and to deploy, stop and roll back.

use crate::{
    core::{Core, Turn, Who, deployments::NewDeployment},
    deployment::{Deployment, Input},
};
use daitn_messages::{
    ids::{DeploymentId, OrganisationId, Slug},
    learning::ModelVersion,
    operation::Answer,
    rejection::{Code, Rejection},
};

impl Core {
    pub(in crate::core) fn list_deployments(&self, who: &Who) -> Answer {
        let all = self.deployments.by_id.values().map(|entry| &entry.deployment);
        let seen = all.filter(|deployment| who.sees(&deployment.organisation));
        let view = |deployment: &Deployment| deployment.view(&self.nodes, &self.config.timing);
        Answer::Deployments(seen.map(view).collect())
    }

    pub(in crate::core) fn deploy(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        name: &Slug,
        version: Option<u32>,
        replicas: u32,
    ) -> Result<Answer, Rejection> {
        if !(1..=1_000).contains(&replicas) {
            return Err(Rejection::out_of_range(
                "replicas",
                f64::from(replicas),
                1.0,
                1_000.0,
            ));
        }
        let organisation = self.visible_owner(who, name)?;
        let version = version.or(self.models.newest(name)).unwrap_or_default();
        let model = ModelVersion {
            name: name.clone(),
            version,
        };
        if self.models.get(&model).is_none() {
            return Err(self.models.no_version(&model));
        }
        let new = NewDeployment {
            organisation,
            model,
            replicas,
            job: None,
            preferred: Vec::new(),
        };
        let id = self.begin_deployment(turn, new)?;
        self.step_deployment(turn, &id, Input::Review);
        self.show_deployment(&id)
    }

    /// Whose model it is, if this principal may see it.
    fn visible_owner(&self, who: &Who, name: &Slug) -> Result<OrganisationId, Rejection> {
        let owner = self.models.owner(name).filter(|owner| who.sees(owner));
        owner.cloned().ok_or_else(|| Rejection::not_found("model", name))
    }

    fn show_deployment(&self, id: &DeploymentId) -> Result<Answer, Rejection> {
        let entry = self
            .deployments
            .by_id
            .get(id)
            .ok_or_else(|| Rejection::not_found("deployment", id))?;
        let view = entry.deployment.view(&self.nodes, &self.config.timing);
        Ok(Answer::Deployment(view))
    }

    pub(in crate::core) fn stop_deployment(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        id: &DeploymentId,
    ) -> Result<Answer, Rejection> {
        let known = self
            .deployments
            .by_id
            .get(id)
            .filter(|entry| who.sees(&entry.deployment.organisation));
        let Some(known) = known else {
            return Err(Rejection::not_found("deployment", id));
        };
        if known.deployment.has_ended() {
            let message = format!("deployment {id} has ended already; there is nothing to stop");
            return Err(Rejection::new(Code::Conflict, message));
        }
        let cause = Rejection::new(
            Code::Stopped,
            format!("{} stopped the deployment", who.organisation),
        );
        self.end_deployment(turn, id, cause);
        self.show_deployment(id)
    }

    /// Deploys the version before the one that is served, on as many hosts.
    pub(in crate::core) fn roll_back(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        name: &Slug,
    ) -> Result<Answer, Rejection> {
        self.visible_owner(who, name)?;
        let served = self.deployments.active().filter(|d| d.model.name == *name);
        let served = served.max_by_key(|d| (d.ready_at, d.created_at));
        let Some(served) = served else {
            return Err(Rejection::new(
                Code::ModelUnavailable,
                format!("no version of `{name}` is served"),
            ));
        };
        let (current, replicas) = (served.model.version, served.replicas);
        let Some(before) = self.models.before(name, current) else {
            let message = format!("`{name}` has no version before {current}");
            let newest = self.models.newest(name).filter(|newest| *newest != current);
            let hint = newest.map_or_else(
                || "It is the only version.".to_owned(),
                |newest| format!("`daitn model deploy {name}@{newest}` goes forward again."),
            );
            return Err(Rejection::new(Code::NotFound, message).with_hint(hint));
        };
        self.deploy(turn, who, name, Some(before), replicas)
    }
}
