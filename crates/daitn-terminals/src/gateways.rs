//! The gateways of the domain: the node keeps an outward connection to each, so that sessions reach it behind NAT. Known
//! also while the center is away.

use crate::{
    durable::{self, DurableError},
    limits::GATEWAYS_MAX,
    shared::Shared,
};
use daitn_fabric::{DATA_ALPN, Heard, Link};
use daitn_messages::{ids::NodeId, session::Peer};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The gateways that the node knows.
pub(crate) struct Gateways {
    path: PathBuf,
    links: Mutex<HashMap<NodeId, Link>>,
}

impl Gateways {
    /// Those that were known before a restart are connected again.
    pub(crate) fn open(state: &Path, shared: &Shared) -> Result<Self, DurableError> {
        let path = state.join("gateways.rec");
        let known: Vec<Peer> = durable::read(&path)?.unwrap_or_default();
        let gateways = Self {
            path,
            links: Mutex::default(),
        };
        gateways.connect(shared, &known);
        Ok(gateways)
    }

    /// Takes the place of the earlier list. Blocks.
    pub(crate) fn replace(&self, shared: &Shared, peers: &[Peer]) -> Result<(), DurableError> {
        let peers = &peers[..peers.len().min(GATEWAYS_MAX)];
        durable::write(&self.path, &peers)?;
        self.connect(shared, peers);
        Ok(())
    }

    /// Whether a node is a gateway.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&node)
    }

    fn connect(&self, shared: &Shared, peers: &[Peer]) {
        shared.learn(peers, Heard::Now);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|node, _| peers.iter().any(|peer| peer.node == *node));
        for peer in peers
            .iter()
            .take(GATEWAYS_MAX)
            .filter(|peer| peer.node != shared.node)
        {
            let link = || shared.endpoint.keep_connected(peer.node, DATA_ALPN);
            links.entry(peer.node).or_insert_with(link);
        }
    }
}
