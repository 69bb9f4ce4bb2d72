//! The control center: registry, policy, discovery, feasibility, plans, and the processes that carry out a training
//! job and a deployment.
//!
//! [`core`] decides: a pure state machine, `(state, event, now, entropy) → (state, records and leaves, effects)`, that
//! production, simulation and replay share. [`Center`] is the edge around it: one event loop with a bounded queue that
//! writes what the core decided in one named transaction and lets the effects out after the commit.
//!
//! No payload passes here: there is no artifact store in this crate and its endpoint does not speak the data plane's
//! protocol. What it sees are descriptors, hashes and receipts.

pub mod core;

mod center;
mod deployment;
mod entropy;
mod job;
mod limits;
mod text;

pub use center::{Center, CenterConfig, CenterError, CenterHandle, CenterStats, OnRevoked, StartError};
pub use entropy::Entropy;
pub use limits::Timing;
