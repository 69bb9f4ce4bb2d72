//! The newest snapshot, indexed for lookups on the request path. What the gateway itself has learnt about a replica or
//! a client outlives the snapshot that named it.

use crate::{hedging::Pace, routing::Replica};
use daitn_messages::{
    ids::{ArtifactId, EntityId, EntityKind, OrganisationId, Slug},
    operation::Principal,
    session::Peer,
    snapshot::{RoutedAgent, ServedModel, Snapshot, UnservedModel},
    units::UnixMillis,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::sync::Semaphore;

/// Everything that a request is decided from.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Zero before the first snapshot.
    pub(crate) version: u64,
    pub(crate) made_at: UnixMillis,
    keys: HashMap<ArtifactId, Arc<Client>>,
    pub(crate) models: BTreeMap<Slug, Model>,
    /// Models that are registered and not served, by name.
    unserved: BTreeMap<Slug, UnservedModel>,
    agents: HashMap<(OrganisationId, Slug), Arc<RoutedAgent>>,
}

/// Who holds an API key.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) principal: Principal,
    /// Requests that may be under way with this key.
    pub(crate) slots: Arc<Semaphore>,
}

/// A model by its name.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) versions: BTreeMap<u32, Arc<Served>>,
    default_version: Option<u32>,
}

/// One version of a model that is served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) model: ServedModel,
    pub(crate) replicas: Vec<Arc<Replica>>,
    pub(crate) pace: Arc<Pace>,
}

impl Served {
    /// The model as policies name it.
    pub(crate) fn entity(&self) -> EntityId {
        entity(&self.model.organisation, &self.model.model.name)
    }
}

fn may_query(principal: &Principal, unserved: &UnservedModel) -> bool {
    let entity = entity(&unserved.organisation, &unserved.model.name);
    unserved.access.check(principal, &entity).is_ok()
}

fn entity(organisation: &OrganisationId, name: &Slug) -> EntityId {
    EntityId {
        kind: EntityKind::Model,
        organisation: organisation.clone(),
        name: name.clone(),
    }
}

impl Model {
    /// The version that answers when none is named.
    pub(crate) fn default(&self) -> Option<&Arc<Served>> {
        let marked = self
            .default_version
            .and_then(|version| self.versions.get(&version));
        marked.or_else(|| self.versions.values().next_back())
    }
}

impl View {
    /// Indexes a snapshot and takes over what `before` knew of clients and replicas.
    pub(crate) fn new(snapshot: &Snapshot, before: &Self, requests_per_key_max: usize) -> Self {
        let keys = snapshot.keys.iter().map(|entry| {
            let known = before.keys.get(&entry.hash);
            let slots = known.map_or_else(
                || Arc::new(Semaphore::new(requests_per_key_max)),
                |c| c.slots.clone(),
            );
            (
                entry.hash,
                Arc::new(Client {
                    principal: entry.principal.clone(),
                    slots,
                }),
            )
        });
        let mut models: BTreeMap<Slug, Model> = BTreeMap::new();
        for served in &snapshot.models {
            let model = models.entry(served.model.name.clone()).or_default();
            if served.default_version {
                model.default_version = Some(served.model.version);
            }
            let known = before.served(served);
            let replicas = replicas(served, known);
            model.versions.insert(
                served.model.version,
                Arc::new(Served {
                    model: without_replicas(served),
                    replicas,
                    pace: known.map(|known| known.pace.clone()).unwrap_or_default(),
                }),
            );
        }
        let agents = snapshot
            .agents
            .iter()
            .filter(|agent| agent.agent.kind == EntityKind::Agent)
            .map(|agent| {
                (
                    (agent.agent.organisation.clone(), agent.agent.name.clone()),
                    Arc::new(agent.clone()),
                )
            });
        Self {
            version: snapshot.version,
            made_at: snapshot.made_at,
            keys: keys.collect(),
            models,
            unserved: snapshot
                .unserved
                .iter()
                .map(|unserved| (unserved.model.name.clone(), unserved.clone()))
                .collect(),
            agents: agents.collect(),
        }
    }

    /// Models that are not served now and that this principal may query: who may not is not told of them.
    pub(crate) fn unserved(&self, principal: &Principal) -> impl Iterator<Item = &UnservedModel> {
        self.unserved
            .values()
            .filter(|unserved| may_query(principal, unserved))
    }

    /// The same, of one name.
    pub(crate) fn unserved_named(&self, principal: &Principal, name: &Slug) -> Option<&UnservedModel> {
        self.unserved
            .get(name)
            .filter(|unserved| may_query(principal, unserved))
    }

    /// Whose key this is. The table holds hashes of 256 random bits, so that how long the lookup takes says nothing
    /// about any key.
    pub(crate) fn client(&self, secret: &str) -> Option<Arc<Client>> {
        self.keys.get(&ArtifactId::of(secret.as_bytes())).cloned()
    }

    pub(crate) fn agent(&self, organisation: &OrganisationId, name: &Slug) -> Option<Arc<RoutedAgent>> {
        // A tuple of references is no key of the map; cloning two slugs costs less than a second level of maps.
        self.agents.get(&(organisation.clone(), name.clone())).cloned()
    }

    /// The same version of the same model.
    fn served(&self, served: &ServedModel) -> Option<&Arc<Served>> {
        let model = self.models.get(&served.model.name)?;
        model.versions.get(&served.model.version)
    }
}

/// Everyone who is to be reached.
pub(crate) fn peers(snapshot: &Snapshot) -> impl Iterator<Item = &Peer> {
    let hosts = snapshot
        .models
        .iter()
        .flat_map(|model| &model.replicas)
        .map(|replica| &replica.peer);
    hosts.chain(snapshot.agents.iter().map(|agent| &agent.peer))
}

fn replicas(served: &ServedModel, known: Option<&Arc<Served>>) -> Vec<Arc<Replica>> {
    let health = |replica: &daitn_messages::snapshot::Replica| {
        let mut before = known.iter().flat_map(|known| &known.replicas);
        let same = before.find(|r| r.host == replica.host && r.peer.node == replica.peer.node);
        same.map(|same| same.health.clone()).unwrap_or_default()
    };
    let replica = |replica: &daitn_messages::snapshot::Replica| {
        Arc::new(Replica {
            host: replica.host.clone(),
            peer: replica.peer.clone(),
            telemetry: replica.telemetry.clone(),
            health: health(replica),
        })
    };
    served.replicas.iter().map(replica).collect()
}

fn without_replicas(served: &ServedModel) -> ServedModel {
    ServedModel {
        model: served.model.clone(),
        default_version: served.default_version,
        newest: served.newest,
        organisation: served.organisation.clone(),
        spec: served.spec.clone(),
        weights: served.weights,
        access: served.access.clone(),
        replicas: Vec::new(),
    }
}
