//! What one named transaction changes, as a plain value: records and the log leaves that witness them.

use crate::{
    error::StoreError,
    family::Family,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, KEY_BYTES_MAX},
};
use daitn_messages::{encoding, leaf::Leaf};
use serde::Serialize;

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write it, whether it exists or not.
    Put {
        /// In which family.
        family: Family,
        /// Under which key.
        key: String,
        /// Its bytes.
        value: Vec<u8>,
    },
    /// Remove it, whether it exists or not.
    Delete {
        /// In which family.
        family: Family,
        /// Under which key.
        key: String,
    },
}

/// Changes and leaves that become durable together or not at all, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    changes: Vec<Change>,
    leaves: Vec<Leaf>,
    n_bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value, encoded as CBOR.
    pub fn put<T: Serialize>(&mut self, family: Family, key: impl Into<String>, value: &T) {
        self.put_bytes(family, key, encoding::encode(value));
    }

    /// Writes bytes.
    pub fn put_bytes(&mut self, family: Family, key: impl Into<String>, value: Vec<u8>) {
        let key = key.into();
        self.n_bytes += key.len() + value.len();
        self.changes.push(Change::Put { family, key, value });
    }

    /// Removes a record.
    pub fn delete(&mut self, family: Family, key: impl Into<String>) {
        let key = key.into();
        self.n_bytes += key.len();
        self.changes.push(Change::Delete { family, key });
    }

    /// Appends a leaf to the log.
    pub fn leaf(&mut self, leaf: Leaf) {
        self.n_bytes += 256;
        self.leaves.push(leaf);
    }

    /// Appends another batch's changes and leaves.
    pub fn append(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.leaves.extend(other.leaves);
        self.n_bytes += other.n_bytes;
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.leaves.is_empty()
    }

    /// About how many bytes it writes.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The leaves, in order.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let too_large = |what, found: usize, max: usize| {
            Err(StoreError::TooLarge {
                what,
                found: found as u64,
                max: max as u64,
            })
        };
        let n_records = self.changes.len() + self.leaves.len();
        if n_records > BATCH_RECORDS_MAX {
            return too_large("records of a transaction", n_records, BATCH_RECORDS_MAX);
        }
        if self.n_bytes > BATCH_BYTES_MAX {
            return too_large("bytes of a transaction", self.n_bytes, BATCH_BYTES_MAX);
        }
        for change in &self.changes {
            let (Change::Put { key, .. } | Change::Delete { key, .. }) = change;
            if key.len() > KEY_BYTES_MAX {
                return too_large("bytes of a key", key.len(), KEY_BYTES_MAX);
            }
        }
        Ok(())
    }
}
