//! Whole endpoints on loopback: sessions, artifacts, probes, the relay, and what happens when peers die or lie.

mod artifacts;
mod faults;
mod lab;
mod relay;
mod sessions;
mod store;
