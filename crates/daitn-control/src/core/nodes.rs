//! The registry of nodes: who is enrolled, who is connected, how each is reached.

use crate::core::event::ConnectionId;
use daitn_messages::{
    ids::{EntityId, EntityKind, NodeId, OrderId, OrganisationId, TokenId},
    operation::NodeView,
    session::Peer,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A node as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) organisation: OrganisationId,
    /// Kinds of terminal that it may attach; empty: all but models.
    pub(crate) terminals: Vec<EntityKind>,
    pub(crate) token: TokenId,
    pub(crate) enrolled_at: UnixMillis,
    pub(crate) revoked: bool,
    pub(crate) draining: bool,
    pub(crate) build: String,
    pub(crate) last_seen: UnixMillis,
    pub(crate) peer: Peer,
}

/// A node with what is known of it now.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) record: NodeRecord,
    pub(crate) connection: Option<ConnectionId>,
    /// Since when it has no connection; of no meaning while it has one.
    pub(crate) offline_since: UnixMillis,
    /// Since when it has its connection; of no meaning while it has none.
    pub(crate) online_since: UnixMillis,
    pub(crate) entities: BTreeSet<EntityId>,
    /// Orders that it has not answered.
    pub(crate) orders: BTreeSet<OrderId>,
}

impl Node {
    pub(crate) fn new(record: NodeRecord, offline_since: UnixMillis) -> Self {
        Self {
            record,
            connection: None,
            offline_since,
            online_since: offline_since,
            entities: BTreeSet::new(),
            orders: BTreeSet::new(),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether it can be given work.
    pub(crate) fn is_available(&self) -> bool {
        self.is_online() && !self.record.revoked && !self.record.draining
    }

    pub(crate) fn may_attach(&self, kind: EntityKind) -> bool {
        kind != EntityKind::Model
            && (self.record.terminals.is_empty() || self.record.terminals.contains(&kind))
    }

    pub(crate) fn has(&self, kinds: &[EntityKind]) -> bool {
        self.entities.iter().any(|entity| kinds.contains(&entity.kind))
    }

    pub(crate) fn view(&self) -> NodeView {
        let record = &self.record;
        NodeView {
            node: record.node,
            name: record.name.clone(),
            organisation: record.organisation.clone(),
            online: self.is_online(),
            relayed: None,
            links: Vec::new(),
            draining: record.draining,
            revoked: record.revoked,
            build: record.build.clone(),
            last_seen: record.last_seen,
            entities: self.entities.iter().cloned().collect(),
        }
    }
}

/// All nodes, by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    pub(crate) by_id: BTreeMap<NodeId, Node>,
    by_kind: BTreeMap<EntityKind, BTreeSet<NodeId>>,
    n_online: usize,
}

impl Nodes {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Node> {
        self.by_id.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.by_id.get_mut(&node)
    }

    pub(crate) fn n_online(&self) -> usize {
        self.n_online
    }

    /// How a node is reached.
    pub(crate) fn peer(&self, node: NodeId) -> Peer {
        self.get(node).map_or_else(
            || Peer {
                node,
                addresses: Vec::new(),
                relay: None,
            },
            |node| node.record.peer.clone(),
        )
    }

    pub(crate) fn is_online(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(Node::is_online)
    }

    pub(crate) fn is_revoked(&self, node: NodeId) -> bool {
        self.get(node).is_none_or(|node| node.record.revoked)
    }

    /// Since when a node has been gone; none while it is connected.
    pub(crate) fn offline_since(&self, node: NodeId) -> Option<UnixMillis> {
        match self.get(node) {
            None => Some(UnixMillis(0)),
            Some(node) if node.is_online() => None,
            Some(node) => Some(node.offline_since),
        }
    }

    /// Since when a node has been connected; none while it is gone.
    pub(crate) fn online_since(&self, node: NodeId) -> Option<UnixMillis> {
        self.get(node)
            .filter(|node| node.is_online())
            .map(|node| node.online_since)
    }

    /// Sets the connection of a node.
    pub(crate) fn connect(&mut self, node: NodeId, connection: ConnectionId, now: UnixMillis) {
        if let Some(node) = self.by_id.get_mut(&node) {
            self.n_online += usize::from(node.connection.is_none());
            node.connection = Some(connection);
            node.online_since = now;
        }
    }

    /// Ends a connection; false where the node has a newer one, or none.
    pub(crate) fn disconnect(&mut self, node: NodeId, connection: ConnectionId, now: UnixMillis) -> bool {
        match self.by_id.get_mut(&node) {
            Some(node) if node.connection == Some(connection) => {
                node.connection = None;
                node.offline_since = now;
                self.n_online -= 1;
                true
            }
            _ => false,
        }
    }

    /// A node has attached an entity.
    pub(crate) fn attach(&mut self, node: NodeId, entity: &EntityId) {
        if let Some(known) = self.by_id.get_mut(&node) {
            known.entities.insert(entity.clone());
            self.by_kind.entry(entity.kind).or_default().insert(node);
        }
    }

    /// A node no longer has an entity.
    pub(crate) fn detach(&mut self, node: NodeId, entity: &EntityId) {
        let Some(known) = self.by_id.get_mut(&node) else {
            return;
        };
        known.entities.remove(entity);
        if !known.has(&[entity.kind])
            && let Some(of_kind) = self.by_kind.get_mut(&entity.kind)
        {
            of_kind.remove(&node);
        }
    }

    /// Nodes that have a terminal of this kind and were not thrown out, in the order of their keys.
    pub(crate) fn with_kind(&self, kind: EntityKind) -> impl Iterator<Item = &Node> {
        let nodes = self.by_kind.get(&kind).into_iter().flatten();
        nodes
            .filter_map(|node| self.by_id.get(node))
            .filter(|node| !node.record.revoked)
    }
}
