//! The live topology as the core feeds and asks it. Everything that the core wants of planning is here.

use crate::core::{Core, Nodes, nodes::Node};
use daitn_messages::{
    control::Link,
    descriptor::{Body, Descriptor, Telemetry},
    ids::{DecisionId, EntityId, EntityKind, NodeId, PlanId},
    learning::{ModelSpec, Strategy},
    plan::{Placement, Plan, Prediction, Site, Verdict},
    policy::Verb,
    request::{PlanKind, Search, TrainingRequest},
    units::UnixMillis,
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Default)]
pub(crate) struct Topology {
    all: BTreeMap<EntityId, Arc<Descriptor>>,
    nodes: BTreeMap<NodeId, bool>,
}

pub(crate) struct PlanIds {
    plan: PlanId,
    decision: DecisionId,
}

pub(super) fn ids(plan: PlanId, decision: DecisionId) -> PlanIds {
    PlanIds { plan, decision }
}

impl Core {
    pub(super) fn topology_upsert(&mut self, descriptor: Arc<Descriptor>) {
        self.topology.all.insert(descriptor.entity.clone(), descriptor);
    }

    pub(super) fn topology_withdraw(&mut self, entity: &EntityId) {
        self.forget_telemetry(entity);
        self.topology.all.remove(entity);
    }

    pub(super) fn topology_node(&mut self, node: NodeId) {
        let fit = self.nodes.get(node).is_some_and(Node::is_available);
        self.topology.nodes.insert(node, fit);
    }

    pub(super) fn topology_telemetry(&mut self, _telemetry: &Telemetry) {}

    pub(super) fn topology_link(&mut self, _link: Link) {}

    /// Entities that fit the structured part of a search, in the order of their ids.
    pub(super) fn topology_search(&self, search: &Search) -> Vec<Arc<Descriptor>> {
        let kind = |d: &&Arc<Descriptor>| search.kind.is_none_or(|kind| d.entity.kind == kind);
        self.topology.all.values().filter(kind).cloned().collect()
    }

    pub(super) fn topology_plan(
        &mut self,
        request: &TrainingRequest,
        ids: PlanIds,
        now: UnixMillis,
        _seed: u64,
    ) -> Verdict {
        let of = |kind: EntityKind| -> Vec<Placement> {
            let fit = self.topology.all.values().filter(|d| d.entity.kind == kind);
            fit.filter(|d| self.topology.nodes.get(&d.node).copied().unwrap_or(false))
                .map(|d| Placement {
                    entity: d.entity.clone(),
                    node: d.node,
                })
                .collect()
        };
        let mut aggregators = of(EntityKind::Aggregator);
        let (verifiers, hosts) = (of(EntityKind::Verifier), of(EntityKind::ModelHost));
        let mut sites = Vec::new();
        for dataset in of(EntityKind::Dataset) {
            let descriptor = self.topology.all[&dataset.entity].clone();
            let Body::Dataset(body) = &descriptor.body else {
                continue;
            };
            let context = daitn_messages::policy::UseContext {
                purpose: request.purpose.clone(),
                algorithm: "fed-avg".into(),
                protections: vec![],
                cohort: 3,
                jurisdiction: request.jurisdiction.clone(),
                recipients: vec![],
            };
            let answer = self
                .policies
                .permit(&request.organisation, Verb::Train, &descriptor, &context);
            if answer.allowed {
                sites.push(Site {
                    dataset: dataset.entity,
                    descriptor_version: descriptor.version,
                    node: dataset.node,
                    organisation: descriptor.entity.organisation.clone(),
                    compute: None,
                    records: body.records,
                    policies: answer.determining,
                    train_ms: 1,
                    transfer_ms: 1,
                });
            }
        }
        if sites.is_empty() || aggregators.is_empty() {
            return Verdict::Infeasible {
                binding: vec![],
                nearest: None,
                excluded: vec![],
            };
        }
        let n = u32::try_from(sites.len()).unwrap_or(1);
        Verdict::Feasible {
            plan: Box::new(Plan {
                id: ids.plan,
                decision: ids.decision,
                request: request.clone(),
                made_at: now,
                valid_until: now.plus(600_000),
                state_version: 0,
                kind: PlanKind::Rounds,
                strategy: Strategy::FedAvg,
                rounds: request.training.rounds,
                chains: (0..n).map(|i| vec![i]).collect(),
                sites,
                shuffle: false,
                quorum: (2 * n).div_ceil(3),
                round_deadline_ms: 10_000,
                aggregator: aggregators.remove(0),
                aggregator_spares: aggregators,
                verifiers,
                hosts,
                excluded: vec![],
                prediction: Prediction::default(),
                alternatives: vec![],
                why: String::new(),
            }),
        }
    }
}

/// Hosts that could serve a model, best first: those that the plan chose, then others, without the excluded.
pub(super) fn hosts(
    topology: &Topology,
    nodes: &Nodes,
    _spec: &ModelSpec,
    n_hosts: usize,
    preferred: &[Placement],
    excluded: &[EntityId],
) -> Vec<Placement> {
    let available = |p: &Placement| nodes.get(p.node).is_some_and(Node::is_available);
    let preferred = preferred
        .iter()
        .filter(|p| available(p) && !excluded.contains(&p.entity))
        .cloned();
    let mut found: Vec<Placement> = preferred.take(n_hosts).collect();
    for d in topology
        .all
        .values()
        .filter(|d| d.entity.kind == EntityKind::ModelHost)
    {
        let p = Placement {
            entity: d.entity.clone(),
            node: d.node,
        };
        if found.len() < n_hosts && available(&p) && !excluded.contains(&p.entity) && !found.contains(&p) {
            found.push(p);
        }
    }
    found
}
