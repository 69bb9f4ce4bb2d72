//! Operations of a running process: logs, metrics, health.
//!
//! It reads what others count and commands nothing. It knows no other crate of the network: whoever has something to
//! show hands in a function that tells it.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod server;
