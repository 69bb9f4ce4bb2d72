//! What a gateway counts, for whoever exports it. Plain atomics: counting takes no lock on the request path.

use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Upper bounds of the latency buckets, seconds. The last bucket has none.
pub const LATENCY_BOUNDS_SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What kind of request it is, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteClass {
    /// The REST API.
    Rest,
    /// The Open Inference Protocol.
    Inference,
    /// A2A.
    Agent,
    /// Health and metrics.
    Health,
    /// No such path.
    Other,
}

impl RouteClass {
    const ALL: [Self; 5] = [
        Self::Rest,
        Self::Inference,
        Self::Agent,
        Self::Health,
        Self::Other,
    ];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Inference => "inference",
            Self::Agent => "agent",
            Self::Health => "health",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(path: &str) -> Self {
        let within = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match () {
            () if within("/v1") => Self::Rest,
            () if within("/v2/health") || within("/health") || within("/metrics") => Self::Health,
            () if within("/v2") => Self::Inference,
            () if within("/a2a") => Self::Agent,
            () => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
struct PerClass {
    by_status: [AtomicU64; 5],
    buckets: [AtomicU64; LATENCY_BOUNDS_SECONDS.len() + 1],
    micros_total: AtomicU64,
}

/// The counters of one gateway.
#[derive(Debug, Default)]
pub struct GatewayStats {
    per_class: [PerClass; RouteClass::ALL.len()],
    requests_open: AtomicU64,
    streams_open: AtomicU64,
    connections_open: AtomicU64,
    connections_total: AtomicU64,
    pub(crate) failovers_total: AtomicU64,
    pub(crate) hedges_total: AtomicU64,
    pub(crate) ejections_total: AtomicU64,
    pub(crate) overloads_total: AtomicU64,
    pub(crate) unauthenticated_total: AtomicU64,
    pub(crate) panics_total: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatsSnapshot {
    /// Requests that were answered, by class.
    pub requests: Vec<ClassStats>,
    /// Requests under way.
    pub requests_open: u64,
    /// Responses that stream now: job events and agents.
    pub streams_open: u64,
    /// TCP connections open.
    pub connections_open: u64,
    /// TCP connections accepted since the start.
    pub connections_total: u64,
    /// Queries that went on to another replica after one had failed.
    pub failovers_total: u64,
    /// Queries that a second replica was asked as well, because the first was slow.
    pub hedges_total: u64,
    /// Replicas that were taken out of the choice for a while after repeated failures.
    pub ejections_total: u64,
    /// Requests refused because a bound of the gateway was reached.
    pub overloads_total: u64,
    /// Requests without a valid API key.
    pub unauthenticated_total: u64,
    /// Requests whose handling panicked.
    pub panics_total: u64,
}

/// Requests of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassStats {
    /// The class's name.
    pub class: &'static str,
    /// Requests by the first digit of their status, 1 to 5.
    pub by_status: [u64; 5],
    /// Requests by the time until their response began, one entry for each of [`LATENCY_BOUNDS_SECONDS`] and one for
    /// longer ones. Not cumulative.
    pub latency_buckets: Vec<u64>,
    /// Sum of these times.
    pub latency_seconds_sum: f64,
}

impl GatewayStats {
    pub(crate) fn answered(&self, class: RouteClass, status: u16, took: Duration) {
        let per_class = &self.per_class[class as usize];
        let digit = usize::from(status / 100).clamp(1, 5);
        per_class.by_status[digit - 1].fetch_add(1, Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        per_class.buckets[bucket].fetch_add(1, Relaxed);
        per_class
            .micros_total
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let class = |class: &RouteClass| {
            let per_class = &self.per_class[*class as usize];
            ClassStats {
                class: class.as_str(),
                by_status: std::array::from_fn(|i| per_class.by_status[i].load(Relaxed)),
                latency_buckets: per_class
                    .buckets
                    .iter()
                    .map(|bucket| bucket.load(Relaxed))
                    .collect(),
                latency_seconds_sum: Duration::from_micros(per_class.micros_total.load(Relaxed))
                    .as_secs_f64(),
            }
        };
        StatsSnapshot {
            requests: RouteClass::ALL.iter().map(class).collect(),
            requests_open: self.requests_open.load(Relaxed),
            streams_open: self.streams_open.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            failovers_total: self.failovers_total.load(Relaxed),
            hedges_total: self.hedges_total.load(Relaxed),
            ejections_total: self.ejections_total.load(Relaxed),
            overloads_total: self.overloads_total.load(Relaxed),
            unauthenticated_total: self.unauthenticated_total.load(Relaxed),
            panics_total: self.panics_total.load(Relaxed),
        }
    }

    pub(crate) fn request_opened(self: &Arc<Self>) -> Open {
        Open::new(self, |stats| &stats.requests_open)
    }

    pub(crate) fn stream_opened(self: &Arc<Self>) -> Open {
        Open::new(self, |stats| &stats.streams_open)
    }

    pub(crate) fn connection_opened(self: &Arc<Self>) -> Open {
        self.connections_total.fetch_add(1, Relaxed);
        Open::new(self, |stats| &stats.connections_open)
    }
}

/// Counts one up, and down again when dropped, whatever happened between.
pub(crate) struct Open {
    stats: Arc<GatewayStats>,
    which: fn(&GatewayStats) -> &AtomicU64,
}

impl Open {
    fn new(stats: &Arc<GatewayStats>, which: fn(&GatewayStats) -> &AtomicU64) -> Self {
        which(stats).fetch_add(1, Relaxed);
        Self {
            stats: stats.clone(),
            which,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.which)(&self.stats).fetch_sub(1, Relaxed);
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_whole_path_segments() {
        for (path, class) in [
            ("/v1/jobs", RouteClass::Rest),
            ("/v2", RouteClass::Inference),
            ("/v2/models/digits/infer", RouteClass::Inference),
            ("/v2/health/ready", RouteClass::Health),
            ("/metrics", RouteClass::Health),
            ("/a2a/acme/helper/", RouteClass::Agent),
            ("/v10/jobs", RouteClass::Other),
            ("/", RouteClass::Other),
        ] {
            assert_eq!(RouteClass::of(path), class, "{path}");
        }
    }

    #[test]
    fn a_latency_falls_into_the_first_bucket_that_holds_it() {
        let stats = GatewayStats::default();
        for (status, millis) in [(200, 0), (204, 1), (404, 1), (503, 60_000)] {
            stats.answered(RouteClass::Inference, status, Duration::from_millis(millis));
        }
        let inference = &stats.snapshot().requests[RouteClass::Inference as usize];
        assert_eq!(inference.class, "inference");
        assert_eq!(inference.by_status, [0, 2, 0, 1, 1]);
        // Bounds are inclusive, as in Prometheus: 1 ms is in the bucket up to 1 ms.
        assert_eq!(inference.latency_buckets[..3], [1, 2, 0]);
        assert_eq!(inference.latency_buckets[LATENCY_BOUNDS_SECONDS.len()], 1);
        assert!((inference.latency_seconds_sum - 60.002).abs() < 1e-9);
    }

    #[test]
    fn open_counters_return_to_zero() {
        let stats = Arc::new(GatewayStats::default());
        let (one, two) = (stats.stream_opened(), stats.stream_opened());
        assert_eq!(stats.snapshot().streams_open, 2);
        drop((one, two));
        assert_eq!(stats.snapshot().streams_open, 0);
    }
}
