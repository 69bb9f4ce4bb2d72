//! DRRT, the training view: from a request to *Feasible(plan)* or *Infeasible(binding constraints, nearest request)*.
//!
//! The steps, each in its own file:
//! 1. `situation`, with `matching` — which datasets have the columns and qualify, where they are trained, who could combine, judge, serve;
//! 2. `costing` — time, bytes and price of a set of sites, for each kind of plan;
//! 3. `select` — which sites, within the bounds;
//! 4. `consent` — what their owners' policies say, for exactly this cohort and these recipients; who is refused leaves
//!    the pool and the choice is made again, until nobody is; and the quorum that keeps every round as large as the
//!    owners ask for;
//! 5. `ways` — each kind and strategy so considered, scored by expected quality, time and data, and the best taken;
//! 6. `infeasible` — or else every bound that stands against it, and the nearest request that would do.

mod matching;

mod situation;

mod costing;

mod chains;

mod select;

mod consent;
pub use consent::{evaluation_context, quorum_wanted, site_context};

mod ways;

mod assemble;

mod infeasible;

use crate::topology::Topology;
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{DecisionId, EntityKind, PlanId},
    plan::{Placement, Plan, Verdict},
    policy::{PolicyAnswer, UseContext, Verb},
    request::TrainingRequest,
    units::UnixMillis,
};

/// How long a plan can be applied after it was made: long enough to read it, short enough that loads still hold.
pub const PLAN_VALID_MS: u64 = 10 * 60 * 1_000;
/// Most sites that a model travels through (itinerary, hybrid): hops are sequential, and each site's order names all
/// others as recipients and peers. With more candidates the ones with most records are taken.
pub const CHAINED_SITES_MAX: usize = 256;

/// Names for what comes out, given by the caller, who has time and randomness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanIds {
    /// Of the plan.
    pub plan: PlanId,
    /// Of the decision record.
    pub decision: DecisionId,
}

/// Asks the policies whether the requester may do this with an entity in these circumstances: discover it, train on a
/// dataset, have a verification unit evaluate.
pub(crate) type Permit<'p> = dyn FnMut(Verb, &Descriptor, &UseContext) -> PolicyAnswer + 'p;

/// Decides whether and how a request can be met. The request has been validated.
///
/// `permit` is asked whether the requester may train once for each candidate site and way that is seriously considered,
/// and again only when the cohort or the recipients change, and for the cohort of the quorum; it is never asked the same
/// of these questions twice. An entity that the requester may not discover is as if it were not there: dataset, facility,
/// aggregator, verification unit or host. The same inputs give the same verdict, byte for byte; `seed` decides only between
/// equally good hosts.
pub fn plan(
    topology: &Topology,
    request: &TrainingRequest,
    permit: &mut Permit<'_>,
    ids: PlanIds,
    now: UnixMillis,
    seed: u64,
) -> Verdict {
    let mut asker = consent::Asker::new(permit, request);
    let situation = situation::Situation::new(topology, request, now, seed, &mut asker);
    if situation.shortages().is_empty() {
        let considered = ways::consider(&situation, &mut asker, &select::Bounds::of(request));
        if let Some(plan) = assemble::plan(&situation, &mut asker, &considered, &ids) {
            return Verdict::Feasible { plan: Box::new(plan) };
        }
    }
    infeasible::verdict(&situation, &mut asker, ids.decision)
}

/// Verification units that could judge a plan's model besides its own, away from those who train where that can be had:
/// whoever loses one of the plan's asks these. At most `n_max`, of those that the requester `may` see and have evaluate.
pub fn spare_units(
    topology: &Topology,
    plan: &Plan,
    n_max: usize,
    may: &mut dyn FnMut(&Descriptor) -> bool,
) -> Vec<Placement> {
    let request = &plan.request;
    let judges = |descriptor: &&Descriptor| match &descriptor.body {
        Body::Verifier(body) => {
            body.target == request.target
                && matching::class_map(&request.task, &body.task).is_some()
                && request
                    .features
                    .iter()
                    .all(|feature| body.features.contains(feature))
        }
        _ => false,
    };
    let is_new =
        |descriptor: &&Descriptor| plan.verifiers.iter().all(|unit| unit.entity != descriptor.entity);
    let units = topology.of_kind(EntityKind::Verifier);
    let units = units.into_iter().map(|descriptor| &**descriptor);
    let units = units
        .filter(|d| topology.takes_work(&d.entity))
        .filter(is_new)
        .filter(judges)
        .filter(|unit| may(unit));
    let mut units: Vec<_> = units
        .map(|unit| {
            let same_node = plan.sites.iter().any(|site| site.node == unit.node);
            let same_organisation = plan
                .sites
                .iter()
                .any(|site| site.organisation == *unit.organisation());
            (same_node, same_organisation, unit)
        })
        .collect();
    units.sort_by(|a, b| (a.0, a.1, &a.2.entity).cmp(&(b.0, b.1, &b.2.entity)));
    let placement = |(_, _, unit): (bool, bool, &Descriptor)| Placement {
        entity: unit.entity.clone(),
        node: unit.node,
    };
    units.into_iter().take(n_max).map(placement).collect()
}
