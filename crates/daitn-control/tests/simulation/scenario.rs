//! Who takes part in a run, what is asked for, and how often things go wrong: all from the seed.

use crate::chance::Chance;
use daitn_messages::request::PlanKind;

/// How often things go wrong, in a million.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) message_lost: u64,
    pub(crate) message_twice: u64,
    pub(crate) center_dies: u64,
    pub(crate) node_dies: u64,
    pub(crate) node_dies_for_good: u64,
    pub(crate) latency_max: u64,
    pub(crate) odd_manners: bool,
    pub(crate) skewed_clocks: bool,
    pub(crate) client_stops: bool,
    /// The operator throws nodes out, changes the policy, rolls back.
    pub(crate) operator: bool,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        message_lost: 0,
        message_twice: 0,
        center_dies: 0,
        node_dies: 0,
        node_dies_for_good: 0,
        latency_max: 20,
        odd_manners: false,
        skewed_clocks: false,
        client_stops: false,
        operator: false,
    };
}

/// Who is there and what is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) faults: Faults,
    pub(crate) n_sites: u64,
    pub(crate) n_aggregators: u64,
    pub(crate) n_verifiers: u64,
    pub(crate) n_hosts: u64,
    /// Compute facilities, which half of the sites then train at.
    pub(crate) n_facilities: u64,
    pub(crate) n_jobs: u64,
    pub(crate) rounds: u32,
    pub(crate) required: u32,
    pub(crate) replicas: u32,
    pub(crate) kind: Option<PlanKind>,
    /// Once, at this event, the center dies and is away for so long, milliseconds.
    pub(crate) absence: Option<(u64, u64)>,
}

impl Scenario {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5ce0_a110);
        let n_verifiers = chance.between(1, 4);
        let n_hosts = chance.between(1, 5);
        let violence = chance.between(0, 4);
        Self {
            faults: Faults {
                message_lost: violence * chance.between(0, 30_000),
                message_twice: violence * chance.between(0, 60_000),
                center_dies: violence * chance.between(0, 6_000),
                node_dies: violence * chance.between(0, 2_000),
                node_dies_for_good: violence * chance.between(0, 60_000),
                latency_max: chance.between(2, 2_000),
                odd_manners: chance.happens(400_000),
                skewed_clocks: chance.happens(300_000),
                client_stops: chance.happens(100_000),
                operator: chance.happens(400_000),
            },
            n_sites: chance.between(2, 7),
            n_aggregators: chance.between(1, 4),
            n_verifiers,
            n_hosts,
            n_facilities: chance.between(0, 3),
            n_jobs: chance.between(1, 3),
            rounds: u32::try_from(chance.between(1, 5)).unwrap(),
            required: u32::try_from(chance.between(1, n_verifiers + 1)).unwrap(),
            replicas: u32::try_from(chance.between(0, n_hosts + 1)).unwrap(),
            kind: [
                None,
                Some(PlanKind::Rounds),
                Some(PlanKind::Itinerary),
                Some(PlanKind::Hybrid),
            ][usize::try_from(chance.between(0, 4)).unwrap()],
            absence: None,
        }
    }

    pub(crate) fn large(n_nodes: u64) -> Self {
        Self {
            faults: Faults::NONE,
            n_sites: n_nodes - 6,
            n_aggregators: 2,
            n_verifiers: 2,
            n_hosts: 2,
            n_facilities: 0,
            n_jobs: 1,
            rounds: 2,
            required: 2,
            replicas: 2,
            kind: Some(PlanKind::Rounds),
            absence: None,
        }
    }
}
