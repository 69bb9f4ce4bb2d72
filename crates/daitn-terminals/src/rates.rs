//! How fast the engine is on this machine: a short measurement at the first start, kept, so that descriptors do not
//! change with every restart. Rounded to a power of two: nobody plans by more.

use crate::{durable, terminal::Rates};
use daitn_engine::{Engine, LocalRule, Table, Targets, Work};
use daitn_learning::random::SplitMix64;
use daitn_messages::{
    learning::{Architecture, LocalTraining, ModelSpec, Task},
    rejection::Rejection,
};
use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

const FEATURES: usize = 64;
const HIDDEN: u32 = 64;
const CLASSES: usize = 10;
const ROWS: usize = 512;
/// Multiply-adds of one row forwards. Training counts three times as many: forwards, and backwards to inputs and weights.
const FORWARD: u64 = (FEATURES * HIDDEN as usize + HIDDEN as usize * CLASSES) as u64;
const TRAINING_FACTOR: u64 = 3;
/// Each measurement lasts at least this long, so that the clock's grain does not show.
const LASTS: Duration = Duration::from_millis(30);

#[derive(Serialize, Deserialize)]
struct Record {
    train: u64,
    infer: u64,
}

/// The rates of this machine. Blocks, at the first start for a tenth of a second.
///
/// # Errors
/// Where the engine fails or the disk does.
pub(crate) fn measured(engine: &dyn Engine, state: &Path) -> Result<Rates, Rejection> {
    let path = state.join("rates.rec");
    // What cannot be read is measured again.
    if let Ok(Some(record)) = durable::read::<Record>(&path) {
        return Ok(Rates {
            train: record.train,
            infer: record.infer,
        });
    }
    let rates = measure(engine)?;
    durable::write(
        &path,
        &Record {
            train: rates.train,
            infer: rates.infer,
        },
    )
    .map_err(|error| error.rejection())?;
    Ok(rates)
}

fn measure(engine: &dyn Engine) -> Result<Rates, Rejection> {
    let spec = ModelSpec {
        architecture: Architecture::Mlp { hidden: vec![HIDDEN] },
        features: (0..FEATURES).map(|n| format!("f{n}")).collect(),
        target: "y".to_owned(),
        task: Task::Classification {
            classes: (0..CLASSES).map(|n| n.to_string()).collect(),
        },
        scale: 1.0,
        offset: 0.0,
    };
    let mut random = SplitMix64::new(1);
    #[expect(clippy::cast_possible_truncation, reason = "any numbers will do")]
    let features: Vec<f32> = (0..FEATURES * ROWS).map(|_| random.unit() as f32).collect();
    let labels = (0..ROWS)
        .map(|_| u32::try_from(random.below(CLASSES)).unwrap_or(0))
        .collect();
    let targets = Targets::Classes {
        labels,
        n_classes: CLASSES,
    };
    let table = Table::new(FEATURES, features.clone(), targets)
        .map_err(|error| Rejection::malformed("measurement", &error.to_string()))?;
    let parameters = engine.initial(&spec, 1)?;
    let loaded = engine.load(&spec, &parameters)?;
    let training = LocalTraining {
        epochs: 1,
        batch_size: 32,
        learning_rate: 0.01,
        seed: 0,
    };
    let work = Work {
        training,
        seed: 1,
        rule: LocalRule::Plain,
    };
    let train = repeat(|| {
        let mut go_on = |_| ControlFlow::Continue(());
        engine
            .train(&spec, &parameters, &table, &work, &mut go_on)
            .map(drop)
            .map_err(Rejection::from)
    })?;
    let infer = repeat(|| loaded.infer(&features).map(drop).map_err(Rejection::from))?;
    let rows = ROWS as u64;
    Ok(Rates {
        train: rate(train, rows * FORWARD * TRAINING_FACTOR),
        infer: rate(infer, rows * FORWARD),
    })
}

/// Times of one run, the first not counted.
fn repeat(mut run: impl FnMut() -> Result<(), Rejection>) -> Result<Duration, Rejection> {
    run()?;
    let begun = Instant::now();
    let mut n_runs = 0;
    while begun.elapsed() < LASTS {
        run()?;
        n_runs += 1;
    }
    Ok(begun.elapsed() / n_runs.max(1))
}

/// Operations a second, as the nearest smaller power of two.
fn rate(run: Duration, n_operations: u64) -> u64 {
    let nanos = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX).max(1);
    let rate = u128::from(n_operations) * 1_000_000_000 / u128::from(nanos);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
    1 << rate.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_operations_over_time_cut_to_a_power_of_two() {
        assert_eq!(rate(Duration::from_secs(1), 1000), 512);
        assert_eq!(rate(Duration::from_millis(1), 1024), 1 << 19);
        assert_eq!(rate(Duration::ZERO, 0), 1);
    }
}
