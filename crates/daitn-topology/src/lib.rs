//! The topology and what is decided from it: Knowledge (descriptors), Resources (telemetry with ages) and Reachability
//! (who is online, links), and over them feasibility, plans, placement and the choice of replicas.
//!
//! Pure and synchronous: no I/O, no clock, no randomness, no await. Time and seed are arguments, so that the same inputs
//! give the same plan, byte for byte, in production, in simulation and in replay. Text search is elsewhere: free text
//! (titles, descriptions) is never read here and so never influences a route.

mod numbers;

mod postings;

mod knowledge;

mod search;
pub use search::{Found, Matches, Sight};

mod resources;

mod reachability;
pub use reachability::{NodeState, Path};

mod topology;
pub use topology::Topology;

pub mod model;

pub mod quality;

mod plan;
pub use plan::{
    CHAINED_SITES_MAX, PLAN_VALID_MS, PlanIds, evaluation_context, plan, quorum_wanted, site_context,
    spare_units,
};

pub mod placement;

pub mod replicas;
