//! Models from outside: answers, local rules, stopping, and every argument that does not fit.

use crate::digits;
use daitn_engine::{
    Engine, EngineError, LocalRule, Progress, Table, Targets, TrainOutcome, Work,
    builtin::{Builtin, QUERY_ROWS_MAX},
};
use daitn_learning::random::SplitMix64;
use daitn_messages::{
    learning::{Architecture, LocalTraining, Metric, ModelSpec, Task},
    rejection::{Code, Rejection},
};
use std::ops::ControlFlow;

fn regression(n_features: usize) -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Linear,
        features: (0..n_features).map(|i| format!("x{i}")).collect(),
        target: "y".to_owned(),
        task: Task::Regression,
        scale: 0.5,
        offset: 1.0,
    }
}

fn training(epochs: u32, batch_size: u32, learning_rate: f32) -> LocalTraining {
    LocalTraining {
        epochs,
        batch_size,
        learning_rate,
        seed: 0,
    }
}

fn train(
    spec: &ModelSpec,
    start: &[f32],
    table: &Table,
    work: Work<'_>,
) -> Result<TrainOutcome, EngineError> {
    Builtin.train(spec, start, table, &work, &mut |_| ControlFlow::Continue(()))
}

fn plain(training: LocalTraining) -> Work<'static> {
    Work {
        training,
        seed: 3,
        rule: LocalRule::Plain,
    }
}

#[test]
fn layouts_name_every_tensor_in_the_order_of_layers() {
    let names = |architecture| -> Vec<String> {
        let layout = Builtin.layout(&digits::spec(architecture)).unwrap();
        layout
            .tensors()
            .iter()
            .map(|t| format!("{} {:?}", t.name, t.shape))
            .collect()
    };
    assert_eq!(
        names(Architecture::Linear),
        ["00.dense.bias [10]", "00.dense.weight [10, 64]"]
    );
    let cnn = Architecture::Cnn {
        height: 8,
        width: 8,
        channels: 1,
        filters: vec![16, 32],
        hidden: 64,
    };
    assert_eq!(
        names(cnn),
        [
            "00.conv.bias [16]",
            "00.conv.weight [16, 1, 3, 3]",
            "01.conv.bias [32]",
            "01.conv.weight [32, 16, 3, 3]",
            "02.dense.bias [64]",
            "02.dense.weight [64, 128]",
            "03.dense.bias [10]",
            "03.dense.weight [10, 64]",
        ]
    );
    // Beyond nine layers the order of names is still that of layers.
    let deep = names(Architecture::Mlp { hidden: vec![2; 64] });
    assert_eq!(deep[24], "12.dense.bias [2]");
    assert_eq!(deep[129], "64.dense.weight [10, 2]");
    assert_eq!(Builtin.layout(&digits::perceptron()).unwrap().n_elements(), 2410);
    assert_eq!(
        Builtin
            .layout(&digits::spec(Architecture::Linear))
            .unwrap()
            .n_elements(),
        650
    );
}

#[test]
fn initial_weights_have_the_variance_of_their_layer() {
    let spec = digits::spec(Architecture::Mlp { hidden: vec![512] });
    let layout = Builtin.layout(&spec).unwrap();
    let initial = Builtin.initial(&spec, 4).unwrap();
    let variance = |name| {
        let part = &initial[layout.range_of(name).unwrap()];
        part.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / part.len() as f64
    };
    assert!((variance("00.dense.weight") * 64.0 / 2.0 - 1.0).abs() < 0.02);
    assert!((variance("01.dense.weight") * 512.0 * 3.0 - 1.0).abs() < 0.05);
    assert_eq!(variance("00.dense.bias"), 0.0);
}

#[test]
fn a_linear_regression_finds_the_least_squares_solution() {
    // y = 2·x0 − x1 + 0.5 on raw inputs; what the model sees is (x − 1)·0.5.
    let spec = regression(2);
    let mut random = SplitMix64::new(1);
    let raw: Vec<f32> = (0..400).map(|_| random.normal() as f32 + 1.0).collect();
    let seen: Vec<f32> = raw.iter().map(|x| (x - 1.0) * 0.5).collect();
    let values: Vec<f32> = raw.chunks(2).map(|x| 2.0 * x[0] - x[1] + 0.5).collect();
    let table = Table::new(2, seen, Targets::Values(values.clone())).unwrap();
    let start = Builtin.initial(&spec, 1).unwrap();
    let outcome = train(&spec, &start, &table, plain(training(100, 20, 0.1))).unwrap();
    let evaluation = Builtin.evaluate(&spec, &outcome.parameters, &table).unwrap();
    assert!(
        evaluation.metric(Metric::R2).unwrap() > 0.999_99,
        "{evaluation:?}"
    );
    // bias, then weights: 2·x0 = 4·seen0 + 2, −x1 = −2·seen1 − 1.
    for (found, expected) in outcome.parameters.iter().zip([1.5, 4.0, -2.0]) {
        assert!((found - expected).abs() < 1e-3, "{:?}", outcome.parameters);
    }
    // A loaded model takes raw inputs.
    let model = Builtin.load(&spec, &outcome.parameters).unwrap();
    let outputs = model.infer(&raw).unwrap();
    assert_eq!((outputs.n_outputs, outputs.probabilities), (1, None));
    assert!(
        outputs
            .values
            .iter()
            .zip(&values)
            .all(|(a, b)| (a - b).abs() < 5e-3)
    );
}

#[test]
fn answers_are_those_of_the_evaluation() {
    let spec = digits::spec(Architecture::Cnn {
        height: 8,
        width: 8,
        channels: 1,
        filters: vec![16, 32],
        hidden: 64,
    });
    let table = digits::table();
    let start = Builtin.initial(&spec, 1).unwrap();
    let parameters = train(&spec, &start, &table, plain(training(8, 32, 0.05)))
        .unwrap()
        .parameters;
    let evaluation = Builtin.evaluate(&spec, &parameters, &table).unwrap();
    assert!(
        evaluation.metric(Metric::Accuracy).unwrap() > 0.95,
        "{evaluation:?}"
    );
    let raw: Vec<f32> = table.features().iter().map(|x| x * 16.0).collect();
    let model = Builtin.load(&spec, &parameters).unwrap();
    let outputs = model.infer(&raw).unwrap();
    let probabilities = outputs.probabilities.unwrap();
    let Targets::Classes { labels, .. } = table.targets() else {
        panic!("digits are classes")
    };
    let (mut n_right, mut loss) = (0, 0.0);
    for ((p, z), label) in probabilities
        .chunks(10)
        .zip(outputs.values.chunks(10))
        .zip(labels)
    {
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        let best = |row: &[f32]| (0..10).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        assert_eq!(best(p), best(z));
        n_right += u64::from(best(p) == *label as usize);
        loss -= f64::from(p[*label as usize]).ln();
    }
    let n = labels.len() as f64;
    assert_eq!(n_right as f64 / n, evaluation.metric(Metric::Accuracy).unwrap());
    assert!((loss / n - evaluation.loss).abs() < 1e-5);
    // Row by row the answers are the same, up to the order of sums within the kernel.
    for i in [0, 1, 1796] {
        let one = model.infer(&raw[i * 64..(i + 1) * 64]).unwrap();
        assert!(
            one.values
                .iter()
                .zip(&outputs.values[i * 10..])
                .all(|(a, b)| (a - b).abs() < 1e-4)
        );
    }
}

#[test]
fn a_model_answers_from_many_threads() {
    let spec = digits::perceptron();
    let model = Builtin.load(&spec, &Builtin.initial(&spec, 1).unwrap()).unwrap();
    let inputs: Vec<f32> = (0..64).map(|i| i as f32 / 4.0).collect();
    let alone = model.infer(&inputs).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..200).for_each(|_| assert_eq!(model.infer(&inputs).unwrap(), alone)));
        }
    });
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let spec = digits::perceptron();
    let model = Builtin.load(&spec, &Builtin.initial(&spec, 1).unwrap()).unwrap();
    let mut holed = vec![1.0; 128];
    holed[64 + 5] = f32::NAN;
    let huge = vec![f32::MAX; 64];
    assert!(
        model.infer(&huge).is_ok(),
        "large is not wrong: the scale brings it back"
    );
    for (inputs, words) in [
        (vec![], "no rows"),
        (vec![1.0; 63], "no rows"),
        (vec![1.0; 65], "no rows"),
        (holed, "row 1, feature `p5`"),
        (vec![0.0; 64 * (QUERY_ROWS_MAX + 1)], "over the bound"),
    ] {
        let error = model.infer(&inputs).unwrap_err();
        assert_eq!(error.code(), Code::BadTensor);
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Rules on a model with a closed form: one feature that is always 1, no bias moved by hand, full batches.
fn one_number() -> (ModelSpec, Table) {
    let mut spec = regression(1);
    (spec.scale, spec.offset) = (1.0, 0.0);
    let table = Table::new(1, vec![1.0; 4], Targets::Values(vec![3.0; 4])).unwrap();
    (spec, table)
}

#[test]
fn local_rules_follow_their_equations() {
    // Bias b and weight w both see the gradient 2(b + w − 3). Rate 0.1, two full-batch steps, from (0.5, 1).
    let (spec, table) = one_number();
    let start = [0.5_f32, 1.0];
    let work = |rule| Work {
        training: training(2, 4, 0.1),
        seed: 0,
        rule,
    };
    let by_hand = |extra: &dyn Fn(usize, f64, f64) -> f64| {
        let mut at = [0.5_f64, 1.0];
        for _ in 0..2 {
            let gradient = 2.0 * (at[0] + at[1] - 3.0);
            at = [0, 1].map(|i| at[i] - 0.1 * (gradient + extra(i, at[i], f64::from(start[i]))));
        }
        at
    };
    let close = |found: &[f32], expected: [f64; 2]| {
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6),
            "{found:?} {expected:?}"
        );
    };
    let outcome = train(&spec, &start, &table, work(LocalRule::Plain)).unwrap();
    close(&outcome.parameters, by_hand(&|_, _, _| 0.0));
    assert_eq!(
        (outcome.n_examples, outcome.n_steps, outcome.control),
        (4, 2, None)
    );
    // The loss of the last epoch is the one before its only step: b + w = 1.5 − 2·0.1·2·(−1.5) = 2.1.
    assert!((outcome.loss - 0.81).abs() < 1e-6, "{}", outcome.loss);

    let outcome = train(&spec, &start, &table, work(LocalRule::Prox { mu: 2.0 })).unwrap();
    close(&outcome.parameters, by_hand(&|_, w, x| 2.0 * (w - x)));

    let (c, c_k) = ([0.3_f32, -0.2], [0.1_f32, 0.4]);
    let outcome = train(
        &spec,
        &start,
        &table,
        work(LocalRule::Scaffold { c: &c, c_k: &c_k }),
    )
    .unwrap();
    let end = by_hand(&|i, _, _| f64::from(c[i]) - f64::from(c_k[i]));
    close(&outcome.parameters, end);
    let control = outcome.control.unwrap();
    let next =
        [0, 1].map(|i| f64::from(c_k[i]) - f64::from(c[i]) + (f64::from(start[i]) - end[i]) / (2.0 * 0.1));
    close(&control.next, next);
    close(&control.delta, [0, 1].map(|i| next[i] - f64::from(c_k[i])));
}

#[test]
fn a_training_reports_every_step_and_stops_when_told() {
    let spec = digits::perceptron();
    let table = digits::table().select(&(0..70).collect::<Vec<_>>());
    let start = Builtin.initial(&spec, 1).unwrap();
    let work = plain(training(2, 32, 0.1));
    let mut seen: Vec<Progress> = Vec::new();
    let report = &mut |progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    };
    Builtin.train(&spec, &start, &table, &work, report).unwrap();
    let steps: Vec<_> = seen.iter().map(|p| (p.epoch, p.step, p.n_steps)).collect();
    assert_eq!(
        steps,
        [(0, 1, 6), (0, 2, 6), (0, 3, 6), (1, 4, 6), (1, 5, 6), (1, 6, 6)]
    );
    let stop = &mut |progress: Progress| {
        if progress.step == 4 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error = Builtin.train(&spec, &start, &table, &work, stop).unwrap_err();
    assert!(matches!(error, EngineError::Stopped { step: 4 }));
    assert_eq!(error.code(), Code::Stopped);
}

#[test]
fn a_training_that_diverges_says_so() {
    let (spec, table) = one_number();
    let error = train(&spec, &[0.0, 0.0], &table, plain(training(500, 4, 1000.0))).unwrap_err();
    assert!(matches!(error, EngineError::Diverged { .. }), "{error}");
    assert_eq!(error.code(), Code::Diverged);
    assert!(error.remedy().contains("learning rate"));
    // Through the ramp and the pooling too: a NaN must not be swallowed by a maximum.
    for architecture in [
        Architecture::Mlp { hidden: vec![8] },
        Architecture::Cnn {
            height: 8,
            width: 8,
            channels: 1,
            filters: vec![4],
            hidden: 8,
        },
    ] {
        let spec = digits::spec(architecture);
        let start = Builtin.initial(&spec, 1).unwrap();
        let error = train(&spec, &start, &digits::table(), plain(training(50, 32, 1000.0)));
        match error {
            Err(EngineError::Diverged { .. }) => {}
            // All ramps dead: finite, and honest about its loss.
            Ok(outcome) => assert!(outcome.loss.is_finite() && outcome.loss > 1.0, "{}", outcome.loss),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let spec = digits::perceptron();
    let table = digits::table();
    let start = Builtin.initial(&spec, 1).unwrap();
    let refused =
        |spec: &ModelSpec, start: &[f32], table: &Table, work| train(spec, start, table, work).unwrap_err();
    let good = plain(training(1, 32, 0.1));

    let error = refused(&spec, &start[1..], &table, good);
    assert!(matches!(
        error,
        EngineError::ParameterCount {
            expected: 2410,
            found: 2409,
            ..
        }
    ));
    let mut holed = start.clone();
    holed[7] = f32::INFINITY;
    assert!(matches!(
        refused(&spec, &holed, &table, good),
        EngineError::ParameterNotFinite { position: 7, .. }
    ));
    assert!(Builtin.load(&spec, &holed).is_err());
    assert!(Builtin.evaluate(&spec, &holed, &table).is_err());

    let other = digits::spec(Architecture::Linear);
    let narrow = Table::new(1, vec![0.0], Targets::Values(vec![0.0])).unwrap();
    assert!(matches!(
        refused(&spec, &start, &narrow, good),
        EngineError::TableMismatch { .. }
    ));
    let empty = table.select(&[]);
    assert!(matches!(
        refused(&spec, &start, &empty, good),
        EngineError::NoRows
    ));
    assert!(matches!(
        refused(&other, &start, &table, good),
        EngineError::ParameterCount { expected: 650, .. }
    ));

    for bad in [
        training(0, 32, 0.1),
        training(1, 0, 0.1),
        training(1, 32, f32::NAN),
        training(1, 32, -1.0),
    ] {
        assert_eq!(
            refused(&spec, &start, &table, plain(bad)).code(),
            Code::OutOfRange
        );
    }
    for mu in [f32::NAN, -0.1, f32::INFINITY] {
        let work = Work {
            rule: LocalRule::Prox { mu },
            ..good
        };
        assert_eq!(refused(&spec, &start, &table, work).code(), Code::OutOfRange);
    }
    let short = [0.0_f32; 3];
    let work = Work {
        rule: LocalRule::Scaffold {
            c: &start,
            c_k: &short,
        },
        ..good
    };
    assert!(matches!(
        refused(&spec, &start, &table, work),
        EngineError::ParameterCount { found: 3, .. }
    ));
}

#[test]
fn models_beyond_every_bound_are_refused_before_memory_is_taken() {
    let refused = |spec: &ModelSpec| Builtin.initial(spec, 1).unwrap_err();
    let wide = digits::spec(Architecture::Mlp {
        hidden: vec![65_536; 64],
    });
    assert!(
        matches!(refused(&wide), EngineError::Layout(_)),
        "{}",
        refused(&wide)
    );
    let too_wide = digits::spec(Architecture::Mlp { hidden: vec![65_537] });
    assert!(matches!(refused(&too_wide), EngineError::Spec(_)));
    let mut image = digits::spec(Architecture::Cnn {
        height: 128,
        width: 128,
        channels: 1,
        filters: vec![65_536],
        hidden: 1,
    });
    image.features = (0..16_384).map(|i| format!("p{i}")).collect();
    let error = refused(&image);
    assert!(matches!(error, EngineError::ExampleTooLarge { .. }));
    let rejection = Rejection::from(error);
    assert_eq!(rejection.code, Code::TooLarge);
    assert!(rejection.hint.contains("narrower"));
}

#[test]
fn an_epoch_sees_every_example_once_in_even_batches() {
    let spec = digits::spec(Architecture::Linear);
    for (n_rows, batch_size, n_batches) in [
        (70, 32, 3),
        (64, 32, 2),
        (65, 32, 3),
        (33, 32, 2),
        (5, 32, 1),
        (3, 1, 3),
    ] {
        let table = digits::table().select(&(0..n_rows).collect::<Vec<_>>());
        let start = Builtin.initial(&spec, 1).unwrap();
        // At so small a rate nothing moves, and the mean of the losses over an epoch is the loss of the table.
        let work = plain(training(1, batch_size, 1e-30));
        let outcome = train(&spec, &start, &table, work).unwrap();
        let loss = Builtin.evaluate(&spec, &start, &table).unwrap().loss;
        assert_eq!(outcome.n_steps, n_batches);
        assert!(
            (outcome.loss - loss).abs() < 1e-6,
            "{n_rows} rows: {} and {loss}",
            outcome.loss
        );
    }
}
