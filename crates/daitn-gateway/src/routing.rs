//! Which replica answers a query. The choice itself is the topology's: the better of two drawn at random, by predicted
//! seconds. Here is what a gateway knows of each replica, and which of them it rules out.
//!
//! Only failures of the way or of the host count; a request that the host rightly refuses says nothing about the host.

use daitn_messages::{descriptor::Telemetry, ids::EntityId, session::Peer, units::UnixMillis};
use daitn_topology::replicas::{self, Candidate, Choice, Observed};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A replica that says that it is full is left alone for this long.
const REST_MS: u64 = 1_000;
/// What a host told of its load is believed for this long.
const TOLD_MS_MAX: u64 = 10_000;

/// One replica of a model, with what this gateway has seen of it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) host: EntityId,
    pub(crate) peer: Peer,
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) health: Arc<Health>,
}

/// What this gateway has seen of a replica. Outlives the snapshot that named the replica.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Seen>);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    observed: Observed,
    rtt_seconds: f64,
    /// Answers of the host so far, and failures because it was silent.
    n_answers: u64,
    n_silences: u64,
    /// Queries at the host, as its last answer told, and when that was.
    told: (u32, UnixMillis),
    resting_until: UnixMillis,
}

/// The gateway's two clocks: one that never jumps, for what the gateway itself sees, and the time of day, for what
/// others date.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) steady: UnixMillis,
    pub(crate) wall: UnixMillis,
}

/// A query under way at a replica. Whatever becomes of it, it is counted down once.
pub(crate) struct InFlight {
    health: Arc<Health>,
    /// What was so when it was sent.
    n_answers_before: u64,
    n_silences_before: u64,
    settled: bool,
}

impl Health {
    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        // Held for a few instructions, never over an await.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        let (n_answers_before, n_silences_before) = self.with(|seen| {
            seen.observed.sent();
            (seen.n_answers, seen.n_silences)
        });
        InFlight {
            health: self.clone(),
            n_answers_before,
            n_silences_before,
            settled: false,
        }
    }

    #[cfg(test)]
    fn in_flight(&self) -> u32 {
        self.with(|seen| seen.observed.in_flight)
    }
}

impl InFlight {
    fn settle(mut self, change: impl FnOnce(&mut Seen)) {
        self.settled = true;
        self.health.with(change);
    }

    /// The host answered after this time, told how many queries it has, and is this far away.
    pub(crate) fn answered(self, now: Now, took: Duration, told_in_flight: u32, rtt: Option<Duration>) {
        self.settle(|seen| {
            if let Some(rtt) = rtt {
                seen.rtt_seconds = rtt.as_secs_f64();
            }
            let service_seconds = (took.as_secs_f64() - seen.rtt_seconds).max(0.0);
            seen.observed.answered(service_seconds, now.steady);
            seen.n_answers += 1;
            // The one that was answered is over.
            seen.told = (told_in_flight.saturating_sub(1), now.steady);
        });
    }

    /// The host is full.
    pub(crate) fn full(self, now: Now) {
        self.settle(|seen| {
            seen.observed.ended();
            seen.resting_until = now.steady.plus(REST_MS);
        });
    }

    /// The way or the host failed. True where that took the replica out for a while.
    pub(crate) fn failed(self, now: Now) -> bool {
        self.settle_ejecting(now, |seen| seen.observed.failed(now.steady))
    }

    /// Another replica, which was asked after this one had been silent for a while, has answered first, and this one is
    /// waited for no longer. True where that took the replica out for a while.
    pub(crate) fn outpaced(self, now: Now, waited: Duration) -> bool {
        let before = (self.n_answers_before, self.n_silences_before);
        self.settle_ejecting(now, |seen| {
            // Not one answer to anybody since, as of a host that is no longer there. Queries that it left in one and the
            // same silence, which may be a pause, count once.
            let silent = (seen.n_answers, seen.n_silences) == before;
            seen.n_silences += u64::from(silent);
            let service_seconds = (waited.as_secs_f64() - seen.rtt_seconds).max(0.0);
            seen.observed.outpaced(service_seconds, silent, now.steady);
        })
    }

    fn settle_ejecting(self, now: Now, change: impl FnOnce(&mut Seen)) -> bool {
        let mut ejected = false;
        self.settle(|seen| {
            let before = seen.observed.ejected(now.steady);
            change(seen);
            ejected = !before && seen.observed.ejected(now.steady);
        });
        ejected
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.settled {
            // The client left, or its query was refused: no news of the replica.
            self.health.with(|seen| seen.observed.ended());
        }
    }
}

impl Replica {
    fn candidate(&self, now: Now) -> Candidate {
        let seen = self.health.with(|seen| *seen);
        let fresh = |telemetry: &&Telemetry| now.wall.since(telemetry.measured_at) <= TOLD_MS_MAX;
        let telemetry = self.telemetry.as_ref();
        let load = telemetry.filter(fresh);
        // A host that tells nonsense is not believed.
        let service_seconds = telemetry.map_or(0.0, |t| f64::from(t.service_seconds));
        Candidate {
            rtt_seconds: seen.rtt_seconds,
            // Nobody has measured it for the gateway: bytes are taken to cost the same at every replica.
            bytes_per_second: f64::INFINITY,
            queued: load.map_or(0, |t| t.queued),
            in_flight: newest_load(load, seen.told, now),
            service_seconds: if service_seconds.is_finite() {
                service_seconds.max(0.0)
            } else {
                0.0
            },
            observed: seen.observed,
        }
    }

    fn rests(&self, now: Now) -> bool {
        self.health.with(|seen| seen.resting_until > now.steady)
    }
}

/// Queries at a host, by whichever is newer: its telemetry or its last answer. Zero where both are too old.
fn newest_load(telemetry: Option<&Telemetry>, told: (u32, UnixMillis), now: Now) -> u32 {
    let told_age = now.steady.since(told.1);
    match telemetry {
        Some(telemetry) if now.wall.since(telemetry.measured_at) < told_age => telemetry.in_flight,
        _ if told_age <= TOLD_MS_MAX => told.0,
        _ => 0,
    }
}

/// A replica that was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Looked {
    /// Its place in the list.
    pub(crate) index: usize,
    pub(crate) predicted_seconds: f64,
    /// This gateway's queries there.
    pub(crate) in_flight: u32,
}

/// The choice for one attempt: the chosen one and the other that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pick {
    pub(crate) chosen: Looked,
    pub(crate) other: Option<Looked>,
}

/// Chooses a replica that was not tried yet for a query of this many bytes. One that rests or is out is chosen only
/// when no other is left: a refusal is worse than a try.
pub(crate) fn pick(
    replicas: &[Arc<Replica>],
    tried: &[usize],
    bytes: u64,
    now: Now,
    random: u64,
) -> Option<Pick> {
    let untried = |index: usize| (!tried.contains(&index)).then(|| replicas[index].candidate(now));
    // One that rests is better than one that fails.
    pick_fit(replicas, tried, bytes, now, random).or_else(|| {
        let choice = replicas::choose(replicas.len(), untried, bytes, now.steady, random)?;
        Some(Pick::of(&choice, replicas))
    })
}

/// The same, and `None` rather than one that rests or is out.
pub(crate) fn pick_fit(
    replicas: &[Arc<Replica>],
    tried: &[usize],
    bytes: u64,
    now: Now,
    random: u64,
) -> Option<Pick> {
    let fit = |index: usize| {
        let ruled_out = tried.contains(&index) || replicas[index].rests(now);
        (!ruled_out).then(|| replicas[index].candidate(now))
    };
    let choice = replicas::choose(replicas.len(), fit, bytes, now.steady, random)?;
    (!choice.desperate).then(|| Pick::of(&choice, replicas))
}

impl Pick {
    fn of(choice: &Choice, replicas: &[Arc<Replica>]) -> Self {
        let look = |index: usize, predicted_seconds: f64| Looked {
            index,
            predicted_seconds,
            in_flight: replicas[index].health.with(|seen| seen.observed.in_flight),
        };
        Self {
            chosen: look(choice.chosen, choice.seconds),
            other: choice.other.map(|(index, seconds)| look(index, seconds)),
        }
    }
}

/// A stream of numbers for drawing (SplitMix64, Steele, Lea and Flood 2014). No secret is made from it.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
