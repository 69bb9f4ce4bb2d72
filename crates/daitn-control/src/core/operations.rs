//! What clients ask for: who may, and where it is done.

use crate::core::{
    Core, Turn,
    event::{Effect, RequestId},
};
use daitn_messages::{
    BUILD,
    ids::{ApiKeyId, OrganisationId},
    operation::{Answer, Operation, Principal, Scope, StatusView},
    rejection::{Code, Rejection},
};

/// Who asks, as the registry of keys knows it.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) key: ApiKeyId,
    pub(crate) organisation: OrganisationId,
    pub(crate) is_admin: bool,
}

impl Who {
    /// Whether this principal may see what belongs to the organisation. What it may not see looks as if it were not.
    pub(crate) fn sees(&self, organisation: &OrganisationId) -> bool {
        self.is_admin || self.organisation == *organisation
    }

    /// The one organisation that it sees; none: all.
    pub(crate) fn only(&self) -> Option<OrganisationId> {
        (!self.is_admin).then(|| self.organisation.clone())
    }
}

impl Core {
    /// Checks the key that a principal came with: whoever claims a key that is revoked, or more than it has, is nobody.
    pub(super) fn authorise(&self, principal: &Principal, scope: Scope) -> Result<Who, Rejection> {
        let key = self
            .keys
            .get(&principal.key)
            .filter(|key| !key.revoked && key.organisation == principal.organisation);
        let Some(key) = key else {
            return Err(Rejection::new(
                Code::Unauthenticated,
                "the API key is unknown or revoked",
            ));
        };
        if !key.scopes.contains(&scope) {
            let message = format!("the API key lacks the scope `{}`", scope.as_str());
            return Err(Rejection::new(Code::Unauthorised, message));
        }
        Ok(Who {
            key: key.key.clone(),
            organisation: key.organisation.clone(),
            is_admin: key.scopes.contains(&Scope::Admin),
        })
    }

    pub(super) fn operation(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        principal: &Principal,
        operation: Operation,
    ) {
        let who = match self.authorise(principal, operation.scope()) {
            Ok(who) => who,
            Err(rejection) => {
                turn.reply(request, Err(rejection));
                return;
            }
        };
        let result = match operation {
            Operation::GetJob(job) => {
                self.get_job(turn, request, &who, &job);
                return;
            }
            Operation::Explain(decision) => {
                let organisation = who.only();
                turn.effect(Effect::ReadDecision {
                    request,
                    decision,
                    organisation,
                });
                return;
            }
            Operation::Leaves { from, limit } => {
                turn.effect(Effect::ReadLeaves { request, from, limit });
                return;
            }
            Operation::Plan(training) => {
                self.plan(turn, request, &who, *training);
                return;
            }
            Operation::Search(search) => self.search(principal, &search, None),
            other => self.perform(turn, &who, other),
        };
        turn.reply(request, result);
    }

    fn perform(&mut self, turn: &mut Turn<'_>, who: &Who, operation: Operation) -> Result<Answer, Rejection> {
        match operation {
            Operation::CreateToken(new) => self.create_token(turn, new),
            Operation::ListTokens => Ok(self.list_tokens()),
            Operation::RevokeToken(token) => self.revoke_token(turn, &token),
            Operation::CreateKey(new) => self.create_key(turn, new),
            Operation::ListKeys => Ok(self.list_keys()),
            Operation::RevokeKey(key) => self.revoke_key(turn, who, &key),
            Operation::ListNodes => Ok(self.list_nodes(who)),
            Operation::GetNode(node) => self.get_node(who, node),
            Operation::RevokeNode(node) => self.revoke_node(turn, node),
            Operation::DrainNode(node, draining) => self.drain_node(turn, node, draining),
            Operation::GetEntity(entity) => self.get_entity(who, &entity),
            Operation::Apply {
                plan,
                idempotency_key,
            } => self.apply(turn, who, &plan, idempotency_key),
            Operation::ListJobs => Ok(self.list_jobs(who)),
            Operation::StopJob(job) => self.stop_job(turn, who, &job),
            Operation::GetModel(model) => self.get_model(who, &model),
            Operation::ListDeployments => Ok(self.list_deployments(who)),
            Operation::Deploy {
                model,
                version,
                replicas,
            } => self.deploy(turn, who, &model, version, replicas),
            Operation::StopDeployment(deployment) => self.stop_deployment(turn, who, &deployment),
            Operation::RollBack(model) => self.roll_back(turn, who, &model),
            Operation::Can(question) => self.can(who, &question),
            Operation::GetPolicy => Ok(Answer::PolicyText {
                policy: self.policies.domain_text.clone(),
            }),
            Operation::SetPolicy(text) => self.set_policy(turn, text),
            Operation::Status => Ok(Answer::Status(self.status())),
            Operation::GetJob(_)
            | Operation::Plan(_)
            | Operation::Explain(_)
            | Operation::Leaves { .. }
            | Operation::Search(_) => Err(Rejection::new(
                Code::Internal,
                "this operation is answered elsewhere",
            )),
        }
    }

    fn status(&self) -> StatusView {
        let served = self
            .deployments
            .active()
            .filter(|deployment| deployment.n_ready() > 0);
        let served: std::collections::BTreeSet<_> = served.map(|deployment| &deployment.model).collect();
        StatusView {
            domain: self.config.domain.clone(),
            build: BUILD.to_owned(),
            center: self.config.key.id(),
            nodes: self
                .nodes
                .by_id
                .values()
                .filter(|node| !node.record.revoked)
                .count() as u64,
            nodes_online: self.nodes.n_online() as u64,
            descriptors: self.topology.len() as u64,
            jobs_active: self.jobs.active.len() as u64,
            jobs: (self.jobs.by_id.len() + self.jobs.archived.len()) as u64,
            models_served: served.len() as u64,
            leaves: self.n_leaves,
            state_version: self.state_version,
        }
    }
}
