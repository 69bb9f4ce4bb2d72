//! How good predictions are: from a model's outputs and the truth to an [`Evaluation`], batch by batch.
//!
//! Sums run in `f64` in the order of the examples, so the size of the batches changes nothing.

use daitn_messages::learning::{Evaluation, Metric};

/// Why predictions cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// No class, so nothing to predict.
    #[error("a classification needs at least one class")]
    NoClasses,
    /// Outputs and truths do not belong together.
    #[error("{n_outputs} outputs for {n_targets} examples where there should be {n_expected}")]
    WrongLength {
        /// Outputs given.
        n_outputs: usize,
        /// Examples given.
        n_targets: usize,
        /// Outputs that these examples need.
        n_expected: usize,
    },
    /// A truth is none of the classes.
    #[error("the label of example {example} is {label}, and there are {n_classes} classes")]
    BadLabel {
        /// The example, counted from 0 over all batches.
        example: u64,
        /// Its label.
        label: u32,
        /// Classes.
        n_classes: usize,
    },
    /// The model's output or the truth is NaN or infinite.
    #[error("the model's output or the truth of example {example} is NaN or infinite")]
    NotFinite {
        /// The example, counted from 0 over all batches.
        example: u64,
    },
    /// Nothing was judged.
    #[error("there are no examples to evaluate on")]
    NoExamples,
}

/// Judges a classification of all examples at once. See [`ClassificationTally`].
///
/// # Errors
/// [`MetricsError`].
pub fn classification(logits: &[f32], labels: &[u32], n_classes: usize) -> Result<Evaluation, MetricsError> {
    let mut tally = ClassificationTally::new(n_classes)?;
    tally.add(logits, labels)?;
    tally.finish()
}

/// Judges a regression of all examples at once. See [`RegressionTally`].
///
/// # Errors
/// [`MetricsError`].
pub fn regression(predictions: &[f32], targets: &[f32]) -> Result<Evaluation, MetricsError> {
    let mut tally = RegressionTally::default();
    tally.add(predictions, targets)?;
    tally.finish()
}

/// Counts for a classification.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassificationTally {
    n_examples: u64,
    loss_sum: f64,
    confusion: Vec<Vec<u64>>,
}

impl ClassificationTally {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// [`MetricsError::NoClasses`].
    pub fn new(n_classes: usize) -> Result<Self, MetricsError> {
        if n_classes == 0 {
            return Err(MetricsError::NoClasses);
        }
        Ok(Self {
            n_examples: 0,
            loss_sum: 0.0,
            confusion: vec![vec![0; n_classes]; n_classes],
        })
    }

    /// Counts a batch: a row of logits for each example, a column for each class, and the index of its true class. The
    /// prediction is the largest logit, the first of equal ones.
    ///
    /// # Errors
    /// [`MetricsError`]; nothing of the batch is then counted.
    pub fn add(&mut self, logits: &[f32], labels: &[u32]) -> Result<(), MetricsError> {
        let n_classes = self.confusion.len();
        check_length(logits.len(), labels.len(), n_classes)?;
        for (example, (row, label)) in (self.n_examples..).zip(logits.chunks_exact(n_classes).zip(labels)) {
            if *label as usize >= n_classes {
                return Err(MetricsError::BadLabel {
                    example,
                    label: *label,
                    n_classes,
                });
            }
            if row.iter().any(|logit| !logit.is_finite()) {
                return Err(MetricsError::NotFinite { example });
            }
        }
        for (row, label) in logits.chunks_exact(n_classes).zip(labels) {
            let truth = *label as usize;
            self.loss_sum += cross_entropy(row, truth);
            self.confusion[truth][largest(row)] += 1;
            self.n_examples += 1;
        }
        Ok(())
    }

    /// Loss is the mean cross-entropy in nats; accuracy; macro-F1 over the classes that occur as truth or prediction;
    /// the confusion matrix, truths in rows.
    ///
    /// # Errors
    /// [`MetricsError::NoExamples`].
    pub fn finish(self) -> Result<Evaluation, MetricsError> {
        if self.n_examples == 0 {
            return Err(MetricsError::NoExamples);
        }
        let n_right: u64 = (0..self.confusion.len())
            .map(|class| self.confusion[class][class])
            .sum();
        let accuracy = n_right as f64 / self.n_examples as f64;
        Ok(Evaluation {
            n_examples: self.n_examples,
            loss: self.loss_sum / self.n_examples as f64,
            metrics: vec![
                (Metric::Accuracy, accuracy),
                (Metric::MacroF1, macro_f1(&self.confusion)),
            ],
            confusion: self.confusion,
        })
    }
}

/// Sums for a regression.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RegressionTally {
    n_examples: u64,
    squared_error_sum: f64,
    absolute_error_sum: f64,
    target_mean: f64,
    /// Sum of squared distances of the targets to their mean, by Welford's updates: stable for targets far from zero.
    target_spread: f64,
}

impl RegressionTally {
    /// Adds a batch: a prediction and the truth for each example.
    ///
    /// # Errors
    /// [`MetricsError`]; nothing of the batch is then counted.
    pub fn add(&mut self, predictions: &[f32], targets: &[f32]) -> Result<(), MetricsError> {
        check_length(predictions.len(), targets.len(), 1)?;
        let pairs = predictions.iter().zip(targets);
        for (example, (prediction, target)) in (self.n_examples..).zip(pairs.clone()) {
            if !(prediction.is_finite() && target.is_finite()) {
                return Err(MetricsError::NotFinite { example });
            }
        }
        for (prediction, target) in pairs {
            let (prediction, target) = (f64::from(*prediction), f64::from(*target));
            let error = prediction - target;
            self.squared_error_sum += error * error;
            self.absolute_error_sum += error.abs();
            self.n_examples += 1;
            let from_mean = target - self.target_mean;
            self.target_mean += from_mean / self.n_examples as f64;
            self.target_spread += from_mean * (target - self.target_mean);
        }
        Ok(())
    }

    /// Loss is the mean squared error; RMSE, MAE, and from two examples on R². Where all targets are the same, R² is 1
    /// if they were hit exactly and else 0.
    ///
    /// # Errors
    /// [`MetricsError::NoExamples`].
    pub fn finish(self) -> Result<Evaluation, MetricsError> {
        if self.n_examples == 0 {
            return Err(MetricsError::NoExamples);
        }
        let n = self.n_examples as f64;
        let loss = self.squared_error_sum / n;
        let mut metrics = vec![
            (Metric::Rmse, loss.sqrt()),
            (Metric::Mae, self.absolute_error_sum / n),
        ];
        if self.n_examples > 1 {
            let r2 = match (self.target_spread > 0.0, self.squared_error_sum > 0.0) {
                (true, _) => 1.0 - self.squared_error_sum / self.target_spread,
                (false, true) => 0.0,
                (false, false) => 1.0,
            };
            metrics.push((Metric::R2, r2));
        }
        Ok(Evaluation {
            n_examples: self.n_examples,
            loss,
            metrics,
            confusion: Vec::new(),
        })
    }
}

fn check_length(n_outputs: usize, n_targets: usize, n_each: usize) -> Result<(), MetricsError> {
    let n_expected = n_targets.saturating_mul(n_each);
    if n_outputs == n_expected {
        Ok(())
    } else {
        Err(MetricsError::WrongLength {
            n_outputs,
            n_targets,
            n_expected,
        })
    }
}

/// `ln(sum(exp(logits))) - logits[truth]`, with the largest logit taken out so that no exponential overflows.
fn cross_entropy(logits: &[f32], truth: usize) -> f64 {
    let largest = f64::from(logits[largest(logits)]);
    let sum: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - largest).exp())
        .sum();
    sum.ln() + largest - f64::from(logits[truth])
}

/// Index of the largest value, the first of equal ones.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

fn macro_f1(confusion: &[Vec<u64>]) -> f64 {
    let mut sum = 0.0;
    let mut n_classes = 0.0;
    for (class, row) in confusion.iter().enumerate() {
        let n_truth: u64 = row.iter().sum();
        let n_predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        if n_truth + n_predicted > 0 {
            sum += 2.0 * row[class] as f64 / (n_truth + n_predicted) as f64;
            n_classes += 1.0;
        }
    }
    sum / n_classes
}
