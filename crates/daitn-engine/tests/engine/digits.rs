//! The digits, and the ways in which the tests cut them.

use daitn_engine::{Table, data};
use daitn_learning::split;
use daitn_messages::learning::{Architecture, ModelSpec, Task};
use std::path::PathBuf;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits")
}

pub(crate) fn spec(architecture: Architecture) -> ModelSpec {
    ModelSpec {
        architecture,
        features: (0..64).map(|i| format!("p{i}")).collect(),
        target: "label".to_owned(),
        task: Task::Classification {
            classes: (0..10).map(|i| i.to_string()).collect(),
        },
        scale: 1.0 / 16.0,
        offset: 0.0,
    }
}

/// The perceptron of the reference table: 2,410 parameters.
pub(crate) fn perceptron() -> ModelSpec {
    spec(Architecture::Mlp { hidden: vec![32] })
}

pub(crate) fn table() -> Table {
    data::read(&folder().join("digits.csv"), &perceptron()).unwrap()
}

/// 1,437 images to train on and 360 to test on.
pub(crate) fn train_and_test(seed: u64) -> (Table, Table) {
    let all = table();
    let shares = split::sized(all.n_rows(), &[1437, 360], seed).unwrap();
    (all.select(&shares[0]), all.select(&shares[1]))
}
