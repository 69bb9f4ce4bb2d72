//! The vocabulary of the network: ids, units, descriptors, requests, verdicts, plans, work orders, receipts, and
//! the frames in which nodes and the control center exchange them.
//!
//! No I/O, no async, no clock and no randomness: everything here is a value, its encoding, its bounds and its
//! signature. It depends on no other crate of the network, and every other crate depends on it.

pub mod encoding;
pub mod ids;
pub mod limits;
pub mod units;
pub mod written;

pub mod signed;

pub mod rejection;

pub mod learning;

pub mod descriptor;

pub mod policy;

pub mod request;

pub mod plan;

pub mod order;

pub mod receipt;

pub mod job;

pub mod control;

pub mod session;

pub mod snapshot;

pub mod operation;

pub mod leaf;

pub mod croissant;

/// The protocol version that this build speaks. Raised when an old peer could misread a message.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest protocol version that this build still understands.
pub const PROTOCOL_VERSION_MIN: u32 = 1;
/// Which build this is, as told in the first message both ways.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
