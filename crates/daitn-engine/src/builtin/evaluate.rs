//! What a model is worth on a table: outputs from here, metrics from `daitn-learning`.

use super::{kernels, network::Network};
use crate::{EngineError, Table, Targets};
use daitn_learning::metrics::{ClassificationTally, MetricsError, RegressionTally};
use daitn_messages::learning::Evaluation;

/// Evaluates; the arguments fit each other.
pub(super) fn evaluate(
    network: &Network,
    parameters: &[f32],
    table: &Table,
) -> Result<Evaluation, EngineError> {
    let weights = network.weights(parameters)?;
    let rows_max = network.rows_max();
    let outputs = table
        .features()
        .chunks(rows_max * table.n_features())
        .map(|features| network.forward(&weights, features.to_vec(), features.len() / table.n_features()));
    match table.targets() {
        Targets::Classes { labels, n_classes } => {
            let mut tally = ClassificationTally::new(*n_classes).map_err(judged)?;
            for (trace, labels) in outputs.zip(labels.chunks(rows_max)) {
                kernels::read(&trace?.output, |logits| tally.add(logits, labels))?.map_err(judged)?;
            }
            tally.finish().map_err(judged)
        }
        Targets::Values(values) => {
            let mut tally = RegressionTally::default();
            for (trace, values) in outputs.zip(values.chunks(rows_max)) {
                kernels::read(&trace?.output, |predictions| tally.add(predictions, values))?
                    .map_err(judged)?;
            }
            tally.finish().map_err(judged)
        }
    }
}

/// The table and the parameters were checked, so what is left is an output that overflowed.
fn judged(error: MetricsError) -> EngineError {
    match error {
        MetricsError::NoExamples => EngineError::NoRows,
        other => EngineError::Judged(other),
    }
}
