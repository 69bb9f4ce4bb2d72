//! What a terminal has to do now: counters that telemetry reads.

use daitn_messages::{descriptor::Telemetry, ids::EntityId, units::UnixMillis};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Weight of the newest service time in its average: a change is seen after about ten.
const NEWEST: f64 = 0.2;

/// The counters of one terminal.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    queued: AtomicU32,
    served_total: AtomicU64,
    service_seconds: Mutex<Option<f64>>,
}

/// Counts one down when dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a AtomicU32);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// One more is under way, until the guard is dropped.
    #[must_use]
    pub(crate) fn begin(&self) -> Busy<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Busy(&self.in_flight)
    }

    /// One more is under way unless there are `max` already.
    #[must_use]
    pub(crate) fn begin_within(&self, max: usize) -> Option<Busy<'_>> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let more = |n: u32| (n < max).then_some(n + 1);
        let begun = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        begun.is_ok().then(|| Busy(&self.in_flight))
    }

    /// One more waits, until the guard is dropped.
    #[must_use]
    pub(crate) fn wait(&self) -> Busy<'_> {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Busy(&self.queued)
    }

    /// One was served in this time.
    pub(crate) fn served(&self, seconds: f64) {
        self.served_total.fetch_add(1, Ordering::Relaxed);
        let mut average = self
            .service_seconds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *average = Some(average.map_or(seconds, |average| average + NEWEST * (seconds - average)));
    }

    /// How many are under way.
    #[must_use]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many were served since the start.
    #[must_use]
    pub(crate) fn served_total(&self) -> u64 {
        self.served_total.load(Ordering::Relaxed)
    }

    /// As it is told to the center.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "telemetry needs no more digits")]
    pub(crate) fn telemetry(
        &self,
        entity: &EntityId,
        now: UnixMillis,
        capacity: usize,
        free_memory_bytes: u64,
    ) -> Telemetry {
        let in_flight = self.in_flight();
        let average = *self
            .service_seconds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Telemetry {
            entity: entity.clone(),
            measured_at: now,
            load: (f64::from(in_flight) / capacity.max(1) as f64).min(1.0) as f32,
            queued: self.queued.load(Ordering::Relaxed),
            in_flight,
            free_memory_bytes,
            service_seconds: average.unwrap_or(0.0) as f32,
        }
    }
}
