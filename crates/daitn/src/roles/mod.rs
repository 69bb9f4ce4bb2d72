//! The roles that a process can have, wired together: each file starts one, serves until it is told to stop, and shuts
//! it down in order.

mod bound;
pub(crate) mod center;
pub(crate) mod kept;
pub(crate) mod member;
pub(crate) mod node;
pub(crate) mod oam;
pub(crate) mod ports;
mod relay;
pub(crate) mod socket;
