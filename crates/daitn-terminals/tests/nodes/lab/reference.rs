//! An independent reference: the same training as a plain loop over the engine.

use super::data::{local, spec};
use daitn_engine::{Engine, LocalRule, Table, Work, builtin::Builtin, data, weights};
use daitn_messages::{ids::ArtifactId, learning::Metric, session::ArtifactRef};
use std::{ops::ControlFlow, path::Path};

/// SplitMix64, written out once more (Steele, Lea, Flood 2014).
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn step_seed(seed: u64, cycle: u32, position: u32) -> u64 {
    let mixed = |seed: u64, word: u32| split_mix(split_mix(seed) ^ u64::from(word));
    mixed(mixed(seed, cycle), position)
}

pub(crate) fn table(path: &Path) -> Table {
    data::read(path, &spec()).unwrap()
}

pub(crate) fn local_step(
    parameters: &[f32],
    table: &Table,
    cycle: u32,
    position: u32,
    rule: LocalRule<'_>,
) -> daitn_engine::TrainOutcome {
    let work = Work {
        training: local(),
        seed: step_seed(local().seed, cycle, position),
        rule,
    };
    Builtin
        .train(&spec(), parameters, table, &work, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap()
}

/// Mean of the parameters weighted by examples, in `f64`, in order.
pub(crate) fn mean(updates: &[(u64, Vec<f32>)]) -> Vec<f32> {
    let total: f64 = updates.iter().map(|(n, _)| *n as f64).sum();
    (0..updates[0].1.len())
        .map(|i| {
            let sum: f64 = updates
                .iter()
                .map(|(n, values)| *n as f64 * f64::from(values[i]))
                .sum();
            (sum / total) as f32
        })
        .collect()
}

pub(crate) fn weights_of(parameters: &[f32]) -> ArtifactRef {
    let file = weights::write(parameters, &Builtin.layout(&spec()).unwrap()).unwrap();
    ArtifactRef {
        id: ArtifactId::of(&file),
        bytes: file.len() as u64,
    }
}

pub(crate) fn initial() -> Vec<f32> {
    Builtin.initial(&spec(), local().seed).unwrap()
}

pub(crate) fn accuracy(parameters: &[f32], table: &Table) -> f64 {
    Builtin
        .evaluate(&spec(), parameters, table)
        .unwrap()
        .metric(Metric::Accuracy)
        .unwrap()
}
