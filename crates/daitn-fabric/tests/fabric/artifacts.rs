//! Fetching artifacts: whole, from several holders, again after a break, and only with the right to.

use crate::lab::{GIB, bytes_of, endpoint, holder, introduce, reference, store, store_with, to_anybody};
use daitn_fabric::{
    Refusal, Routes, SessionError,
    artifact::{Durability, Fetch, FetchError, HolderFailure, Progress, Store, StoreError},
};
use daitn_messages::{ids::NodeId, rejection::Code};
use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

const PIECE: usize = 256 * 1024;

fn silent(_: Progress) {}

#[tokio::test]
async fn a_small_artifact_takes_one_stream() {
    let (_a, there) = store();
    let (_b, here) = store();
    let (server, client) = (holder(1, &there).await, endpoint(2).await);
    introduce(&server, &client);
    for (n, len) in [0, 1, 9_640, PIECE].into_iter().enumerate() {
        let bytes = bytes_of(n as u64, len);
        there.put_bytes(bytes.clone(), Durability::Durable).await.unwrap();
        let fetch = Fetch::new(reference(&bytes), vec![server.node()]);
        let report = client.fetch(&here, fetch.clone(), silent).await.unwrap();
        assert_eq!((report.bytes_fetched, report.bytes_resumed), (len as u64, 0));
        assert_eq!(here.read(fetch.artifact.id, GIB).await.unwrap(), bytes);
        assert_eq!(client.metrics().streams_opened_total, n as u64 + 1);
        let again = client.fetch(&here, fetch, silent).await.unwrap();
        assert_eq!((again.bytes_fetched, again.bytes_resumed), (0, len as u64));
    }
}

#[tokio::test]
async fn a_large_artifact_comes_from_several_holders() {
    let bytes = bytes_of(1, 20 << 20);
    let (_c, here) = store();
    let client = endpoint(9).await;
    let mut holders = Vec::new();
    let mut kept = Vec::new();
    for key in 1..4 {
        let (directory, there) = store();
        there
            .put_bytes(bytes.clone(), Durability::Transient)
            .await
            .unwrap();
        let server = holder(key, &there).await;
        introduce(&server, &client);
        holders.push(server.node());
        kept.push((directory, server));
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let fetch = Fetch::new(reference(&bytes), holders.clone());
    let report = client
        .fetch(&here, fetch.clone(), move |p| note.lock().unwrap().push(p))
        .await
        .unwrap();
    assert!(here.read(fetch.artifact.id, GIB).await.unwrap() == bytes);
    let mut delivered: Vec<NodeId> = report.by_holder.iter().map(|(node, _)| *node).collect();
    delivered.sort_unstable();
    holders.sort_unstable();
    assert_eq!(delivered, holders, "each of them has delivered some");
    assert_eq!(
        report.by_holder.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        bytes.len() as u64
    );
    let mut seen: Vec<u64> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|progress| progress.bytes_here)
        .collect();
    seen.sort_unstable();
    let expected: Vec<u64> = (1..=80).map(|n| n * PIECE as u64).collect();
    assert_eq!(seen, expected, "one call for each piece");
    let sent: u64 = kept
        .iter()
        .map(|(_, server)| server.metrics().artifact_bytes_sent_total)
        .sum();
    assert_eq!(sent, bytes.len() as u64, "nothing was moved twice");
    assert_eq!(here.bytes_used(), bytes.len() as u64);
}

#[tokio::test]
async fn the_node_that_dialled_in_can_be_the_holder() {
    let bytes = bytes_of(1, 2 << 20);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let (site, conductor) = (holder(1, &there).await, holder(2, &here).await);
    // Only the site knows the conductor.
    introduce(&conductor, &site);
    let mut link = site.keep_connected(conductor.node(), daitn_fabric::DATA_ALPN);
    link.connected()
        .await
        .unwrap()
        .probe(daitn_fabric::Effort::default())
        .await
        .unwrap();
    let fetch = Fetch::new(reference(&bytes), vec![site.node()]);
    conductor.fetch(&here, fetch.clone(), silent).await.unwrap();
    assert!(here.read(fetch.artifact.id, GIB).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_fetch_that_was_dropped_goes_on_where_it_was() {
    let bytes = bytes_of(1, 24 << 20);
    let (_a, there) = store_with(&bytes).await;
    let directory = tempfile::tempdir().unwrap();
    let (server, client) = (holder(1, &there).await, endpoint(2).await);
    introduce(&server, &client);
    let fetch = Fetch::new(reference(&bytes), vec![server.node()]);
    let half = bytes.len() as u64 / 2;
    {
        let here = Store::open(directory.path(), GIB).unwrap();
        let (reached, mut is_reached) = watch::channel(false);
        let fetching = client.fetch(&here, fetch.clone(), move |progress| {
            if progress.bytes_here >= half {
                reached.send_replace(true);
            }
        });
        tokio::select! {
            biased;
            _ = is_reached.wait_for(|reached| *reached) => {}
            done = fetching => panic!("not dropped half-way: {done:?}"),
        }
        assert_eq!(
            here.list_partial().unwrap(),
            [(fetch.artifact.id, bytes.len() as u64)]
        );
        assert!(
            !here.has(fetch.artifact.id),
            "a part has not the name of the whole"
        );
    }
    // The dropped fetch ends where it next waits.
    let here = loop {
        match Store::open(directory.path(), GIB) {
            Err(StoreError::InUse(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    // A piece that a power cut took back.
    let partial = directory
        .path()
        .join("partial")
        .join(fetch.artifact.id.to_string());
    let mut on_disk = fs::read(&partial).unwrap();
    let first_there = (0..96)
        .find(|n| on_disk[n * PIECE..n * PIECE + 64] != [0; 64])
        .unwrap();
    on_disk[first_there * PIECE..(first_there + 1) * PIECE].fill(0);
    fs::write(&partial, on_disk).unwrap();

    assert_eq!(
        here.bytes_used(),
        bytes.len() as u64,
        "the room of a part is kept"
    );
    let report = client.fetch(&here, fetch.clone(), silent).await.unwrap();
    assert!(report.bytes_resumed >= half - PIECE as u64, "{report:?}");
    assert_eq!(report.bytes_resumed + report.bytes_fetched, bytes.len() as u64);
    assert!(here.read(fetch.artifact.id, GIB).await.unwrap() == bytes);
    assert!(here.list_partial().unwrap().is_empty());
    assert_eq!(here.bytes_used(), bytes.len() as u64);
}

#[tokio::test]
async fn nothing_is_served_without_the_right_to_it() {
    let bytes = bytes_of(1, 3 * PIECE);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let (server, client) = (endpoint(1).await, endpoint(2).await);
    let allowed = Arc::new(AtomicBool::new(false));
    let (may, friend) = (allowed.clone(), client.node());
    let asked = fetch_of(&bytes, server.node());
    let wanted = asked.artifact.id;
    let may_fetch = move |node, id| may.load(Ordering::SeqCst) && node == friend && id == wanted;
    server.serve(Routes::new().artifacts(there, Arc::new(may_fetch)));
    introduce(&server, &client);
    let denied = client.fetch(&here, asked.clone(), silent).await.unwrap_err();
    let unknown = client
        .fetch(&here, fetch_of(&bytes_of(2, 5), server.node()), silent)
        .await
        .unwrap_err();
    for error in [denied, unknown] {
        let FetchError::NobodyDelivered { failures, .. } = error else {
            panic!("{error}")
        };
        assert!(
            matches!(failures[..], [(_, HolderFailure::NotHere)]),
            "both look alike: {failures:?}"
        );
    }
    assert_eq!(server.metrics().artifact_bytes_sent_total, 0);
    allowed.store(true, Ordering::SeqCst);
    client.fetch(&here, asked, silent).await.unwrap();
}

fn fetch_of(bytes: &[u8], node: NodeId) -> Fetch {
    Fetch::new(reference(bytes), vec![node])
}

#[tokio::test]
async fn a_node_without_a_store_serves_nothing() {
    let (_b, here) = store();
    let (server, client) = (endpoint(1).await, endpoint(2).await);
    server.serve(Routes::new().on(daitn_fabric::DATA_ALPN, 10, |_| async {}));
    introduce(&server, &client);
    let error = client
        .fetch(&here, fetch_of(b"abc", server.node()), silent)
        .await
        .unwrap_err();
    let FetchError::NobodyDelivered { failures, .. } = error else {
        panic!("{error}")
    };
    let unsupported = SessionError::Refused(Refusal::Unsupported);
    assert!(
        matches!(&failures[..], [(_, HolderFailure::Broken(e))] if *e == unsupported),
        "{failures:?}"
    );
    let error = client
        .fetch(&here, Fetch::new(reference(b"abc"), vec![]), silent)
        .await
        .unwrap_err();
    assert_eq!(error.rejection().code, Code::Unreachable);
}

#[tokio::test]
async fn two_fetches_of_one_artifact_move_it_once() {
    let bytes = bytes_of(1, 4 << 20);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let (server, client) = (holder(1, &there).await, endpoint(2).await);
    introduce(&server, &client);
    let fetch = || client.fetch(&here, fetch_of(&bytes, server.node()), silent);
    let (one, two) = tokio::join!(fetch(), fetch());
    let mut fetched = [one.unwrap().bytes_fetched, two.unwrap().bytes_fetched];
    fetched.sort_unstable();
    assert_eq!(fetched, [0, bytes.len() as u64]);
    assert_eq!(server.metrics().artifact_bytes_sent_total, bytes.len() as u64);
}

#[tokio::test]
async fn what_does_not_fit_is_not_fetched() {
    let bytes = bytes_of(1, 4 * PIECE);
    let (_a, there) = store_with(&bytes).await;
    let directory = tempfile::tempdir().unwrap();
    let here = Store::open(directory.path(), PIECE as u64).unwrap();
    let (server, client) = (holder(1, &there).await, endpoint(2).await);
    introduce(&server, &client);
    let error = client
        .fetch(&here, fetch_of(&bytes, server.node()), silent)
        .await
        .unwrap_err();
    assert_eq!(error.rejection().code, Code::Overloaded, "{error}");
    assert_eq!(here.bytes_used(), 0);
    let mut too_large = fetch_of(&bytes, server.node());
    too_large.artifact.bytes = u64::MAX;
    let error = client.fetch(&here, too_large, silent).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
}

/// Peak resident memory of this process, KiB. Each test runs in a process of its own.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_artifact() {
    let (_a, there) = store();
    let (_b, here) = store();
    let mut writer = there.writer(Durability::Transient).unwrap();
    let part = bytes_of(1, 1 << 20);
    for n in 0..256u64 {
        let mut part = part.clone();
        part[..8].copy_from_slice(&n.to_le_bytes());
        writer.push(&part).unwrap();
    }
    let (id, bytes) = writer.finish().unwrap();
    let server = endpoint(1).await;
    server.serve(Routes::new().artifacts(there, to_anybody()));
    let client = endpoint(2).await;
    introduce(&server, &client);
    let before = peak_kib();
    let artifact = daitn_messages::session::ArtifactRef { id, bytes };
    let fetch = Fetch::new(artifact, vec![server.node()])
        .transient()
        .patient_for(Duration::from_secs(60));
    client.fetch(&here, fetch, silent).await.unwrap();
    let grown = (peak_kib() - before) / 1024;
    assert!(
        grown < 128,
        "64 MiB at either end, both in this process: {grown} MiB"
    );
}
