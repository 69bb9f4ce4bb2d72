//! Whole nodes against each other, over real endpoints.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails loudly, and its numbers are small"
)]

mod lab;

mod training;

mod node;

mod orders;

mod hostile;

mod restarts;

mod serving;

mod agents;
