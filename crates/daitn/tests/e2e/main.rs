//! End-to-end tests: whole networks of real processes of the built binary, on loopback and on ports that the system
//! gives. Nothing is slept for: tests wait for events and lines that the processes print.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod attaching;
mod contract;
mod demo;
mod describing;
mod faults;
mod jobs;
mod joining;
mod lab;
mod nat;
#[path = "../../../daitn-fabric/tests/fabric/net.rs"]
mod net;
mod planes;
mod policy;
mod starting;
mod tutorial;
mod versions;
