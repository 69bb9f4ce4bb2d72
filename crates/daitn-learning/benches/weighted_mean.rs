//! Throughput of the weighted mean, in bytes of updates read for each second on one core, and its peak memory for
//! different numbers of sites. Run with `cargo bench -p daitn-learning`.

use daitn_learning::{
    admission,
    aggregation::{Mean, Term, mean_of},
    server::{Form, Server, Update},
};
use daitn_messages::learning::Strategy;
use divan::{AllocProfiler, Bencher, black_box, counter::BytesCount};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Together larger than any cache, so that the updates come from memory as they would from the page cache.
const TOTAL_PARAMETERS: usize = 64 * 1024 * 1024;

fn main() {
    divan::main();
}

fn update(n_parameters: usize) -> Vec<f32> {
    (0..n_parameters)
        .map(|i| (i % 1999) as f32 / 1000.0 - 1.0)
        .collect()
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[divan::bench(args = [2, 10, 100, 1000], sample_count = 5)]
fn streamed(bencher: Bencher<'_, '_>, n_sites: usize) {
    let n_parameters = TOTAL_PARAMETERS / n_sites;
    let updates: Vec<Vec<u8>> = (0..n_sites)
        .map(|_| little_endian(&update(n_parameters)))
        .collect();
    bencher
        .counter(BytesCount::of_many::<f32>(n_sites * n_parameters))
        .bench_local(|| {
            let terms = (1..).zip(&updates).map(|(n, bytes)| Term {
                weight: f64::from(n),
                reader: bytes.as_slice(),
            });
            let mut mean = Mean::new(terms.collect(), n_parameters).expect("weights are positive");
            while let Some(chunk) = mean.next_chunk().expect("updates are whole") {
                black_box(chunk);
            }
        });
}

#[divan::bench(sample_count = 5)]
fn in_memory(bencher: Bencher<'_, '_>) {
    let n_sites = 10;
    let n_parameters = TOTAL_PARAMETERS / n_sites;
    let updates: Vec<Vec<f32>> = (0..n_sites).map(|_| update(n_parameters)).collect();
    bencher
        .counter(BytesCount::of_many::<f32>(n_sites * n_parameters))
        .bench_local(|| {
            let slices: Vec<_> = (1..)
                .zip(&updates)
                .map(|(n, values)| (f64::from(n), values.as_slice()))
                .collect();
            mean_of(&slices).expect("updates are whole")
        });
}

#[divan::bench(sample_count = 5)]
fn round_of_fed_adam(bencher: Bencher<'_, '_>) {
    let n_sites = 10;
    let n_parameters = TOTAL_PARAMETERS / n_sites;
    let bytes = little_endian(&update(n_parameters));
    let strategy = Strategy::FedAdam {
        eta: 0.03,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    };
    let mut server = Server::new(strategy, vec![0.0; n_parameters]).expect("settings are sound");
    bencher
        .counter(BytesCount::of_many::<f32>(n_sites * n_parameters))
        .bench_local(|| {
            let updates = (0..n_sites).map(|_| Update {
                n_examples: 100,
                clip: 1.0,
                reader: bytes.as_slice(),
            });
            server
                .aggregate(Form::Weights, updates.collect(), None)
                .expect("updates are whole");
        });
}

#[divan::bench(sample_count = 5)]
fn inspection(bencher: Bencher<'_, '_>) {
    let bytes = little_endian(&update(TOTAL_PARAMETERS / 4));
    let base = vec![0.5; TOTAL_PARAMETERS / 4];
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
        admission::inspect(&mut bytes.as_slice(), base.len(), Some(&base)).expect("the update is whole")
    });
}
