//! Which replica answers a query: the choice that a gateway makes for every request, from what it knows itself.
//!
//! Predicted seconds = round trip + bytes over bandwidth + (waiting and under way + 1) × service time, where service
//! time is the larger of what the host tells and what the gateway saw (Peak-EWMA: rises at once, decays slowly), and
//! each failure in a row doubles it. Of two replicas drawn at random the better is taken (Mitzenmacher's power of two
//! choices, doi 10.1109/71.963420): many gateways with the same stale numbers do not all run to the same replica.

use daitn_messages::units::UnixMillis;

/// A slow answer is half forgotten after this.
const HALF_LIFE_MS: f64 = 5_000.0;
/// Doublings for failures in a row stop here; then the replica is avoided anyway.
const FAILURES_COUNTED_MAX: u32 = 10;
/// Service time that is assumed of a replica that neither told nor was seen.
const SERVICE_SECONDS_ASSUMED: f64 = 0.010;
/// After this many failures in a row a replica gets no query for a while.
pub const FAILURES_TO_EJECT: u32 = 3;
/// For how long after the first ejection; doubles with every further failure, up to [`EJECTION_MS_MAX`].
const EJECTION_MS: u64 = 1_000;
/// Longest ejection.
pub const EJECTION_MS_MAX: u64 = 60_000;

/// What a gateway saw of one replica. Plain data: the gateway keeps one for each and tells it what happens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observed {
    /// Queries that this gateway has under way there.
    pub in_flight: u32,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Peak-EWMA of the host's service time, seconds; zero: nothing seen.
    pub service_seconds: f64,
    /// When that was last renewed.
    pub seen_at: UnixMillis,
    /// No query before this.
    pub ejected_until: UnixMillis,
}

impl Observed {
    /// A query was sent.
    pub fn sent(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// A query was answered after this time (without the round trip).
    pub fn answered(&mut self, service_seconds: f64, now: UnixMillis) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.failures_in_a_row = 0;
        if service_seconds.is_finite() && service_seconds >= 0.0 {
            let kept = self.decay(now);
            self.service_seconds = if service_seconds >= self.service_seconds {
                service_seconds
            } else {
                self.service_seconds * kept + service_seconds * (1.0 - kept)
            };
            self.seen_at = now;
        }
    }

    /// A query failed through the replica's fault (not for a bad request, nor because the client left).
    pub fn failed(&mut self, now: UnixMillis) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row >= FAILURES_TO_EJECT {
            let doublings = (self.failures_in_a_row - FAILURES_TO_EJECT).min(FAILURES_COUNTED_MAX);
            self.ejected_until = now.plus((EJECTION_MS << doublings).min(EJECTION_MS_MAX));
        }
    }

    /// A query ended without telling anything of the replica: the client left, or its request was bad.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether it gets no query now.
    #[must_use]
    pub fn ejected(&self, now: UnixMillis) -> bool {
        now < self.ejected_until
    }

    fn decay(&self, now: UnixMillis) -> f64 {
        (-(now.since(self.seen_at) as f64) / HALF_LIFE_MS).exp2()
    }
}

/// What the choice looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Round-trip time to its node, seconds.
    pub rtt_seconds: f64,
    /// Throughput to its node, bytes a second.
    pub bytes_per_second: f64,
    /// Queries that wait there, as it last told.
    pub queued: u32,
    /// Queries under way there from everybody, as it last told; zero if that is too old.
    pub in_flight: u32,
    /// Service time as it last told, seconds; zero if it did not.
    pub service_seconds: f64,
    /// What this gateway saw itself.
    pub observed: Observed,
}

/// What was chosen, and between which.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The position of the chosen one.
    pub chosen: usize,
    /// Its predicted seconds.
    pub seconds: f64,
    /// The other that was drawn, with its predicted seconds.
    pub other: Option<(usize, f64)>,
    /// Every candidate was ejected: this is a try all the same.
    pub desperate: bool,
}

/// Seconds until an answer to a query of this many bytes (there and back) is expected.
#[must_use]
pub fn predicted_seconds(candidate: &Candidate, bytes: u64, now: UnixMillis) -> f64 {
    let observed = &candidate.observed;
    let seen = observed.service_seconds * observed.decay(now);
    let service = match candidate.service_seconds.max(seen) {
        known if known > 0.0 => known,
        _ => SERVICE_SECONDS_ASSUMED,
    };
    // What the host told may hold some of our own queries already: the larger of both, not the sum.
    let ahead = candidate
        .in_flight
        .max(observed.in_flight)
        .saturating_add(candidate.queued);
    let doubled = f64::from(1_u32 << observed.failures_in_a_row.min(FAILURES_COUNTED_MAX));
    candidate.rtt_seconds
        + bytes as f64 / candidate.bytes_per_second.max(1.0)
        + (f64::from(ahead) + 1.0) * service * doubled
}

/// Chooses one of `n` candidates, of which some may be ruled out (`None`); `random` is 64 random bits. `None` if there
/// is none. Looks at two candidates only, unless those are ruled out or ejected: then at all.
pub fn choose(
    n: usize,
    candidate: impl Fn(usize) -> Option<Candidate>,
    bytes: u64,
    now: UnixMillis,
    random: u64,
) -> Option<Choice> {
    let usable = |i: usize| candidate(i).filter(|c| !c.observed.ejected(now));
    let (first, second) = draw(n, random)?;
    let one = usable(first).map(|c| (first, predicted_seconds(&c, bytes, now)));
    let two = second.and_then(|i| usable(i).map(|c| (i, predicted_seconds(&c, bytes, now))));
    let (best, other) = match (one, two) {
        (Some(a), Some(b)) if b.1 < a.1 => (b, Some(a)),
        (Some(a), b) => (a, b),
        (None, Some(b)) => (b, None),
        (None, None) => return choose_of_all(n, candidate, bytes, now),
    };
    Some(Choice {
        chosen: best.0,
        seconds: best.1,
        other,
        desperate: false,
    })
}

/// Two different positions below `n`; one if there is only one.
fn draw(n: usize, random: u64) -> Option<(usize, Option<usize>)> {
    let pick = |bits: u64, below: usize| usize::try_from(bits % below as u64).unwrap_or(0);
    match n {
        0 => None,
        1 => Some((0, None)),
        _ => {
            let first = pick(random & 0xffff_ffff, n);
            let second = pick(random >> 32, n - 1);
            Some((first, Some(second + usize::from(second >= first))))
        }
    }
}

/// The best of all that are not ejected, or else of all.
fn choose_of_all(
    n: usize,
    candidate: impl Fn(usize) -> Option<Candidate>,
    bytes: u64,
    now: UnixMillis,
) -> Option<Choice> {
    let mut best: Option<(bool, f64, usize)> = None;
    for i in 0..n {
        if let Some(c) = candidate(i) {
            let found = (c.observed.ejected(now), predicted_seconds(&c, bytes, now), i);
            if best.is_none_or(|b| (found.0, found.1) < (b.0, b.1)) {
                best = Some(found);
            }
        }
    }
    best.map(|(desperate, seconds, chosen)| Choice {
        chosen,
        seconds,
        other: None,
        desperate,
    })
}

/// Why: one line for each candidate, with the numbers that the prediction was made of.
#[must_use]
pub fn explain(
    candidates: &[(String, Candidate)],
    choice: &Choice,
    bytes: u64,
    now: UnixMillis,
) -> Vec<String> {
    candidates
        .iter()
        .enumerate()
        .map(|(i, (name, c))| {
            let seconds = predicted_seconds(c, bytes, now);
            let verdict = if i == choice.chosen {
                "chosen"
            } else if c.observed.ejected(now) {
                "ejected after failures"
            } else if choice.other.is_some_and(|(other, _)| other == i) {
                "drawn, slower"
            } else {
                "not drawn"
            };
            format!(
                "{name}: {verdict}; {:.1} ms expected: {:.1} ms round trip, {} waiting or under way, {:.1} ms service, \
                 {} failures in a row",
                seconds * 1e3,
                c.rtt_seconds * 1e3,
                c.in_flight.max(c.observed.in_flight).saturating_add(c.queued),
                c.service_seconds.max(c.observed.service_seconds) * 1e3,
                c.observed.failures_in_a_row,
            )
        })
        .collect()
}
