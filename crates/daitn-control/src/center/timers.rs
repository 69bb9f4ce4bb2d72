//! Timers that the core has armed: one moment for each, the next one first.

use crate::core::Timer;
use daitn_messages::units::UnixMillis;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, UnixMillis>,
    in_order: BTreeSet<(UnixMillis, Timer)>,
}

impl Timers {
    /// Sets a timer, whether it was set or not.
    pub(crate) fn arm(&mut self, timer: Timer, at: UnixMillis) {
        if let Some(before) = self.at.insert(timer.clone(), at) {
            self.in_order.remove(&(before, timer.clone()));
        }
        self.in_order.insert((at, timer));
    }

    /// The next moment.
    pub(crate) fn next(&self) -> Option<UnixMillis> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes a timer whose moment has come.
    pub(crate) fn take_due(&mut self, now: UnixMillis) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.in_order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    pub(crate) fn clear(&mut self) {
        self.at.clear();
        self.in_order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_later_setting_replaces() {
        let mut timers = Timers::default();
        timers.arm(Timer::Telemetry, UnixMillis(30));
        timers.arm(Timer::Housekeeping, UnixMillis(20));
        assert_eq!(timers.take_due(UnixMillis(19)), None);
        timers.arm(Timer::Telemetry, UnixMillis(10));
        assert_eq!(timers.next(), Some(UnixMillis(10)));
        assert_eq!(timers.take_due(UnixMillis(25)), Some(Timer::Telemetry));
        assert_eq!(timers.take_due(UnixMillis(25)), Some(Timer::Housekeeping));
        assert_eq!(timers.take_due(UnixMillis(u64::MAX)), None);
    }
}
