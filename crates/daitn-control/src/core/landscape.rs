//! The live topology as the core feeds it and asks it. The topology is also where descriptors in force are kept.

use crate::core::{Core, Nodes, nodes::Node};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{EntityId, EntityKind, NodeId},
    learning::ModelSpec,
    plan::Placement,
    units::UnixMillis,
};
use daitn_topology::{NodeState, Topology, placement};
use std::sync::Arc;

impl Core {
    /// Tells the topology what a node is like now.
    pub(super) fn topology_node(&mut self, node: NodeId) {
        let known = self.nodes.get(node);
        let state = NodeState {
            online: known.is_some_and(|n| n.is_online() && !n.record.revoked),
            draining: known.is_some_and(|n| n.record.draining),
        };
        self.topology.set_node(node, state);
    }

    /// Descriptors in force.
    pub(super) fn all_descriptors(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        EntityKind::ALL
            .into_iter()
            .flat_map(|kind| self.topology.of_kind(kind))
    }
}

/// What hosts are looked for.
pub(super) struct HostsWanted<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) n_hosts: usize,
    /// The plan's choice, taken first where it still stands.
    pub(super) preferred: &'a [Placement],
    pub(super) excluded: &'a [EntityId],
    pub(super) now: UnixMillis,
    pub(super) seed: u64,
}

/// Hosts that could serve a model and that its owner `may` know of, best first.
pub(super) fn hosts(
    topology: &Topology,
    nodes: &Nodes,
    wanted: &HostsWanted<'_>,
    may: &mut dyn FnMut(&Descriptor) -> bool,
) -> Vec<Placement> {
    let stands = |placement: &&Placement| {
        let host = topology.get(&placement.entity);
        nodes.get(placement.node).is_some_and(Node::is_available)
            && !wanted.excluded.contains(&placement.entity)
            && host.is_some_and(|d| d.node == placement.node && may(d))
    };
    let mut found: Vec<Placement> = wanted
        .preferred
        .iter()
        .filter(stands)
        .take(wanted.n_hosts)
        .cloned()
        .collect();
    let taken = found.iter().map(|placement| placement.entity.clone());
    let exclude: Vec<EntityId> = wanted.excluded.iter().cloned().chain(taken).collect();
    let others = placement::Wanted {
        spec: wanted.spec,
        replicas: wanted.n_hosts - found.len(),
        exclude: &exclude,
        now: wanted.now,
        seed: wanted.seed,
    };
    if others.replicas > 0 {
        found.extend(placement::hosts(topology, &others, may));
    }
    found
}
