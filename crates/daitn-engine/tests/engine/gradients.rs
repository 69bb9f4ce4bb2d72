//! The hand-written gradients against finite differences and against the framework's automatic ones.
//!
//! A gradient is seen from outside as what one step of SGD at rate 1 on the whole table takes away.

use candle_core::{D, Device, Tensor, Var};
use daitn_engine::{Engine, Layout, LocalRule, Table, Targets, Work, builtin::Builtin};
use daitn_learning::random::SplitMix64;
use daitn_messages::learning::{Architecture, LocalTraining, ModelSpec, Task};
use std::ops::ControlFlow;

const N_ROWS: usize = 23;

fn spec(architecture: Architecture, n_features: usize, n_classes: Option<usize>) -> ModelSpec {
    ModelSpec {
        architecture,
        features: (0..n_features).map(|i| format!("x{i}")).collect(),
        target: "y".to_owned(),
        task: n_classes.map_or(Task::Regression, |n| Task::Classification {
            classes: (0..n).map(|i| i.to_string()).collect(),
        }),
        scale: 1.0,
        offset: 0.0,
    }
}

fn table(spec: &ModelSpec, seed: u64) -> Table {
    let mut random = SplitMix64::new(seed);
    let n = N_ROWS * spec.features.len();
    let features = (0..n).map(|_| random.normal() as f32).collect();
    let targets = match &spec.task {
        Task::Regression => Targets::Values((0..N_ROWS).map(|_| random.normal() as f32).collect()),
        Task::Classification { classes } => Targets::Classes {
            labels: (0..N_ROWS).map(|_| random.below(classes.len()) as u32).collect(),
            n_classes: classes.len(),
        },
    };
    Table::new(spec.features.len(), features, targets).unwrap()
}

fn gradient(spec: &ModelSpec, parameters: &[f32], table: &Table) -> Vec<f32> {
    let training = LocalTraining {
        epochs: 1,
        batch_size: N_ROWS as u32,
        learning_rate: 1.0,
        seed: 0,
    };
    let work = Work {
        training,
        seed: 1,
        rule: LocalRule::Plain,
    };
    let go = &mut |_| ControlFlow::Continue(());
    let outcome = Builtin.train(spec, parameters, table, &work, go).unwrap();
    parameters
        .iter()
        .zip(outcome.parameters)
        .map(|(before, after)| before - after)
        .collect()
}

fn models(height: u32, width: u32) -> Vec<ModelSpec> {
    let n_pixels = (height * width) as usize;
    let cnn = |filters: &[u32], channels| Architecture::Cnn {
        height,
        width,
        channels,
        filters: filters.to_vec(),
        hidden: 9,
    };
    vec![
        spec(Architecture::Linear, 11, Some(4)),
        spec(Architecture::Linear, 11, None),
        spec(Architecture::Mlp { hidden: vec![13, 8] }, 11, Some(4)),
        spec(Architecture::Mlp { hidden: vec![13] }, 11, None),
        spec(cnn(&[3], 1), n_pixels, Some(4)),
        spec(cnn(&[3, 5], 2), 2 * n_pixels, Some(4)),
        spec(cnn(&[3], 1), n_pixels, None),
    ]
}

/// The same model in the framework's own operators, from its parameters' names and shapes alone.
fn automatic(spec: &ModelSpec, layout: &Layout, parameters: &[f32], table: &Table) -> Vec<f32> {
    let vars: Vec<Var> = (0..layout.tensors().len())
        .map(|i| {
            let shape = layout.tensors()[i].shape.clone();
            let tensor = Tensor::from_slice(&parameters[layout.range(i)], shape, &Device::Cpu).unwrap();
            Var::from_tensor(&tensor).unwrap()
        })
        .collect();
    let mut x = Tensor::from_slice(table.features(), (N_ROWS, table.n_features()), &Device::Cpu).unwrap();
    if let Architecture::Cnn {
        height,
        width,
        channels,
        ..
    } = &spec.architecture
    {
        x = x
            .reshape((N_ROWS, *channels as usize, *height as usize, *width as usize))
            .unwrap();
    }
    for (pair, tensors) in vars.chunks(2).zip(layout.tensors().chunks(2)) {
        let (bias, weight) = (pair[0].as_tensor(), pair[1].as_tensor());
        assert!(tensors[0].name.ends_with(".bias") && tensors[1].name.ends_with(".weight"));
        if tensors[1].shape.len() == 4 {
            let bias = bias.reshape((1, (), 1, 1)).unwrap();
            let maps = x
                .conv2d(weight, 1, 1, 1, 1)
                .unwrap()
                .broadcast_add(&bias)
                .unwrap();
            // Not `max_pool2d`, whose automatic gradient is a quarter of what it should be (candle 0.11).
            let (n, c, h, w) = maps.dims4().unwrap();
            let squares = maps.relu().unwrap().reshape(&[n, c, h / 2, 2, w / 2, 2]).unwrap();
            x = squares.max(5).unwrap().max(3).unwrap();
        } else {
            x = x
                .flatten_from(1)
                .unwrap()
                .matmul(&weight.t().unwrap())
                .unwrap()
                .broadcast_add(bias)
                .unwrap();
            if tensors[0].name != layout.tensors()[layout.tensors().len() - 2].name {
                x = x.relu().unwrap();
            }
        }
    }
    let loss = match table.targets() {
        Targets::Values(values) => {
            let values = Tensor::from_slice(values, (N_ROWS, 1), &Device::Cpu).unwrap();
            (x - values).unwrap().sqr().unwrap().mean_all().unwrap()
        }
        Targets::Classes { labels, .. } => {
            let labels = Tensor::from_slice(labels, (N_ROWS, 1), &Device::Cpu).unwrap();
            let normaliser = x.log_sum_exp(D::Minus1).unwrap().mean_all().unwrap();
            (normaliser - x.gather(&labels, 1).unwrap().mean_all().unwrap()).unwrap()
        }
    };
    let gradients = loss.backward().unwrap();
    vars.iter()
        .flat_map(|var| {
            gradients
                .get(var)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        })
        .collect()
}

#[test]
fn gradients_are_the_automatic_ones() {
    // Sides that stay even: the reference's pooling leaves no row out.
    for (seed, spec) in (1..).zip(models(8, 4)) {
        let layout = Builtin.layout(&spec).unwrap();
        let parameters = Builtin.initial(&spec, seed).unwrap();
        let table = table(&spec, seed);
        let ours = gradient(&spec, &parameters, &table);
        let theirs = automatic(&spec, &layout, &parameters, &table);
        let largest = theirs.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            let name = &layout.tensor_at(i).unwrap().name;
            assert!(
                (a - b).abs() < 2e-6 * (1.0 + largest),
                "{spec:?} {name}: {a} and {b}"
            );
        }
        assert!(largest > 0.01, "a gradient of nothing proves nothing");
    }
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for (seed, spec) in (10..).zip(models(7, 6)) {
        let mut parameters = Builtin.initial(&spec, seed).unwrap();
        let table = table(&spec, seed);
        let ours = gradient(&spec, &parameters, &table);
        let mut random = SplitMix64::new(seed);
        let mut n_far = 0;
        for _ in 0..60 {
            let i = random.below(parameters.len());
            let at = parameters[i];
            let mut loss = |x| {
                parameters[i] = x;
                Builtin.evaluate(&spec, &parameters, &table).unwrap().loss
            };
            // Wide enough that rounding (1e-7 of the loss) does not drown the difference, and hardly a ramp switches.
            let (low, high) = (at - 1e-3, at + 1e-3);
            let difference = (loss(high) - loss(low)) / (f64::from(high) - f64::from(low));
            loss(at);
            // A ramp or a maximum that switches in between makes single differences wrong, not most.
            n_far += u32::from((difference - f64::from(ours[i])).abs() > 3e-3 * (1.0 + difference.abs()));
        }
        assert!(
            n_far <= 3,
            "{spec:?}: {n_far} of 60 are not the difference of the loss"
        );
    }
}

#[test]
fn a_batch_beyond_the_working_memory_gives_the_same_gradient() {
    // One row of this model needs 2·9·(64·64)·… numbers, so that 600 rows take several passes.
    let architecture = Architecture::Cnn {
        height: 64,
        width: 64,
        channels: 1,
        filters: vec![8],
        hidden: 4,
    };
    let spec = spec(architecture, 4096, Some(3));
    let mut random = SplitMix64::new(3);
    let n_rows = 400;
    let features: Vec<f32> = (0..n_rows * 4096).map(|_| random.normal() as f32).collect();
    let labels: Vec<u32> = (0..n_rows).map(|_| random.below(3) as u32).collect();
    let all = Table::new(4096, features, Targets::Classes { labels, n_classes: 3 }).unwrap();
    let parameters = Builtin.initial(&spec, 3).unwrap();
    let step = |table: &Table| {
        let batch_size = table.n_rows() as u32;
        let training = LocalTraining {
            epochs: 1,
            batch_size,
            learning_rate: 1.0,
            seed: 0,
        };
        let work = Work {
            training,
            seed: 0,
            rule: LocalRule::Plain,
        };
        let after = Builtin
            .train(&spec, &parameters, table, &work, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let moved = parameters
            .iter()
            .zip(&after.parameters)
            .map(|(x, y)| f64::from(*x) - f64::from(*y));
        (moved.collect::<Vec<f64>>(), after.loss)
    };
    let (whole, loss) = step(&all);
    // The mean over equal parts, each small enough for one pass, is the mean over all.
    let parts: Vec<_> = (0..10)
        .map(|k| step(&all.select(&(k * 40..(k + 1) * 40).collect::<Vec<_>>())))
        .collect();
    let mean_loss = parts.iter().map(|part| part.1).sum::<f64>() / 10.0;
    assert!((loss - mean_loss).abs() < 1e-5, "{loss} and {mean_loss}");
    for (i, w) in whole.iter().enumerate() {
        let mean = parts.iter().map(|part| part.0[i]).sum::<f64>() / 10.0;
        assert!((w - mean).abs() < 1e-5, "{i}: {w} and {mean}");
    }
}
