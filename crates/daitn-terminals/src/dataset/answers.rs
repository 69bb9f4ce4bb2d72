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
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// The memory of one job at one place of its plan. What touches the disk blocks.
#[derive(Debug)]
pub(crate) struct Answers {
    directory: PathBuf,
    /// As on disk.
    answers: Mutex<Vec<Answer>>,
}

impl Answers {
    pub(crate) fn open(base: &Path, job: &JobId, position: u32) -> Result<Self, Rejection> {
        let directory = base.join(format!("{job}-{position}"));
        let open = || {
            durable::make_directory(&directory)?;
            let path = file(&directory);
            match durable::read(&path) {
                // Not flushed, it may have been torn by a power cut: what it held is made again.
                Err(DurableError::Damaged(_)) => {
                    tracing::info!(%job, "earlier answers were lost in a power cut; what is asked again is made again");
                    durable::discard(&path).map(|()| None)
                }
                read => read,
            }
        };
        let answers: Option<Vec<Answer>> = open().map_err(|error| logged(&error))?;
        Ok(Self {
            answers: Mutex::new(answers.unwrap_or_default()),
            directory,
        })
    }

    /// The answer of a cycle.
    pub(crate) fn of(&self, cycle: u32) -> Option<Answer> {
        self.answers()
            .iter()
            .find(|answer| answer.trained.cycle == cycle)
            .cloned()
    }

    /// Every answer that is kept.
    pub(crate) fn all(&self) -> Vec<Answer> {
        self.answers().clone()
    }

    /// Keeps an answer, in one step but not flushed: what a power cut takes is trained again and comes out the same.
    /// Gives the answers that are forgotten for it.
    pub(crate) fn keep(&self, answer: Answer) -> Result<Vec<Answer>, Rejection> {
        let cycle = answer.trained.cycle;
        let mut answers = self.answers();
        let is_old =
            |old: &mut Answer| old.trained.cycle == cycle || old.trained.cycle + ANSWERS_KEPT <= cycle;
        let forgotten = answers.extract_if(.., is_old).collect();
        answers.push(answer);
        durable::write_unflushed(&file(&self.directory), &*answers).map_err(|error| logged(&error))?;
        Ok(forgotten)
    }

    /// The control variate before a cycle: that after the last cycle that counted, where the conductor has told which, or
    /// after the last one at all; or zeros.
    pub(crate) fn control_before(
        &self,
        cycle: u32,
        counted: Option<u32>,
        layout: &Layout,
    ) -> Result<Vec<f32>, Rejection> {
        let end = counted.map_or(cycle, |counted| counted.min(cycle));
        let earlier = self.controls()?.into_iter().filter(|(old, _)| *old < end);
        match earlier.max_by_key(|(old, _)| *old) {
            Some((_, path)) => weights::read_file(&path, layout).map_err(Rejection::from),
            None => Ok(vec![0.0; layout.n_elements()]),
        }
    }

    /// Keeps the control variate after a cycle, durably: nobody else has it. Forgets those of long ago, but not that after
    /// the last cycle that counted.
    pub(crate) fn keep_control(
        &self,
        cycle: u32,
        counted: Option<u32>,
        control: &[f32],
        layout: &Layout,
    ) -> Result<(), Rejection> {
        let path = self.directory.join(format!("control-{cycle:05}.safetensors"));
        let beside = path.with_extension("new");
        weights::write_file(&beside, &[control], layout).map_err(Rejection::from)?;
        durable::place(&beside, &path).map_err(|error| logged(&error))?;
        for (_, path) in self
            .controls()?
            .into_iter()
            .filter(|(old, _)| old + ANSWERS_KEPT <= cycle && Some(old + 1) != counted)
        {
            durable::discard(&path).map_err(|error| logged(&error))?;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn remove(&self) -> Result<(), Rejection> {
        self.answers().clear();
        durable::remove_directory(&self.directory).map_err(|error| logged(&error))
    }

    fn controls(&self) -> Result<Vec<(u32, PathBuf)>, Rejection> {
        let files = durable::list(&self.directory, "safetensors").map_err(|error| logged(&error))?;
        let cycle = |path: &Path| {
            path.file_stem()?
                .to_str()?
                .strip_prefix("control-")?
                .parse::<u32>()
                .ok()
        };
        Ok(files
            .into_iter()
            .filter_map(|path| Some((cycle(&path)?, path)))
            .collect())
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("answers.rec")
}

fn logged(error: &DurableError) -> Rejection {
    tracing::error!("what a dataset terminal remembers of a job cannot be read or written: {error}");
    Rejection::new(
        Code::Internal,
        "the dataset's node cannot read or write its state",
    )
}
