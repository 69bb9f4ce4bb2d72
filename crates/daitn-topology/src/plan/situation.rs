//! Step 1: what there is. Which datasets have the columns and qualify, which compute trains on them, who could combine,
//! who could judge, who could serve.

use super::{
    consent::Asker,
    matching::{Filter, class_map, shares},
};
use crate::{model::ModelCost, numbers::counted, placement, quality, topology::Topology};
use daitn_messages::{
    descriptor::{AggregatorBody, Body, ComputeBody, DatasetBody, Descriptor},
    ids::{EntityId, EntityKind, OrganisationId},
    learning::{Strategy, Task},
    plan::{Constraint, ConstraintName, Exclusion, Placement},
    policy::PolicyAnswer,
    request::{NORM_CLIP, PlanKind, TrainingRequest},
    units::UnixMillis,
};
use std::collections::{HashMap, HashSet};

/// Aggregators that take over when the first is lost.
const SPARES_MAX: usize = 2;
/// Organisations whose aggregators are tried when policies refuse the best one's.
const CONDUCTOR_ORGANISATIONS_MAX: usize = 4;
/// Candidates whose distance decides which aggregator is nearest: more would not change the mean much.
const DISTANCE_SAMPLE: usize = 512;
/// Most exclusions that a verdict lists.
const EXCLUSIONS_MAX: usize = 10_000;
/// Memory that a facility needs beside the table, in models: weights, gradients and two buffers.
const MODELS_IN_MEMORY: u64 = 4;

/// A dataset that qualifies and can be trained on now, policies aside.
pub(super) struct Candidate<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) body: &'a DatasetBody,
    /// Label shares in the order of the request's classes, where the owner tells them.
    pub(super) shares: Option<Vec<f32>>,
    /// The facility that trains, where it is not the node itself.
    pub(super) facility: Option<Facility<'a>>,
    /// Multiply-adds a millisecond that this job gets.
    pub(super) rate_per_ms: f64,
}

#[derive(Clone, Copy)]
pub(super) struct Facility<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) body: &'a ComputeBody,
}

/// Who could drive a job and who could take over.
pub(super) struct Conductors<'a> {
    pub(super) main: &'a Descriptor,
    pub(super) price_micros_per_gb: u64,
    pub(super) spares: Vec<&'a Descriptor>,
    /// Organisations of all of them, sorted.
    pub(super) organisations: Vec<OrganisationId>,
}

/// What there is for a request.
pub(super) struct Situation<'a> {
    pub(super) topology: &'a Topology,
    pub(super) request: &'a TrainingRequest,
    pub(super) now: UnixMillis,
    pub(super) model: ModelCost,
    /// In the order of ids.
    pub(super) candidates: Vec<Candidate<'a>>,
    pub(super) excluded: Vec<Exclusion>,
    /// Datasets with the columns, target and task.
    pub(super) n_with_columns: usize,
    /// Best first.
    pub(super) conductors: Vec<Conductors<'a>>,
    /// Verification units that know the truth of the target, in the order of ids.
    pub(super) units: Vec<&'a Descriptor>,
    pub(super) hosts: Vec<Placement>,
    pub(super) drained: Drained,
}

/// What would do, but for its node, which is being drained and takes no new work.
#[derive(Default)]
pub(super) struct Drained {
    pub(super) n_datasets: usize,
    n_aggregators: usize,
    n_units: usize,
    n_hosts: usize,
}

impl<'a> Situation<'a> {
    pub(super) fn new(
        topology: &'a Topology,
        request: &'a TrainingRequest,
        now: UnixMillis,
        seed: u64,
        asker: &mut Asker<'_, '_>,
    ) -> Self {
        let spec = request.model_spec();
        let mut situation = Self {
            topology,
            request,
            now,
            model: ModelCost::of(&spec),
            candidates: Vec::new(),
            excluded: Vec::new(),
            n_with_columns: 0,
            conductors: Vec::new(),
            units: Vec::new(),
            hosts: Vec::new(),
            drained: Drained::default(),
        };
        situation.match_data(asker);
        situation.assign_compute(asker);
        let aggregators = situation.aggregators(asker);
        situation.conductors = situation.find_conductors(&aggregators);
        let drained = aggregators
            .iter()
            .filter(|(d, _)| topology.reachability.drains(d.node));
        situation.drained.n_aggregators = drained.count();
        if let Some(deployment) = &request.deployment {
            let wanted = placement::Wanted {
                spec: &spec,
                replicas: deployment.replicas as usize,
                exclude: &[],
                now,
                seed,
            };
            let mut sees = |host: &Descriptor| asker.sees(host);
            situation.hosts = placement::hosts(topology, &wanted, &mut sees);
            situation.drained.n_hosts = placement::n_draining(topology, &wanted, &mut sees);
        }
        situation
    }

    /// Whether what is learned are classes, so that sites can differ in their shares.
    pub(super) fn has_classes(&self) -> bool {
        matches!(self.request.task, Task::Classification { .. })
    }

    /// The skew to reckon with where too few owners tell their label shares.
    pub(super) fn skew_assumed(&self) -> f64 {
        if self.has_classes() {
            quality::SKEW_ASSUMED
        } else {
            0.0
        }
    }

    /// How many verification units are asked; 0 if there are too few.
    pub(super) fn n_units(&self) -> usize {
        match self.request.verification.units {
            Some(units) => units as usize,
            None => self.units.len(),
        }
    }

    fn match_data(&mut self, asker: &mut Asker<'_, '_>) {
        let knowledge = &self.topology.knowledge;
        let filter = Filter::new(self.request);
        let shapes = knowledge.shapes_with(&self.request.features, Some(&self.request.target));
        let mut matched: Vec<(&'a Descriptor, Option<usize>)> = Vec::new();
        let mut class_maps: Vec<Vec<Option<usize>>> = Vec::new();
        for shape in shapes {
            let shape = &knowledge.shapes[shape as usize];
            let map = class_map(&self.request.task, &shape.task);
            let place = map.map(|map| {
                class_maps.push(map);
                class_maps.len() - 1
            });
            let entries = shape.entries.as_slice().iter();
            matched.extend(entries.map(|number| (&**knowledge.descriptor(*number), place)));
        }
        matched.sort_unstable_by(|a, b| a.0.entity.cmp(&b.0.entity));
        for (descriptor, place) in matched {
            if !asker.sees(descriptor) {
                continue;
            }
            match (&descriptor.body, place) {
                (Body::Dataset(_), None) => self.exclude(
                    &descriptor.entity,
                    ConstraintName::Schema,
                    "it has the columns, but its target has classes that the request does not name, or is of another kind",
                ),
                (Body::Dataset(body), Some(place)) => {
                    self.n_with_columns += 1;
                    match self.unfit(&filter, descriptor, body) {
                        Some((constraint, reason)) => {
                            let drains = constraint == ConstraintName::Reachability
                                && self.topology.reachability.drains(descriptor.node);
                            self.drained.n_datasets += usize::from(drains);
                            self.exclude(&descriptor.entity, constraint, &reason);
                        }
                        None => self.candidates.push(Candidate {
                            descriptor,
                            body,
                            shares: shares(body, &class_maps[place]),
                            facility: None,
                            rate_per_ms: 0.0,
                        }),
                    }
                }
                (Body::Verifier(_), Some(_)) if self.topology.reachability.takes_work(descriptor.node) => {
                    self.admit_unit(descriptor, &asker.may_evaluate(descriptor));
                }
                (Body::Verifier(_), Some(_)) if self.topology.reachability.drains(descriptor.node) => {
                    self.drained.n_units += 1;
                }
                _ => {}
            }
        }
    }

    /// A verification unit is there for the request if policies let it evaluate for the requester.
    fn admit_unit(&mut self, unit: &'a Descriptor, answer: &PolicyAnswer) {
        if answer.allowed {
            self.units.push(unit);
        } else if self.excluded.len() < EXCLUSIONS_MAX {
            self.excluded.push(Exclusion {
                entity: unit.entity.clone(),
                constraint: ConstraintName::Policy,
                reason: "a policy forbids that it evaluates for this requester".to_owned(),
                policies: answer.determining.clone(),
            });
        }
    }

    fn exclude(&mut self, entity: &EntityId, constraint: ConstraintName, reason: &str) {
        if self.excluded.len() < EXCLUSIONS_MAX {
            self.excluded.push(Exclusion {
                entity: entity.clone(),
                constraint,
                reason: reason.to_owned(),
                policies: Vec::new(),
            });
        }
    }

    /// Why a dataset with the columns cannot take part now, policies aside.
    fn unfit(
        &self,
        filter: &Filter<'_>,
        descriptor: &Descriptor,
        body: &DatasetBody,
    ) -> Option<(ConstraintName, String)> {
        if let Some(reason) = filter.refuses(descriptor) {
            return Some((ConstraintName::Sites, reason));
        }
        if body.records < filter.records_min {
            let reason = format!(
                "it has {} records, the request takes datasets of at least {}",
                body.records, filter.records_min
            );
            return Some((ConstraintName::Records, reason));
        }
        match self.topology.node(descriptor.node) {
            Some(state) if state.online && !state.draining => None,
            Some(state) if state.online => {
                let reason = "its node is being drained and takes no new work".to_owned();
                Some((ConstraintName::Reachability, reason))
            }
            _ => {
                let reason = "its node is not connected".to_owned();
                Some((ConstraintName::Reachability, reason))
            }
        }
    }

    /// Gives every candidate compute: its node's own, or of the facilities that its owner allows the one that is least
    /// shared. Who gets none is excluded.
    fn assign_compute(&mut self, asker: &mut Asker<'_, '_>) {
        let mut shared_by: HashMap<&'a EntityId, u32> = HashMap::new();
        // Many datasets allow the same facilities.
        let mut seen: HashMap<&'a EntityId, bool> = HashMap::new();
        let mut sees = |facility: &Facility<'a>| {
            let descriptor = facility.descriptor;
            let known = seen.entry(&descriptor.entity);
            *known.or_insert_with(|| asker.sees(descriptor))
        };
        let mut kept: Vec<Candidate<'a>> = Vec::with_capacity(self.candidates.len());
        for mut candidate in std::mem::take(&mut self.candidates) {
            let own = candidate.body.compute_rate;
            if own > 0 {
                let share = self
                    .topology
                    .resources
                    .free_share(&candidate.descriptor.entity, self.now);
                candidate.rate_per_ms = own as f64 / 1_000.0 * share;
                kept.push(candidate);
                continue;
            }
            let n_others = |facility: &Facility<'_>| shared_by.get(&facility.descriptor.entity).copied();
            let rate = |facility: &Facility<'_>| {
                self.facility_rate(facility) / f64::from(n_others(facility).unwrap_or(0) + 1)
            };
            let mut best: Option<(f64, Facility<'a>)> = None;
            for facility in self.facilities(candidate.body).filter(|facility| sees(facility)) {
                let offered = rate(&facility);
                if best.is_none_or(|(known, _)| offered > known) {
                    best = Some((offered, facility));
                }
            }
            match best {
                Some((_, facility)) => {
                    *shared_by.entry(&facility.descriptor.entity).or_default() += 1;
                    candidate.facility = Some(facility);
                    kept.push(candidate);
                }
                None => {
                    let reason = format!(
                        "its node has no compute, and none of the {} facilities that its owner allows can be had: \
                         connected, with enough memory, and not hidden from the requester",
                        candidate.body.compute_allowed.len()
                    );
                    self.exclude(&candidate.descriptor.entity, ConstraintName::Resources, &reason);
                }
            }
        }
        for candidate in &mut kept {
            if let Some(facility) = candidate.facility {
                let sharing = shared_by.get(&facility.descriptor.entity).copied().unwrap_or(1);
                candidate.rate_per_ms = self.facility_rate(&facility) / f64::from(sharing);
            }
        }
        self.candidates = kept;
    }

    fn facilities(&self, body: &DatasetBody) -> impl Iterator<Item = Facility<'a>> {
        let table_bytes = body
            .records
            .saturating_mul(self.request.features.len() as u64 + 1)
            .saturating_mul(4);
        let needed_bytes = self
            .model
            .bytes
            .saturating_mul(MODELS_IN_MEMORY)
            .saturating_add(table_bytes);
        let topology = self.topology;
        let mut allowed: Vec<&EntityId> = body.compute_allowed.iter().collect();
        allowed.sort_unstable();
        allowed.dedup();
        allowed
            .into_iter()
            .filter_map(|entity| topology.get(entity))
            .filter(|descriptor| topology.reachability.takes_work(descriptor.node))
            .filter_map(move |descriptor| match &descriptor.body {
                Body::Compute(body) if body.memory_bytes >= needed_bytes && body.compute_rate > 0 => {
                    Some(Facility { descriptor, body })
                }
                _ => None,
            })
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn facility_rate(&self, facility: &Facility<'_>) -> f64 {
        let share = self
            .topology
            .resources
            .free_share(&facility.descriptor.entity, self.now);
        facility.body.compute_rate as f64 / 1_000.0 * share
    }

    /// Storage that an aggregator needs.
    fn aggregator_bytes(&self) -> u64 {
        let n_sites = u64::from(self.request.sla.sites_min);
        self.model.bytes.saturating_mul(n_sites)
    }

    /// Aggregators with enough storage that the requester may know of, whether they take work now or not.
    fn aggregators(&self, asker: &mut Asker<'_, '_>) -> Vec<(&'a Descriptor, &'a AggregatorBody)> {
        let needed_bytes = self.aggregator_bytes();
        let all = self.topology.of_kind(EntityKind::Aggregator).into_iter();
        all.filter_map(|descriptor| match &descriptor.body {
            Body::Aggregator(body) if body.storage_bytes >= needed_bytes => Some((&**descriptor, body)),
            _ => None,
        })
        .filter(|(descriptor, _)| asker.sees(descriptor))
        .collect()
    }

    /// Aggregators by distance, then price; for each organisation once with spares of any organisation and, where that
    /// makes a difference, once with spares of its own only: recipients are what policies look at.
    fn find_conductors(&self, aggregators: &[(&'a Descriptor, &'a AggregatorBody)]) -> Vec<Conductors<'a>> {
        let there = aggregators
            .iter()
            .filter(|(d, _)| self.topology.reachability.takes_work(d.node));
        let mut ranked: Vec<(u64, u64, &'a Descriptor)> = there
            .map(|(d, body)| (self.distance_micros(d), body.price_micros_per_gb, *d))
            .collect();
        ranked.sort_unstable_by(|a, b| (a.0, a.1, &a.2.entity).cmp(&(b.0, b.1, &b.2.entity)));
        let mut seen = HashSet::new();
        let firsts: Vec<_> = ranked
            .iter()
            .filter(|(_, _, descriptor)| seen.insert(descriptor.organisation()))
            .take(CONDUCTOR_ORGANISATIONS_MAX)
            .collect();
        let mut options = Vec::new();
        for (_, price_micros_per_gb, main) in firsts {
            let option = |own_only: bool| {
                let spares: Vec<&'a Descriptor> = ranked
                    .iter()
                    .map(|(_, _, descriptor)| *descriptor)
                    .filter(|d| d.node != main.node)
                    .filter(|d| !own_only || d.organisation() == main.organisation())
                    .take(SPARES_MAX)
                    .collect();
                let mut organisations: Vec<OrganisationId> = std::iter::once(main)
                    .chain(&spares)
                    .map(|d| d.organisation().clone())
                    .collect();
                organisations.sort_unstable();
                organisations.dedup();
                Conductors {
                    main,
                    price_micros_per_gb: *price_micros_per_gb,
                    spares,
                    organisations,
                }
            };
            let any = option(false);
            let differs = any.organisations.len() > 1;
            options.push(any);
            if differs {
                options.push(option(true));
            }
        }
        options
    }

    /// Mean time to move the model between an aggregator and the candidates, microseconds.
    fn distance_micros(&self, aggregator: &Descriptor) -> u64 {
        let sample = self.candidates.len().min(DISTANCE_SAMPLE);
        let total: f64 = self.candidates[..sample]
            .iter()
            .map(|candidate| {
                let path = self.topology.path(aggregator.node, candidate.descriptor.node);
                path.transfer_ms(self.model.bytes)
            })
            .sum();
        crate::numbers::whole(total * 1_000.0 / sample.max(1) as f64)
    }

    /// What is missing whatever sites are chosen.
    pub(super) fn shortages(&self) -> Vec<Constraint> {
        let request = self.request;
        let mut missing = Vec::new();
        let mut short = |name, needed: usize, available: usize, unit: &str, explanation: String| {
            missing.push(Constraint {
                name,
                needed: needed as f64,
                available: available as f64,
                unit: unit.to_owned(),
                explanation,
            });
        };
        let sites_min = request.sla.sites_min as usize;
        if self.n_with_columns == 0 {
            let explanation = format!(
                "No dataset has the {} feature columns and the target `{}` with these classes. Search for the columns to \
                 see what there is.",
                request.features.len(),
                request.target
            );
            short(ConstraintName::Schema, sites_min, 0, "sites", explanation);
        }
        if self.conductors.is_empty() {
            let explanation = match self.drained.n_aggregators {
                0 => "No aggregator with enough storage is connected. Attach one to a node.".to_owned(),
                n => format!("No aggregator takes new work{}. {DRAIN_HELP}", drained_too(n)),
            };
            short(ConstraintName::Aggregator, 1, 0, "aggregators", explanation);
        }
        let units = request
            .verification
            .units
            .unwrap_or(0)
            .max(request.verification.required) as usize;
        if self.units.len() < units {
            let explanation = format!(
                "{} with a hold-out of these columns can be had now; {units} asked for{}.",
                counted(self.units.len(), "verification unit"),
                drained_too(self.drained.n_units)
            );
            short(
                ConstraintName::Verifiers,
                units,
                self.units.len(),
                "units",
                explanation,
            );
        }
        let replicas = request.deployment.as_ref().map_or(0, |d| d.replicas as usize);
        if self.hosts.len() < replicas {
            let explanation = format!(
                "{} with memory for the model can be had now; {} asked for{}.",
                counted(self.hosts.len(), "host"),
                counted(replicas, "replica"),
                drained_too(self.drained.n_hosts)
            );
            short(
                ConstraintName::Hosts,
                replicas,
                self.hosts.len(),
                "hosts",
                explanation,
            );
        }
        if !goes_together(request) {
            let explanation = if matches!(request.training.strategy, Some(Strategy::Scaffold)) {
                "SCAFFOLD's control variates are combined after every site's work, so it needs rounds: a model that \
                 travels has no such moment."
            } else {
                "`norm-clip` bounds each site's update before updates are combined, so it needs rounds: where a model \
                 travels, one site goes on from another's work as it is."
            };
            let explanation = explanation.to_owned();
            short(ConstraintName::Algorithm, 1, 0, "kinds", explanation);
        }
        missing
    }
}

/// What helps where only nodes that are being drained stand in the way.
const DRAIN_HELP: &str = "`daitn node drain NODE --undo` gives a node work again; or attach one elsewhere.";

/// How many more there would be, but for draining; nothing where there are none.
fn drained_too(n: usize) -> String {
    match n {
        0 => String::new(),
        1 => "; 1 more is on a node that is being drained".to_owned(),
        n => format!("; {n} more are on nodes that are being drained"),
    }
}

/// Whether what is asked for can be kept in the kind of plan that is asked for.
pub(super) fn goes_together(request: &TrainingRequest) -> bool {
    let must_travel = matches!(
        request.training.kind,
        Some(PlanKind::Itinerary | PlanKind::Hybrid)
    );
    !must_travel || may_travel(request)
}

/// Whether the model may travel from site to site: not where something is to be done with each site's update first.
pub(super) fn may_travel(request: &TrainingRequest) -> bool {
    let clips = request
        .protections
        .iter()
        .any(|protection| protection == NORM_CLIP);
    !clips && !matches!(request.training.strategy, Some(Strategy::Scaffold))
}
