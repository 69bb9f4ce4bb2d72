//! A site's work: epochs of shuffled batches, each a step of plain SGD with the gradient corrected by the local rule.

use super::{
    check_parameters, kernels,
    network::{Network, Weights},
};
use crate::{
    EngineError, LocalRule, Progress, Report, Table, Targets, TrainOutcome, Work, random::generator,
};
use daitn_learning::local::{Correction, ScaffoldRound};
use daitn_messages::rejection::Rejection;

/// Purpose of the shuffling's random numbers.
const SHUFFLE: &str = "daitn 2026 engine: order of examples";

/// Trains; the arguments fit each other.
pub(super) fn train(
    network: &Network,
    start: &[f32],
    table: &Table,
    work: &Work<'_>,
    report: Report<'_>,
) -> Result<TrainOutcome, EngineError> {
    work.training.validate().map_err(EngineError::Training)?;
    let correction = correction(network, start, work.rule)?;
    let rate = work.training.learning_rate;
    let batch_size = work.training.batch_size as usize;
    let n_batches = table.n_rows().div_ceil(batch_size);
    let n_steps = u64::from(work.training.epochs) * n_batches as u64;
    let weights = network.weights(start)?;
    let mut order: Vec<u32> = (0..table.n_rows()).map(row_number).collect();
    let mut step = 0_u64;
    let mut epoch_loss = 0.0;
    for epoch in 0..work.training.epochs {
        generator(SHUFFLE, work.seed, &epoch.to_le_bytes()).shuffle(&mut order);
        epoch_loss = 0.0;
        for batch in batches(&order, n_batches) {
            let (loss, gradient) = gradient(network, &weights, table, batch)?;
            step += 1;
            if !loss.is_finite() {
                return Err(EngineError::Diverged { step });
            }
            weights.step(&gradient, &correction, rate)?;
            epoch_loss += loss;
            let progress = Progress {
                epoch,
                step,
                n_steps,
                loss: loss / batch.len() as f64,
            };
            if report(progress).is_break() {
                return Err(EngineError::Stopped { step });
            }
        }
    }
    let parameters = weights.flat()?;
    if parameters.iter().any(|w| !w.is_finite()) {
        return Err(EngineError::Diverged { step });
    }
    let control = match work.rule {
        LocalRule::Scaffold { c, c_k } => {
            let round = ScaffoldRound {
                control: c,
                site_control: c_k,
                received: start,
                trained: &parameters,
                n_steps: step,
                learning_rate: rate,
            };
            Some(round.site_control())
        }
        LocalRule::Plain | LocalRule::Prox { .. } => None,
    };
    let loss = epoch_loss / table.n_rows() as f64;
    Ok(TrainOutcome {
        parameters,
        n_examples: table.n_rows() as u64,
        n_steps: step,
        loss,
        control,
    })
}

/// The examples in so many batches whose sizes differ by one at most. A short last batch would be a step on a few
/// examples at the full rate, and what it throws off course is what the site sends: a convolutional network at 0.97
/// was seen to end its round at 0.50 after a last step on five images.
fn batches(order: &[u32], n_batches: usize) -> impl Iterator<Item = &[u32]> {
    let start = move |batch: usize| batch * order.len() / n_batches;
    (0..n_batches).map(move |batch| &order[start(batch)..start(batch + 1)])
}

/// Sum of the losses of a batch, and the gradient of their mean. A batch beyond the working memory is computed in
/// parts whose size depends on the model only, so that the sum is always taken in the same order.
pub(super) fn gradient(
    network: &Network,
    weights: &Weights,
    table: &Table,
    batch: &[u32],
) -> Result<(f64, Weights), EngineError> {
    let mut total: Option<(f64, Weights)> = None;
    for rows in batch.chunks(network.rows_max()) {
        let mut features = Vec::with_capacity(rows.len() * table.n_features());
        for row in rows {
            features.extend_from_slice(table.row(*row as usize));
        }
        let trace = network.forward(weights, features, rows.len())?;
        let loss = match table.targets() {
            Targets::Classes { labels, n_classes } => {
                let labels: Vec<u32> = rows.iter().map(|row| labels[*row as usize]).collect();
                kernels::cross_entropy(&trace.output, &labels, *n_classes, batch.len())?
            }
            Targets::Values(values) => {
                let values: Vec<f32> = rows.iter().map(|row| values[*row as usize]).collect();
                kernels::squared_error(&trace.output, &values, batch.len())?
            }
        };
        let part = network.backward(weights, trace, rows.len())?;
        total = Some(match total {
            None => (loss, part),
            Some((sum, gradient)) => {
                gradient.add(&part)?;
                (sum + loss, gradient)
            }
        });
    }
    total.ok_or(EngineError::NoRows)
}

/// The arithmetic of the local rule, its vectors checked.
fn correction<'a>(
    network: &Network,
    start: &'a [f32],
    rule: LocalRule<'a>,
) -> Result<Correction<'a>, EngineError> {
    match rule {
        LocalRule::Plain => Ok(Correction::None),
        LocalRule::Prox { mu } if mu.is_finite() && mu >= 0.0 => {
            Ok(Correction::Proximal { mu, global: start })
        }
        LocalRule::Prox { mu } => Err(EngineError::Training(Rejection::out_of_range(
            "mu",
            f64::from(mu),
            0.0,
            f64::from(f32::MAX),
        ))),
        LocalRule::Scaffold { c, c_k } => {
            check_parameters("control variate c", c, network)?;
            check_parameters("control variate c_k", c_k, network)?;
            Ok(Correction::Controlled {
                control: c,
                site_control: c_k,
            })
        }
    }
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a table has fewer than 2^32 rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_even_and_leave_nothing_out() {
        for (n_rows, n_batches, sizes) in [(33, 2, vec![16, 17]), (96, 3, vec![32; 3]), (5, 3, vec![1, 2, 2])]
        {
            let order: Vec<u32> = (0..n_rows).collect();
            let found: Vec<&[u32]> = batches(&order, n_batches).collect();
            assert_eq!(found.iter().map(|batch| batch.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(found.concat(), order);
        }
    }
}
