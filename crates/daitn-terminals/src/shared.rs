//! What all terminals of a node share: its key, its clock, its transport, its durable state, its threads.

use crate::{
    clock::Clock,
    cpu::Cpu,
    durable::blocking,
    holds::{Holds, Readers},
    limits::FETCH_PATIENCE,
    orders::Orders,
    outbox::Outbox,
    terminal::Terminals,
};
use daitn_engine::Engine;
use daitn_fabric::{
    Endpoint, Heard,
    artifact::{Durability, Fetch, Store},
};
use daitn_messages::{
    ids::{ArtifactId, NodeId, OrganisationId},
    learning::ModelSpec,
    order::WorkOrder,
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    session::{ArtifactRef, Peer},
    signed::{NodeKey, Signed},
};
use std::{collections::HashSet, path::PathBuf, sync::Arc};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What all terminals of a node share.
pub(crate) struct Shared {
    /// The node's transport.
    pub endpoint: Endpoint,
    /// Its artifacts.
    pub store: Store,
    /// Which of them are needed, and who may have them.
    pub holds: Holds,
    /// Its key.
    pub key: NodeKey,
    /// Its identity.
    pub node: NodeId,
    /// The center that it obeys.
    pub center: NodeId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// The time.
    pub clock: Clock,
    /// What runs models.
    pub engine: Arc<dyn Engine>,
    /// Where that runs.
    pub cpu: Cpu,
    /// Orders decided on.
    pub orders: Orders,
    /// Receipts on their way to the center.
    pub outbox: Outbox,
    /// What is attached.
    pub terminals: Terminals,
    /// The directory of the node's state.
    pub state: PathBuf,
    /// Something that telemetry tells has changed.
    pub changed: Notify,
    /// A descriptor has changed.
    pub described: Notify,
    /// Everything that runs beside sessions.
    pub tasks: TaskTracker,
    /// The node is shutting down.
    pub stop: CancellationToken,
}

impl Shared {
    /// A signed receipt.
    #[must_use]
    pub(crate) fn receipt(&self, order: &WorkOrder, outcome: Outcome) -> Signed<Receipt> {
        self.receipt_of_epoch(order, order.epoch, outcome)
    }

    /// A signed receipt for a step that a conductor of a later epoch has asked for.
    #[must_use]
    pub(crate) fn receipt_of_epoch(
        &self,
        order: &WorkOrder,
        epoch: u64,
        outcome: Outcome,
    ) -> Signed<Receipt> {
        let receipt = Receipt {
            order: order.id.clone(),
            job: order.job.clone(),
            epoch,
            node: self.node,
            terminal: order.terminal.clone(),
            at: self.clock.now(),
            outcome,
        };
        Signed::seal(&receipt, &self.key)
    }

    /// Tells the center what came of an order; durable when this returns.
    ///
    /// # Errors
    /// Where it cannot be kept.
    pub(crate) async fn report(&self, order: &WorkOrder, outcome: Outcome) -> Result<(), Rejection> {
        self.outbox.put(self.receipt(order, outcome)).await
    }

    /// Takes ways to other nodes into the address book. One without an address says nothing new.
    pub(crate) fn learn(&self, peers: &[Peer], heard: Heard) {
        for peer in peers.iter().filter(|peer| peer.node != self.node) {
            if peer.addresses.is_empty() && peer.relay.is_none() {
                continue;
            }
            if let Err(error) = self.endpoint.add_peer(peer.clone(), heard) {
                tracing::warn!(node = %peer.node, "a peer was not taken into the address book: {error}");
            }
        }
    }

    /// How a node is reached, as far as this one knows now.
    #[must_use]
    pub(crate) fn way_to(&self, node: NodeId) -> Option<Peer> {
        if node == self.node {
            return Some(self.endpoint.peer());
        }
        self.endpoint.known_peer(node)
    }

    /// Holds an artifact and sees to it that it is here; gives the bytes that moved.
    ///
    /// # Errors
    /// Where nobody delivers it or there is no room.
    pub(crate) async fn fetch(
        &self,
        scope: &Arc<str>,
        artifact: ArtifactRef,
        holders: &[Peer],
        durability: Durability,
    ) -> Result<u64, Rejection> {
        self.holds.hold(scope, artifact.id, &nobody())?;
        if self.store.bytes_of(artifact.id) == Some(artifact.bytes) {
            self.flush_if(durability, artifact.id).await?;
            return Ok(0);
        }
        // Whoever names holders to a node was told of them itself, perhaps before they moved.
        self.learn(holders, Heard::Earlier);
        let from = holders.iter().map(|peer| peer.node).collect();
        let mut fetch = Fetch::new(artifact, from).patient_for(FETCH_PATIENCE);
        fetch.durability = durability;
        let report = self
            .endpoint
            .fetch(&self.store, fetch, |_| {})
            .await
            .map_err(|error| error.rejection())?;
        Ok(report.bytes_fetched)
    }

    /// Stores bytes and holds them for these readers.
    ///
    /// # Errors
    /// Where there is no room or the disk fails.
    pub(crate) async fn put(
        &self,
        scope: &Arc<str>,
        bytes: Vec<u8>,
        readers: &Readers,
        durability: Durability,
    ) -> Result<ArtifactRef, Rejection> {
        let (id, bytes) = {
            // Hashing 100 MB takes longer than an async thread may be held.
            blocking(move || (ArtifactId::of(&bytes), bytes)).await
        };
        let artifact = ArtifactRef {
            id,
            bytes: bytes.len() as u64,
        };
        self.holds.hold(scope, id, readers)?;
        if self.store.bytes_of(id) == Some(artifact.bytes) {
            self.flush_if(durability, id).await?;
        } else {
            self.store
                .put_bytes(bytes, durability)
                .await
                .map_err(|error| error.rejection())?;
        }
        Ok(artifact)
    }

    /// What is here may have been put without being flushed: the only update of a cycle is its result as well.
    async fn flush_if(&self, durability: Durability, id: ArtifactId) -> Result<(), Rejection> {
        if durability == Durability::Transient {
            return Ok(());
        }
        let store = self.store.clone();
        blocking(move || store.flush(id))
            .await
            .map_err(|error| error.rejection())
    }

    /// Ends a hold; the artifact goes if it was the last.
    pub(crate) fn release(self: &Arc<Self>, scope: &str, id: ArtifactId) {
        if self.holds.release(scope, id) {
            self.remove(vec![id]);
        }
    }

    /// Ends every hold of a scope.
    pub(crate) fn release_all(self: &Arc<Self>, scope: &str) {
        self.remove(self.holds.release_all(scope));
    }

    fn remove(self: &Arc<Self>, ids: Vec<ArtifactId>) {
        if ids.is_empty() {
            return;
        }
        let shared = self.clone();
        self.tasks.spawn_blocking(move || {
            for id in ids {
                shared.holds.unless_held(id, || {
                    if let Err(error) = shared.store.remove(id) {
                        tracing::warn!(artifact = %id, "an artifact that nobody needs stays: {error}");
                    }
                });
            }
        });
    }

    /// Sees to it that a model's weights are here, durably and for these readers; gives them as numbers. What turns out to
    /// be damaged on this disk is fetched anew, once.
    ///
    /// # Errors
    /// Where nobody delivers them, there is no room, or they are not what the model's spec says.
    pub(crate) async fn weights(
        &self,
        scope: &Arc<str>,
        spec: &ModelSpec,
        weights: ArtifactRef,
        holders: &[Peer],
        readers: &Readers,
    ) -> Result<Vec<f32>, Rejection> {
        let layout = Arc::new(self.engine.layout(spec)?);
        self.fetch(scope, weights, holders, Durability::Durable).await?;
        self.holds.hold(scope, weights.id, readers)?;
        match self.read_numbers(weights.id, &layout).await {
            // The store has let go of what is not what its name says.
            Err(_) if !self.store.has(weights.id) => {}
            numbers => return numbers,
        }
        self.fetch(scope, weights, holders, Durability::Durable).await?;
        self.holds.hold(scope, weights.id, readers)?;
        self.read_numbers(weights.id, &layout).await
    }

    /// The whole of an artifact that is here, as the numbers of a layout.
    ///
    /// # Errors
    /// Where it is not here, or not what the layout says.
    pub(crate) async fn read_numbers(
        &self,
        id: ArtifactId,
        layout: &Arc<daitn_engine::Layout>,
    ) -> Result<Vec<f32>, Rejection> {
        let (store, layout) = (self.store.clone(), layout.clone());
        blocking(move || {
            use daitn_engine::weights::{Numbers, Section};
            let reader = store.reader(id).map_err(|error| error.rejection())?;
            let n_bytes = reader.n_bytes();
            Ok(Section::open(reader, n_bytes, &layout, Numbers::Finite)?.read_all()?)
        })
        .await
    }
}

/// Readers: none.
#[must_use]
pub(crate) fn nobody() -> Readers {
    Arc::new(HashSet::new())
}

/// Readers: these.
#[must_use]
pub(crate) fn only(nodes: impl IntoIterator<Item = NodeId>) -> Readers {
    Arc::new(nodes.into_iter().collect())
}

/// Length of the canonical file of a layout, bytes.
#[must_use]
pub(crate) fn file_bytes(layout: &daitn_engine::Layout) -> u64 {
    daitn_engine::weights::header(layout).len() as u64 + 4 * layout.n_elements() as u64
}

/// An order that its terminal does not understand.
#[must_use]
pub(crate) fn wrong_terminal(order: &WorkOrder) -> Rejection {
    Rejection::new(
        Code::Malformed,
        format!("{} cannot do what the order asks", order.terminal),
    )
}
