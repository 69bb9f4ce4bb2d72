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

/// A look for hosts that could serve a model.
pub(crate) struct HostSearch<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) nodes: &'a Nodes,
    pub(crate) spec: &'a ModelSpec,
    /// The plan's choice, taken first where it still stands.
    pub(crate) preferred: &'a [Placement],
    /// Whether the model's owner may know of a host.
    pub(crate) may: &'a dyn Fn(&Descriptor) -> bool,
    pub(crate) now: UnixMillis,
    pub(crate) seed: u64,
}

impl HostSearch<'_> {
    /// Up to so many hosts, best first, without these.
    pub(crate) fn find(&self, n_hosts: usize, excluded: &[EntityId]) -> Vec<Placement> {
        let stands = |placement: &&Placement| {
            let host = self.topology.get(&placement.entity);
            self.nodes.get(placement.node).is_some_and(Node::is_available)
                && !excluded.contains(&placement.entity)
                && host.is_some_and(|d| d.node == placement.node && (self.may)(d))
        };
        let preferred = self.preferred.iter().filter(stands).take(n_hosts);
        let mut found: Vec<Placement> = preferred.cloned().collect();
        let taken = found.iter().map(|placement| placement.entity.clone());
        let exclude: Vec<EntityId> = excluded.iter().cloned().chain(taken).collect();
        let n_missing = n_hosts - found.len();
        if n_missing > 0 {
            let others = self.wanted(n_missing, &exclude);
            found.extend(placement::hosts(self.topology, &others, &mut |host| {
                (self.may)(host)
            }));
        }
        found
    }

    /// How many hosts beside these would do, but for their nodes, which are being drained.
    pub(crate) fn n_drained(&self, taken: &[EntityId]) -> u32 {
        let wanted = self.wanted(0, taken);
        let n_hosts = placement::n_draining(self.topology, &wanted, &mut |host| (self.may)(host));
        u32::try_from(n_hosts).unwrap_or(u32::MAX)
    }

    fn wanted<'b>(&'b self, replicas: usize, exclude: &'b [EntityId]) -> placement::Wanted<'b> {
        placement::Wanted {
            spec: self.spec,
            replicas,
            exclude,
            now: self.now,
            seed: self.seed,
        }
    }
}
