//! The snapshot that gateways decide from: made whole whenever something in it changed.

use crate::{
    core::{
        Core, Turn,
        access::model_entity,
        event::{Effect, Timer},
    },
    deployment::Deployment,
    limits::UNSERVED_MAX,
};
use daitn_messages::{
    descriptor::{Body, Telemetry},
    ids::{DeploymentId, EntityKind, NodeId, Slug},
    learning::ModelVersion,
    snapshot::{Replica, RoutedAgent, ServedModel, Snapshot, UnservedModel},
    units::UnixMillis,
};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that gateways open sessions with.
pub(crate) const ROUTED: [EntityKind; 2] = [EntityKind::ModelHost, EntityKind::Agent];

/// Whether there is something to publish.
#[derive(Debug, Clone, Default)]
pub(crate) struct SnapshotState {
    changed: bool,
    telemetry_waits: bool,
    version: u64,
}

impl SnapshotState {
    /// Something changed that gateways must know at once.
    pub(crate) fn changed(&mut self) {
        self.changed = true;
    }

    /// The time for changed load has come.
    pub(crate) fn telemetry_due(&mut self) {
        self.changed |= self.telemetry_waits;
        self.telemetry_waits = false;
    }
}

impl Core {
    /// Takes the load of an entity: it is news for routing and for planning, and is not kept.
    pub(super) fn take_telemetry(&mut self, turn: &mut Turn<'_>, telemetry: Telemetry) {
        if telemetry.entity.kind == EntityKind::ModelHost && !self.snapshot.telemetry_waits {
            self.snapshot.telemetry_waits = true;
            turn.effect(Effect::Arm {
                timer: Timer::Telemetry,
                at: turn.now.plus(self.config.timing.telemetry_ms),
            });
        }
        self.topology.telemetry(telemetry);
    }

    pub(super) fn publish_if_changed(&mut self, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.snapshot.changed) {
            // Rises also over a restart of the center: time is ahead of the number of changes.
            self.snapshot.version = turn.now.0.max(self.snapshot.version + 1);
            self.snapshot.telemetry_waits = false;
            self.refresh_access();
            turn.effect(Effect::PublishSnapshot);
        }
    }

    /// The snapshot as of now.
    #[must_use]
    pub fn snapshot(&self, now: UnixMillis) -> Snapshot {
        let models = self.served_models();
        Snapshot {
            version: self.snapshot.version,
            made_at: now,
            unserved: self.unserved_models(&models),
            models,
            agents: self.routed_agents(),
            keys: self
                .keys
                .values()
                .filter(|key| !key.revoked)
                .map(|key| key.entry())
                .collect(),
            hosts: self.nodes_of_gateways(),
        }
    }

    /// Who keeps a connection to each gateway.
    fn nodes_of_gateways(&self) -> Vec<NodeId> {
        let nodes = ROUTED.into_iter().flat_map(|kind| self.nodes.with_kind(kind));
        let mut hosts: Vec<NodeId> = nodes.map(|node| node.record.node).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    fn served_models(&self) -> Vec<ServedModel> {
        let mut served: BTreeMap<ModelVersion, ServedModel> = BTreeMap::new();
        // The version that became ready last answers where a query names none.
        let mut newest: BTreeMap<&str, (Option<UnixMillis>, &DeploymentId, u32)> = BTreeMap::new();
        for deployment in self.deployments.active() {
            let Some(model) = self.models.get(&deployment.model) else {
                continue;
            };
            let replicas: Vec<Replica> = deployment
                .hosts
                .iter()
                .filter(|host| host.ready)
                .map(|host| Replica {
                    deployment: deployment.id.clone(),
                    host: host.placement.entity.clone(),
                    peer: self.nodes.peer(host.placement.node),
                    telemetry: self.topology.newest_telemetry(&host.placement.entity).cloned(),
                })
                .collect();
            if replicas.is_empty() {
                continue;
            }
            let candidate = (deployment.ready_at, &deployment.id, deployment.model.version);
            let best = newest.entry(deployment.model.name.as_str()).or_insert(candidate);
            *best = (*best).max(candidate);
            let entry = served
                .entry(deployment.model.clone())
                .or_insert_with(|| ServedModel {
                    model: deployment.model.clone(),
                    default_version: false,
                    newest: self.models.newest(&deployment.model.name).unwrap_or_default(),
                    organisation: deployment.organisation.clone(),
                    spec: model.body.spec.clone(),
                    weights: model.body.weights,
                    access: self.access.of(
                        &model_entity(&deployment.organisation, &deployment.model),
                        u64::from(deployment.model.version),
                    ),
                    replicas: Vec::new(),
                });
            entry.replicas.extend(replicas);
        }
        let is_newest = |model: &ModelVersion| {
            newest
                .get(model.name.as_str())
                .is_some_and(|n| n.2 == model.version)
        };
        let mut models: Vec<ServedModel> = served.into_values().collect();
        for model in &mut models {
            model.default_version = is_newest(&model.model);
        }
        models
    }

    /// Registered models of which nothing is served, with what they wait for.
    fn unserved_models(&self, served: &[ServedModel]) -> Vec<UnservedModel> {
        let served: BTreeSet<&Slug> = served.iter().map(|served| &served.model.name).collect();
        let mut deployed: BTreeMap<&Slug, &Deployment> = BTreeMap::new();
        for deployment in self.deployments.active() {
            let newest = deployed.entry(&deployment.model.name).or_insert(deployment);
            if (newest.created_at, &newest.id) < (deployment.created_at, &deployment.id) {
                *newest = deployment;
            }
        }
        let newest = self.models.newest_of_each();
        let unserved = newest.filter(|record| !served.contains(&record.model.name));
        unserved
            .take(UNSERVED_MAX)
            .map(|record| {
                let deployment = deployed.get(&record.model.name);
                let model = deployment.map_or(&record.model, |deployment| &deployment.model);
                UnservedModel {
                    model: model.clone(),
                    organisation: record.organisation.clone(),
                    access: self.access.of(
                        &model_entity(&record.organisation, model),
                        u64::from(model.version),
                    ),
                    why: deployment.map_or_else(
                        || "it is registered, but not deployed".to_owned(),
                        |deployment| deployment.not_ready(&self.nodes),
                    ),
                }
            })
            .collect()
    }

    fn routed_agents(&self) -> Vec<RoutedAgent> {
        let agents = self
            .nodes
            .with_kind(EntityKind::Agent)
            .filter(|node| node.is_online());
        let agents = agents.flat_map(|node| node.entities.iter().map(move |entity| (node, entity)));
        agents
            .filter_map(|(node, entity)| {
                let descriptor = self.topology.get(entity)?;
                let Body::Agent(body) = &descriptor.body else {
                    return None;
                };
                Some(RoutedAgent {
                    agent: entity.clone(),
                    peer: node.record.peer.clone(),
                    card: body.card.clone(),
                    streaming: body.streaming,
                    node: node.record.node,
                    access: self.access.of(entity, descriptor.version),
                })
            })
            .collect()
    }
}
