//! The dataset terminal: trains where the data is, for whom its owner's policy allows, and lets nothing leave but the
//! artifacts that a receipt names.

mod act;

mod admit;

mod answers;

mod away;

mod descriptor;

mod options;

mod policy;

pub(crate) use act::{OwnWork, control_layout};
pub(crate) use away::{recv_numbers, send_numbers};
pub use options::{DatasetOptions, Facility, TaskKind};

use crate::columns::{Columns, DataFile, Declared};
#[cfg(test)]
pub(crate) use answers::Answer;
pub(crate) use answers::Answers;
use daitn_fabric::Link;
use daitn_messages::{descriptor::DatasetBody, ids::JobId, rejection::Rejection};
use policy::OwnPolicy;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
};

/// A dataset terminal that is open.
#[derive(Debug)]
pub(crate) struct Dataset {
    options: DatasetOptions,
    file: Arc<DataFile>,
    columns: Columns,
    policy: Arc<OwnPolicy>,
    /// Where its answers and control variates are kept.
    directory: PathBuf,
    seats: Mutex<HashMap<(JobId, u32), Arc<Seat>>>,
}

/// The place of this dataset in one job: one step at a time.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Held while a step is made; what is remembered of the job, once it was read.
    turn: tokio::sync::Mutex<Option<Arc<Answers>>>,
    /// To the job's conductor: a site that nobody can dial is asked on the connection that it has made itself.
    link: Mutex<Option<Link>>,
    /// One more than the newest cycle that was asked for; an older one is not worth ending.
    newest: AtomicU32,
}

impl Dataset {
    /// Opens the data and the policy. Blocks.
    ///
    /// # Errors
    /// What makes either unusable.
    pub(crate) fn open(options: DatasetOptions, state: &Path) -> Result<Self, Rejection> {
        let declared = Declared {
            features: &options.features,
            target: &options.target,
            task: options.task,
            classes: &options.classes,
        };
        let (file, columns) = DataFile::inspect(&options.path, declared)?;
        let policy = OwnPolicy::of(&options)?;
        policy.rules()?;
        let directory = state.join("train");
        crate::durable::make_directory(&directory).map_err(|error| error.rejection())?;
        Ok(Self {
            options,
            file: Arc::new(file),
            columns,
            policy: Arc::new(policy),
            directory,
            seats: Mutex::default(),
        })
    }

    /// What the terminal tells others. Blocks.
    ///
    /// # Errors
    /// Where the policy cannot be read.
    pub(crate) fn describe(&self, compute_rate: u64) -> Result<DatasetBody, Rejection> {
        self.policy.rules()?;
        Ok(descriptor::describe(
            &self.options,
            &self.columns,
            self.policy.text()?,
            compute_rate,
        ))
    }

    fn seat(&self, job: &JobId, position: u32) -> Arc<Seat> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.entry((job.clone(), position)).or_default().clone()
    }

    fn forget_seat(&self, job: &JobId, position: u32) -> Option<Arc<Seat>> {
        self.seats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(job.clone(), position))
    }
}
