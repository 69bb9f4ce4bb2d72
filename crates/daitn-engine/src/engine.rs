//! The seam between the network and whatever runs models. One folder of this crate for each engine behind it.

use crate::{Layout, LayoutError, Table};
use daitn_learning::{local::SiteControl, metrics::MetricsError};
use daitn_messages::{
    learning::{Evaluation, LocalTraining, ModelSpec},
    rejection::{Code, Rejection},
};
use std::ops::ControlFlow;

/// Trains, evaluates and serves the models that a [`ModelSpec`] can declare.
pub trait Engine: Send + Sync {
    /// The model's tensors, in the order of the flat parameter vector.
    ///
    /// # Errors
    /// If the specification is not valid or its model too large.
    fn layout(&self, spec: &ModelSpec) -> Result<Layout, EngineError>;

    /// Fresh parameters: the same, bit for bit, for the same seed.
    ///
    /// # Errors
    /// As for [`Engine::layout`].
    fn initial(&self, spec: &ModelSpec, seed: u64) -> Result<Vec<f32>, EngineError>;

    /// A site's work of one round or hop. Tells `report` after every step, which may stop it. The same, bit for bit,
    /// for the same arguments on the same kind of machine, whatever the number of threads.
    ///
    /// # Errors
    /// If arguments do not fit each other, the loss leaves the numbers, or `report` asks to stop.
    fn train(
        &self,
        spec: &ModelSpec,
        parameters: &[f32],
        table: &Table,
        work: &Work<'_>,
        report: Report<'_>,
    ) -> Result<TrainOutcome, EngineError>;

    /// What the model is worth on this table.
    ///
    /// # Errors
    /// If arguments do not fit each other.
    fn evaluate(
        &self,
        spec: &ModelSpec,
        parameters: &[f32],
        table: &Table,
    ) -> Result<Evaluation, EngineError>;

    /// A model in memory, ready to answer.
    ///
    /// # Errors
    /// If the parameters do not fit the specification.
    fn load(&self, spec: &ModelSpec, parameters: &[f32]) -> Result<Box<dyn Loaded>, EngineError>;
}

/// A model in memory. Answers from any thread, any number at a time.
pub trait Loaded: Send + Sync {
    /// What the model is.
    fn spec(&self) -> &ModelSpec;

    /// Outputs for raw inputs, row by row; the declared offset and scale are applied here.
    ///
    /// # Errors
    /// If the inputs are no rows of the model's features, too many, or not finite.
    fn infer(&self, inputs: &[f32]) -> Result<Outputs, EngineError>;
}

/// Told after every step; `Break` stops the training.
pub type Report<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What a site is to do in one round or hop.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Epochs, batch size and rate. Its own seed is not used here: see `seed`.
    pub training: LocalTraining,
    /// Seed of this round's shuffling at this site.
    pub seed: u64,
    /// How the gradient is corrected.
    pub rule: LocalRule<'a>,
}

/// How a local step corrects its gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalRule<'a> {
    /// Not at all.
    Plain,
    /// FedProx (arXiv 1812.06127): `mu * (w - x)` is added, x being the parameters at the start.
    Prox {
        /// Weight of the proximal term.
        mu: f32,
    },
    /// SCAFFOLD (arXiv 1910.06378): `c - c_k` is added.
    Scaffold {
        /// The control variate of all.
        c: &'a [f32],
        /// The control variate of this site.
        c_k: &'a [f32],
    },
}

/// Where the training stands after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Counts from 0.
    pub epoch: u32,
    /// Steps done, over all epochs.
    pub step: u64,
    /// Steps that there will be.
    pub n_steps: u64,
    /// Mean loss of the batch, before the step.
    pub loss: f64,
}

/// What came of a site's work.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOutcome {
    /// The parameters after the last step.
    pub parameters: Vec<f32>,
    /// Rows trained on: the site's weight in the aggregate.
    pub n_examples: u64,
    /// Steps done.
    pub n_steps: u64,
    /// Mean loss over the last epoch, each batch before its step.
    pub loss: f64,
    /// The site's next control variate and its change (option II); only under [`LocalRule::Scaffold`].
    pub control: Option<SiteControl>,
}

/// What a model answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Outputs in a row: classes, or 1.
    pub n_outputs: usize,
    /// Row by row: logits, or the predicted number.
    pub values: Vec<f32>,
    /// Row by row: softmax of the logits; `None` for regression.
    pub probabilities: Option<Vec<f32>>,
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The specification is not valid.
    #[error("the model specification is not valid")]
    Spec(#[source] Rejection),
    /// The specification describes no layout.
    #[error("the model cannot be laid out")]
    Layout(#[from] LayoutError),
    /// One example needs more working memory than [`crate::builtin::WORKING_FLOATS_MAX`].
    #[error("one example needs {floats} numbers of working memory, over the bound of {max}")]
    ExampleTooLarge {
        /// What one example needs.
        floats: u64,
        /// The bound.
        max: u64,
    },
    /// Not as many parameters as the model has.
    #[error("{what}: {found} numbers, but the model has {expected} parameters")]
    ParameterCount {
        /// Which vector.
        what: &'static str,
        /// What the model has.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// NaN or infinity among the parameters.
    #[error("{what}: number {position} is not finite")]
    ParameterNotFinite {
        /// Which vector.
        what: &'static str,
        /// Position in the flat vector.
        position: usize,
    },
    /// The table was read for another model.
    #[error("the table does not fit the model: {why}")]
    TableMismatch {
        /// What differs.
        why: String,
    },
    /// No rows.
    #[error("the table has no rows")]
    NoRows,
    /// Local training parameters out of bounds.
    #[error("the training parameters are not valid")]
    Training(#[source] Rejection),
    /// The loss or a weight left the finite numbers.
    #[error(
        "the training diverged at step {step}: its loss is no longer a finite number; a smaller --learning-rate, or a \
         --scale that brings the inputs near 0 to 1, helps"
    )]
    Diverged {
        /// Counted from 1.
        step: u64,
    },
    /// The report asked to stop.
    #[error("the training was stopped after step {step}")]
    Stopped {
        /// Counted from 1.
        step: u64,
    },
    /// The model's outputs on this table are no finite numbers.
    #[error("the model cannot be judged on this table")]
    Judged(#[source] MetricsError),
    /// Inputs that are no rows for this model.
    #[error("the input does not fit the model: {why}")]
    Inputs {
        /// What is wrong.
        why: String,
    },
    /// The framework failed: a fault of the program or the machine.
    #[error("the ML framework failed")]
    Framework(#[from] candle_core::Error),
}

impl EngineError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Spec(rejection) | Self::Training(rejection) => rejection.code,
            Self::Layout(_) | Self::ExampleTooLarge { .. } => Code::TooLarge,
            Self::ParameterCount { .. } | Self::ParameterNotFinite { .. } => Code::UpdateRefused,
            Self::TableMismatch { .. } | Self::NoRows | Self::Judged(_) => Code::DataUnusable,
            Self::Diverged { .. } => Code::Diverged,
            Self::Stopped { .. } => Code::Stopped,
            Self::Inputs { .. } => Code::BadTensor,
            Self::Framework(_) => Code::Internal,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Spec(_) | Self::Training(_) => "correct the field that is named and ask again",
            Self::Layout(_) | Self::ExampleTooLarge { .. } => {
                "use fewer or narrower layers, or smaller images"
            }
            Self::ParameterCount { .. } => "use weights that were made for this specification",
            Self::ParameterNotFinite { .. } => "start again from the last good weights",
            Self::TableMismatch { .. } => "read the data with the specification of this model",
            Self::NoRows => "use a file that has at least one row of data",
            Self::Diverged { .. } => {
                "lower the learning rate, or declare a scale that brings inputs near 0 to 1 (`job init --learning-rate`, `--scale`)"
            }
            Self::Stopped { .. } => "nothing: it was asked for",
            Self::Judged(_) => "check the units of the data against those that the model was trained on",
            Self::Inputs { .. } => "send rows with one finite number for each feature, in the model's order",
            Self::Framework(_) => "look at the node's log and report it",
        }
    }
}

impl From<EngineError> for Rejection {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Spec(rejection) | EngineError::Training(rejection) => rejection,
            other => {
                let cause = std::error::Error::source(&other).map(|source| format!(": {source}"));
                Self::new(other.code(), format!("{other}{}", cause.unwrap_or_default()))
                    .with_hint(other.remedy())
            }
        }
    }
}
