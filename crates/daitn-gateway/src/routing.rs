//! Which replica answers a query: the better of two drawn at random, by predicted seconds. Drawing keeps several
//! gateways that look at the same snapshot from all choosing the same replica.
//!
//! What a gateway has seen of a replica is kept in [`Health`]: its latency as a peak-sensitive moving average (as in
//! Finagle's Peak EWMA), its failures, and whether it rests. Only failures of the way or of the host count; a request
//! that the host rightly refuses says nothing about the host.

use daitn_messages::{descriptor::Telemetry, ids::EntityId, session::Peer};
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// What was seen fades by 1/e in this time.
const FADE_MICROS: f64 = 10e6;
/// The latency of a replica that nothing is known of, seconds.
const UNKNOWN_SECONDS: f64 = 0.001;
/// A failure counts as an answer that took this long, so that failing fast is not attractive.
const FAILURE_SECONDS: f64 = 1.0;
/// So many failures in a row take a replica out (Envoy's `consecutive_5xx`).
const FAILURES_MAX: u32 = 5;
/// For so long the first time, twice as long each further time (Envoy's `base_ejection_time`).
const EJECTION_MICROS: u64 = 30_000_000;
/// At most this often doubled: 16 minutes.
const EJECTION_DOUBLINGS_MAX: u32 = 5;
/// One in so many replicas may be out at once, but at least one (Envoy's `max_ejection_percent`).
const EJECTED_SHARE: usize = 10;
/// After it returns, a replica looks slower than it is for this long, falling to nothing.
const SLOW_START_MICROS: u64 = 10_000_000;
/// How much slower at first.
const SLOW_START_FACTOR: f64 = 9.0;
/// A replica that says that it is full is left alone for this long.
const REST_MICROS: u64 = 1_000_000;
/// Draws before all replicas are looked through for one that is not out.
const DRAWS_MAX: usize = 8;

/// One replica of a model, with what this gateway has seen of it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) host: EntityId,
    pub(crate) peer: Peer,
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) health: Arc<Health>,
}

/// What this gateway has seen of a replica. Times are microseconds of the gateway's clock.
#[derive(Debug, Default)]
pub(crate) struct Health {
    in_flight: AtomicU32,
    /// As the host told with its last answer: other gateways' queries too.
    told_in_flight: AtomicU32,
    latency_seconds_bits: AtomicU64,
    seen_at: AtomicU64,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    resting_until: AtomicU64,
}

/// Why a replica is not drawn now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    /// After repeated failures.
    Ejected,
    /// After it said that it is full.
    Resting,
}

/// A query under way at a replica. Counts down when dropped, whatever became of the query.
pub(crate) struct InFlight(Arc<Health>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Health {
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn out(&self, now: u64) -> Option<Out> {
        if self.ejected_until.load(Relaxed) > now {
            Some(Out::Ejected)
        } else if self.resting_until.load(Relaxed) > now {
            Some(Out::Resting)
        } else {
            None
        }
    }

    /// The latency as seen, faded by its age.
    fn latency_seconds(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.seen_at.load(Relaxed)) as f64;
        f64::from_bits(self.latency_seconds_bits.load(Relaxed)) * (-age / FADE_MICROS).exp()
    }

    /// Peaks count at once, improvements by and by. Two updates at once may lose one: it is an estimate.
    fn see(&self, now: u64, seconds: f64) {
        let age = now.saturating_sub(self.seen_at.swap(now, Relaxed)) as f64;
        let before = f64::from_bits(self.latency_seconds_bits.load(Relaxed));
        let weight = (-age / FADE_MICROS).exp();
        let after = if seconds > before {
            seconds
        } else {
            before * weight + seconds * (1.0 - weight)
        };
        self.latency_seconds_bits.store(after.to_bits(), Relaxed);
    }

    pub(crate) fn succeeded(&self, now: u64, seconds: f64, told_in_flight: u32) {
        self.see(now, seconds);
        // The one that was answered is over.
        self.told_in_flight
            .store(told_in_flight.saturating_sub(1), Relaxed);
        self.failures.store(0, Relaxed);
        let back_since = now.saturating_sub(self.ejected_until.load(Relaxed));
        if back_since > SLOW_START_MICROS {
            self.ejections.store(0, Relaxed);
        }
    }

    /// The host said that it is full.
    pub(crate) fn full(&self, now: u64) {
        self.resting_until.store(now.saturating_add(REST_MICROS), Relaxed);
    }

    /// The way or the host failed. True where that took the replica out.
    pub(crate) fn failed(&self, now: u64, siblings: &[Arc<Replica>]) -> bool {
        self.see(now, FAILURE_SECONDS);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < FAILURES_MAX || self.out(now) == Some(Out::Ejected) {
            return false;
        }
        let n_out = siblings
            .iter()
            .filter(|r| r.health.out(now) == Some(Out::Ejected))
            .count();
        if siblings.len() < 2 || n_out >= (siblings.len() / EJECTED_SHARE).max(1) {
            return false;
        }
        let doublings = self.ejections.fetch_add(1, Relaxed).min(EJECTION_DOUBLINGS_MAX);
        self.ejected_until
            .store(now.saturating_add(EJECTION_MICROS << doublings), Relaxed);
        // The first failure after it returns takes it out again.
        self.failures.store(FAILURES_MAX - 1, Relaxed);
        true
    }
}

impl Replica {
    /// How long an answer is expected to take if it is asked now.
    pub(crate) fn predicted_seconds(&self, now: u64) -> f64 {
        let health = &self.health;
        let told = self.telemetry.as_ref();
        let service = told
            .map_or(UNKNOWN_SECONDS, |t| f64::from(t.service_seconds))
            .max(UNKNOWN_SECONDS / 10.0);
        // A host that tells nonsense is not believed.
        let service = if service.is_finite() {
            service
        } else {
            UNKNOWN_SECONDS
        };
        let each = health.latency_seconds(now).max(service);
        let queued = health
            .in_flight
            .load(Relaxed)
            .max(health.told_in_flight.load(Relaxed));
        let since_return = now.saturating_sub(health.ejected_until.load(Relaxed));
        let returning = health.ejected_until.load(Relaxed) > 0 && since_return < SLOW_START_MICROS;
        let slow_start = if returning {
            1.0 + SLOW_START_FACTOR * (1.0 - since_return as f64 / SLOW_START_MICROS as f64)
        } else {
            1.0
        };
        each * f64::from(queued.saturating_add(1)) * slow_start
    }
}

/// A replica that was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Looked {
    /// Its place in the list.
    pub(crate) index: usize,
    pub(crate) predicted_seconds: f64,
    pub(crate) in_flight: u32,
}

/// The choice for one attempt: the first is taken, the second was the other one looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pick {
    pub(crate) chosen: Looked,
    pub(crate) other: Option<Looked>,
}

/// Draws two replicas that were not tried yet and takes the better. Replicas that are out are drawn only when no other
/// is left: a refusal is worse than a try.
pub(crate) fn pick(replicas: &[Arc<Replica>], tried: &[usize], now: u64, random: &Random) -> Option<Pick> {
    let well = |index: usize| !tried.contains(&index) && replicas[index].health.out(now).is_none();
    let untried = |index: usize| !tried.contains(&index);
    let n = replicas.len();
    let first = draw(n, random, well).or_else(|| draw(n, random, untried))?;
    let second = draw(n, random, |index| index != first && well(index));
    let look = |index: usize| Looked {
        index,
        predicted_seconds: replicas[index].predicted_seconds(now),
        in_flight: replicas[index].health.in_flight(),
    };
    let (first, second) = (look(first), second.map(look));
    Some(match second {
        Some(second) if second.predicted_seconds < first.predicted_seconds => Pick {
            chosen: second,
            other: Some(first),
        },
        other => Pick { chosen: first, other },
    })
}

/// One of `0..n` that fits, evenly drawn as long as most fit.
fn draw(n: usize, random: &Random, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if n == 0 {
        return None;
    }
    let drawn = (0..DRAWS_MAX).map(|_| random.below(n)).find(|index| fits(*index));
    let from = random.below(n);
    drawn.or_else(|| (0..n).map(|step| (from + step) % n).find(|index| fits(*index)))
}

/// A stream of numbers for drawing (SplitMix64, Steele, Lea and Flood 2014). No secret is made from it.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, n: usize) -> usize {
        // The product's upper half (Lemire 2019); the bias for n far below 2^64 is nil for our purpose.
        usize::try_from((u128::from(self.next()) * n as u128) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
