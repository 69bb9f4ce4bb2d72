//! Exponential backoff with full jitter: after the n-th failure a wait drawn evenly from half of `first * 2^n` to all
//! of it, so that the nodes of a restarted control center do not come back in step.

use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX};
use std::time::Duration;

/// A sequence of waits. Pure: the seed decides it.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    random: u64,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// From 50 ms to 10 s.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::between(seed, BACKOFF_FIRST, BACKOFF_MAX)
    }

    /// From `first` to `max`.
    #[must_use]
    pub fn between(seed: u64, first: Duration, max: Duration) -> Self {
        Self {
            failures: 0,
            random: seed,
            first,
            max,
        }
    }

    /// How long to wait after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        let whole = self
            .first
            .saturating_mul(1u32 << self.failures.min(20))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.random = split_mix(self.random);
        let half = whole / 2;
        // 32 random bits as a fraction of the half.
        half + half.mul_f64(f64::from(u32::try_from(self.random >> 32).unwrap_or(0)) / f64::from(u32::MAX))
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for jitter, and no secret is made from it.
pub(crate) fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_jitter_and_stay_bounded() {
        let mut backoff = Backoff::new(7);
        for n in 0..40u32 {
            let whole = Duration::from_millis(50)
                .saturating_mul(1 << n.min(20))
                .min(Duration::from_secs(10));
            let wait = backoff.after_failure();
            assert!(
                wait >= whole / 2 && wait <= whole,
                "wait {n} of {wait:?} against {whole:?}"
            );
        }
        backoff.reset();
        assert!(backoff.after_failure() <= Duration::from_millis(50));
    }

    #[test]
    fn seeds_differ() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 8].map(|()| backoff.after_failure())
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
