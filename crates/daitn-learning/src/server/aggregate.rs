//! A whole round at once: from the readers of all updates to the server's next global parameters.

use super::{Form, RoundError, Server};
use crate::aggregation::{Mean, MeanError, Term};
use daitn_messages::learning::Strategy;
use std::io::Read;

/// An admitted update.
#[derive(Debug)]
pub struct Update<R> {
    /// Examples that it was trained on; at the end of a chain, those of the whole chain.
    pub n_examples: u64,
    /// The factor from [`crate::admission::clip_factors`]; 1 leaves the update as it is.
    pub clip: f64,
    /// Little-endian `f32`, positioned at the first parameter.
    pub reader: R,
}

/// What SCAFFOLD needs besides the updates.
#[derive(Debug)]
pub struct Controls<R> {
    /// The change of each answering site's control variate, in the order of the sites.
    pub updates: Vec<ControlUpdate<R>>,
    /// Sites of the job, `N`, also those that did not answer.
    pub n_sites: usize,
}

/// The change of one site's control variate, `c_k+ - c_k`.
#[derive(Debug)]
pub struct ControlUpdate<R> {
    /// As for an [`Update`], from the norms of these changes.
    pub clip: f64,
    /// Little-endian `f32`, positioned at the first value.
    pub reader: R,
}

/// How much a site counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// By its examples.
    ByExamples,
    /// Like any other that has examples.
    Equal,
}

impl Weighting {
    /// As the strategy's paper has it: SCAFFOLD takes a plain mean over the sites, all others weigh by examples.
    #[must_use]
    pub fn of(strategy: &Strategy) -> Self {
        if *strategy == Strategy::Scaffold {
            Self::Equal
        } else {
            Self::ByExamples
        }
    }

    /// The weight of a site. A site without examples has learned nothing and counts for nothing.
    #[must_use]
    pub fn weight(self, n_examples: u64) -> f64 {
        match self {
            Self::ByExamples => n_examples as f64,
            Self::Equal => f64::from(u8::from(n_examples > 0)),
        }
    }
}

/// Why a round has no result. The server is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// The updates have no mean.
    #[error(transparent)]
    Mean(#[from] MeanError),
    /// The changes of the control variates have none.
    #[error("the control variates: {0}")]
    ControlMean(#[source] MeanError),
    /// The step cannot be taken.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// A factor is not one.
    #[error("update {term} would be clipped by {clip}: a factor lies in 0..=1")]
    BadClip {
        /// The update, counted from 0.
        term: usize,
        /// Its factor.
        clip: f64,
    },
    /// More sites answered than there are.
    #[error("{n_updates} control variates of {n_sites} sites")]
    TooManyControls {
        /// Changes given.
        n_updates: usize,
        /// Sites of the job.
        n_sites: usize,
    },
}

impl Server {
    /// Takes the step of one round from the updates of those who answered, in the order of their sites' ids; a chunk of
    /// each is in memory at a time.
    ///
    /// SCAFFOLD needs `controls`, every other strategy must have none.
    ///
    /// # Errors
    /// [`AggregateError`], naming the update where one is to blame: leave it out and call again with fresh readers.
    pub fn aggregate<R: Read>(
        &mut self,
        form: Form,
        updates: Vec<Update<R>>,
        controls: Option<Controls<R>>,
    ) -> Result<(), AggregateError> {
        let n_parameters = self.global.len();
        let weighting = Weighting::of(&self.strategy);
        check_clips(updates.iter().map(|update| update.clip))?;
        // Before clipping: what is clipped away must not make the others count for more.
        let divisor = updates
            .iter()
            .map(|update| weighting.weight(update.n_examples))
            .sum();
        let terms = updates.into_iter().map(|update| Term {
            weight: weighting.weight(update.n_examples) * update.clip,
            reader: update.reader,
        });
        let mut mean = Mean::with_divisor(terms.collect(), divisor, n_parameters)?;
        let mut round = self.begin(form, mean.coverage());
        while let Some(chunk) = mean.next_chunk()? {
            round.advance(chunk)?;
        }
        if let Some(controls) = controls {
            let mut mean = controls.mean(n_parameters)?;
            while let Some(chunk) = mean.next_chunk().map_err(AggregateError::ControlMean)? {
                round.advance_control(chunk)?;
            }
        }
        Ok(round.commit()?)
    }
}

impl<R: Read> Controls<R> {
    fn mean(self, n_parameters: usize) -> Result<Mean<R>, AggregateError> {
        let Self { updates, n_sites } = self;
        if updates.len() > n_sites {
            return Err(AggregateError::TooManyControls {
                n_updates: updates.len(),
                n_sites,
            });
        }
        check_clips(updates.iter().map(|update| update.clip))?;
        let terms = updates.into_iter().map(|update| Term {
            weight: update.clip,
            reader: update.reader,
        });
        Mean::with_divisor(terms.collect(), n_sites as f64, n_parameters).map_err(AggregateError::ControlMean)
    }
}

fn check_clips(clips: impl Iterator<Item = f64>) -> Result<(), AggregateError> {
    for (term, clip) in clips.enumerate() {
        if !(0.0..=1.0).contains(&clip) {
            return Err(AggregateError::BadClip { term, clip });
        }
    }
    Ok(())
}
