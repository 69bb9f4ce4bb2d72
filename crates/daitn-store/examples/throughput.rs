//! Durable records a second by number of concurrent writers: `cargo run --release -p daitn-store --example throughput`.
//! Each record has 300 bytes and is acknowledged after its fsync.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use daitn_store::{Batch, Family, Store};
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()))?;
    for n_writers in [1u64, 16, 64, 256, 1024] {
        let store = Store::open(directory.path().join(n_writers.to_string())).await?;
        let started = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..n_writers {
            let store = store.clone();
            tasks.spawn(async move {
                let mut n = 0u64;
                while started.elapsed() < RUN {
                    let mut batch = Batch::new();
                    batch.put_bytes(Family::Receipts, format!("{writer:04}/{n:012}"), vec![7; 300]);
                    if store.commit("bench", batch).await.is_err() {
                        break;
                    }
                    n += 1;
                }
                n
            });
        }
        let n_records: u64 = tasks.join_all().await.into_iter().sum();
        let seconds = started.elapsed().as_secs_f64();
        let stats = store.stats();
        println!(
            "{n_writers:>5} writers: {:>8.0} records/s, {:>6.0} commits/s, {:>6.1} records a commit",
            n_records as f64 / seconds,
            stats.groups as f64 / seconds,
            n_records as f64 / stats.groups as f64,
        );
        store.close().await;
    }
    Ok(())
}
