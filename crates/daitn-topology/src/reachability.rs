//! Reachability: which nodes are online, and how well they reach each other.

use daitn_messages::{control::Link, ids::NodeId};
use std::collections::{BTreeSet, HashMap};

/// Round-trip time that is assumed between nodes that never measured one: two sites on one continent.
pub(crate) const RTT_MS_ASSUMED: f64 = 40.0;
/// Throughput that is assumed of a node that never measured any, bytes a millisecond: 20 Mbit/s, a modest office line.
pub(crate) const BYTES_PER_MS_ASSUMED: f64 = 2_500.0;
/// Slowest throughput that is believed, bytes a millisecond: a measurement of nothing must not divide by zero.
const BYTES_PER_MS_MIN: f64 = 1.0;
/// Most links that are kept. Past it only known pairs are renewed.
const LINKS_MAX: usize = 1 << 20;

/// Whether a node is connected, and whether it takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeState {
    /// Connected to the control center now.
    pub online: bool,
    /// Finishes what it has and gets nothing new.
    pub draining: bool,
}

/// How one node reaches another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// Round-trip time, milliseconds.
    pub rtt_ms: f64,
    /// Throughput, bytes a millisecond; infinite within a node.
    pub bytes_per_ms: f64,
    /// Measured, not assumed.
    pub known: bool,
}

impl Path {
    /// Within one node.
    pub(crate) const SELF: Self = Self {
        rtt_ms: 0.0,
        bytes_per_ms: f64::INFINITY,
        known: true,
    };

    /// Time to ask for and get this many bytes, milliseconds.
    #[must_use]
    pub fn transfer_ms(&self, bytes: u64) -> f64 {
        self.rtt_ms + bytes as f64 / self.bytes_per_ms
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Reachability {
    nodes: HashMap<NodeId, NodeState>,
    links: HashMap<(NodeId, NodeId), Link>,
    neighbours: HashMap<NodeId, BTreeSet<NodeId>>,
    /// The fastest that each node was seen to move bytes.
    fastest: HashMap<NodeId, u64>,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a <= b { (a, b) } else { (b, a) }
}

impl Reachability {
    pub(crate) fn set_node(&mut self, node: NodeId, state: NodeState) {
        self.nodes.insert(node, state);
    }

    pub(crate) fn remove_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.fastest.remove(&node);
        for other in self.neighbours.remove(&node).unwrap_or_default() {
            self.links.remove(&pair(node, other));
            if let Some(neighbours) = self.neighbours.get_mut(&other) {
                neighbours.remove(&node);
            }
            self.renew_fastest(other);
        }
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<NodeState> {
        self.nodes.get(&node).copied()
    }

    /// Whether new work can be given to it.
    pub(crate) fn takes_work(&self, node: NodeId) -> bool {
        self.node(node)
            .is_some_and(|state| state.online && !state.draining)
    }

    /// Whether it is connected, but takes no new work since it is being drained.
    pub(crate) fn drains(&self, node: NodeId) -> bool {
        self.node(node)
            .is_some_and(|state| state.online && state.draining)
    }

    /// Keeps the newest measurement of a pair, whichever side made it; says whether it was kept.
    pub(crate) fn link(&mut self, link: Link) -> bool {
        if link.from == link.to {
            return false;
        }
        let key = pair(link.from, link.to);
        match self.links.get(&key) {
            Some(known) if known.measured_at > link.measured_at => return false,
            None if self.links.len() >= LINKS_MAX => return false,
            _ => {}
        }
        self.links.insert(key, link);
        for (node, other) in [(link.from, link.to), (link.to, link.from)] {
            self.neighbours.entry(node).or_default().insert(other);
            let fastest = self.fastest.entry(node).or_default();
            if link.bytes_per_second >= *fastest {
                *fastest = link.bytes_per_second;
            } else {
                self.renew_fastest(node);
            }
        }
        true
    }

    /// The measured links of a node, in the order of the others' keys.
    pub(crate) fn links_of(&self, node: NodeId) -> impl Iterator<Item = &Link> {
        let others = self.neighbours.get(&node).into_iter().flatten();
        others.filter_map(move |other| self.links.get(&pair(node, *other)))
    }

    fn renew_fastest(&mut self, node: NodeId) {
        // Only a full look can tell whether the link that was fastest still is: nodes have few links, aggregators are
        // asked to renew theirs seldom.
        let fastest = self.neighbours.get(&node).and_then(|others| {
            let links = others
                .iter()
                .filter_map(|other| self.links.get(&pair(node, *other)));
            links.map(|link| link.bytes_per_second).max()
        });
        match fastest {
            Some(bytes_per_second) => self.fastest.insert(node, bytes_per_second),
            None => self.fastest.remove(&node),
        };
    }

    /// How fast a node can move bytes at best, bytes a millisecond.
    pub(crate) fn access(&self, node: NodeId) -> f64 {
        self.fastest.get(&node).map_or(BYTES_PER_MS_ASSUMED, |bytes| {
            (*bytes as f64 / 1_000.0).max(BYTES_PER_MS_MIN)
        })
    }

    /// How `a` reaches `b`: measured by either side, or assumed from what each was seen to do.
    pub(crate) fn path(&self, a: NodeId, b: NodeId) -> Path {
        if a == b {
            return Path::SELF;
        }
        match self.links.get(&pair(a, b)) {
            Some(link) => Path {
                rtt_ms: link.rtt_micros as f64 / 1_000.0,
                bytes_per_ms: (link.bytes_per_second as f64 / 1_000.0).max(BYTES_PER_MS_MIN),
                known: true,
            },
            None => Path {
                rtt_ms: RTT_MS_ASSUMED,
                bytes_per_ms: self.access(a).min(self.access(b)),
                known: false,
            },
        }
    }
}
