//! The aggregator: drives the cycles of a job and combines what sites made; as a spare it keeps the state of jobs that
//! others drive.

mod act;

mod admit;

mod descriptor;

mod keep;

mod options;

pub use options::AggregatorOptions;

use crate::conduct::Running;
use daitn_messages::{ids::JobId, rejection::Rejection};
use keep::Kept;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// An aggregator that is open.
#[derive(Debug)]
pub(crate) struct Aggregator {
    options: AggregatorOptions,
    /// Journals of the jobs that it conducts.
    directory: PathBuf,
    running: Mutex<HashMap<JobId, Running>>,
    kept: Kept,
}

impl Aggregator {
    /// Opens its memory.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(crate) fn open(options: AggregatorOptions, state: &Path) -> Result<Self, Rejection> {
        let directory = state.join("conduct");
        crate::durable::make_directory(&directory).map_err(|error| error.rejection())?;
        let kept = Kept::open(&state.join("kept"))?;
        Ok(Self {
            options,
            directory,
            running: Mutex::default(),
            kept,
        })
    }
}
