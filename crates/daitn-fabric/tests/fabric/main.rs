//! Whole endpoints on loopback: sessions, artifacts, probes, the relay, and what happens when peers die or lie.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod artifacts;
mod faults;
mod lab;
mod net;
mod punching;
mod relay;
mod sessions;
mod store;
