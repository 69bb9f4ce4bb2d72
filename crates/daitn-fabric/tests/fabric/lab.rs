//! What the tests share: endpoints on 127.0.0.1, introduced to each other, and bytes to move.

use daitn_fabric::{
    Endpoint, EndpointOptions, Routes,
    artifact::{Durability, Store},
};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    session::{ArtifactRef, Peer},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn options(key: u8) -> EndpointOptions {
    EndpointOptions::new([key; 32]).bound_to(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

pub(crate) async fn endpoint(key: u8) -> Endpoint {
    Endpoint::bind(options(key)).await.unwrap()
}

/// `to` learns where `whom` is.
pub(crate) fn introduce(whom: &Endpoint, to: &Endpoint) {
    to.set_peer(whom.peer()).unwrap();
}

pub(crate) fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), GIB).unwrap();
    (directory, store)
}

/// A store that holds these bytes.
pub(crate) async fn store_with(bytes: &[u8]) -> (TempDir, Store) {
    let (directory, store) = store();
    store
        .put_bytes(bytes.to_vec(), Durability::Transient)
        .await
        .unwrap();
    (directory, store)
}

/// Bytes without a pattern that a mixed-up piece could match.
pub(crate) fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub(crate) fn reference(bytes: &[u8]) -> ArtifactRef {
    ArtifactRef {
        id: ArtifactId::of(bytes),
        bytes: bytes.len() as u64,
    }
}

pub(crate) fn to_anybody() -> daitn_fabric::artifact::MayFetch {
    Arc::new(|_, _| true)
}

/// An endpoint that serves what is in a store.
pub(crate) async fn holder(key: u8, store: &Store) -> Endpoint {
    let endpoint = endpoint(key).await;
    endpoint.serve(Routes::new().artifacts(store.clone(), to_anybody()));
    endpoint
}

/// An endpoint on a runtime of its own, so that it can be killed: its sockets vanish, nobody is told.
pub(crate) struct Victim {
    pub(crate) node: NodeId,
    pub(crate) peer: Peer,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Victim {
    pub(crate) async fn start(options: EndpointOptions, routes: Routes) -> Self {
        let (kill, killed) = oneshot::channel::<()>();
        let (up, is_up) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let endpoint = runtime.block_on(async {
                let endpoint = Endpoint::bind(options).await.unwrap();
                endpoint.serve(routes);
                up.send(endpoint.peer()).unwrap();
                let _ = killed.await;
                endpoint
            });
            // In this order nothing is left that could say goodbye when the sockets go.
            let handle = runtime.handle().clone();
            runtime.shutdown_timeout(PLENTY);
            let _entered = handle.enter();
            drop(endpoint);
        });
        let peer: Peer = is_up.await.unwrap();
        Self {
            node: peer.node,
            peer,
            kill,
            thread,
        }
    }

    pub(crate) fn kill(self) {
        let _ = self.kill.send(());
        self.thread.join().unwrap();
    }
}
