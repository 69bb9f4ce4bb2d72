//! Where models are served: hosts with enough memory, spread over nodes and organisations.

use crate::{model::ModelCost, topology::Topology};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{ArtifactId, EntityId, EntityKind, NodeId, OrganisationId},
    learning::ModelSpec,
    plan::Placement,
    units::UnixMillis,
};
use std::collections::HashSet;

/// Memory of a served model beside its numbers: buffers of queries under way.
const SERVING_OVERHEAD_BYTES: u64 = 4 * 1024 * 1024;
/// Loads are compared in steps of this: smaller differences are noise.
const LOAD_STEP: f64 = 0.1;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// On how many hosts.
    pub replicas: usize,
    /// Hosts that are not to be taken: they failed, or have it already.
    pub exclude: &'a [EntityId],
    /// Now, for the age of telemetry.
    pub now: UnixMillis,
    /// Decides between hosts that are equally good, so that not everybody takes the same.
    pub seed: u64,
}

/// Up to as many hosts as wanted, best first: on as many nodes and in as many organisations as possible, the least
/// loaded, then the cheapest. Fewer if there are not enough that `may` be taken.
#[must_use]
pub fn hosts(
    topology: &Topology,
    wanted: &Wanted<'_>,
    may: &mut dyn FnMut(&Descriptor) -> bool,
) -> Vec<Placement> {
    let takes_work = |node| topology.reachability.takes_work(node);
    let mut ranked: Vec<(u64, u64, ArtifactId, &Descriptor)> = fitting(topology, wanted, &takes_work, may)
        .into_iter()
        .map(|(descriptor, price_micros)| {
            let load = 1.0 - topology.resources.free_share(&descriptor.entity, wanted.now);
            let load_steps = crate::numbers::whole((load / LOAD_STEP).floor());
            let tie = format!("{} {}", wanted.seed, descriptor.entity);
            (
                load_steps,
                price_micros,
                ArtifactId::of(tie.as_bytes()),
                descriptor,
            )
        })
        .collect();
    ranked.sort_unstable_by_key(|(load_steps, price_micros, tie, _)| (*load_steps, *price_micros, *tie));
    let mut chosen: Vec<&Descriptor> = Vec::new();
    // First an organisation each, then a node each, then whatever is left.
    for pass in 0..3 {
        let mut nodes: HashSet<NodeId> = chosen.iter().map(|d| d.node).collect();
        let mut organisations: HashSet<&OrganisationId> = chosen.iter().map(|d| d.organisation()).collect();
        for (_, _, _, descriptor) in &ranked {
            if chosen.len() >= wanted.replicas {
                break;
            }
            let taken = chosen.iter().any(|d| d.entity == descriptor.entity)
                || (pass < 2 && nodes.contains(&descriptor.node))
                || (pass < 1 && organisations.contains(descriptor.organisation()));
            if !taken {
                nodes.insert(descriptor.node);
                organisations.insert(descriptor.organisation());
                chosen.push(descriptor);
            }
        }
    }
    chosen
        .into_iter()
        .map(|descriptor| Placement {
            entity: descriptor.entity.clone(),
            node: descriptor.node,
        })
        .collect()
}

/// Hosts that would fit and `may` be taken, but for their nodes, which are being drained.
#[must_use]
pub fn n_draining(
    topology: &Topology,
    wanted: &Wanted<'_>,
    may: &mut dyn FnMut(&Descriptor) -> bool,
) -> usize {
    fitting(topology, wanted, &|node| topology.reachability.drains(node), may).len()
}

/// Hosts on nodes like this that could serve the model, with their price.
fn fitting<'a>(
    topology: &'a Topology,
    wanted: &Wanted<'_>,
    on: &dyn Fn(NodeId) -> bool,
    may: &mut dyn FnMut(&Descriptor) -> bool,
) -> Vec<(&'a Descriptor, u64)> {
    let needed_bytes = ModelCost::of(wanted.spec)
        .bytes
        .saturating_add(SERVING_OVERHEAD_BYTES);
    topology
        .of_kind(EntityKind::ModelHost)
        .into_iter()
        .filter(|descriptor| on(descriptor.node))
        .filter(|descriptor| !wanted.exclude.contains(&descriptor.entity))
        .filter_map(|descriptor| match &descriptor.body {
            Body::ModelHost(body) => {
                let free_bytes = topology
                    .resources
                    .fresh(&descriptor.entity, wanted.now)
                    .map_or(body.memory_bytes, |t| t.free_memory_bytes.min(body.memory_bytes));
                (free_bytes >= needed_bytes).then_some((&**descriptor, body.price_micros_per_thousand))
            }
            _ => None,
        })
        .filter(|(descriptor, _)| may(descriptor))
        .collect()
}
