//! SIGKILL at a random moment, again and again: what a child process was told is durable is there afterwards, and
//! nothing of a batch is there without the rest.
//!
//! SIGKILL spares the page cache, so this shows that an acknowledgement comes after the commit and that a torn
//! transaction rolls back; that a commit reaches the disk is shown by `a_commit_is_fsynced_before_it_is_acknowledged`.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail by panicking")]

use daitn_messages::{
    ids::ArtifactId,
    leaf::{Leaf, LeafKind},
    units::UnixMillis,
};
use daitn_store::{Batch, Family, Store};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Set for the child: where its database is.
const DATABASE: &str = "DAITN_STORE_TEST_DATABASE";

fn child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "writes_until_it_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: what [`child`] runs. Writes pairs of records with a leaf and prints each number once it was
/// told that they are durable.
#[test]
#[ignore = "run as a child process by the other tests"]
fn writes_until_it_is_killed() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(&path).await.unwrap();
        let first = store.count(Family::Jobs).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..8u64 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0u64.. {
                    let number = (first + n) * 8 + lane;
                    let mut batch = Batch::new();
                    batch.put(Family::Jobs, format!("{number:012}"), &number);
                    batch.put(Family::Orders, format!("{number:012}"), &number);
                    let hash = ArtifactId::of(&number.to_le_bytes());
                    batch.leaf(Leaf::new(
                        LeafKind::Plan,
                        UnixMillis(number),
                        number.to_string(),
                        hash,
                    ));
                    store.commit("pair", batch).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "durable {number}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn acknowledged_writes_outlive_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut acknowledged: Vec<u64> = Vec::new();
    for kill in 0..12u32 {
        let mut process = child(&path);
        // The moment differs each time: after so many acknowledgements, in the middle of whatever comes next.
        let after = 1 + (kill * 37) % 101;
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut n_seen = 0;
        while n_seen < after {
            let line = lines.next().expect("the child died by itself").unwrap();
            if let Some(number) = line.split("durable ").nth(1) {
                acknowledged.push(number.parse().unwrap());
                n_seen += 1;
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // Printed before the kill, so acknowledged as well. The last line may be torn.
        for line in lines.map_while(Result::ok) {
            let number = line.split("durable ").nth(1).and_then(|n| n.parse::<u64>().ok());
            acknowledged.extend(number.filter(|_| line.starts_with("durable")));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(&path).await.unwrap();
        let keys = |records: Vec<daitn_store::Record>| -> Vec<u64> {
            records.iter().map(|r| r.key.parse().unwrap()).collect()
        };
        let jobs = keys(store.load(Family::Jobs, "").await.unwrap());
        let orders = keys(store.load(Family::Orders, "").await.unwrap());
        assert_eq!(jobs, orders, "half a batch is there");
        let mut leaves = Vec::new();
        loop {
            let page = store.leaves(leaves.len() as u64, 1_000).await.unwrap();
            if page.is_empty() {
                break;
            }
            leaves.extend(page.into_iter().map(|(_, leaf)| leaf.at.0));
        }
        leaves.sort_unstable();
        leaves.dedup();
        assert_eq!(leaves, jobs, "leaves and records are not of the same batches");
        assert!(acknowledged.len() >= 400);
        for number in acknowledged {
            assert!(
                jobs.binary_search(&number).is_ok(),
                "{number} was acknowledged and is gone"
            );
        }
    });
}

/// Counts the calls that push the WAL to the disk by the kernel's own trace of the child.
#[test]
fn a_commit_is_fsynced_before_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let trace = directory.path().join("trace");
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,write", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args([
            "writes_until_it_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DATABASE, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut process) = strace else {
        println!("strace is not installed: this was not checked");
        return;
    };
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let acknowledged = lines
        .map_while(Result::ok)
        .filter(|line| line.contains("durable "))
        .take(100)
        .count();
    process.kill().unwrap();
    process.wait().unwrap();
    if acknowledged == 0 {
        println!("strace may not trace here: this was not checked");
        return;
    }
    // A run of acknowledgements without a sync between may be at most one group: the 8 lanes' batches.
    let trace = std::fs::read_to_string(&trace).unwrap();
    let mut since_sync = None;
    let mut n_acknowledged = 0;
    for line in trace.lines() {
        if line.contains("sync(") || line.contains("sync resumed") {
            since_sync = Some(0);
        } else if line.contains("write(") && line.contains("durable ") {
            n_acknowledged += 1;
            let count = since_sync.as_mut().expect("acknowledged before any sync");
            *count += 1;
            assert!(
                *count <= 8,
                "more acknowledgements after one sync than there are writers"
            );
        }
    }
    assert!(
        n_acknowledged >= 100,
        "the trace shows {n_acknowledged} acknowledgements"
    );
}
