//! Counters of the store, cheap to keep and to read: what the OAM plane shows as metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What the store has done since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Transactions that SQLite committed, each with one fsync.
    pub groups: u64,
    /// Records and leaves written.
    pub records: u64,
    /// Bytes written, before SQLite's own.
    pub bytes: u64,
    /// Time of the commits in all, microseconds.
    pub commit_micros_total: u64,
    /// Time of the newest commit, microseconds.
    pub commit_micros_last: u64,
    /// Time of the longest commit, microseconds.
    pub commit_micros_max: u64,
    /// Batches by the name of their transaction.
    pub transactions: BTreeMap<&'static str, TransactionStats>,
}

/// Batches of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionStats {
    /// Committed.
    pub committed: u64,
    /// Failed.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<StoreStats>);

impl Counters {
    pub(crate) fn read(&self) -> StoreStats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn group(&self, n_records: usize, n_bytes: usize, micros: u64) {
        let mut stats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stats.groups += 1;
        stats.records += n_records as u64;
        stats.bytes += n_bytes as u64;
        stats.commit_micros_total += micros;
        stats.commit_micros_last = micros;
        stats.commit_micros_max = stats.commit_micros_max.max(micros);
    }

    pub(crate) fn batch(&self, name: &'static str, committed: bool) {
        let mut stats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = stats.transactions.entry(name).or_default();
        if committed {
            transaction.committed += 1;
        } else {
            transaction.failed += 1;
        }
    }
}
