//! Which replica answers a query: the choice that a gateway makes for every request, from what it knows itself.
//!
//! Predicted seconds = round trip + bytes over bandwidth + (waiting and under way + 1) × service time, where service
//! time is the larger of what the host tells and what the gateway saw (Peak-EWMA: rises at once, decays slowly), and
//! each failure in a row doubles it. Of two replicas drawn at random the better is taken (Mitzenmacher's power of two
//! choices, doi 10.1109/71.963420): many gateways with the same stale numbers do not all run to the same replica.
//!
//! One that fails repeatedly is ejected for a while. At most half of the replicas are out at once: beyond that those
//! whose time is over first are spared, because the rest could not carry the load of all; and where every one fails, the
//! fault is probably not theirs, and ejection is ignored. One that comes back gets its share of queries little by
//! little, because a host that has just started is slow and would be thrown out again by a full load.

use daitn_messages::units::UnixMillis;
use std::cell::OnceCell;

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

/// A replica that was ejected takes this long, from the end of its ejection, to get its full share of queries again.
pub const RETURN_MS: u64 = 10_000;
/// The share with which it begins: enough to find out soon that it still fails.
const RETURN_SHARE_MIN: f64 = 0.05;

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
        self.renew(service_seconds, now);
    }

    fn renew(&mut self, service_seconds: f64, now: UnixMillis) {
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

    /// A query was given up after this time, because another replica, asked later, had answered it: service takes at
    /// least as long. One that was `silent`, which is that it has answered nobody meanwhile, is taken for failing, as it
    /// may be gone; how long it is left out does not grow by further queries of the same moment.
    pub fn outpaced(&mut self, service_seconds: f64, silent: bool, now: UnixMillis) {
        if silent && !self.ejected(now) {
            self.failed(now);
        } else {
            self.ended();
        }
        self.renew(service_seconds, now);
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

    /// The part of its fair share of queries that it gets: less than one while it comes back from an ejection.
    #[must_use]
    pub fn share(&self, now: UnixMillis) -> f64 {
        if self.ejected_until.0 == 0 {
            return 1.0;
        }
        (now.since(self.ejected_until) as f64 / RETURN_MS as f64).clamp(RETURN_SHARE_MIN, 1.0)
    }

    /// By how often failures double the service time. Those that led to an ejection which is over do not count: what
    /// holds the replica back from then on is its share.
    fn doublings(&self, now: UnixMillis) -> u32 {
        if self.failures_in_a_row >= FAILURES_TO_EJECT && !self.ejected(now) {
            0
        } else {
            self.failures_in_a_row.min(FAILURES_COUNTED_MAX)
        }
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
    /// The chosen one is ejected, and is tried all the same because too many are.
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
    let doubled = f64::from(1_u32 << observed.doublings(now));
    candidate.rtt_seconds
        + bytes as f64 / candidate.bytes_per_second.max(1.0)
        + (f64::from(ahead) + 1.0) * service * doubled
}

/// Chooses one of `n` candidates, of which some may be ruled out (`None`); `random` is 64 random bits. `None` if there
/// is none. Looks at two candidates only, unless one of those is ejected or both are ruled out: then at all.
pub fn choose(
    n: usize,
    candidate: impl Fn(usize) -> Option<Candidate>,
    bytes: u64,
    now: UnixMillis,
    random: u64,
) -> Option<Choice> {
    let (first, second) = draw(n, random)?;
    let spared = OnceCell::new();
    // One that is ejected counts only if it is spared, one that comes back only as often as its share says.
    let look = |i: usize, luck: f64| {
        let c = candidate(i)?;
        let usable = if c.observed.ejected(now) {
            c.observed.ejected_until <= *spared.get_or_init(|| spared_until(n, &candidate, now))
        } else {
            luck < c.observed.share(now)
        };
        usable.then(|| Looked::of(i, &c, bytes, now))
    };
    let (first_luck, second_luck) = luck(random);
    let one = look(first, first_luck);
    let two = second.and_then(|i| look(i, second_luck));
    let (best, other) = match (one, two) {
        (Some(a), Some(b)) if b.seconds < a.seconds => (b, Some(a)),
        (Some(a), b) => (a, b),
        (None, Some(b)) => (b, None),
        // However little its share is, one that comes back is better than none. Of those alike the next one is taken,
        // so that not all of this goes to one.
        (None, None) => {
            let all = (first..n).chain(0..first).filter_map(|i| look(i, 0.0));
            (
                all.reduce(|a, b| if b.seconds < a.seconds { b } else { a })?,
                None,
            )
        }
    };
    Some(Choice {
        chosen: best.index,
        seconds: best.seconds,
        other: other.map(|other| (other.index, other.seconds)),
        desperate: best.ejected,
    })
}

/// One that was looked at.
#[derive(Clone, Copy)]
struct Looked {
    index: usize,
    seconds: f64,
    ejected: bool,
}

impl Looked {
    fn of(index: usize, candidate: &Candidate, bytes: u64, now: UnixMillis) -> Self {
        Self {
            index,
            seconds: predicted_seconds(candidate, bytes, now),
            ejected: candidate.observed.ejected(now),
        }
    }
}

/// Ejections that end by this time do not count, because more than half of all replicas would be out: zero where no
/// more are, the end of time where every one is.
fn spared_until(n: usize, candidate: &impl Fn(usize) -> Option<Candidate>, now: UnixMillis) -> UnixMillis {
    let (mut ends, mut n_usable) = (Vec::new(), 0_usize);
    for c in (0..n).filter_map(candidate) {
        if c.observed.ejected(now) {
            ends.push(c.observed.ejected_until);
        } else {
            n_usable += 1;
        }
    }
    if n_usable == 0 {
        return UnixMillis(u64::MAX);
    }
    ends.sort_unstable();
    match ends.len().saturating_sub(n / 2) {
        0 => UnixMillis(0),
        n_spared => ends[n_spared - 1],
    }
}

/// Two numbers, from 0 to below 1, that tell nothing of which replicas are drawn by the same random bits (the finaliser of
/// SplitMix64, Steele, Lea and Flood 2014).
fn luck(random: u64) -> (f64, f64) {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let unit = |bits: u64| bits as f64 / 4_294_967_296.0;
    (unit(z & 0xffff_ffff), unit(z >> 32))
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
