//! Nodes come and go: greeting, enrolment, revocation, draining.

use crate::{
    core::{
        Core,
        event::{ConnectionId, Effect, RequestId},
        nodes::{Node, NodeRecord},
        operations::Who,
        snapshot::ROUTED,
        turn::{Decision, Turn},
    },
    limits::{NODES_MAX, PROBES_MAX, SITES_PROBED_MAX},
};
use daitn_messages::{
    BUILD, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    control::{Accepted, CenterMessage, Enrolment, Hello, Welcome},
    descriptor::Descriptor,
    ids::{EntityKind, NodeId},
    leaf::LeafKind,
    limits::{ADDRESSES_MAX, CLOCK_SKEW_MS_MAX, NAME_BYTES_MAX, bounded},
    operation::{Answer, NodeView},
    rejection::{Code, Rejection},
    session::Peer,
    units::UnixMillis,
};
use daitn_store::Family;
use std::sync::Arc;

/// Links that are told of one node.
const LINKS_SHOWN_MAX: usize = 64;

impl Core {
    pub(super) fn hello(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        node: NodeId,
        connection: ConnectionId,
        hello: &Hello,
    ) {
        if hello.asks_only {
            let reply = self.would_welcome(turn.now, node, hello);
            turn.reply_node(request, reply.map(|()| Accepted::Done));
            return;
        }
        match self.greet(turn, node, hello) {
            Ok(welcome) => {
                self.nodes.connect(node, connection, turn.now);
                turn.reply_node(request, Ok(Accepted::Welcome(welcome)));
                self.came(turn, node);
            }
            Err(rejection) => turn.reply_node(request, Err(rejection)),
        }
    }

    fn greet(&mut self, turn: &mut Turn<'_>, node: NodeId, hello: &Hello) -> Result<Welcome, Rejection> {
        let version = negotiate(hello)?;
        check_clock(turn.now, hello)?;
        let build = cut(&hello.build);
        let peer = self.peer_of(node, hello);
        let is_member = self.nodes.get(node).is_some_and(|n| !n.record.revoked);
        match &hello.enrolment {
            // A repeated enrolment, whose answer was lost, spends no second use.
            Some(enrolment) if !is_member => self.enrol(turn, node, enrolment, peer.clone())?,
            _ if !is_member => return Err(not_enrolled(node)),
            _ => {}
        }
        let known = self.nodes.get_mut(node).expect("a member, or enrolled just now");
        // Who waits for it may otherwise wait out a backoff that has grown long.
        let is_news = known.record.peer != peer || !known.is_online();
        known.record.peer = peer.clone();
        known.record.build = build;
        known.record.last_seen = turn.now;
        turn.batch.put(Family::Nodes, node.to_string(), &known.record);
        let record = known.record.clone();
        if is_news {
            self.tell_of_move(turn, &peer);
        }
        let kinds = EntityKind::ALL
            .into_iter()
            .filter(|kind| *kind != EntityKind::Model);
        Ok(Welcome {
            version,
            build: BUILD.to_owned(),
            now: turn.now,
            organisation: record.organisation,
            terminals: if record.terminals.is_empty() {
                kinds.collect()
            } else {
                record.terminals
            },
            relay: self.config.relay.clone(),
        })
    }

    /// Whether a node would be greeted as a member, or could become one. Changes nothing.
    fn would_welcome(&self, now: UnixMillis, node: NodeId, hello: &Hello) -> Result<(), Rejection> {
        negotiate(hello)?;
        check_clock(now, hello)?;
        let is_member = self.nodes.get(node).is_some_and(|n| !n.record.revoked);
        match &hello.enrolment {
            _ if is_member => Ok(()),
            Some(enrolment) => self.valid_token(now, enrolment).map(drop),
            None => Err(not_enrolled(node)),
        }
    }

    fn peer_of(&self, node: NodeId, hello: &Hello) -> Peer {
        let mut addresses = hello.addresses.clone();
        addresses.truncate(ADDRESSES_MAX);
        Peer {
            node,
            addresses,
            relay: self.config.relay.clone(),
        }
    }

    fn enrol(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        enrolment: &Enrolment,
        peer: Peer,
    ) -> Result<(), Rejection> {
        if self.nodes.by_id.len() >= NODES_MAX {
            let n_nodes = self.nodes.by_id.len() as u64 + 1;
            return Err(Rejection::too_large(
                "nodes of the domain",
                n_nodes,
                NODES_MAX as u64,
            ));
        }
        if enrolment.name.is_empty() {
            return Err(Rejection::malformed("name", "a node's name has 1 to 200 bytes"));
        }
        bounded("name", &enrolment.name, NAME_BYTES_MAX)?;
        let token = self.spend_token(turn, enrolment)?;
        let record = NodeRecord {
            node,
            name: enrolment.name.clone(),
            organisation: token.organisation.clone(),
            terminals: token.terminals,
            token: token.token.clone(),
            enrolled_at: turn.now,
            revoked: false,
            draining: false,
            build: String::new(),
            last_seen: turn.now,
            peer,
        };
        turn.leaf_of(LeafKind::Enrolment, &node, &record, [&record.organisation]);
        let decision = Decision {
            kind: "enrolment",
            subject: node.to_string(),
            outcome: format!("`{}` joined for {}", record.name, record.organisation),
            reasons: vec![format!("it held join token {}", token.token)],
            ..Decision::default()
        };
        turn.decide(decision, vec![token.organisation]);
        self.nodes.by_id.insert(node, Node::new(record, turn.now));
        self.state_changed(turn);
        Ok(())
    }

    /// A node is there: what waits for it goes out.
    fn came(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        self.topology_node(node);
        self.resend(turn, node);
        self.introduce_gateways(turn, node);
        self.ask_for_probes(turn, node);
        self.node_changed(turn, node, true);
    }

    pub(super) fn gone(&mut self, turn: &mut Turn<'_>, node: NodeId, connection: ConnectionId) {
        if !self.nodes.disconnect(node, connection, turn.now) {
            return;
        }
        if let Some(known) = self.nodes.get_mut(node) {
            known.record.last_seen = turn.now;
            turn.batch.put(Family::Nodes, node.to_string(), &known.record);
        }
        self.topology_node(node);
        self.node_changed(turn, node, false);
    }

    /// Lets every process look at a node that came, went or was thrown out.
    fn node_changed(&mut self, turn: &mut Turn<'_>, node: NodeId, came: bool) {
        self.review_jobs(turn, node);
        self.review_deployments(turn, node, came);
        if self.nodes.get(node).is_some_and(|n| n.has(&ROUTED)) {
            self.snapshot.changed();
        }
    }

    /// A node that hosts models or agents keeps a connection to each gateway.
    pub(super) fn introduce_gateways(&self, turn: &mut Turn<'_>, node: NodeId) {
        if !self.config.gateways.is_empty() && self.nodes.get(node).is_some_and(|n| n.has(&ROUTED)) {
            turn.send(node, CenterMessage::Gateways(self.config.gateways.clone()));
        }
    }

    /// Asks a node that came to measure its ways to a few others: to aggregators first, since every plan uses them, and
    /// an aggregator to sites. Plans assume a long way where none was measured.
    pub(super) fn ask_for_probes(&self, turn: &mut Turn<'_>, node: NodeId) {
        let known = |other: &&Node| other.is_available() && other.record.node != node;
        let aggregators = self.nodes.with_kind(EntityKind::Aggregator).filter(known);
        let hosts = self.nodes.with_kind(EntityKind::ModelHost).filter(known);
        let mut peers: Vec<Peer> = Vec::with_capacity(PROBES_MAX);
        for other in aggregators.take(PROBES_MAX / 2).chain(hosts.take(PROBES_MAX)) {
            if peers.len() < PROBES_MAX && peers.iter().all(|peer| peer.node != other.record.node) {
                peers.push(other.record.peer.clone());
            }
        }
        if self
            .nodes
            .get(node)
            .is_some_and(|n| n.has(&[EntityKind::Aggregator]))
        {
            let sites = self.nodes.with_kind(EntityKind::Dataset).filter(known);
            let sites = sites.map(|site| site.record.peer.clone()).take(SITES_PROBED_MAX);
            peers.extend(
                sites
                    .filter(|site| peers.iter().all(|peer| peer.node != site.node))
                    .collect::<Vec<_>>(),
            );
        }
        if !peers.is_empty() {
            turn.send(node, CenterMessage::Probe(peers));
        }
    }

    pub(super) fn list_nodes(&mut self, who: &Who) -> Answer {
        let mut views: Vec<NodeView> = self.nodes.by_id.values().map(Node::view).collect();
        views.iter_mut().for_each(|view| self.hide_entities(who, view));
        Answer::Nodes(views)
    }

    /// Leaves out what this principal may not discover.
    fn hide_entities(&mut self, who: &Who, view: &mut NodeView) {
        let (topology, policies) = (&self.topology, &mut self.policies);
        view.entities.retain(|entity| {
            let seen = |descriptor: &Arc<Descriptor>| policies.may_discover(who, descriptor);
            who.sees(&entity.organisation) || topology.get(entity).is_some_and(seen)
        });
    }

    pub(super) fn get_node(&mut self, who: &Who, node: NodeId) -> Result<Answer, Rejection> {
        let mut view = self.node_view(node)?;
        self.hide_entities(who, &mut view);
        Ok(Answer::Node(view))
    }

    fn node_view(&self, node: NodeId) -> Result<NodeView, Rejection> {
        let node = self
            .nodes
            .get(node)
            .ok_or_else(|| Rejection::not_found("node", node))?;
        let mut view = node.view();
        view.links = self
            .topology
            .links_of(view.node)
            .take(LINKS_SHOWN_MAX)
            .copied()
            .collect();
        Ok(view)
    }

    pub(super) fn revoke_node(&mut self, turn: &mut Turn<'_>, node: NodeId) -> Result<Answer, Rejection> {
        let known = self
            .nodes
            .get_mut(node)
            .ok_or_else(|| Rejection::not_found("node", node))?;
        if known.record.revoked {
            return Ok(Answer::Node(known.view()));
        }
        known.record.revoked = true;
        turn.batch.put(Family::Nodes, node.to_string(), &known.record);
        turn.leaf_of(
            LeafKind::Revocation,
            &node,
            &known.record,
            [&known.record.organisation],
        );
        let entities: Vec<_> = known.entities.iter().cloned().collect();
        for entity in entities {
            self.withdraw(turn, &entity);
        }
        self.state_changed(turn);
        self.topology_node(node);
        turn.send(node, CenterMessage::Revoked);
        turn.effect(Effect::Disconnect { node });
        self.revoke_in_jobs(turn, node);
        self.node_changed(turn, node, false);
        self.node_view(node).map(Answer::Node)
    }

    pub(super) fn drain_node(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        draining: bool,
    ) -> Result<Answer, Rejection> {
        let known = self
            .nodes
            .get_mut(node)
            .ok_or_else(|| Rejection::not_found("node", node))?;
        if known.record.draining != draining {
            known.record.draining = draining;
            turn.batch.put(Family::Nodes, node.to_string(), &known.record);
            self.state_changed(turn);
            self.topology_node(node);
            self.review_deployments(turn, node, !draining);
        }
        self.node_view(node).map(Answer::Node)
    }
}

fn not_enrolled(node: NodeId) -> Rejection {
    let message = format!("the key {} is not enrolled here, or was revoked", node.short());
    Rejection::new(Code::NotEnrolled, message)
}

fn check_clock(now: UnixMillis, hello: &Hello) -> Result<(), Rejection> {
    let skew = now.since(hello.now).max(hello.now.since(now));
    if skew <= CLOCK_SKEW_MS_MAX {
        return Ok(());
    }
    let message = format!(
        "the node's clock differs from the control center's by {} s",
        skew / 1000
    );
    Err(Rejection::new(Code::ClockSkew, message))
}

fn negotiate(hello: &Hello) -> Result<u32, Rejection> {
    let (oldest, newest) = (
        PROTOCOL_VERSION_MIN.max(hello.version_min),
        PROTOCOL_VERSION.min(hello.version_max),
    );
    if oldest <= newest {
        return Ok(newest);
    }
    let message = format!(
        "the node (build {}) speaks versions {} to {}, the control center (build {BUILD}) {PROTOCOL_VERSION_MIN} to \
         {PROTOCOL_VERSION}",
        cut(&hello.build),
        hello.version_min,
        hello.version_max,
    );
    Err(Rejection::new(Code::VersionMismatch, message))
}

/// A build as somebody else tells it: bounded and printable.
fn cut(build: &str) -> String {
    build.chars().filter(|c| !c.is_control()).take(80).collect()
}
