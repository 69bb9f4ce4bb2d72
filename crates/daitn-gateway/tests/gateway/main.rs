//! The gateway as its clients see it: a real gateway on a free port, real fabric endpoints as model hosts and agent
//! nodes behind it, and in place of the control center one that answers from samples and remembers what it was asked.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why it skips"
)]

mod lab;
mod samples;

mod access;
mod agents;
mod clients;
mod document;
mod events;
mod hostile;
mod inference;
mod tls;
