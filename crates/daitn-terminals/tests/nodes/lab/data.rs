//! The real digits, cut for each node, and terminals that have them.

use daitn_messages::learning::*;
use daitn_terminals::*;
use std::path::{Path, PathBuf};

/// Rows of the real digits: every `of`-th row, from `first`, in a file of its own.
pub(crate) fn digits(directory: &Path, name: &str, first: usize, of: usize, n_max: usize) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.csv");
    let text = std::fs::read_to_string(source).unwrap();
    let mut lines = text.lines();
    let mut out = format!("{}\n", lines.next().unwrap());
    for line in lines.skip(first).step_by(of).take(n_max) {
        out.push_str(line);
        out.push('\n');
    }
    let path = directory.join(name);
    std::fs::write(&path, out).unwrap();
    path
}

pub(crate) fn features() -> Vec<String> {
    (0..64).map(|n| format!("p{n}")).collect()
}

pub(crate) fn classes() -> Vec<String> {
    (0..10).map(|n| n.to_string()).collect()
}

pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Mlp { hidden: vec![32] },
        features: features(),
        target: "label".to_owned(),
        task: Task::Classification { classes: classes() },
        scale: 1.0 / 16.0,
        offset: 0.0,
    }
}

pub(crate) fn local() -> LocalTraining {
    LocalTraining {
        epochs: 2,
        batch_size: 32,
        learning_rate: 0.1,
        seed: 11,
    }
}

pub(crate) fn dataset(name: &str, path: &Path, policy: &str) -> TerminalOptions {
    let mut options = dataset_options(name, path);
    options.policy = Some(policy.to_owned());
    TerminalOptions::Dataset(Box::new(options))
}

pub(crate) fn dataset_options(name: &str, path: &Path) -> DatasetOptions {
    DatasetOptions {
        name: name.parse().unwrap(),
        title: "Digits".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        path: path.to_owned(),
        features: Vec::new(),
        target: "label".to_owned(),
        task: None,
        classes: classes(),
        license: "CC-BY-4.0".to_owned(),
        creator: "UCI".to_owned(),
        date_published: "1998-07-01".to_owned(),
        url: String::new(),
        usage: String::new(),
        policy: None,
        policy_file: None,
        data_version: "1".to_owned(),
        price_micros_per_thousand: 0,
        share_label_distribution: true,
        compute: true,
        compute_allowed: Vec::new(),
    }
}

pub(crate) fn aggregator() -> TerminalOptions {
    TerminalOptions::Aggregator(AggregatorOptions {
        name: "main".parse().unwrap(),
        title: "Aggregator".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        storage: ByteSize(1 << 30),
        price_micros_per_gb: 0,
    })
}

pub(crate) fn verifier(path: &Path) -> TerminalOptions {
    TerminalOptions::Verifier(VerifierOptions {
        name: "unit".parse().unwrap(),
        title: "Unit".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        path: path.to_owned(),
        features: Vec::new(),
        target: "label".to_owned(),
        task: None,
        classes: classes(),
    })
}

pub(crate) fn host() -> TerminalOptions {
    TerminalOptions::ModelHost(HostOptions {
        name: "host".parse().unwrap(),
        title: "Host".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        memory: ByteSize(1 << 20),
        price_micros_per_thousand: 0,
    })
}

pub(crate) fn compute() -> TerminalOptions {
    TerminalOptions::Compute(ComputeOptions {
        name: "pool".parse().unwrap(),
        title: "Pool".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        memory: ByteSize(64 << 20),
        price_micros_per_hour: 0,
    })
}
