//! What is known to be true in a simulation, and the checks against it. Each names the failure of the list in main.rs.

use crate::{work::CONDUCTOR_GAVE_UP, world::World};
use daitn_control::{
    Entropy,
    core::{Core, Event, RequestId},
};
use daitn_messages::{
    ids::{ArtifactId, DeploymentId, EntityId, JobId, NodeId, OrderId, PlanId, TokenId},
    job::{DeploymentPhase, DeploymentView, JobEvent, JobPhase, JobView},
    leaf::LeafKind,
    operation::{Answer, Operation, Principal},
    order::{ConductOrder, Instruction, WorkOrder},
    plan::Plan,
    receipt::Outcome,
    rejection::Code,
    request::Search,
    units::UnixMillis,
};
use daitn_store::Family;
use std::collections::{BTreeMap, BTreeSet};

/// What the world knows apart from the center.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) tokens: BTreeSet<TokenId>,
    pub(crate) enrolled: BTreeSet<NodeId>,
    pub(crate) attached: BTreeSet<EntityId>,
    pub(crate) plans: BTreeMap<PlanId, Plan>,
    /// Jobs that a client was told of, by client.
    pub(crate) jobs: BTreeMap<usize, JobId>,
    pub(crate) job_of_plan: BTreeMap<PlanId, JobId>,
    pub(crate) orders: BTreeSet<OrderId>,
    /// The cohort that the sites' policies were asked for, by job.
    pub(crate) cohorts: BTreeMap<JobId, u32>,
    /// Contents of conductors' states: cycles done and weights.
    pub(crate) states: BTreeMap<ArtifactId, (u32, ArtifactId)>,
    /// From which weights, in which cycle, weights follow.
    pub(crate) parents: BTreeMap<ArtifactId, (u32, ArtifactId)>,
    /// Units that found the target reached, by weights.
    pub(crate) reached: BTreeMap<ArtifactId, BTreeSet<NodeId>>,
    pub(crate) ended: BTreeMap<JobId, JobPhase>,
    /// Every host that a deployment ever had, and how many it asked for.
    pub(crate) hosts: BTreeMap<DeploymentId, BTreeSet<EntityId>>,
    pub(crate) replicas: BTreeMap<DeploymentId, u32>,
    pub(crate) clocks_refused: u64,
    /// Nodes that the operator has begun to throw out, and since when that is acknowledged.
    pub(crate) revoking: BTreeSet<NodeId>,
    pub(crate) revoked: BTreeMap<NodeId, u64>,
    /// When policies of the domain were acknowledged.
    pub(crate) policies: Vec<u64>,
    /// What the operator did.
    pub(crate) deeds: BTreeSet<&'static str>,
    /// Which datasets a facility has accepted to train for.
    pub(crate) facilities: BTreeSet<(JobId, EntityId)>,
}

impl Truth {
    pub(crate) fn planned(&mut self, plan: &Plan) {
        self.plans.insert(plan.id.clone(), plan.clone());
    }

    pub(crate) fn accepted(&mut self, client: usize, view: &JobView) {
        for changed in &self.policies {
            assert!(
                !(view.plan.made_at.0 < *changed && *changed < view.accepted_at.0),
                "failure 15: {} of {} after a policy of {changed}",
                view.id,
                view.plan.id
            );
        }
        let before = self.jobs.insert(client, view.id.clone());
        assert!(
            before.is_none_or(|before| before == view.id),
            "failure 4: one key, two jobs"
        );
        let before = self.job_of_plan.insert(view.plan.id.clone(), view.id.clone());
        assert!(
            before.is_none_or(|before| before == view.id),
            "failure 4: one plan, two jobs"
        );
    }

    pub(crate) fn order_taken(&mut self, order: &WorkOrder) {
        // With all cycles done nobody trains any more: who took part stays named.
        let trains = |conduct: &ConductOrder| {
            let resume = conduct.resume.as_ref();
            resume.is_none_or(|resume| resume.cycles_done < conduct.plan.rounds)
        };
        if let Instruction::Conduct(conduct) = &order.instruction
            && trains(conduct)
        {
            let counted = conduct.accepted.iter().map(|p| &conduct.plan.sites[*p as usize]);
            for site in counted {
                let facility = site.compute.as_ref().map(|compute| compute.node);
                for node in facility.into_iter().chain([site.node]) {
                    let since = self.revoked.get(&node);
                    assert!(
                        since.is_none_or(|since| order.issued_at.0 <= *since),
                        "failure 14: {} counts on {}",
                        order.id,
                        site.dataset
                    );
                }
            }
        }
        if let Instruction::Train(train) = &order.instruction {
            let job = order.job.clone().expect("training is a job's");
            self.cohorts.insert(job, train.context.cohort);
        }
        self.orders.insert(order.id.clone());
    }

    /// A facility signed that it will train; it may be silent about it until it is asked again.
    pub(crate) fn decided(&mut self, order: &WorkOrder, accepted: bool) {
        if let Instruction::Compute(compute) = &order.instruction
            && accepted
        {
            let job = order.job.clone().expect("training is a job's");
            self.facilities.insert((job, compute.dataset.clone()));
        }
    }

    pub(crate) fn reported(&mut self, node: NodeId, outcome: &Outcome) {
        if let Outcome::Verified(report) = outcome
            && report.reached
        {
            self.reached.entry(report.weights).or_default().insert(node);
        }
    }

    pub(crate) fn saw_event(&mut self, job: &JobId, event: &JobEvent) {
        if let JobEvent::Phase { phase, .. } = event {
            let before = self.ended.get(job);
            assert!(
                before.is_none(),
                "job {job} ended as {before:?} and then became {phase:?}"
            );
            if phase.is_terminal() {
                self.ended.insert(job.clone(), *phase);
            }
        }
    }
}

/// Asks a core without changing it for good: its answers to questions that change nothing.
fn ask(core: &mut Core, admin: &Principal, operation: Operation, now: u64) -> Answer {
    let mut entropy = Entropy::new([9; 32]);
    let event = Event::Operation {
        request: RequestId(u64::MAX),
        principal: admin.clone(),
        operation: Box::new(operation),
    };
    let transition = core.handle(event, UnixMillis(now), &mut entropy);
    assert!(transition.batch.is_empty(), "a question changed something");
    let effect = transition
        .effects
        .into_iter()
        .next()
        .expect("a question is answered");
    let daitn_control::core::Effect::Reply { result, .. } = effect else {
        panic!("not an answer: {effect:?}")
    };
    result.unwrap()
}

/// A deployment as it is seen while no node is connected.
fn disconnected(mut deployment: DeploymentView) -> DeploymentView {
    let is_short = deployment.hosts.len() < deployment.replicas as usize;
    deployment.waiting = deployment.waiting.filter(|_| is_short);
    if deployment.phase == DeploymentPhase::Ready {
        deployment.phase = DeploymentPhase::Degraded;
    }
    for (_, _, ready) in &mut deployment.hosts {
        *ready = false;
    }
    deployment
}

/// Everything of a core's state that its records must make again, as text.
fn digest(core: &mut Core, admin: &Principal, now: u64) -> String {
    let mut parts = Vec::new();
    let Answer::Jobs(jobs) = ask(core, admin, Operation::ListJobs, now) else {
        panic!()
    };
    for job in &jobs {
        let Answer::Job(mut view) = ask(core, admin, Operation::GetJob(job.id.clone()), now) else {
            panic!()
        };
        // Follows from who is connected, which no record holds.
        view.waiting = None;
        parts.push(format!("{view:?}"));
    }
    let Answer::Deployments(deployments) = ask(core, admin, Operation::ListDeployments, now) else {
        panic!()
    };
    parts.push(format!(
        "{:?}",
        deployments.into_iter().map(disconnected).collect::<Vec<_>>()
    ));
    // Which replicas are ready, whoever is connected.
    let served = core.snapshot(UnixMillis(now)).models.into_iter().map(|model| {
        let replicas = model.replicas.into_iter();
        let replicas: Vec<_> = replicas
            .map(|replica| (replica.deployment, replica.host))
            .collect();
        (model.model, model.default_version, replicas)
    });
    parts.push(format!("{:?}", served.collect::<Vec<_>>()));
    parts.push(format!("{:?}", ask(core, admin, Operation::ListTokens, now)));
    parts.push(format!("{:?}", ask(core, admin, Operation::ListKeys, now)));
    parts.push(format!("{:?}", ask(core, admin, Operation::GetPolicy, now)));
    let Answer::Nodes(mut nodes) = ask(core, admin, Operation::ListNodes, now) else {
        panic!()
    };
    nodes.iter_mut().for_each(|node| node.online = false);
    parts.push(format!("{nodes:?}"));
    let everything = Search {
        limit: 1_000,
        ..Search::default()
    };
    let Answer::Hits(mut hits) = ask(core, admin, Operation::Search(everything), now) else {
        panic!()
    };
    hits.hits.iter_mut().for_each(|hit| hit.online = false);
    parts.push(format!("{hits:?}"));
    let Answer::Status(mut status) = ask(core, admin, Operation::Status, now) else {
        panic!()
    };
    status.nodes_online = 0;
    parts.push(format!("{status:?}"));
    let sizes = core.sizes();
    parts.push(format!(
        "{:?}",
        sizes
            .iter()
            .filter(|(name, _)| *name != "policies parsed")
            .collect::<Vec<_>>()
    ));
    parts.join("\n")
}

impl World {
    fn ask(&mut self, operation: Operation) -> Answer {
        let (admin, now) = (self.admin.clone(), self.now);
        ask(self.center.core.as_mut().unwrap(), &admin, operation, now)
    }

    /// Failure 10.
    pub(crate) fn compare_with_records(&mut self) {
        let Some(core) = self.center.core.as_mut() else {
            return;
        };
        let (records, config) = (self.center.disk.records(), self.center.config.clone());
        let mut restored = Core::restore(config, &records, UnixMillis(self.now)).unwrap();
        let live = digest(core, &self.admin, self.now);
        let again = digest(&mut restored, &self.admin, self.now);
        if live != again {
            let differ = live.lines().zip(again.lines()).find(|(a, b)| a != b);
            panic!("failure 10: memory and records differ:\n{differ:#?}");
        }
    }

    fn views(&mut self) -> Vec<JobView> {
        let Answer::Jobs(jobs) = self.ask(Operation::ListJobs) else {
            panic!()
        };
        let view = |world: &mut Self, id: JobId| match world.ask(Operation::GetJob(id)) {
            Answer::Job(view) => *view,
            other => panic!("{other:?}"),
        };
        jobs.into_iter().map(|job| view(self, job.id)).collect()
    }

    fn deployments(&mut self) -> Vec<DeploymentView> {
        let Answer::Deployments(deployments) = self.ask(Operation::ListDeployments) else {
            panic!()
        };
        deployments
    }

    /// After every event: what must hold at all times.
    pub(crate) fn check_core(&mut self) {
        if self.center.core.is_none() || self.nodes.len() > 1_000 {
            return;
        }
        for deployment in self.deployments() {
            self.truth
                .replicas
                .insert(deployment.id.clone(), deployment.replicas);
            let hosts = deployment.hosts.iter().map(|(entity, ..)| entity.clone());
            self.truth
                .hosts
                .entry(deployment.id.clone())
                .or_default()
                .extend(hosts);
            let n_ready = deployment.hosts.iter().filter(|(_, _, ready)| *ready).count();
            assert!(
                deployment.hosts.len() <= deployment.replicas as usize,
                "failure 7: {deployment:?}"
            );
            assert!(deployment.phase != DeploymentPhase::Ready || n_ready == deployment.replicas as usize);
        }
    }

    /// Whether every process has come to rest.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        let clients_done = self
            .clients
            .iter()
            .all(|client| client.job.is_some() || client.gave_up);
        if !clients_done {
            return false;
        }
        let Answer::Status(status) = self.ask(Operation::Status) else {
            panic!()
        };
        if status.jobs_active > 0 {
            return false;
        }
        self.deployments()
            .iter()
            .all(|d| d.phase != DeploymentPhase::Placing)
    }

    /// Checks everything at the end and gives the hash of the run.
    pub(crate) fn verdict(&mut self) -> String {
        self.compare_with_records();
        let views = self.views();
        for view in &views {
            self.check_job(view);
        }
        let mut served = BTreeSet::new();
        for deployment in self.deployments() {
            assert_ne!(
                deployment.phase,
                DeploymentPhase::Placing,
                "failure 1: {deployment:?}"
            );
            let ended = matches!(
                deployment.phase,
                DeploymentPhase::Failed | DeploymentPhase::Stopped
            );
            assert_eq!(ended, deployment.cause.is_some(), "failure 2: {deployment:?}");
            let ready = deployment.phase == DeploymentPhase::Ready;
            assert!(
                !ready || served.insert(deployment.model.name.clone()),
                "failure 16: {deployment:?}"
            );
        }
        self.check_acknowledged(&views);
        self.check_leaves();
        self.check_sizes();
        self.trace.update(format!("{views:?}").as_bytes());
        self.trace.finalize().to_string()
    }

    fn check_job(&self, view: &JobView) {
        assert!(
            view.phase.is_terminal(),
            "failure 1: job {} is {:?} at the horizon",
            view.id,
            view.phase
        );
        assert!(view.ended_at.is_some());
        match (&view.cause, view.phase) {
            (None, JobPhase::Succeeded) => {}
            (Some(cause), phase) if phase != JobPhase::Succeeded => {
                assert!(cause.message.len() > 10, "failure 2: {cause}");
                assert_ne!(cause.code, Code::Internal, "failure 11: {cause}");
                let named = view.left_out.iter().any(|out| out.cycle.is_some());
                assert!(
                    named || cause.message != CONDUCTOR_GAVE_UP,
                    "failure 2: nobody is named: {view:?}"
                );
            }
            (cause, phase) => panic!("failure 2: {phase:?} with cause {cause:?}"),
        }
        let refused: BTreeSet<&EntityId> = view
            .left_out
            .iter()
            .filter(|out| out.cycle.is_none())
            .map(|out| &out.dataset)
            .collect();
        let mut before: Option<ArtifactId> = None;
        for cycle in &view.cycles {
            let n_sites = cycle.n_sites as usize;
            assert!(
                n_sites <= view.plan.sites.len() - refused.len(),
                "failure 5: {cycle:?}, refused {refused:?}"
            );
            assert!(cycle.n_sites >= view.plan.quorum, "failure 5: {cycle:?}");
            assert!(
                cycle.n_sites >= self.truth.cohorts[&view.id],
                "failure 5: {cycle:?}"
            );
            let (number, parent) = self.truth.parents[&cycle.global];
            assert_eq!(number, cycle.cycle, "failure 6: {cycle:?}");
            if let Some(before) = before {
                assert_eq!(
                    parent, before,
                    "failure 6: cycle {} does not follow from the one before",
                    cycle.cycle
                );
            }
            before = Some(cycle.global);
        }
        if let Some(model) = &view.model {
            assert_eq!(
                view.cycles.len(),
                view.plan.rounds as usize,
                "a model without all its cycles"
            );
            let weights = before.unwrap();
            let reached = self.truth.reached.get(&weights).map_or(0, BTreeSet::len);
            assert!(
                reached >= view.plan.request.verification.required as usize,
                "failure 8: {model:?}"
            );
            let reports = view
                .reports
                .iter()
                .filter(|(_, report)| report.reached && report.weights == weights);
            assert!(
                reports.count() >= view.plan.request.verification.required as usize,
                "failure 8: {model:?}"
            );
        }
        assert_eq!(
            view.phase == JobPhase::Succeeded,
            view.model.is_some() && view.cause.is_none()
        );
    }

    /// Failure 3.
    fn check_acknowledged(&mut self, views: &[JobView]) {
        for (client, job) in &self.truth.jobs {
            assert!(
                views.iter().any(|view| view.id == *job),
                "failure 3: job {job} of client {client} is gone"
            );
        }
        let of_client: BTreeMap<String, usize> = views.iter().fold(BTreeMap::new(), |mut counts, view| {
            *counts.entry(view.plan.request.model.to_string()).or_default() += 1;
            counts
        });
        // A client whose acknowledgement was lost asked again with its key: still one job.
        for (model, count) in of_client {
            let clients = (0..self.clients.len()).filter(|client| self.model_of(*client) == model);
            assert!(count <= clients.count(), "failure 4: {count} jobs of {model}");
        }
        let Answer::Tokens(tokens) = self.ask(Operation::ListTokens) else {
            panic!()
        };
        for token in &self.truth.tokens {
            assert!(
                tokens.iter().any(|view| view.token == *token),
                "failure 3: token {token}"
            );
        }
        let disk = &self.center.disk;
        for node in &self.truth.enrolled {
            assert!(
                disk.has(Family::Nodes, &node.to_string()),
                "failure 3: node {node}"
            );
        }
        let thrown_out = |entity: &EntityId| {
            let mut nodes = self
                .nodes
                .iter()
                .filter(|node| self.truth.revoking.contains(&node.id));
            nodes.any(|node| node.entities.contains(entity))
        };
        for entity in self.truth.attached.iter().filter(|entity| !thrown_out(entity)) {
            assert!(
                disk.has(Family::Descriptors, &entity.to_string()),
                "failure 3: descriptor {entity}"
            );
        }
    }

    /// The other half of failure 9: no leaf without what it witnesses, and one leaf for each receipt.
    fn check_leaves(&self) {
        let disk = &self.center.disk;
        let of_kind = |kind: LeafKind| disk.leaves.iter().filter(move |leaf| leaf.kind == kind);
        for leaf in of_kind(LeafKind::Enrolment) {
            assert!(disk.has(Family::Nodes, &leaf.subject), "failure 9: {leaf:?}");
        }
        for leaf in of_kind(LeafKind::JobEnd) {
            assert!(disk.has(Family::Jobs, &leaf.subject), "failure 9: {leaf:?}");
        }
        assert_eq!(
            of_kind(LeafKind::JobEnd).count(),
            disk.len(Family::Jobs),
            "failure 9: ends of jobs"
        );
        assert_eq!(
            of_kind(LeafKind::Plan).count(),
            disk.len(Family::Jobs),
            "failure 9: accepted plans"
        );
        let mut receipts = BTreeSet::new();
        for leaf in of_kind(LeafKind::Receipt).chain(of_kind(LeafKind::Report)) {
            assert!(
                receipts.insert(leaf.hash),
                "failure 9: a receipt has two leaves: {leaf:?}"
            );
        }
    }

    /// Failure 12.
    fn check_sizes(&self) {
        let n_nodes = self.nodes.len();
        let largest = &self.center.largest;
        let bounds = [
            ("plans waiting", 256),
            ("jobs", 300),
            ("idempotency keys", self.clients.len()),
            ("nodes", n_nodes),
            // Train, again for each conductor, and the ends of all of them.
            ("orders", self.clients.len() * (n_nodes + 10) * 2 * 17),
        ];
        for (name, bound) in bounds {
            let size = largest.get(name).copied().unwrap_or(0);
            assert!(size <= bound, "failure 12: {size} {name}");
        }
    }

    pub(crate) fn assert_all_succeeded(&mut self) {
        self.assert_nothing_failed();
        for deployment in self.deployments() {
            assert_eq!(deployment.phase, DeploymentPhase::Ready, "{deployment:?}");
        }
    }

    /// All jobs succeeded, and what they deployed is up or will be.
    pub(crate) fn assert_nothing_failed(&mut self) {
        for view in self.views() {
            assert_eq!(view.phase, JobPhase::Succeeded, "{:?}", view.cause);
        }
        assert_eq!(
            self.truth.jobs.len(),
            self.clients.len(),
            "a client was never served"
        );
        for deployment in self.deployments() {
            assert!(deployment.cause.is_none(), "{deployment:?}");
        }
    }

    /// What this run met, for the check that the faults do happen.
    pub(crate) fn what_was_met(&mut self) -> Vec<&'static str> {
        let mut met = Vec::new();
        for view in self.views() {
            met.push(match view.phase {
                JobPhase::Succeeded => "job succeeded",
                JobPhase::NotVerified => "job not verified",
                JobPhase::Stopped => "job stopped",
                _ => "job failed",
            });
            if view.epoch > 1 {
                met.push("conductor replaced");
            }
            if !view.left_out.is_empty() {
                met.push("site left out");
            }
        }
        met.extend(self.truth.deeds.iter().copied());
        if !self.truth.facilities.is_empty() {
            met.push("trained at a facility");
        }
        if self.n_center_deaths > 0 {
            met.push("center died");
        }
        if self.truth.clocks_refused > 0 {
            met.push("clock refused");
        }
        let hosts = self.truth.hosts.values();
        if hosts
            .zip(self.truth.replicas.values())
            .any(|(hosts, replicas)| hosts.len() > *replicas as usize)
        {
            met.push("host replaced");
        }
        met
    }
}
