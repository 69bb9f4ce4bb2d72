//! The pure core: every decision of the control center.
//!
//! [`Core::handle`] takes an event, the moment and randomness, changes the state in memory and says which records and
//! leaves belong to the change and what is to be done once they are durable. It reads no clock, draws no randomness,
//! does no I/O and waits for nothing. [`Core::restore`] makes the same state from the records again; what is not in
//! them (connections, load, measured links) comes back by itself as nodes connect.
//!
//! Each process (a training job, a deployment) is a state machine of its own; a panic in one ends that one.

use crate::{
    entropy::Entropy,
    limits::{HOUSEKEEPING_MS, Timing},
};
use daitn_messages::{
    control::NodeMessage,
    descriptor::Descriptor,
    ids::{ApiKeyId, NodeId, OrganisationId, TokenId},
    rejection::{Code, Rejection},
    session::Peer,
    signed::NodeKey,
    units::UnixMillis,
};
use daitn_store::Family;
use daitn_topology::Topology;
use std::{collections::BTreeMap, sync::Arc};

mod event;
pub use event::{ConnectionId, Effect, Event, RequestId, Timer};

mod turn;
pub use turn::Transition;
pub(crate) use turn::{Decision, StoredDecision, Turn};

mod nodes;
pub(crate) use nodes::Nodes;

mod tokens;

mod registry;

mod descriptors;

mod policies;

mod access;
mod permissions;

mod landscape;
pub(crate) use landscape::HostSearch;

mod discovery;

mod planning;
pub use planning::{PlanTask, Planned};

mod orders;
pub(crate) use orders::{OrderDraft, OrderKind};

mod processes;

mod jobs;
pub(crate) use jobs::{CycleRecord, JobEntry};

mod deployments;

mod models;

mod snapshot;

mod operations;
pub(crate) use operations::Who;

mod restore;
pub use restore::{Records, RestoreError};
pub(crate) use restore::{archived_job, plan_of};

#[cfg(test)]
mod tests;

/// What the core needs to know of the domain.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// The domain's name.
    pub domain: String,
    /// The organisation that operates it.
    pub operator: OrganisationId,
    /// The control center's key: signs orders and model descriptors.
    pub key: NodeKey,
    /// How nodes reach the control center.
    pub peer: Peer,
    /// The domain's relay; none: nodes reach each other directly only.
    pub relay: Option<String>,
    /// Gateways of the domain.
    pub gateways: Vec<Peer>,
    /// How long the center waits for others.
    pub timing: Timing,
    /// Whether plans are made apart from the core ([`Effect::Plan`]); otherwise within the event that asks for one.
    pub plans_apart: bool,
}

/// The control center's state and all its rules.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    tokens: BTreeMap<TokenId, tokens::TokenRecord>,
    keys: BTreeMap<ApiKeyId, tokens::KeyRecord>,
    nodes: Nodes,
    policies: policies::Policies,
    access: access::AccessTable,
    topology: Topology,
    plans: planning::Plans,
    jobs: jobs::Jobs,
    deployments: deployments::Deployments,
    orders: orders::Orders,
    models: models::Models,
    snapshot: snapshot::SnapshotState,
    state_version: u64,
    n_leaves: u64,
}

impl Core {
    /// Takes an event. What comes back must be written in one transaction before its effects are let out.
    pub fn handle(&mut self, event: Event, now: UnixMillis, entropy: &mut Entropy) -> Transition {
        let mut turn = Turn::new(now, entropy);
        self.dispatch(&mut turn, event);
        self.finish(turn)
    }

    /// What is to be done right after a start: timers of everything that was under way.
    pub fn start(&mut self, now: UnixMillis, entropy: &mut Entropy) -> Transition {
        let mut turn = Turn::new(now, entropy);
        let descriptors: Vec<Arc<Descriptor>> = self.all_descriptors().cloned().collect();
        for descriptor in descriptors {
            turn.effect(Effect::Index(descriptor));
        }
        self.arm_all(&mut turn);
        turn.effect(Effect::Arm {
            timer: Timer::Housekeeping,
            at: now.plus(HOUSEKEEPING_MS),
        });
        self.snapshot.changed();
        self.finish(turn)
    }

    /// Makes the first key that can operate the domain; refused where there is one.
    pub fn bootstrap(
        &mut self,
        request: RequestId,
        organisation: OrganisationId,
        now: UnixMillis,
        entropy: &mut Entropy,
    ) -> Transition {
        let mut turn = Turn::new(now, entropy);
        self.bootstrap_key(&mut turn, request, organisation);
        self.finish(turn)
    }

    fn finish(&mut self, mut turn: Turn<'_>) -> Transition {
        self.publish_if_changed(&mut turn);
        self.n_leaves += turn.batch.leaves().len() as u64;
        turn.end()
    }

    fn dispatch(&mut self, turn: &mut Turn<'_>, event: Event) {
        match event {
            Event::Hello {
                request,
                node,
                connection,
                hello,
            } => {
                self.hello(turn, request, node, connection, &hello);
            }
            Event::Gone { node, connection } => self.gone(turn, node, connection),
            Event::Message {
                request,
                node,
                message,
            } => self.message(turn, request, node, message),
            Event::NotTaken {
                node,
                order,
                rejection,
            } => self.not_taken(turn, node, &order, rejection),
            Event::Operation {
                request,
                principal,
                operation,
            } => {
                self.operation(turn, request, &principal, *operation);
            }
            Event::Search {
                request,
                principal,
                search,
                text,
            } => {
                let result = self.search(&principal, &search, text);
                turn.reply(request, result);
            }
            Event::Watch {
                request,
                principal,
                job,
            } => self.watch(turn, request, &principal, &job),
            Event::Planned(planned) => self.planned(turn, *planned),
            Event::Timer(Timer::Job(job)) => self.wake_job(turn, &job),
            Event::Timer(Timer::Deployment(deployment)) => self.wake_deployment(turn, &deployment),
            Event::Timer(Timer::Telemetry) => self.snapshot.telemetry_due(),
            Event::Timer(Timer::Housekeeping) => self.keep_house(turn),
        }
    }

    fn message(&mut self, turn: &mut Turn<'_>, request: RequestId, node: NodeId, message: NodeMessage) {
        if let Err(rejection) = self.member(node) {
            turn.reply_node(request, Err(rejection));
            return;
        }
        match message {
            NodeMessage::Attach(signed) => self.attach(turn, request, node, &signed),
            NodeMessage::Detach(entity) => self.detach(turn, request, node, &entity),
            NodeMessage::Report(signed) => self.report(turn, request, node, &signed),
            NodeMessage::Telemetry(news) => self.telemetry(turn, request, node, news),
            NodeMessage::Links(links) => self.links(turn, request, node, links),
        }
    }

    /// The keys of all members.
    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.nodes.by_id.values().filter(|node| !node.record.revoked);
        nodes.map(|node| node.record.node)
    }

    /// A node that is enrolled and not revoked.
    fn member(&self, node: NodeId) -> Result<&nodes::Node, Rejection> {
        self.nodes
            .get(node)
            .filter(|known| !known.record.revoked)
            .ok_or_else(|| {
                let message = format!("the key {} is not enrolled here, or was revoked", node.short());
                Rejection::new(Code::NotEnrolled, message)
            })
    }

    /// Something changed that plans are made from.
    fn state_changed(&mut self, turn: &mut Turn<'_>) {
        self.state_version += 1;
        turn.batch
            .put(Family::Meta, restore::STATE_VERSION, &self.state_version);
    }

    /// Forgets what has expired.
    fn keep_house(&mut self, turn: &mut Turn<'_>) {
        self.forget_tokens(turn);
        self.forget_plans(turn);
        self.forget_jobs();
        self.forget_deployments();
        self.forget_orders(turn);
        turn.effect(Effect::Arm {
            timer: Timer::Housekeeping,
            at: turn.now.plus(HOUSEKEEPING_MS),
        });
    }

    /// Nodes that are connected.
    #[must_use]
    pub fn n_nodes_online(&self) -> usize {
        self.nodes.n_online()
    }

    /// Whether a node may use the domain's relay: the control center and its gateways, members, and who shows that it
    /// holds a join token that is in force.
    #[must_use]
    pub fn may_relay(&self, node: NodeId, pass: Option<&str>, now: UnixMillis) -> bool {
        let of_center =
            node == self.config.key.id() || self.config.gateways.iter().any(|peer| peer.node == node);
        of_center || self.member(node).is_ok() || pass.is_some_and(|pass| self.is_relay_pass(pass, now))
    }
}

impl Core {
    /// How large each collection is that could grow: for metrics, and for tests that hold it against its bound.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 12] {
        [
            ("tokens", self.tokens.len()),
            ("keys", self.keys.len()),
            ("nodes", self.nodes.by_id.len()),
            ("descriptors", self.topology.len()),
            ("plans waiting", self.plans.waiting.len()),
            ("plans applied", self.plans.applied.len()),
            ("idempotency keys", self.plans.idempotency.len()),
            ("jobs", self.jobs.by_id.len()),
            ("jobs active", self.jobs.active.len()),
            ("deployments", self.deployments.by_id.len()),
            ("orders", self.orders.by_id.len()),
            ("policies parsed", self.policies.n_parsed()),
        ]
    }
}
