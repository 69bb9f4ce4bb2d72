//! A party that is no node of ours.

use super::{PATIENCE, data::spec, endpoint};
use daitn_engine::{Engine, builtin::Builtin, weights};
use daitn_fabric::{
    Connection, DATA_ALPN, Endpoint, Routes,
    artifact::{Durability, Store},
};
use daitn_messages::{limits::FRAME_BYTES_MAX, session::*, signed::NodeKey};
use std::sync::Arc;
use tempfile::TempDir;

/// A party that is no node of ours: an endpoint with a store, which answers as a test says.
pub(crate) struct Stranger {
    pub(crate) key: NodeKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) store: Store,
    _directory: TempDir,
}

impl Stranger {
    pub(crate) async fn new(seed: u8) -> Self {
        let key = NodeKey::from_bytes(&[seed; 32]);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), 1 << 30).unwrap();
        let stranger = Self {
            endpoint: endpoint(&key).await,
            key,
            store,
            _directory: directory,
        };
        // Gives everything to everybody; answers no session.
        stranger
            .endpoint
            .serve(Routes::new().artifacts(stranger.store.clone(), Arc::new(|_, _| true)));
        stranger
    }

    pub(crate) async fn put(&self, bytes: Vec<u8>) -> ArtifactRef {
        let n_bytes = bytes.len() as u64;
        ArtifactRef {
            id: self.store.put_bytes(bytes, Durability::Transient).await.unwrap(),
            bytes: n_bytes,
        }
    }

    pub(crate) async fn put_weights(&self, parameters: &[f32]) -> ArtifactRef {
        self.put(weights::write(parameters, &Builtin.layout(&spec()).unwrap()).unwrap())
            .await
    }

    pub(crate) async fn reach(&self, to: &Peer) -> Connection {
        self.endpoint.set_peer(to.clone()).unwrap();
        self.endpoint.connect(to.node, DATA_ALPN, PATIENCE).await.unwrap()
    }

    pub(crate) async fn ask(&self, to: &Peer, request: &SessionRequest) -> SessionReply {
        self.reach(to)
            .await
            .request(request, FRAME_BYTES_MAX, PATIENCE)
            .await
            .unwrap()
    }
}

/// The parameters that a node gives to a stranger who may have them.
pub(crate) async fn fetched(
    stranger: &Stranger,
    from: &Peer,
    artifact: ArtifactRef,
) -> Result<Vec<f32>, daitn_fabric::artifact::FetchError> {
    stranger.endpoint.set_peer(from.clone()).unwrap();
    let fetch = daitn_fabric::artifact::Fetch::new(artifact, vec![from.node]);
    stranger.endpoint.fetch(&stranger.store, fetch, |_| {}).await?;
    let bytes = stranger.store.read(artifact.id, 1 << 30).await.unwrap();
    Ok(weights::read(&bytes, &Builtin.layout(&spec()).unwrap()).unwrap())
}
