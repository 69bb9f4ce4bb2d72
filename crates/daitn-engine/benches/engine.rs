//! What the engine's work costs: a site's round, an epoch of a small convolutional network, an answer; and the same
//! step by the framework's automatic gradient, which the hand-written one has to beat to deserve its place.

use candle_core::{D, Device, Tensor, Var};
use daitn_engine::{Engine, Loaded, LocalRule, Table, Work, builtin::Builtin, data, weights};
use daitn_messages::learning::{Architecture, LocalTraining, ModelSpec, Task};
use divan::{Bencher, counter::ItemsCount};
use std::{ops::ControlFlow, path::Path};

fn main() {
    divan::main();
}

fn spec(architecture: Architecture) -> ModelSpec {
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

fn digits(file: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/digits")
        .join(file);
    data::read(&path, &spec(Architecture::Linear)).expect("the digits are part of the repository")
}

fn cnn() -> ModelSpec {
    spec(Architecture::Cnn {
        height: 8,
        width: 8,
        channels: 1,
        filters: vec![16, 32],
        hidden: 64,
    })
}

fn train(bencher: Bencher<'_, '_>, spec: &ModelSpec, n_rows: usize, epochs: u32) {
    let table = digits("digits.csv").select(&(0..n_rows).collect::<Vec<_>>());
    let start = Builtin.initial(spec, 1).expect("the model is valid");
    let training = LocalTraining {
        epochs,
        batch_size: 32,
        learning_rate: 0.1,
        seed: 0,
    };
    let work = Work {
        training,
        seed: 1,
        rule: LocalRule::Plain,
    };
    bencher
        .counter(ItemsCount::new(n_rows * epochs as usize))
        .bench(|| {
            Builtin
                .train(spec, &start, &table, &work, &mut |_| ControlFlow::Continue(()))
                .expect("it trains")
        });
}

/// A site's round in the demo: 143 images, two epochs, 2,410 parameters.
#[divan::bench]
fn round_of_a_site(bencher: Bencher<'_, '_>) {
    train(bencher, &spec(Architecture::Mlp { hidden: vec![32] }), 143, 2);
}

#[divan::bench]
fn epoch_perceptron_128_64(bencher: Bencher<'_, '_>) {
    train(
        bencher,
        &spec(Architecture::Mlp {
            hidden: vec![128, 64],
        }),
        1797,
        1,
    );
}

#[divan::bench(sample_count = 10)]
fn epoch_convolutional(bencher: Bencher<'_, '_>) {
    train(bencher, &cnn(), 1797, 1);
}

/// The same two epochs as `round_of_a_site` by automatic gradients.
#[divan::bench]
fn round_of_a_site_automatic(bencher: Bencher<'_, '_>) {
    let table = digits("digits.csv").select(&(0..143).collect::<Vec<_>>());
    bencher
        .counter(ItemsCount::new(286_usize))
        .bench(|| automatic(&table, 2));
}

#[divan::bench(sample_count = 5)]
fn epoch_convolutional_automatic(bencher: Bencher<'_, '_>) {
    let table = digits("digits.csv");
    bencher
        .counter(ItemsCount::new(1797_usize))
        .bench(|| automatic_convolutional(&table));
}

fn variable(shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).expect("it fits"))
        .expect("it is contiguous")
}

fn batches(table: &Table) -> impl Iterator<Item = (Tensor, Tensor)> {
    let daitn_engine::Targets::Classes { labels, .. } = table.targets() else {
        unreachable!("digits are classes")
    };
    table
        .features()
        .chunks(32 * 64)
        .zip(labels.chunks(32))
        .map(|(x, y)| {
            let x = Tensor::from_slice(x, (y.len(), 64), &Device::Cpu).expect("it fits");
            (
                x,
                Tensor::from_slice(y, (y.len(), 1), &Device::Cpu).expect("it fits"),
            )
        })
}

fn step(logits: &Tensor, labels: &Tensor, variables: &[&Var]) -> candle_core::Result<()> {
    let truth = logits.gather(labels, 1)?.mean_all()?;
    let loss = (logits.log_sum_exp(D::Minus1)?.mean_all()? - truth)?;
    let gradients = loss.backward()?;
    for variable in variables {
        let gradient = gradients.get(variable).expect("each variable is used");
        variable.set(&(variable.as_tensor() - (gradient * 0.1)?)?)?;
    }
    Ok(())
}

fn automatic(table: &Table, n_epochs: u32) {
    let [w0, b0, w1, b1] = [&[32, 64][..], &[32], &[10, 32], &[10]].map(variable);
    for _ in 0..n_epochs {
        for (x, labels) in batches(table) {
            let forward = || {
                let hidden = x.matmul(&w0.t()?)?.broadcast_add(&b0)?.relu()?;
                hidden.matmul(&w1.t()?)?.broadcast_add(&b1)
            };
            step(&forward().expect("it fits"), &labels, &[&w0, &b0, &w1, &b1]).expect("it trains");
        }
    }
}

fn automatic_convolutional(table: &Table) {
    let shapes = [
        &[16, 1, 3, 3][..],
        &[1, 16, 1, 1],
        &[32, 16, 3, 3],
        &[1, 32, 1, 1],
        &[64, 128],
        &[64],
    ];
    let [k0, c0, k1, c1, w0, b0] = shapes.map(variable);
    let [w1, b1] = [&[10, 64][..], &[10]].map(variable);
    for (x, labels) in batches(table) {
        let forward = || {
            let maps = x
                .reshape(((), 1, 8, 8))?
                .conv2d(&k0, 1, 1, 1, 1)?
                .broadcast_add(&c0)?;
            let maps = maps
                .relu()?
                .max_pool2d(2)?
                .conv2d(&k1, 1, 1, 1, 1)?
                .broadcast_add(&c1)?;
            let x = maps.relu()?.max_pool2d(2)?.flatten_from(1)?;
            x.matmul(&w0.t()?)?
                .broadcast_add(&b0)?
                .relu()?
                .matmul(&w1.t()?)?
                .broadcast_add(&b1)
        };
        let variables = [&k0, &c0, &k1, &c1, &w0, &b0, &w1, &b1];
        step(&forward().expect("it fits"), &labels, &variables).expect("it trains");
    }
}

fn loaded(spec: &ModelSpec) -> Box<dyn Loaded> {
    Builtin
        .load(spec, &Builtin.initial(spec, 1).expect("the model is valid"))
        .expect("they fit")
}

#[divan::bench(args = [1, 16, 256])]
fn answer_perceptron(bencher: Bencher<'_, '_>, n_rows: usize) {
    let model = loaded(&spec(Architecture::Mlp { hidden: vec![32] }));
    let inputs = vec![7.0; 64 * n_rows];
    bencher
        .counter(ItemsCount::new(n_rows))
        .bench(|| model.infer(&inputs).expect("it fits"));
}

#[divan::bench(args = [1, 16])]
fn answer_convolutional(bencher: Bencher<'_, '_>, n_rows: usize) {
    let model = loaded(&cnn());
    let inputs = vec![7.0; 64 * n_rows];
    bencher
        .counter(ItemsCount::new(n_rows))
        .bench(|| model.infer(&inputs).expect("it fits"));
}

#[divan::bench(args = ["digits.csv", "digits.parquet"])]
fn read_table(file: &str) -> Table {
    digits(file)
}

/// A million parameters through the header check and the check for finite numbers.
#[divan::bench]
fn read_weights(bencher: Bencher<'_, '_>) {
    let layout = daitn_engine::Layout::vectors(&[("x", 1_000_000)]).expect("a layout");
    let bytes = weights::write(&vec![0.5; 1_000_000], &layout).expect("they fit");
    bencher
        .counter(divan::counter::BytesCount::new(bytes.len()))
        .bench(|| weights::read(&bytes, &layout).expect("it was written so"));
}
