//! The engine as its users see it, against references that are not its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test that fails should panic, also in its helpers"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers made by the tests themselves"
)]

mod determinism;
mod digits;
mod federated;
mod gradients;
mod hostile;
mod models;
mod tables;
mod weights;
