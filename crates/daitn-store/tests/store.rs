//! The store as its callers see it: what is written is read back, what is broken is named.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail by panicking")]

use daitn_messages::{
    ids::{ArtifactId, OrganisationId},
    leaf::{Leaf, LeafKind},
    rejection::Code,
    units::UnixMillis,
};
use daitn_store::{Batch, Family, Store, StoreError, StoreOptions};
use proptest::prelude::*;
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path};

fn leaf(n: u64) -> Leaf {
    let concerned: OrganisationId = "st-mary".parse().unwrap();
    Leaf::new(
        LeafKind::Plan,
        UnixMillis(n),
        format!("subject {n}"),
        ArtifactId::of(&n.to_le_bytes()),
    )
    .concerning([&concerned])
}

fn put(family: Family, key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(family, key, &value);
    batch
}

async fn keys(store: &Store, family: Family, prefix: &str) -> Vec<String> {
    store
        .load(family, prefix)
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.key)
        .collect()
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/center.db");
    let store = Store::open(&path).await.unwrap();
    let mut batch = put(Family::Jobs, "job-1", "running");
    batch.put(Family::Jobs, "job-2", &"planned");
    batch.delete(Family::Jobs, "job-2");
    batch.leaf(leaf(0));
    batch.leaf(leaf(1));
    assert_eq!(store.commit("first", batch).await.unwrap().first_leaf, 0);
    let mut batch = put(Family::Jobs, "job-1", "done");
    batch.leaf(leaf(2));
    assert_eq!(store.commit("second", batch).await.unwrap().first_leaf, 2);
    assert_eq!(store.stats().transactions["first"].committed, 1);
    store.close().await;
    assert_eq!(store.commit("late", Batch::new()).await, Err(StoreError::Closed));

    let store = Store::open(&path).await.unwrap();
    let job = store.get(Family::Jobs, "job-1").await.unwrap().unwrap();
    assert_eq!(job.decode::<String>().unwrap(), "done");
    assert_eq!(store.get(Family::Jobs, "job-2").await.unwrap(), None);
    assert_eq!(store.get(Family::Plans, "job-1").await.unwrap(), None);
    assert_eq!(
        store.leaves(1, 10).await.unwrap(),
        vec![(1, leaf(1)), (2, leaf(2))]
    );
    let mut batch = Batch::new();
    batch.leaf(leaf(3));
    assert_eq!(store.commit("third", batch).await.unwrap().first_leaf, 3);
    assert_eq!(store.count(Family::Jobs).await.unwrap(), 1);
}

#[tokio::test]
async fn prefixes_and_pages_cut_in_key_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("db")).await.unwrap();
    let mut batch = Batch::new();
    for n in 0..2_500 {
        batch.put(Family::JobParts, format!("job-a/{n:06}"), &n);
    }
    batch.put(Family::JobParts, "job-b/000000", &1);
    store.commit("many", batch).await.unwrap();
    let expected: Vec<String> = (0..2_500).map(|n| format!("job-a/{n:06}")).collect();
    assert_eq!(keys(&store, Family::JobParts, "job-a/").await, expected);
    assert_eq!(keys(&store, Family::JobParts, "").await.len(), 2_501);
    let page = store
        .page(Family::JobParts, "job-a/", Some("job-a/002497"), 10)
        .await
        .unwrap();
    assert_eq!(
        page.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(),
        ["job-a/002498", "job-a/002499"]
    );
}

#[tokio::test]
async fn a_second_opener_is_told_and_files_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/db");
    let store = Store::open(&path).await.unwrap();
    store.commit("one", put(Family::Meta, "a", "b")).await.unwrap();
    assert_eq!(
        Store::open(&path).await.unwrap_err(),
        StoreError::Locked { path: path.clone() }
    );
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(names.contains(&"db-wal".to_owned()), "not in WAL mode: {names:?}");
    store.close().await;
    Store::open(&path).await.unwrap();
}

#[tokio::test]
async fn foreign_newer_and_garbage_files_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let newer = directory.path().join("newer");
    Store::open(&newer).await.unwrap().close().await;
    // SQLite's file format: user_version is the big-endian number at offset 60.
    let mut bytes = std::fs::read(&newer).unwrap();
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&newer, &bytes).unwrap();
    let error = Store::open(&newer).await.unwrap_err();
    assert!(
        matches!(error, StoreError::NewerSchema { found: 99, .. }),
        "{error}"
    );
    assert!(error.rejection().hint_or_page().contains("version"));

    let foreign = directory.path().join("foreign");
    bytes[60..64].copy_from_slice(&0u32.to_be_bytes());
    bytes[68..72].copy_from_slice(&7u32.to_be_bytes());
    std::fs::write(&foreign, &bytes).unwrap();
    assert!(matches!(
        Store::open(&foreign).await.unwrap_err(),
        StoreError::Foreign { .. }
    ));
    assert_eq!(std::fs::read(&foreign).unwrap(), bytes);

    let garbage = directory.path().join("garbage");
    std::fs::write(
        &garbage,
        "this is not a database, but long enough to be looked at as one ".repeat(99),
    )
    .unwrap();
    let error = Store::open(&garbage).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Changes one byte of the only place in the file where `needle` is.
fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<usize> = (0..bytes.len() - needle.len())
        .filter(|i| &bytes[*i..*i + needle.len()] == needle)
        .collect();
    assert_eq!(places.len(), 1, "the marker must be there once");
    bytes[places[0]] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn one_flipped_bit_is_named_by_table_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = Store::open(&path).await.unwrap();
    store
        .commit("good", put(Family::Plans, "plan-1", "untouched"))
        .await
        .unwrap();
    store
        .commit("bad", put(Family::Plans, "plan-2", "canary-in-a-record"))
        .await
        .unwrap();
    let mut batch = Batch::new();
    batch.leaf(Leaf::new(
        LeafKind::Key,
        UnixMillis(1),
        "canary-in-a-leaf".into(),
        ArtifactId([1; 32]),
    ));
    store.commit("leaf", batch).await.unwrap();
    store.close().await;
    flip(&path, b"canary-in-a-record");
    flip(&path, b"canary-in-a-leaf");

    let store = Store::open(&path).await.unwrap();
    assert!(store.get(Family::Plans, "plan-1").await.unwrap().is_some());
    let corrupted = |table, key: &str| StoreError::Corrupted {
        table,
        key: key.to_owned(),
    };
    assert_eq!(
        store.get(Family::Plans, "plan-2").await,
        Err(corrupted("plans", "plan-2"))
    );
    assert_eq!(
        store.load(Family::Plans, "").await,
        Err(corrupted("plans", "plan-2"))
    );
    assert_eq!(store.leaves(0, 10).await, Err(corrupted("leaves", "0")));
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_of_the_batch_stays() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        path: directory.path().join("db"),
        bytes_max: Some(512 * 1024),
    };
    let store = Store::open_with(options.clone()).await.unwrap();
    store
        .commit("small", put(Family::Jobs, "job-1", "kept"))
        .await
        .unwrap();
    let mut batch = put(Family::Jobs, "job-2", "lost");
    batch.put(Family::Plans, "plan", &"x".repeat(1024 * 1024));
    batch.leaf(leaf(0));
    let error = store.commit("large", batch).await.unwrap_err();
    assert_eq!(error, StoreError::Full { transaction: "large" });
    assert_eq!(error.rejection().code, Code::ControlUnavailable);
    assert_eq!(keys(&store, Family::Jobs, "").await, ["job-1"]);
    // It goes on where there is room, and no leaf index was lost.
    let mut batch = put(Family::Jobs, "job-3", "kept");
    batch.leaf(leaf(7));
    assert_eq!(store.commit("after", batch).await.unwrap().first_leaf, 0);
    assert_eq!(store.stats().transactions["large"].failed, 1);
}

#[tokio::test]
async fn batches_over_a_bound_are_refused_before_they_reach_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("db")).await.unwrap();
    let long_key = "k".repeat(513);
    let error = store
        .commit("key", put(Family::Jobs, &long_key, "v"))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        StoreError::TooLarge {
            found: 513,
            max: 512,
            ..
        }
    ));
    let mut batch = Batch::new();
    for _ in 0..=daitn_store::BATCH_RECORDS_MAX {
        batch.delete(Family::Jobs, "k");
    }
    assert!(matches!(
        store.commit("many", batch).await,
        Err(StoreError::TooLarge { .. })
    ));
    assert_eq!(store.stats().groups, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_commits_and_leaves_have_no_gap() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("db")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..64u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut indices = Vec::new();
            for n in 0..20u64 {
                let mut batch = put(Family::Orders, &format!("{writer:02}/{n:02}"), "order");
                batch.leaf(leaf(writer * 100 + n));
                let index = store.commit("order", batch).await.unwrap().first_leaf;
                indices.push((index, leaf(writer * 100 + n)));
            }
            indices
        });
    }
    let mut expected: Vec<(u64, Leaf)> = tasks.join_all().await.into_iter().flatten().collect();
    expected.sort_by_key(|(index, _)| *index);
    let found = [
        store.leaves(0, 1_000).await.unwrap(),
        store.leaves(1_000, 1_000).await.unwrap(),
    ]
    .concat();
    assert_eq!(found, expected);
    assert_eq!(store.count(Family::Orders).await.unwrap(), 64 * 20);
    let stats = store.stats();
    assert_eq!(stats.records, 2 * 64 * 20);
    assert!(
        stats.groups < 64 * 20,
        "each batch had a transaction of its own: {}",
        stats.groups
    );
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8, Vec<u8>),
    Delete(usize, u8),
    Commit,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let family = 0..Family::ALL.len();
    prop_oneof![
        4 => (family.clone(), 0..8u8, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(f, k, v)| Step::Put(f, k, v)),
        1 => (family, 0..8u8).prop_map(|(f, k)| Step::Delete(f, k)),
        2 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_equals_a_map_of_what_was_committed(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("db");
            let mut store = Store::open(&path).await.unwrap();
            let mut committed: BTreeMap<(Family, String), Vec<u8>> = BTreeMap::new();
            let mut pending = committed.clone();
            let mut batch = Batch::new();
            for step in steps {
                match step {
                    Step::Put(family, key, value) => {
                        let (family, key) = (Family::ALL[family], format!("k{key}"));
                        pending.insert((family, key.clone()), value.clone());
                        batch.put_bytes(family, key, value);
                    }
                    Step::Delete(family, key) => {
                        let (family, key) = (Family::ALL[family], format!("k{key}"));
                        pending.remove(&(family, key.clone()));
                        batch.delete(family, key);
                    }
                    Step::Commit => {
                        store.commit("step", std::mem::take(&mut batch)).await.unwrap();
                        committed = pending.clone();
                    }
                    Step::Reopen => {
                        store.close().await;
                        store = Store::open(&path).await.unwrap();
                        batch = Batch::new();
                        pending = committed.clone();
                    }
                }
            }
            let mut found = BTreeMap::new();
            for family in Family::ALL {
                for record in store.load(*family, "").await.unwrap() {
                    found.insert((*family, record.key), record.value);
                }
            }
            assert_eq!(found, committed);
        });
    }
}
