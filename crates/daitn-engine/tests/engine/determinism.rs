//! The same work gives the same bits: twice, in other processes, with other numbers of threads.

use crate::digits;
use daitn_engine::{Engine, LocalRule, Table, Work, builtin::Builtin};
use daitn_messages::learning::{Architecture, LocalTraining, ModelSpec};
use std::{fmt::Write, ops::ControlFlow, process::Command};

/// Models of which some are wide enough that the framework's products use several threads.
fn models() -> Vec<ModelSpec> {
    let cnn = Architecture::Cnn {
        height: 8,
        width: 8,
        channels: 1,
        filters: vec![16, 32],
        hidden: 64,
    };
    [
        Architecture::Linear,
        Architecture::Mlp { hidden: vec![32] },
        Architecture::Mlp {
            hidden: vec![512, 256],
        },
        cnn,
    ]
    .map(digits::spec)
    .to_vec()
}

fn fingerprint(spec: &ModelSpec, table: &Table) -> String {
    let start = Builtin.initial(spec, 5).unwrap();
    let training = LocalTraining {
        epochs: 1,
        batch_size: 512,
        learning_rate: 0.1,
        seed: 0,
    };
    let work = Work {
        training,
        seed: 9,
        rule: LocalRule::Prox { mu: 0.01 },
    };
    let outcome = Builtin
        .train(spec, &start, table, &work, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let evaluation = Builtin.evaluate(spec, &outcome.parameters, table).unwrap();
    let mut hasher = blake3::Hasher::new();
    outcome.parameters.iter().for_each(|x| {
        hasher.update(&x.to_le_bytes());
    });
    hasher.update(&outcome.loss.to_le_bytes());
    hasher.update(&evaluation.loss.to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

fn fingerprints() -> String {
    let table = digits::table();
    models().iter().fold(String::new(), |mut all, spec| {
        write!(all, "{} ", fingerprint(spec, &table)).unwrap();
        all
    })
}

#[test]
#[ignore = "the process that `bits_do_not_depend_on_process_or_threads` starts"]
fn child() {
    println!("fingerprints: {}", fingerprints());
}

#[test]
fn bits_do_not_depend_on_process_or_threads() {
    let here = fingerprints();
    assert_eq!(here, fingerprints());
    for n_threads in ["1", "2", "3", "8"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "determinism::child", "--ignored", "--nocapture"])
            .env("RAYON_NUM_THREADS", n_threads)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains(&format!("fingerprints: {here}")),
            "{n_threads} threads: {here} and {text}"
        );
    }
}

#[test]
fn every_seed_matters_where_it_should() {
    let spec = digits::perceptron();
    let table = digits::table();
    let start = Builtin.initial(&spec, 1).unwrap();
    assert_eq!(start, Builtin.initial(&spec, 1).unwrap());
    assert_ne!(start, Builtin.initial(&spec, 2).unwrap());
    let train = |seed, own| {
        let training = LocalTraining {
            epochs: 1,
            batch_size: 32,
            learning_rate: 0.1,
            seed: own,
        };
        let work = Work {
            training,
            seed,
            rule: LocalRule::Plain,
        };
        let outcome = Builtin.train(&spec, &start, &table, &work, &mut |_| ControlFlow::Continue(()));
        outcome.unwrap().parameters
    };
    assert_ne!(train(1, 0), train(2, 0));
    assert_eq!(train(1, 0), train(1, 7), "only the seed of the work shuffles");
}
