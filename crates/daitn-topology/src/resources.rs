//! Resources: what entities last told of their load, each with its age.

use daitn_messages::{descriptor::Telemetry, ids::EntityId, units::UnixMillis};
use std::collections::HashMap;

/// Telemetry older than this says nothing any more.
pub(crate) const TELEMETRY_AGE_MS_MAX: u64 = 60_000;
/// However loaded, a terminal gives a job at least this share of itself.
const SHARE_MIN: f64 = 0.05;

#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    newest: HashMap<EntityId, Telemetry>,
}

impl Resources {
    /// Keeps the newest; says whether it was.
    pub(crate) fn insert(&mut self, telemetry: Telemetry) -> bool {
        match self.newest.get(&telemetry.entity) {
            Some(known) if known.measured_at > telemetry.measured_at => false,
            _ => {
                self.newest.insert(telemetry.entity.clone(), telemetry);
                true
            }
        }
    }

    pub(crate) fn remove(&mut self, entity: &EntityId) {
        self.newest.remove(entity);
    }

    pub(crate) fn get(&self, entity: &EntityId) -> Option<&Telemetry> {
        self.newest.get(entity)
    }

    /// What was told lately, if anything.
    pub(crate) fn fresh(&self, entity: &EntityId, now: UnixMillis) -> Option<&Telemetry> {
        self.newest
            .get(entity)
            .filter(|telemetry| now.since(telemetry.measured_at) <= TELEMETRY_AGE_MS_MAX)
    }

    /// The share of its capacity that is free, from 0.05 to 1; 1 if it did not tell lately.
    pub(crate) fn free_share(&self, entity: &EntityId, now: UnixMillis) -> f64 {
        let load = self.fresh(entity, now).map_or(0.0, |t| f64::from(t.load));
        // A load that is not a number is treated as none.
        let load = if load.is_finite() { load } else { 0.0 };
        (1.0 - load).clamp(SHARE_MIN, 1.0)
    }
}
