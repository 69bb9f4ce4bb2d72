//! The model host: serves models from memory to the gateways that its orders name. What it serves outlives a restart,
//! without the center.

mod act;

mod admit;

mod answer;

mod descriptor;

mod options;

mod present;

pub(crate) use answer::answer;
pub use options::HostOptions;
pub(crate) use present::permit;

use crate::works::Works;
use daitn_engine::Loaded;
use daitn_messages::{
    ids::{DeploymentId, NodeId, OrderId},
    learning::ModelVersion,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, RwLock},
};

/// A model host that is open.
pub(crate) struct Host {
    options: HostOptions,
    replicas: RwLock<BTreeMap<DeploymentId, Replica>>,
    loading: Works,
}

/// A model in memory.
#[derive(Clone)]
struct Replica {
    epoch: u64,
    order: OrderId,
    model: ModelVersion,
    gateways: Arc<HashSet<NodeId>>,
    memory_bytes: u64,
    loaded: Arc<dyn Loaded>,
}

impl Host {
    /// A host without models.
    #[must_use]
    pub(crate) fn open(options: HostOptions) -> Self {
        Self {
            options,
            replicas: RwLock::default(),
            loading: Works::default(),
        }
    }
}
