//! The compute facility: trains on tables that a dataset's node sends, for the node and the model that its order names,
//! and forgets both.

mod act;

mod admit;

mod descriptor;

mod options;

pub(crate) use act::answer;
pub use options::ComputeOptions;

use std::sync::atomic::{AtomicU64, Ordering};

/// A compute facility that is open.
#[derive(Debug)]
pub(crate) struct Compute {
    options: ComputeOptions,
    /// Memory that steps under way take.
    reserved_bytes: AtomicU64,
}

impl Compute {
    /// A facility without work.
    #[must_use]
    pub(crate) fn open(options: ComputeOptions) -> Self {
        Self {
            options,
            reserved_bytes: AtomicU64::new(0),
        }
    }

    /// Memory that further steps may take.
    #[must_use]
    pub(crate) fn free_memory_bytes(&self) -> u64 {
        self.options
            .memory
            .0
            .saturating_sub(self.reserved_bytes.load(Ordering::Relaxed))
    }
}
