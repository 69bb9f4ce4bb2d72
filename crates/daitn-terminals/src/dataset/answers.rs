//! What a dataset terminal remembers of a job: its answers of the last cycles, so that a repeated question is answered
//! and not trained twice, and SCAFFOLD's control variate after each of them.

use crate::{
    durable::{self, DurableError},
    limits::ANSWERS_KEPT,
};
use daitn_engine::{Layout, weights};
use daitn_messages::{
    ids::{ArtifactId, JobId},
    receipt::Trained,
    rejection::{Code, Rejection},
    session::ArtifactRef,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Names of the files; the cycle is between dot and extension.
const ANSWER: &str = "answer";
const CONTROL: &str = "control";

/// An answer, with the question that it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The weights that the step began from.
    pub(crate) input: ArtifactId,
    /// The global control variate that it was given.
    pub(crate) control: Option<ArtifactId>,
    /// What came of it.
    pub(crate) trained: Trained,
}

impl Answer {
    /// The artifacts that it names.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = ArtifactRef> {
        std::iter::once(self.trained.output).chain(self.trained.control)
    }
}

/// The memory of one job at one place of its plan. All of it blocks.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    directory: PathBuf,
}

impl Answers {
    pub(crate) fn open(base: &Path, job: &JobId, position: u32) -> Result<Self, Rejection> {
        let directory = base.join(format!("{job}-{position}"));
        durable::make_directory(&directory).map_err(|error| logged(&error))?;
        Ok(Self { directory })
    }

    /// The answer of a cycle.
    pub(crate) fn read(&self, cycle: u32) -> Result<Option<Answer>, Rejection> {
        durable::read(&self.path(ANSWER, cycle, "rec")).map_err(|error| logged(&error))
    }

    /// Keeps an answer and forgets those of long ago; what they named can go.
    pub(crate) fn keep(&self, answer: &Answer) -> Result<Vec<Answer>, Rejection> {
        let cycle = answer.trained.cycle;
        durable::write(&self.path(ANSWER, cycle, "rec"), answer).map_err(|error| logged(&error))?;
        let mut forgotten = Vec::new();
        for (old, path) in self.cycles(ANSWER, "rec")? {
            if old + ANSWERS_KEPT <= cycle {
                forgotten.extend(durable::read::<Answer>(&path).ok().flatten());
                durable::remove(&path).map_err(|error| logged(&error))?;
            }
        }
        for (old, path) in self.cycles(CONTROL, "safetensors")? {
            if old + ANSWERS_KEPT <= cycle {
                durable::remove(&path).map_err(|error| logged(&error))?;
            }
        }
        Ok(forgotten)
    }

    /// Every answer that is kept.
    pub(crate) fn all(&self) -> Result<Vec<Answer>, Rejection> {
        let cycles = self.cycles(ANSWER, "rec")?;
        Ok(cycles
            .into_iter()
            .filter_map(|(_, path)| durable::read(&path).ok().flatten())
            .collect())
    }

    /// The control variate before a cycle: that after the last cycle before it, or zeros.
    pub(crate) fn control_before(&self, cycle: u32, layout: &Layout) -> Result<Vec<f32>, Rejection> {
        let earlier = self
            .cycles(CONTROL, "safetensors")?
            .into_iter()
            .filter(|(old, _)| *old < cycle);
        match earlier.max_by_key(|(old, _)| *old) {
            Some((_, path)) => weights::read_file(&path, layout).map_err(Rejection::from),
            None => Ok(vec![0.0; layout.n_elements()]),
        }
    }

    /// Keeps the control variate after a cycle.
    pub(crate) fn keep_control(&self, cycle: u32, control: &[f32], layout: &Layout) -> Result<(), Rejection> {
        let path = self.path(CONTROL, cycle, "safetensors");
        let beside = path.with_extension("new");
        weights::write_file(&beside, &[control], layout).map_err(Rejection::from)?;
        durable::place(&beside, &path).map_err(|error| logged(&error))
    }

    /// Forgets everything.
    pub(crate) fn remove(&self) -> Result<(), Rejection> {
        durable::remove_directory(&self.directory).map_err(|error| logged(&error))
    }

    fn path(&self, what: &str, cycle: u32, extension: &str) -> PathBuf {
        self.directory.join(format!("{what}-{cycle:05}.{extension}"))
    }

    fn cycles(&self, what: &str, extension: &str) -> Result<Vec<(u32, PathBuf)>, Rejection> {
        let files = durable::list(&self.directory, extension).map_err(|error| logged(&error))?;
        let cycle = |path: &Path| {
            path.file_stem()?
                .to_str()?
                .strip_prefix(what)?
                .strip_prefix('-')?
                .parse::<u32>()
                .ok()
        };
        Ok(files
            .into_iter()
            .filter_map(|path| Some((cycle(&path)?, path)))
            .collect())
    }
}

fn logged(error: &DurableError) -> Rejection {
    tracing::error!("what a dataset terminal remembers of a job cannot be read or written: {error}");
    Rejection::new(
        Code::Internal,
        "the dataset's node cannot read or write its state",
    )
}
