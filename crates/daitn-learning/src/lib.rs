//! Pure learning: strategies, aggregation, admission, evaluation metrics and splits, over flat `f32` parameters.
//!
//! Invariant: no ML framework, no file, socket, clock or thread. Bytes come in through [`std::io::Read`] that the
//! caller opened, randomness through seeds. Sums over sites are taken in `f64` in the order in which the caller gives
//! the sites (by id), so a result does not depend on who answered first.
//!
//! A round at the aggregator, from what arrived to the next global parameters:
//!
//! 1. [`admission::inspect`] reads each update once as it arrives: refused with a reason, or its norm is known.
//! 2. [`admission::clip_factors`] turns the norms of those admitted into a factor for each.
//! 3. [`server::Server::aggregate`] streams all of them through [`aggregation::Mean`], a bounded chunk at a time, and
//!    takes the server's step.
//! 4. [`server::Server::state`] is what to persist beside [`server::Server::global`].
//!
//! The ends of an itinerary's or a hybrid's chains go the same way: an end is an update whose example count is the sum
//! over its chain, and the end of a single chain comes back bit for bit.
//!
//! Additions, multiplications, divisions and square roots are all that aggregation uses, and IEEE 754 rounds those
//! the same everywhere: the same updates give the same bits on every kind of machine. Only [`metrics`] and [`split`]
//! use logarithms and exponentials, which the platform's library may round differently.

pub mod admission;
pub mod aggregation;
pub mod local;
pub mod metrics;
pub mod random;
pub mod server;
pub mod split;

/// Nearest `f32`, ties to even.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is the purpose; callers check that the result is finite"
)]
fn nearest_f32(value: f64) -> f32 {
    value as f32
}
