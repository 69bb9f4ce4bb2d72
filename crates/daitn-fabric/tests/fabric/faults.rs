//! Holders that lie, break off or die.

use crate::lab::{
    GIB, PLENTY, Victim, bytes_of, endpoint, holder, introduce, options, reference, store, store_with,
    to_anybody,
};
use daitn_fabric::{
    DATA_ALPN, Endpoint, Routes,
    artifact::{Durability, Fetch, FetchError, HolderFailure, Progress, Store, StoreError},
};
use daitn_messages::{
    encoding,
    ids::NodeId,
    rejection::Code,
    session::{ArtifactRef, Peer},
};
use serde::Serialize;
use std::{fs, path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{mpsc, watch},
};

const PIECE: usize = 256 * 1024;

fn silent(_: Progress) {}

fn failure_of(error: &FetchError) -> &HolderFailure {
    match error {
        FetchError::NobodyDelivered { failures, .. } => &failures[0].1,
        other => panic!("{other}"),
    }
}

/// A store whose disk changed one byte after it was written.
async fn rotten(bytes: &[u8], at: usize) -> (tempfile::TempDir, Store) {
    let (directory, store) = store();
    let id = store
        .put_bytes(bytes.to_vec(), Durability::Transient)
        .await
        .unwrap();
    let path = store.path_of(id).unwrap();
    let mut changed = fs::read(&path).unwrap();
    changed[at] ^= 0x10;
    fs::write(&path, changed).unwrap();
    (directory, store)
}

#[tokio::test]
async fn a_holder_with_wrong_bytes_is_found_out_and_another_is_used() {
    for (len, at) in [(1000, 999), (40 * PIECE, 3 * PIECE + 100)] {
        let bytes = bytes_of(len as u64, len);
        let (_a, bad) = rotten(&bytes, at).await;
        let (_b, good) = store();
        good.put_bytes(bytes.clone(), Durability::Transient)
            .await
            .unwrap();
        let (liar, honest, client) = (holder(1, &bad).await, holder(2, &good).await, endpoint(3).await);
        introduce(&liar, &client);
        introduce(&honest, &client);
        let (_c, here) = store();
        let alone = Fetch::new(reference(&bytes), vec![liar.node()]);
        let error = client.fetch(&here, alone, silent).await.unwrap_err();
        assert!(matches!(failure_of(&error), HolderFailure::Lied), "{error}");
        assert_eq!(error.rejection().code, Code::HashMismatch);
        assert!(!here.has(reference(&bytes).id));
        assert!(client.metrics().artifact_pieces_corrupt_total > 0);

        let both = Fetch::new(reference(&bytes), vec![liar.node(), honest.node()]);
        let report = client.fetch(&here, both, silent).await.unwrap();
        assert!(here.read(reference(&bytes).id, GIB).await.unwrap() == bytes);
        assert!(report.by_holder.iter().any(|(node, _)| *node == honest.node()));
    }
}

/// What a peer that does not keep to the protocol answers a request for an artifact.
#[derive(Clone)]
enum Lie {
    /// Another length.
    Length(u64),
    /// Piece hashes that do not merge into the name.
    Hashes,
    /// The right piece hashes, then nothing for ever.
    Silence(Vec<u8>),
    /// The right piece hashes, then an early end.
    Short(Vec<u8>),
    /// A frame of 4 GiB.
    Huge,
    /// Not CBOR.
    Garbage,
    /// An answer from a later version.
    Unknown,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Sending { bytes: u64 },
    SomethingNew { field: u8 },
}

/// A bare iroh endpoint that answers every stream with this lie.
async fn liar(key: u8, len: u64, lie: Lie) -> (iroh::Endpoint, Peer) {
    let endpoint = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&[key; 32]))
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .alpns(vec![DATA_ALPN.to_vec()])
        .bind()
        .await
        .unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let lie = lie.clone();
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(tell(send, receive, len, lie.clone()));
                }
            });
        }
    });
    let node = NodeId(*endpoint.id().as_bytes());
    let peer = Peer {
        node,
        addresses: endpoint.bound_sockets(),
        relay: None,
    };
    (endpoint, peer)
}

async fn tell(
    mut send: iroh::endpoint::SendStream,
    _receive: iroh::endpoint::RecvStream,
    len: u64,
    lie: Lie,
) {
    let frame = |answer: &Answer| {
        let payload = encoding::encode(answer);
        [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], &payload].concat()
    };
    let right = frame(&Answer::Sending { bytes: len });
    let told = match &lie {
        Lie::Length(len) => frame(&Answer::Sending { bytes: *len }),
        Lie::Hashes => [right, vec![7; 32 * 64]].concat(),
        Lie::Silence(hashes) | Lie::Short(hashes) => [&right[..], &hashes[..], &[1; 1000]].concat(),
        Lie::Huge => vec![0xff; 64],
        Lie::Garbage => [&[0, 0, 0, 4][..], b"\xff\x00\x12\x34"].concat(),
        Lie::Unknown => frame(&Answer::SomethingNew { field: 1 }),
    };
    let _ = send.write_all(&told).await;
    if matches!(lie, Lie::Silence(_)) {
        std::future::pending::<()>().await;
    }
    let _ = send.finish();
    let _ = send.stopped().await;
}

#[tokio::test]
async fn whatever_a_holder_answers_it_is_left_out_and_the_rest_is_fetched() {
    let bytes = bytes_of(1, 20 * PIECE);
    let (_b, good) = store();
    let id = good
        .put_bytes(bytes.clone(), Durability::Transient)
        .await
        .unwrap();
    let hashes = fs::read(good.path_of(id).unwrap().with_extension("pieces")).unwrap();
    assert_eq!(hashes.len(), 20 * 32);
    let (honest, client) = (holder(1, &good).await, endpoint(2).await);
    introduce(&honest, &client);
    let lies = [
        Lie::Length(5),
        Lie::Hashes,
        Lie::Short(hashes.clone()),
        Lie::Huge,
        Lie::Garbage,
        Lie::Unknown,
        Lie::Silence(hashes),
    ];
    for (key, lie) in (10u8..).zip(lies) {
        let (_liar, peer) = liar(key, bytes.len() as u64, lie).await;
        client.set_peer(peer.clone()).unwrap();
        let (_c, here) = store();
        // Patient enough for the honest one, not for silence.
        let both = Fetch::new(reference(&bytes), vec![peer.node, honest.node()]);
        let report = client
            .fetch(&here, both.patient_for(Duration::from_secs(2)), silent)
            .await
            .unwrap();
        assert!(here.read(id, GIB).await.unwrap() == bytes);
        assert!(
            report.by_holder.iter().all(|(node, _)| *node == honest.node()),
            "case {key}: {report:?}"
        );
    }
}

/// A fetch on its own, which tells when half is here.
fn fetch_in_background(
    client: &Endpoint,
    here: &Store,
    fetch: Fetch,
) -> (
    tokio::task::JoinHandle<Result<daitn_fabric::artifact::FetchReport, FetchError>>,
    watch::Receiver<bool>,
) {
    let (reached, is_reached) = watch::channel(false);
    let (client, here) = (client.clone(), here.clone());
    let fetching = tokio::spawn(async move {
        let note = move |progress: Progress| {
            if progress.bytes_here * 2 >= progress.bytes_total {
                reached.send_replace(true);
            }
        };
        client.fetch(&here, fetch, note).await
    });
    (fetching, is_reached)
}

#[tokio::test]
async fn a_fetch_outlives_the_death_of_its_holder() {
    let bytes = bytes_of(1, 48 << 20);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let routes = || Routes::new().artifacts(there.clone(), to_anybody());
    let victim = Victim::start(options(1), routes()).await;
    let client = endpoint(2).await;
    client.set_peer(victim.peer.clone()).unwrap();
    let fetch = Fetch::new(reference(&bytes), vec![victim.node])
        .transient()
        .patient_for(PLENTY);
    let (fetching, mut is_half) = fetch_in_background(&client, &here, fetch);
    is_half.wait_for(|half| *half).await.unwrap();
    victim.kill();
    // The same key at another port, as when a laptop comes back.
    let again = Victim::start(options(1), routes()).await;
    client.set_peer(again.peer.clone()).unwrap();
    let report = tokio::time::timeout(PLENTY, fetching)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        report.bytes_fetched,
        bytes.len() as u64,
        "each byte counts once, whenever it came"
    );
    assert!(here.read(reference(&bytes).id, GIB).await.unwrap() == bytes);
    assert!(report.failures.len() == 1, "{report:?}");
    again.kill();
}

#[tokio::test]
async fn a_holder_that_is_gone_for_good_is_named() {
    let (_b, here) = store();
    let client = endpoint(2).await;
    let dead = endpoint(1).await;
    introduce(&dead, &client);
    dead.shutdown(PLENTY).await;
    let fetch = Fetch::new(reference(&bytes_of(1, 10)), vec![dead.node()]);
    let error = client
        .fetch(&here, fetch.patient_for(Duration::from_millis(100)), silent)
        .await
        .unwrap_err();
    assert!(
        matches!(failure_of(&error), HolderFailure::Unreachable(_)),
        "{error}"
    );
    assert_eq!(error.rejection().code, Code::Unreachable);
    assert!(error.to_string().contains(&dead.node().short()), "{error}");
}

#[tokio::test]
async fn the_fetcher_gives_up_and_the_holder_stops_sending() {
    let bytes = bytes_of(1, 64 << 20);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let (asked, mut is_asked) = mpsc::unbounded_channel();
    let server = endpoint(1).await;
    let may_fetch = Arc::new(move |_, _| {
        let _ = asked.send(());
        true
    });
    server.serve(Routes::new().artifacts(there, may_fetch));
    let client = endpoint(2).await;
    introduce(&server, &client);
    let fetch = Fetch::new(reference(&bytes), vec![server.node()]);
    let (fetching, _) = fetch_in_background(&client, &here, fetch);
    is_asked.recv().await.unwrap();
    fetching.abort();
    let _ = fetching.await;
    // Every stream that was open for it ends.
    let idle = async {
        while server.metrics().streams_handled_open > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PLENTY, idle).await.unwrap();
    assert!(server.metrics().artifact_bytes_sent_total < bytes.len() as u64);
}

/// Not a test: the process that the next one kills. It fetches, says when half is here, and then stands still.
#[test]
#[ignore = "run as a process of its own by the test below"]
fn process_that_fetches() {
    let given = |name: &str| std::env::var(name).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let here = Store::open(Path::new(&given("FETCH_STORE")), GIB).unwrap();
        let client = endpoint(2).await;
        let node: NodeId = given("FETCH_NODE").parse().unwrap();
        let addresses = vec![given("FETCH_ADDRESS").parse().unwrap()];
        client
            .set_peer(Peer {
                node,
                addresses,
                relay: None,
            })
            .unwrap();
        let artifact = ArtifactRef {
            id: given("FETCH_ID").parse().unwrap(),
            bytes: given("FETCH_BYTES").parse().unwrap(),
        };
        let note = |progress: Progress| {
            if progress.bytes_here * 2 >= progress.bytes_total {
                println!("HALF");
                std::thread::park();
            }
        };
        client
            .fetch(&here, Fetch::new(artifact, vec![node]), note)
            .await
            .unwrap();
    });
}

#[tokio::test]
async fn a_fetch_goes_on_after_its_process_was_killed() {
    let bytes = bytes_of(1, 32 << 20);
    let (_a, there) = store();
    let id = there
        .put_bytes(bytes.clone(), Durability::Transient)
        .await
        .unwrap();
    let server = holder(1, &there).await;
    let directory = tempfile::tempdir().unwrap();
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "faults::process_that_fetches",
            "--ignored",
            "--nocapture",
        ])
        .env("FETCH_STORE", directory.path())
        .env("FETCH_NODE", server.node().to_string())
        .env("FETCH_ADDRESS", server.peer().addresses[0].to_string())
        .env("FETCH_ID", id.to_string())
        .env("FETCH_BYTES", bytes.len().to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    while !lines
        .next_line()
        .await
        .unwrap()
        .expect("it says when half is here")
        .contains("HALF")
    {}
    assert!(matches!(
        Store::open(directory.path(), GIB),
        Err(StoreError::InUse(_))
    ));
    process.kill().await.unwrap();

    let here = Store::open(directory.path(), GIB).unwrap();
    let client = endpoint(3).await;
    introduce(&server, &client);
    let before = server.metrics().artifact_bytes_sent_total;
    let report = client
        .fetch(&here, Fetch::new(reference(&bytes), vec![server.node()]), silent)
        .await
        .unwrap();
    let moved = server.metrics().artifact_bytes_sent_total - before;
    assert!(report.bytes_resumed >= bytes.len() as u64 / 2, "{report:?}");
    assert!(
        moved < bytes.len() as u64 * 6 / 10,
        "{moved} bytes were moved again"
    );
    assert!(here.read(id, GIB).await.unwrap() == bytes);
}
