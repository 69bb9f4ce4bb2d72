//! What is learned and how: architectures as data, strategies, training parameters, metrics.

use crate::{
    ids::Slug,
    limits,
    rejection::{Code, Rejection},
};
use serde::{Deserialize, Serialize};

/// What the model predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Task {
    /// One of these classes.
    Classification {
        /// The labels, in the order of the model's outputs.
        classes: Vec<String>,
    },
    /// One number.
    Regression,
}

impl Task {
    /// How many outputs a model for this task has.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        match self {
            Self::Classification { classes } => classes.len(),
            Self::Regression => 1,
        }
    }
}

/// A built-in architecture, declared as data: no code travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Architecture {
    /// One affine layer: linear regression, or softmax regression for classification.
    Linear,
    /// Affine layers with ReLU between.
    Mlp {
        /// Width of each hidden layer, from the input.
        hidden: Vec<u32>,
    },
    /// 3×3 convolutions (stride 1, padding 1), each followed by ReLU and 2×2 max pooling, then one hidden affine
    /// layer with ReLU and the output layer.
    Cnn {
        /// Height of the image in pixels.
        height: u32,
        /// Width of the image in pixels.
        width: u32,
        /// Channels of the image: the features are laid out channel by channel, row by row.
        channels: u32,
        /// Output channels of each convolution.
        filters: Vec<u32>,
        /// Width of the hidden affine layer.
        hidden: u32,
    },
}

/// Everything that a node needs to build a model and to feed it: the same on every site, host and verifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelSpec {
    /// The architecture.
    pub architecture: Architecture,
    /// Feature columns, in the order of the model's inputs.
    pub features: Vec<String>,
    /// The column that is predicted.
    pub target: String,
    /// What is predicted.
    pub task: Task,
    /// Each input is `(value - offset) * scale`; declared, so that no statistics of anybody's data travel.
    pub scale: f32,
    /// See `scale`.
    pub offset: f32,
}

impl ModelSpec {
    /// Checks every bound.
    ///
    /// # Errors
    /// A rejection that names the field.
    pub fn validate(&self) -> Result<(), Rejection> {
        let n_features = self.features.len();
        if n_features == 0 || n_features > limits::FEATURES_MAX {
            return Err(Rejection::out_of_range(
                "features",
                n_features as f64,
                1.0,
                limits::FEATURES_MAX as f64,
            ));
        }
        let n_outputs = self.task.n_outputs();
        if n_outputs == 0 || n_outputs > limits::CLASSES_MAX {
            return Err(Rejection::out_of_range(
                "classes",
                n_outputs as f64,
                1.0,
                limits::CLASSES_MAX as f64,
            ));
        }
        if !self.scale.is_finite() || self.scale == 0.0 || !self.offset.is_finite() {
            return Err(Rejection::malformed(
                "scale",
                "scale and offset must be finite, and scale not zero",
            ));
        }
        self.architecture.validate(n_features)
    }
}

impl Architecture {
    fn validate(&self, n_features: usize) -> Result<(), Rejection> {
        let layer = |name: &str, width: u32| {
            if (1..=65_536).contains(&width) {
                Ok(())
            } else {
                Err(Rejection::out_of_range(name, f64::from(width), 1.0, 65_536.0))
            }
        };
        match self {
            Self::Linear => Ok(()),
            Self::Mlp { hidden } => {
                if hidden.is_empty() || hidden.len() > 64 {
                    return Err(Rejection::out_of_range(
                        "hidden layers",
                        hidden.len() as f64,
                        1.0,
                        64.0,
                    ));
                }
                hidden.iter().try_for_each(|w| layer("hidden", *w))
            }
            Self::Cnn {
                height,
                width,
                channels,
                filters,
                hidden,
            } => {
                let pixels = u64::from(*height) * u64::from(*width);
                if pixels.checked_mul(u64::from(*channels)) != Some(n_features as u64) {
                    return Err(Rejection::malformed(
                        "cnn",
                        "height x width x channels must equal the number of features",
                    ));
                }
                if filters.is_empty() || filters.len() > 8 {
                    return Err(Rejection::out_of_range("filters", filters.len() as f64, 1.0, 8.0));
                }
                if (height >> filters.len()) == 0 || (width >> filters.len()) == 0 {
                    return Err(Rejection::malformed(
                        "cnn",
                        "more poolings than the image has pixels: use fewer filters",
                    ));
                }
                filters.iter().try_for_each(|w| layer("filters", *w))?;
                layer("hidden", *hidden)
            }
        }
    }
}

/// How updates are combined. Defaults of each field: see `facts` in docs/book and the papers named.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Strategy {
    /// McMahan 2017, arXiv 1602.05629.
    FedAvg,
    /// Li 2018, arXiv 1812.06127: FedAvg with a proximal term at the sites.
    FedProx {
        /// Weight of the proximal term.
        mu: f32,
    },
    /// Hsu 2019, arXiv 1909.06335: server momentum.
    FedAvgM {
        /// Momentum.
        beta: f32,
        /// Server rate.
        eta: f32,
    },
    /// Reddi 2021, arXiv 2003.00295.
    FedAdagrad {
        /// Server rate.
        eta: f32,
        /// Added to the root.
        tau: f32,
    },
    /// Reddi 2021.
    FedAdam {
        /// Server rate.
        eta: f32,
        /// First-moment decay.
        beta1: f32,
        /// Second-moment decay.
        beta2: f32,
        /// Added to the root.
        tau: f32,
    },
    /// Reddi 2021.
    FedYogi {
        /// Server rate.
        eta: f32,
        /// First-moment decay.
        beta1: f32,
        /// Second-moment decay.
        beta2: f32,
        /// Added to the root.
        tau: f32,
    },
    /// Karimireddy 2020, arXiv 1910.06378, option II.
    Scaffold,
}

impl Strategy {
    /// The name in requests, policies and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FedAvg => "fed-avg",
            Self::FedProx { .. } => "fed-prox",
            Self::FedAvgM { .. } => "fed-avg-m",
            Self::FedAdagrad { .. } => "fed-adagrad",
            Self::FedAdam { .. } => "fed-adam",
            Self::FedYogi { .. } => "fed-yogi",
            Self::Scaffold => "scaffold",
        }
    }
}

/// What a site does with its data in one round or hop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocalTraining {
    /// Passes over the site's data.
    pub epochs: u32,
    /// Examples in a step.
    pub batch_size: u32,
    /// Rate of plain SGD.
    pub learning_rate: f32,
    /// Seed of shuffling and, on the first round, of the initial weights.
    pub seed: u64,
}

impl LocalTraining {
    /// Checks every bound.
    ///
    /// # Errors
    /// A rejection that names the field.
    pub fn validate(&self) -> Result<(), Rejection> {
        if !(1..=limits::LOCAL_EPOCHS_MAX).contains(&self.epochs) {
            let max = f64::from(limits::LOCAL_EPOCHS_MAX);
            return Err(Rejection::out_of_range(
                "epochs",
                f64::from(self.epochs),
                1.0,
                max,
            ));
        }
        if !(1..=1_048_576).contains(&self.batch_size) {
            return Err(Rejection::out_of_range(
                "batch_size",
                f64::from(self.batch_size),
                1.0,
                1_048_576.0,
            ));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0 && self.learning_rate <= 1e3) {
            return Err(Rejection::out_of_range(
                "learning_rate",
                f64::from(self.learning_rate),
                0.0,
                1e3,
            ));
        }
        Ok(())
    }
}

/// A measure of quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of examples classified right; more is better.
    Accuracy,
    /// Unweighted mean over classes of the F1 score; more is better.
    MacroF1,
    /// Root of the mean squared error; less is better.
    Rmse,
    /// Mean absolute error; less is better.
    Mae,
    /// Coefficient of determination; more is better.
    R2,
}

impl Metric {
    /// The metrics by which models for a task are judged.
    #[must_use]
    pub fn of_task(task: &Task) -> &'static [Self] {
        match task {
            Task::Classification { .. } => &[Self::Accuracy, Self::MacroF1],
            Task::Regression => &[Self::Rmse, Self::Mae, Self::R2],
        }
    }
    /// Refuses a metric that says nothing of models for the task of predicting `column`.
    ///
    /// # Errors
    /// A rejection that names the metrics that do.
    pub fn check_task(self, task: &Task, column: &str) -> Result<(), Rejection> {
        let fit = Self::of_task(task);
        if fit.contains(&self) {
            return Ok(());
        }
        let (is_a, others) = match task {
            Task::Classification { .. } => ("one of several classes (a classification)", "numbers"),
            Task::Regression => ("a number (a regression)", "classes"),
        };
        let shown: String = column.chars().take(limits::NAME_BYTES_MAX).collect();
        let why = format!("{} judges {others}, and `{shown}` is {is_a}", self.as_str());
        let names: Vec<&str> = fit.iter().map(|metric| metric.as_str()).collect();
        let hint = format!(
            "Set verification.metric (`job init --metric`) to one of: {}.",
            names.join(", ")
        );
        Err(Rejection::malformed("verification.metric", &why).with_hint(hint))
    }
    /// Refuses a value that no model can reach, or that is no bound at all.
    ///
    /// # Errors
    /// A rejection that names the range.
    pub fn check_target(self, target: f64) -> Result<(), Rejection> {
        let (is_fit, range, example) = match self {
            Self::Accuracy | Self::MacroF1 => {
                ((0.0..=1.0).contains(&target), "is a share, from 0 to 1", "0.9")
            }
            Self::R2 => (target.is_finite() && target <= 1.0, "is at most 1", "0.8"),
            Self::Rmse | Self::Mae => (
                target.is_finite() && target > 0.0,
                "is an error, to be bounded by a finite number above 0",
                "4.5, in the unit of what is predicted",
            ),
        };
        if is_fit {
            return Ok(());
        }
        let name = self.as_str();
        let message = format!("verification.target: {target} cannot be asked for, {name} {range}");
        let hint = format!("Set verification.target (`job init --reach`), for instance to {example}.");
        Err(Rejection::new(Code::OutOfRange, message).with_hint(hint))
    }
    /// Whether more is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Accuracy | Self::MacroF1 | Self::R2)
    }
    /// The name in requests and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro-f1",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::R2 => "r2",
        }
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evaluation {
    /// How many examples were looked at.
    pub n_examples: u64,
    /// Mean loss: cross-entropy in nats, or squared error.
    pub loss: f64,
    /// Each metric that applies to the task.
    pub metrics: Vec<(Metric, f64)>,
    /// Rows are the truth, columns the prediction; empty for regression.
    pub confusion: Vec<Vec<u64>>,
}

impl Evaluation {
    /// The value of a metric, where it applies.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        self.metrics
            .iter()
            .find(|(m, _)| *m == metric)
            .map(|(_, value)| *value)
    }
}

/// A model's name and version: `digits` version 3 of its organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelVersion {
    /// The name clients use.
    pub name: Slug,
    /// Counts from 1.
    pub version: u32,
}
