//! Counters of the center, for metrics and health.

use daitn_store::StoreStats;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the center has done since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CenterStats {
    /// Events that the core has taken.
    pub events: u64,
    /// Turns of the loop: so many events shared a transaction at most.
    pub turns: u64,
    /// Effects that were let out.
    pub effects: u64,
    /// Inputs that wait for the loop.
    pub queued: u64,
    /// Nodes connected now.
    pub nodes_online: u64,
    /// Time in which the core decided, microseconds.
    pub decide_micros_total: u64,
    /// Longest decision, microseconds.
    pub decide_micros_max: u64,
    /// Faults that were contained by restoring the state.
    pub faults: u64,
    /// What the store has done.
    pub store: StoreStats,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) effects: AtomicU64,
    pub(crate) nodes_online: AtomicU64,
    pub(crate) decide_micros_total: AtomicU64,
    pub(crate) decide_micros_max: AtomicU64,
    pub(crate) faults: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self, queued: usize, store: StoreStats) -> CenterStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CenterStats {
            events: get(&self.events),
            turns: get(&self.turns),
            effects: get(&self.effects),
            queued: queued as u64,
            nodes_online: get(&self.nodes_online),
            decide_micros_total: get(&self.decide_micros_total),
            decide_micros_max: get(&self.decide_micros_max),
            faults: get(&self.faults),
            store,
        }
    }
}
