//! When a second replica is asked as well: after about the 99th percentile of what recent queries of the same model took,
//! and for a small share of them only (Dean and Barroso, "The Tail at Scale", 2013, doi 10.1145/2408776.2408794). A host
//! that was killed says no goodbye, and the transport learns only after seconds that nobody is there; by this it costs the
//! queries that it held a fraction of that. The share is what keeps an overload, in which everything is slow, from being
//! doubled.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// No second replica is asked sooner: below this a pause of the scheduler looks like a host that is gone.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(10);
/// The percentile is taken over so many of the newest queries, …
const RECENT: usize = 256;
/// … from this many on, …
const RECENT_MIN: usize = 32;
/// … and anew after so many.
const REVIEWED_EVERY: usize = 16;
/// In hundredths, by nearest rank.
const PERCENTILE: usize = 99;
/// Of so many queries one may be asked twice.
const QUERIES_PER_HEDGE: u32 = 20;
/// So many more in a row, for the moment at which a host dies with many queries under way.
const HEDGES_SAVED_MAX: u32 = 100;
/// Queries are told apart by their bytes there and back: up to 4 KiB, 64 KiB, 1 MiB, and more.
const SIZES: usize = 4;

/// How fast queries of one version of a model are answered, as this gateway sees it. Outlives the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    sizes: [Recent; SIZES],
    /// In parts of a hedge: each query brings one, a hedge takes [`QUERIES_PER_HEDGE`].
    credit: u32,
}

/// The newest queries of one size.
#[derive(Debug)]
struct Recent {
    micros: [u32; RECENT],
    n_seen: usize,
    percentile: Option<Duration>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            sizes: std::array::from_fn(|_| Recent::default()),
            credit: HEDGES_SAVED_MAX * QUERIES_PER_HEDGE,
        }
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            micros: [0; RECENT],
            n_seen: 0,
            percentile: None,
        }
    }
}

impl Pace {
    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        // Held for some microseconds at most, never over an await.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A query begins. After how long without an answer a second replica may be asked; `None` where too little is known.
    pub(crate) fn begins(&self, bytes: u64) -> Option<Duration> {
        self.with(|seen| {
            seen.credit = (seen.credit + 1).min(HEDGES_SAVED_MAX * QUERIES_PER_HEDGE);
            let percentile = seen.sizes[size(bytes)].percentile?;
            Some(percentile.max(HEDGE_AFTER_MIN))
        })
    }

    /// Takes what a hedge costs; false where the share is used up.
    pub(crate) fn hedge(&self) -> bool {
        self.with(|seen| match seen.credit.checked_sub(QUERIES_PER_HEDGE) {
            Some(left) => {
                seen.credit = left;
                true
            }
            None => false,
        })
    }

    /// A query was answered after this time, from its beginning and by whichever replica: if only the faster of two were
    /// counted, the percentile would fall with every hedge.
    pub(crate) fn answered(&self, bytes: u64, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.with(|seen| seen.sizes[size(bytes)].take(micros));
    }
}

impl Recent {
    fn take(&mut self, micros: u32) {
        self.micros[self.n_seen % RECENT] = micros;
        self.n_seen += 1;
        if self.n_seen < RECENT_MIN || !self.n_seen.is_multiple_of(REVIEWED_EVERY) {
            return;
        }
        let mut sorted = self.micros;
        let sorted = &mut sorted[..self.n_seen.min(RECENT)];
        let rank = (sorted.len() * PERCENTILE).div_ceil(100);
        let (_, percentile, _) = sorted.select_nth_unstable(rank - 1);
        self.percentile = Some(Duration::from_micros(u64::from(*percentile)));
    }
}

fn size(bytes: u64) -> usize {
    const KIB: u64 = 1024;
    [4 * KIB, 64 * KIB, 1024 * KIB].partition_point(|bound| *bound < bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_is_the_99th_percentile_of_the_newest() {
        let pace = Pace::default();
        for ms in 1..32 {
            pace.answered(10, MS * ms);
            assert_eq!(pace.begins(10), None, "{ms} answers tell too little");
        }
        pace.answered(10, MS * 32);
        // The nearest rank among 32 is the 32nd.
        assert_eq!(pace.begins(10), Some(MS * 32));
        // 1 to 256 ms in an order that is none: the 254th of them, as 254 / 256 is the first share over 0.99.
        for i in 0..256 {
            pace.answered(10, MS * (i * 77 % 256 + 1));
        }
        assert_eq!(pace.begins(10), Some(MS * 254));
        // What was slow once is forgotten.
        (0..RECENT).for_each(|_| pace.answered(10, MS * 20));
        assert_eq!(pace.begins(10), Some(MS * 20));
        (0..RECENT).for_each(|_| pace.answered(10, MS));
        assert_eq!(pace.begins(10), Some(HEDGE_AFTER_MIN));
    }

    #[test]
    fn queries_of_other_sizes_have_their_own_pace() {
        let pace = Pace::default();
        for (bytes, ms) in [(4096, 20), (4097, 30), (65_537, 40), (1_048_577, 50)] {
            (0..RECENT_MIN).for_each(|_| pace.answered(bytes, MS * ms));
        }
        for (bytes, ms) in [(0, 20), (65_536, 30), (1_048_576, 40), (u64::MAX, 50)] {
            assert_eq!(pace.begins(bytes), Some(MS * ms), "{bytes}");
        }
    }

    #[test]
    fn an_overload_is_not_doubled() {
        let pace = Pace::default();
        let mut n_hedges = 0;
        // Everything is slow, and every query would be asked twice.
        for _ in 0..10_000 {
            pace.begins(10);
            n_hedges += usize::from(pace.hedge());
        }
        // A hundred that were saved, and one of twenty; the first query brings nothing to a reserve that is full.
        assert_eq!(n_hedges, 100 + 9_999 / 20);
        // What is not used is saved, up to a bound.
        for _ in 0..1_000_000 {
            pace.begins(10);
        }
        assert_eq!((0..1_000).filter(|_| pace.hedge()).count(), 100);
    }
}
