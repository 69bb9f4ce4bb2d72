//! Deployments: carries what happens to their state machines and does what they want.

mod asked;

use crate::{
    core::{
        Core, Nodes, Turn,
        event::Timer,
        landscape::HostSearch,
        orders::{OrderRecord, Process},
        processes,
    },
    deployment::{Deployment, Input, Output, Step},
    job,
    limits::{DEPLOYMENTS_ACTIVE_MAX, DEPLOYMENTS_ENDED_MAX, HOLDERS_MAX, READERS_MAX, Timing},
};
use daitn_messages::{
    ids::{ArtifactId, DeploymentId, EntityKind, JobId, NodeId, OrganisationId},
    job::{DeploymentPhase, Waiting},
    leaf::LeafKind,
    learning::ModelVersion,
    plan::Placement,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    session::{ArtifactRef, Peer},
    units::UnixMillis,
};
use daitn_store::Family;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// A deployment with what is not written of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) deployment: Deployment,
    /// The deployment as it was last written.
    pub(crate) written: ArtifactId,
    pub(crate) wake: Option<UnixMillis>,
    /// The plan's choice of hosts, tried first.
    pub(crate) preferred: Vec<Placement>,
}

/// All deployments. Ended ones beyond a bound are in the store only.
#[derive(Debug, Default)]
pub(crate) struct Deployments {
    pub(crate) by_id: BTreeMap<DeploymentId, Entry>,
    pub(crate) active: BTreeSet<DeploymentId>,
}

impl Deployments {
    pub(crate) fn job_of(&self, id: &DeploymentId) -> Option<JobId> {
        self.by_id.get(id).and_then(|entry| entry.deployment.job.clone())
    }

    /// What a deployment waits for.
    pub(crate) fn waiting(&self, id: &DeploymentId, nodes: &Nodes, timing: &Timing) -> Option<Waiting> {
        let entry = self.by_id.get(id)?;
        entry.deployment.waiting(nodes, timing)
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &Deployment> {
        self.active
            .iter()
            .filter_map(|id| self.by_id.get(id))
            .map(|entry| &entry.deployment)
    }
}

/// What is to be deployed.
pub(crate) struct NewDeployment {
    pub(crate) organisation: OrganisationId,
    pub(crate) model: ModelVersion,
    pub(crate) replicas: u32,
    pub(crate) job: Option<JobId>,
    pub(crate) preferred: Vec<Placement>,
}

impl Core {
    pub(super) fn begin_deployment(
        &mut self,
        turn: &mut Turn<'_>,
        new: NewDeployment,
    ) -> Result<DeploymentId, Rejection> {
        if self.deployments.active.len() >= DEPLOYMENTS_ACTIVE_MAX {
            let message = format!("{DEPLOYMENTS_ACTIVE_MAX} deployments are under way, which is the most");
            return Err(Rejection::new(Code::Overloaded, message));
        }
        if let Some(rejection) = self.serving_refused(&new.organisation, &new.model) {
            return Err(rejection);
        }
        let bytes = self.models.weights_bytes(&new.model);
        let id = DeploymentId::new(turn.now.0, turn.entropy.bytes());
        let deployment = Deployment {
            id: id.clone(),
            organisation: new.organisation,
            model: new.model,
            job: new.job,
            replicas: new.replicas,
            phase: DeploymentPhase::Placing,
            created_at: turn.now,
            ready_at: None,
            ended_at: None,
            deadline: turn.now.plus(self.config.timing.placing_ms(bytes)),
            hosts: Vec::new(),
            refused: Vec::new(),
            short_since: None,
            n_drained: 0,
            cause: None,
        };
        turn.leaf_of(LeafKind::Deployment, &id, &deployment, [&deployment.organisation]);
        let entry = Entry {
            deployment,
            written: ArtifactId([0; 32]),
            wake: None,
            preferred: new.preferred,
        };
        self.deployments.by_id.insert(id.clone(), entry);
        self.deployments.active.insert(id.clone());
        self.snapshot.changed();
        Ok(id)
    }

    /// The verified model of a job goes to the hosts of its plan.
    pub(super) fn deploy_for_job(&mut self, turn: &mut Turn<'_>, id: &JobId) {
        let Some(entry) = self.jobs.by_id.get(id) else {
            return;
        };
        let (Some(model), Some(wanted)) = (entry.job.model.clone(), entry.plan.request.deployment.clone())
        else {
            return;
        };
        let new = NewDeployment {
            organisation: entry.job.organisation.clone(),
            model,
            replicas: wanted.replicas,
            job: Some(id.clone()),
            preferred: entry.plan.hosts.clone(),
        };
        match self.begin_deployment(turn, new) {
            Ok(deployment) => {
                if let Some(entry) = self.jobs.by_id.get_mut(id) {
                    entry.job.deployment = Some(deployment.clone());
                }
                self.step_deployment(turn, &deployment, Input::Review);
            }
            Err(rejection) => {
                let input = job::Input::Deployed {
                    phase: DeploymentPhase::Failed,
                    n_ready: 0,
                    cause: Some(rejection),
                };
                self.tell_job(turn, id, input);
            }
        }
    }

    fn tell_job(&mut self, turn: &mut Turn<'_>, id: &JobId, input: job::Input<'_>) {
        if let Err(rejection) = self.step_job(turn, id, input) {
            tracing::error!(job = %id, %rejection, "a job refused news of its deployment");
        }
    }

    pub(super) fn step_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId, input: Input<'_>) {
        // Hosts are chosen with whatever happens.
        let input = match self.deployment_refused(id) {
            Some(cause) => Input::Stop(cause),
            None => input,
        };
        let Some(entry) = self.deployments.by_id.get_mut(id) else {
            return;
        };
        if entry.deployment.has_ended() {
            return;
        }
        let Some(model) = self.models.get(&entry.deployment.model) else {
            return;
        };
        let weights = ArtifactRef {
            id: model.body.weights,
            bytes: model.body.weights_bytes,
        };
        let nodes = &self.nodes;
        let policies = RefCell::new(&mut self.policies);
        let owner = entry.deployment.organisation.clone();
        let hosts = HostSearch {
            topology: &self.topology,
            nodes,
            spec: &model.body.spec,
            preferred: &entry.preferred,
            may: &|host| policies.borrow_mut().shown_to(&owner, host),
            now: turn.now,
            seed: turn.entropy.number(),
        };
        let mut step = Step {
            now: turn.now,
            timing: &self.config.timing,
            nodes,
            hosts: &hosts,
            spec: &model.body.spec,
            weights,
            holders: holders(nodes, &model.holders),
            gateways: self.config.gateways.iter().map(|peer| peer.node).collect(),
            readers: nodes
                .with_kind(EntityKind::ModelHost)
                .map(|n| n.record.node)
                .take(READERS_MAX)
                .collect(),
            entropy: &mut *turn.entropy,
            out: Vec::new(),
        };
        let before = (entry.deployment.phase, entry.deployment.n_ready());
        let deployment = &mut entry.deployment;
        // After a panic the deployment may be half moved; nothing is done with it any more but to end it.
        let moved = catch_unwind(AssertUnwindSafe(|| deployment.take(input, &mut step)));
        let outputs = step.out;
        if moved.is_ok() {
            self.apply_deployment(turn, id, outputs);
        } else {
            tracing::error!(deployment = %id, "the deployment's state machine panicked; the deployment ends");
            self.crash_deployment(turn, id);
        }
        self.keep_deployment(turn, id, before);
    }

    fn crash_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId) {
        self.cancel_all(turn, &Process::Deployment(id.clone()));
        if let Some(entry) = self.deployments.by_id.get_mut(id) {
            entry.deployment.hosts.clear();
            entry.deployment.phase = DeploymentPhase::Failed;
            entry.deployment.cause = Some(processes::fault("deployment"));
            entry.deployment.ended_at = Some(turn.now);
        }
    }

    fn apply_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId, outputs: Vec<Output>) {
        for output in outputs {
            let Some(entry) = self.deployments.by_id.get(id) else {
                return;
            };
            let owner = entry.deployment.organisation.clone();
            match output {
                Output::Order(draft) => {
                    let concerns = [owner, draft.terminal.organisation.clone()];
                    self.issue(turn, Process::Deployment(id.clone()), *draft, &concerns);
                }
                Output::Cancel(order) => self.cancel(turn, &order, &[owner]),
                Output::Holds(node) => {
                    let model = entry.deployment.model.clone();
                    self.models.add_holder(turn, &model, node);
                }
                Output::Decide(decision) => {
                    turn.decide(decision, vec![owner]);
                }
            }
        }
    }

    fn keep_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId, before: (DeploymentPhase, usize)) {
        let Some(entry) = self.deployments.by_id.get_mut(id) else {
            return;
        };
        let (family, key) = (Family::Deployments, id.as_str());
        let is_news = turn.keep(family, key, &entry.deployment, &mut entry.written);
        if is_news && entry.deployment.n_ready() == 0 {
            // What it waits for is told to who queries it.
            self.snapshot.changed();
        }
        let deployment = entry.deployment.clone();
        let after = (deployment.phase, deployment.n_ready());
        let weights_bytes = self.models.weights_bytes(&deployment.model);
        let wake = deployment.next_wake(&self.nodes, &self.config.timing, weights_bytes);
        turn.wake(Timer::Deployment(id.clone()), &mut entry.wake, wake);
        if before.0 != after.0 {
            let concerns = [&deployment.organisation];
            turn.leaf(LeafKind::Deployment, id, entry.written, concerns);
        }
        if deployment.has_ended() && self.deployments.active.remove(id) {
            self.drop_orders_of(turn, &Process::Deployment(id.clone()));
        }
        if before == after {
            if let Some(job) = &deployment.job {
                self.tell_waiting(turn, job);
            }
            return;
        }
        self.snapshot.changed();
        if after.0 == DeploymentPhase::Ready && before.0 != DeploymentPhase::Ready {
            self.supersede(turn, &deployment);
        }
        if let Some(job) = deployment.job {
            let input = job::Input::Deployed {
                phase: after.0,
                n_ready: after.1,
                cause: deployment.cause,
            };
            self.tell_job(turn, &job, input);
        }
    }

    /// A deployment that became ready takes the place of the others of its model.
    fn supersede(&mut self, turn: &mut Turn<'_>, newer: &Deployment) {
        let same = |old: &&Deployment| old.model.name == newer.model.name && old.id != newer.id;
        // One that began later will take this one's place in its turn.
        let older = self
            .deployments
            .active()
            .filter(same)
            .filter(|old| old.created_at <= newer.created_at);
        let older: Vec<DeploymentId> = older.map(|old| old.id.clone()).collect();
        for old in older {
            let message = format!("{} with version {} took its place", newer.id, newer.model.version);
            self.end_deployment(turn, &old, Rejection::new(Code::Stopped, message));
        }
    }

    pub(super) fn end_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId, cause: Rejection) {
        self.step_deployment(turn, id, Input::Stop(cause));
    }

    pub(super) fn deployment_receipt(
        &mut self,
        turn: &mut Turn<'_>,
        id: &DeploymentId,
        record: &OrderRecord,
        receipt: &Receipt,
        hash: ArtifactId,
    ) -> Result<(), Rejection> {
        let Some(entry) = self.deployments.by_id.get(id) else {
            return Ok(());
        };
        let host = entry.deployment.hosts.iter().find(|host| host.order == record.id);
        let is_news = host.is_some_and(|host| match receipt.outcome {
            Outcome::Accepted { .. } => !host.accepted,
            Outcome::Serving => !host.ready,
            _ => true,
        });
        if is_news {
            turn.leaf(
                LeafKind::Receipt,
                &record.id,
                hash,
                [&entry.deployment.organisation],
            );
            self.step_deployment(turn, id, Input::Receipt(receipt));
        }
        Ok(())
    }

    pub(super) fn wake_deployment(&mut self, turn: &mut Turn<'_>, id: &DeploymentId) {
        if let Some(entry) = self.deployments.by_id.get_mut(id) {
            entry.wake = None;
        }
        self.step_deployment(turn, id, Input::Review);
    }

    /// Lets the deployments look that a node's coming or going concerns: those on it, and those that look for hosts. Of
    /// one that came, what it could not do before is forgotten.
    pub(super) fn review_deployments(&mut self, turn: &mut Turn<'_>, node: NodeId, came: bool) {
        let is_host = self
            .nodes
            .get(node)
            .is_some_and(|n| n.has(&[EntityKind::ModelHost]));
        let concerned = self.deployments.active().filter(|deployment| {
            let is_short = deployment.hosts.len() < deployment.replicas as usize;
            deployment.hosts.iter().any(|host| host.placement.node == node) || (is_short && is_host)
        });
        let concerned: Vec<DeploymentId> = concerned.map(|deployment| deployment.id.clone()).collect();
        let back = self.nodes.get(node).filter(|_| came);
        let back = back.map(|node| node.entities.clone()).unwrap_or_default();
        for id in concerned {
            self.step_deployment(turn, &id, Input::Back(&back));
        }
    }

    /// The same after a start, with the time that the center was away given back.
    pub(super) fn arm_deployments(&mut self, turn: &mut Turn<'_>) {
        for id in &self.deployments.active {
            if let Some(Entry { deployment, .. }) = self.deployments.by_id.get_mut(id) {
                let weights_bytes = self.models.weights_bytes(&deployment.model);
                deployment.center_was_away(turn.now, &self.config.timing, weights_bytes);
            }
        }
        self.review_all_deployments(turn);
    }

    pub(super) fn review_all_deployments(&mut self, turn: &mut Turn<'_>) {
        let all: Vec<DeploymentId> = self.deployments.active.iter().cloned().collect();
        for id in all {
            self.wake_deployment(turn, &id);
        }
    }

    /// Lets go of ended deployments beyond the bound, oldest first.
    pub(super) fn forget_deployments(&mut self) {
        let all = self.deployments.by_id.values().map(|entry| &entry.deployment);
        let ended = all.filter(|deployment| deployment.has_ended());
        let ended = ended.map(|deployment| (deployment.ended_at, deployment.id.clone()));
        for id in processes::oldest_over(ended, DEPLOYMENTS_ENDED_MAX) {
            self.deployments.by_id.remove(&id);
        }
    }
}

/// How to reach those who have the weights, connected ones first.
fn holders(nodes: &Nodes, holders: &[NodeId]) -> Vec<Peer> {
    let known = || holders.iter().filter(|node| !nodes.is_revoked(**node));
    let online = known().filter(|node| nodes.is_online(**node));
    let offline = known().filter(|node| !nodes.is_online(**node));
    online
        .chain(offline)
        .take(HOLDERS_MAX)
        .map(|node| nodes.peer(*node))
        .collect()
}
