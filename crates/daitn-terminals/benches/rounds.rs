//! Time of a round minus the slowest site's own training: ten sites and a conductor, each a node with its own endpoint
//! and its own state on disk, all in one process. Prints one line of JSON; run with `cargo bench -p daitn-terminals`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark prints, and fails loudly"
)]

#[allow(dead_code, unused_imports, reason = "the tests use all of it")]
#[path = "../tests/nodes/lab/mod.rs"]
mod lab;

use lab::{Job, Lab, aggregator, sites};

const SITES: usize = 10;
const ROUNDS: u32 = 100;

fn main() {
    // `cargo test` runs benchmarks as well: it only wants to see that they compile.
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut overheads, mut rounds) = runtime.block_on(measure());
    overheads.sort_by(f64::total_cmp);
    rounds.sort_by(f64::total_cmp);
    let at = |values: &[f64], percent: usize| values[(values.len() - 1) * percent / 100];
    println!(
        "{{\"sites\":{SITES},\"rounds\":{ROUNDS},\"overhead_ms_p50\":{:.1},\"overhead_ms_p95\":{:.1},\"round_ms_p50\":{:.1}}}",
        at(&overheads, 50),
        at(&overheads, 95),
        at(&rounds, 50)
    );
}

async fn measure() -> (Vec<f64>, Vec<f64>) {
    let lab = Lab::new().await;
    let (_nodes, sites, _) = sites(&lab, SITES).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let job = Job::rounds(&lab, sites, &conductor, ROUNDS);
    let (order, _) = job.run().await;
    let cycles = lab.cycles(&order);
    assert_eq!(cycles.len(), ROUNDS as usize);
    cycles
        .iter()
        .map(|report| (report.cycle_ms - report.train_ms, report.cycle_ms))
        .unzip()
}
