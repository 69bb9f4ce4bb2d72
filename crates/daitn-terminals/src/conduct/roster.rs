//! What the conductor remembers of each site between cycles, and in which order a chain is run. Pure.

use daitn_learning::random::SplitMix64;
use daitn_messages::rejection::{Code, Rejection};
use std::collections::BTreeMap;

/// A site that was late `n` times in a row is not asked in the next `2^(n-1)` cycles, at most this many.
const CYCLES_SKIPPED_MAX: u32 = 8;

/// One site.
#[derive(Debug, Clone, PartialEq, Default)]
struct Record {
    /// It will not take part again: its own decision, or its data.
    barred: Option<Rejection>,
    /// It could not be reached, and has not been seen since.
    lost: Option<Rejection>,
    /// Deadlines missed in a row.
    n_late: u32,
    /// Not asked before this cycle.
    asked_from: u32,
}

/// All sites of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Roster {
    records: BTreeMap<u32, Record>,
}

impl Roster {
    /// Nothing is known against anybody.
    #[must_use]
    pub(super) fn new(sites: impl Iterator<Item = u32>) -> Self {
        Self {
            records: sites.map(|site| (site, Record::default())).collect(),
        }
    }

    /// Sites that are likely to answer in this cycle.
    #[must_use]
    pub(super) fn n_ready(&self, cycle: u32) -> u32 {
        count(
            self.records
                .values()
                .filter(|record| record.absence(cycle).is_none()),
        )
    }

    /// Sites that have not refused for good.
    #[must_use]
    pub(super) fn n_willing(&self) -> u32 {
        count(self.records.values().filter(|record| record.barred.is_none()))
    }

    /// Sites that are not asked in this cycle, with the reason. Without patience only those that refused for good.
    #[must_use]
    pub(super) fn absent(&self, cycle: u32, patient: bool) -> BTreeMap<u32, Rejection> {
        let absence = |record: &Record| {
            if patient {
                record.absence(cycle)
            } else {
                record.barred.clone()
            }
        };
        self.records
            .iter()
            .filter_map(|(site, record)| Some((*site, absence(record)?)))
            .collect()
    }

    /// It did its step.
    pub(super) fn answered(&mut self, site: u32) {
        if let Some(record) = self.records.get_mut(&site) {
            *record = Record::default();
        }
    }

    /// It did not, and says why.
    pub(super) fn declined(&mut self, site: u32, reason: &Rejection) {
        // What the owner has decided, or what is wrong with the data, is so in the next cycle too.
        let for_good = matches!(
            reason.code,
            Code::PolicyForbids
                | Code::PolicyInvalid
                | Code::Stopped
                | Code::DataUnusable
                | Code::Diverged
                | Code::StaleEpoch
        );
        if let Some(record) = self.records.get_mut(&site).filter(|_| for_good) {
            record.barred = Some(reason.clone());
        }
    }

    /// It cannot be reached.
    pub(super) fn lost(&mut self, site: u32, reason: Rejection) {
        if let Some(record) = self.records.get_mut(&site) {
            record.lost = Some(reason);
        }
    }

    /// It can be reached again.
    pub(super) fn found(&mut self, site: u32) {
        if let Some(record) = self.records.get_mut(&site) {
            record.lost = None;
        }
    }

    /// It did not answer before the deadline of this cycle.
    pub(super) fn late(&mut self, site: u32, cycle: u32) {
        if let Some(record) = self.records.get_mut(&site) {
            let skipped = 1_u32
                .checked_shl(record.n_late)
                .unwrap_or(u32::MAX)
                .min(CYCLES_SKIPPED_MAX);
            record.n_late += 1;
            record.asked_from = cycle.saturating_add(1).saturating_add(skipped);
        }
    }
}

impl Record {
    fn absence(&self, cycle: u32) -> Option<Rejection> {
        let late = || {
            // People count cycles from 1.
            let message = format!(
                "late {} times in a row: asked again from cycle {}",
                self.n_late,
                self.asked_from.saturating_add(1)
            );
            (cycle < self.asked_from).then(|| Rejection::new(Code::DeadlinePassed, message))
        };
        self.barred.clone().or_else(|| self.lost.clone()).or_else(late)
    }
}

fn count<'a>(records: impl Iterator<Item = &'a Record>) -> u32 {
    u32::try_from(records.count()).unwrap_or(u32::MAX)
}

/// Draws the order of a chain for one cycle: another one each cycle, against recency, and the same for the same seed.
pub(super) fn shuffle(order: &mut [u32], seed: u64, cycle: u32, chain: u32) {
    let mixed = SplitMix64::new(seed ^ (u64::from(cycle) << 32 | u64::from(chain))).next_u64();
    SplitMix64::new(mixed).shuffle(order);
}

/// Most reasons that a message tells, and most sites that it names for each.
const TOLD_MAX: usize = 4;

/// Which sites were left out and why, as far as a message has room: those of one reason together, as a rate that is too high
/// or a policy keeps many sites alike from answering. Empty where none was.
pub(super) fn reasons(left_out: &[(u32, Rejection)], name: impl Fn(u32) -> Option<String>) -> String {
    let mut told: Vec<(&Rejection, Vec<u32>)> = Vec::new();
    let mut n_untold = 0;
    for (site, reason) in left_out {
        if let Some((_, sites)) = told.iter_mut().find(|(known, _)| *known == reason) {
            sites.push(*site);
        } else if told.len() < TOLD_MAX {
            told.push((reason, vec![*site]));
        } else {
            n_untold += 1;
        }
    }
    let more = |n: usize| {
        if n == 0 {
            String::new()
        } else {
            format!(" and {n} more")
        }
    };
    let parts = told.iter().map(|(reason, sites)| {
        let names: Vec<String> = sites
            .iter()
            .take(TOLD_MAX)
            .filter_map(|site| name(*site))
            .collect();
        format!(
            "{}{}: {reason}",
            names.join(", "),
            more(sites.len() - names.len())
        )
    });
    let parts: Vec<String> = parts.collect();
    format!("{}{}", parts.join("; "), more(n_untold))
}
