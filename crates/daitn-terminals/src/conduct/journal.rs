//! What a conductor keeps of a job on disk: where it stands, and the reports that have not reached the outbox.

use crate::durable::{self, DurableError};
use daitn_messages::{
    ids::{ArtifactId, JobId, NodeId, OrderId},
    receipt::{CycleReport, TrainingDone},
    session::ArtifactRef,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// States that are remembered: more than cycles can run ahead of what the center has heard, in ordinary times.
pub(crate) const HISTORY_MAX: usize = 256;

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The order that it is conducted under.
    pub order: OrderId,
    /// Its epoch.
    pub epoch: u64,
    /// Cycles that are complete.
    pub cycles_done: u32,
    /// The combined weights after them.
    pub global: ArtifactRef,
    /// SCAFFOLD's control variate after them.
    pub control: Option<ArtifactRef>,
    /// Weights and the strategy's memory after them.
    pub state: ArtifactRef,
    /// Who may fetch the results.
    pub(crate) readers: Vec<NodeId>,
    /// The states before, the newest last: by them a conductor sees whether the center knows its own line.
    pub history: Vec<(u32, ArtifactId)>,
    /// Closed cycles that are not in the outbox yet.
    pub unreported: Vec<CycleReport>,
    /// The end of the training.
    pub done: Option<TrainingDone>,
    /// For each site one more than the last cycle whose result has its work in it.
    #[serde(default)]
    pub counted: BTreeMap<u32, u32>,
    /// Whether who is not in `counted` was in no cycle at all; else another conductor may have counted it.
    #[serde(default)]
    pub counts_all: bool,
}

impl Journal {
    /// Where the journal of a job lies.
    #[must_use]
    pub(crate) fn path(directory: &Path, job: &JobId) -> PathBuf {
        directory.join(format!("{job}.rec"))
    }

    /// One more than the last cycle whose result has the site's work in it, if that is known.
    #[must_use]
    pub(crate) fn counted_cycles(&self, site: u32) -> Option<u32> {
        self.counted.get(&site).copied().or(self.counts_all.then_some(0))
    }

    /// Reads it. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, DurableError> {
        durable::read(path)
    }

    /// Every journal in a directory, with the time when it was last written. One that cannot be read is not among them.
    /// Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn all(directory: &Path) -> Result<Vec<(JobId, Option<SystemTime>, Self)>, DurableError> {
        let read = |path: PathBuf| {
            let job: JobId = path.file_stem()?.to_str()?.parse().ok()?;
            let written = std::fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .ok();
            let journal =
                Self::read(&path).inspect_err(|error| tracing::error!("a journal is lost: {error}"));
            Some((job, written, journal.ok()??))
        };
        Ok(durable::list(directory, "rec")?
            .into_iter()
            .filter_map(read)
            .collect())
    }

    /// Writes it, durably. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn write(&self, path: &Path) -> Result<(), DurableError> {
        durable::write(path, self)
    }
}
