//! Step 6: why a request cannot be met, and the nearest one that can.
//!
//! What is asked of the data (sites, records, quorum, units, replicas) is lowered to what there is; then what the job may
//! use (time, bytes, price) is raised to the least that this takes. Only bounds that bind are touched, and the result is
//! planned before it is proposed.

use super::{
    assemble,
    consent::{Asker, Refusal},
    select::{Bounds, Goal, Metric},
    situation::{Situation, goes_together},
    ways::{self, Draft, Evaluated},
};
use crate::numbers;
use daitn_messages::{
    ids::DecisionId,
    plan::{Constraint, ConstraintName, Exclusion, Verdict},
    request::{PlanKind, TrainingRequest},
};
use std::collections::BTreeMap;

/// Questions that looking for enough company may cost.
const QUESTIONS_FOR_COMPANY: usize = 20_000;

pub(super) fn verdict(situation: &Situation<'_>, asker: &mut Asker<'_, '_>, decision: DecisionId) -> Verdict {
    let mut binding = situation.shortages();
    let mut finding = Finding::default();
    let relaxed = without_shortages(situation);
    // What is missing besides shows only when the shortages are out of the way.
    if let Some(request) = &relaxed {
        let again = Situation::new(situation.topology, request, situation.now, 0, asker);
        asker.forget();
        if again.shortages().is_empty() {
            finding = find(&again, asker);
        }
    } else {
        finding.binding = too_few(situation, situation.candidates.len(), total_records(situation), 0);
    }
    binding.append(&mut finding.binding);
    let mut excluded = situation.excluded.clone();
    excluded.append(&mut finding.refused);
    excluded.sort_by(|a, b| a.entity.cmp(&b.entity));
    excluded.dedup_by(|a, b| a.entity == b.entity);
    Verdict::Infeasible {
        decision: Some(decision),
        binding,
        nearest: finding.nearest.map(Box::new),
        excluded,
    }
}

/// What was found out about a request without structural shortages.
#[derive(Default)]
struct Finding {
    binding: Vec<Constraint>,
    nearest: Option<TrainingRequest>,
    refused: Vec<Exclusion>,
}

/// The request with units, replicas and kind as they can be had; `None` where something cannot be had at all.
fn without_shortages(situation: &Situation<'_>) -> Option<TrainingRequest> {
    if situation.n_with_columns == 0 || situation.units.is_empty() || situation.conductors.is_empty() {
        return None;
    }
    let mut request = situation.request.clone();
    let n_units = numbers::index(situation.units.len());
    request.verification.required = request.verification.required.min(n_units);
    request.verification.units = request.verification.units.map(|units| units.min(n_units));
    if let Some(deployment) = &mut request.deployment {
        let n_hosts = numbers::index(situation.hosts.len());
        deployment.replicas = deployment.replicas.min(n_hosts);
        if n_hosts == 0 {
            request.deployment = None;
        }
    }
    if !goes_together(&request) {
        request.training.kind = Some(PlanKind::Rounds);
    }
    Some(request)
}

fn find(situation: &Situation<'_>, asker: &mut Asker<'_, '_>) -> Finding {
    let asked = Bounds::of(situation.request);
    // The most that can be had, whatever it takes.
    let (sites_max, most) = most(situation, asker, &asked);
    let refused = refusals(situation, &most);
    let best = most
        .iter()
        .filter_map(|e| e.draft.as_ref())
        .max_by_key(|draft| (draft.set.len(), draft.totals.records));
    let (n_sites, records) = best.map_or((0, 0), |d| (d.set.len(), d.totals.records));
    let mut binding = if sites_max > asked.sites_max {
        vec![too_lonely(&asked, sites_max)]
    } else {
        too_few(situation, n_sites, records, refused.len())
    };
    if n_sites == 0 {
        return Finding {
            binding,
            nearest: None,
            refused,
        };
    }
    let mut bounds = Bounds {
        sites_min: asked.sites_min.min(n_sites),
        records_min: asked.records_min.min(records),
        sites_max,
        ..asked
    };
    for metric in Metric::ALL {
        if limit(&bounds, metric).is_finite()
            && let Some(least) = least(situation, asker, &bounds, metric)
            && least > limit(&bounds, metric)
        {
            binding.push(over(metric, limit(&asked, metric), least));
            set_limit(&mut bounds, metric, least);
        }
    }
    if !feasible(situation, asker, &bounds) {
        // Each bound alone could be kept, or was raised, but not all at once: the draft that breaks them least.
        if let Some(draft) = least_broken(situation, asker, &bounds) {
            for metric in Metric::ALL {
                let taken = metric.of(&draft.totals).ceil();
                if taken > limit(&bounds, metric) {
                    binding.retain(|c| c.name != name(metric));
                    binding.push(over(metric, limit(&asked, metric), taken));
                    set_limit(&mut bounds, metric, taken);
                }
            }
        }
    }
    let nearest =
        feasible(situation, asker, &bounds).then(|| request_with(situation.request, &asked, &bounds));
    binding.sort_by_key(|constraint| constraint.name);
    Finding {
        binding,
        nearest,
        refused,
    }
}

/// Every way with as many sites as agree. If nobody does because the request takes so few sites that owners who ask for
/// company refuse, then with as few more as it needs; the number of sites that was allowed comes with it.
fn most(situation: &Situation<'_>, asker: &mut Asker<'_, '_>, asked: &Bounds) -> (usize, Vec<Evaluated>) {
    let with = |asker: &mut Asker<'_, '_>, sites_max: usize| {
        let open = Bounds {
            sites_min: 1,
            records_min: 0,
            sites_max,
            ..asked.without_limits()
        };
        ways::evaluate_all(situation, asker, &open, Goal::Most)
    };
    let agreed = |ways: &[Evaluated]| ways.iter().any(|e| e.draft.is_some());
    let first = with(asker, asked.sites_max);
    let n_candidates = situation.candidates.len();
    if agreed(&first) || asked.sites_max >= n_candidates {
        return (asked.sites_max, first);
    }
    let n_tries = (QUESTIONS_FOR_COMPANY / n_candidates).clamp(1, n_candidates - asked.sites_max);
    let tries = (asked.sites_max + 1..n_candidates).take(n_tries - 1);
    for sites_max in tries.chain([n_candidates]) {
        let ways = with(asker, sites_max);
        if agreed(&ways) {
            return (sites_max, ways);
        }
    }
    (asked.sites_max, first)
}

fn too_lonely(asked: &Bounds, sites_max: usize) -> Constraint {
    Constraint {
        name: ConstraintName::Sites,
        needed: sites_max as f64,
        available: asked.sites_max as f64,
        unit: "sites".to_owned(),
        explanation: format!(
            "The request takes at most {}, and every owner asks for more company than that. Allow {sites_max}.",
            numbers::counted(asked.sites_max, "site")
        ),
    }
}

fn feasible(situation: &Situation<'_>, asker: &mut Asker<'_, '_>, bounds: &Bounds) -> bool {
    ways::evaluate_all(situation, asker, bounds, Goal::Most)
        .iter()
        .any(|e| e.draft.is_some())
}

/// The least of a metric that any way needs, with the other limits open; whole, rounded up.
fn least(
    situation: &Situation<'_>,
    asker: &mut Asker<'_, '_>,
    bounds: &Bounds,
    metric: Metric,
) -> Option<f64> {
    drafts(
        situation,
        asker,
        &bounds.without_limits(),
        &[Goal::Least(metric), Goal::Most],
    )
    .iter()
    .map(|draft| metric.of(&draft.totals).ceil())
    .min_by(f64::total_cmp)
}

/// The draft that breaks the limits least, as a sum of shares.
fn least_broken(situation: &Situation<'_>, asker: &mut Asker<'_, '_>, bounds: &Bounds) -> Option<Draft> {
    let mut goals = vec![Goal::Most];
    goals.extend(Metric::ALL.map(Goal::Least));
    let broken = |draft: &Draft| {
        let over = Metric::ALL.map(|metric| {
            let limit = limit(bounds, metric);
            if limit.is_finite() {
                (metric.of(&draft.totals) / limit.max(1.0) - 1.0).max(0.0)
            } else {
                0.0
            }
        });
        over.iter().sum::<f64>()
    };
    drafts(situation, asker, &bounds.without_limits(), &goals)
        .into_iter()
        .min_by(|a, b| broken(a).total_cmp(&broken(b)))
}

fn drafts(
    situation: &Situation<'_>,
    asker: &mut Asker<'_, '_>,
    bounds: &Bounds,
    goals: &[Goal],
) -> Vec<Draft> {
    goals
        .iter()
        .flat_map(|goal| ways::evaluate_all(situation, asker, bounds, *goal))
        .filter_map(|evaluated| evaluated.draft)
        .collect()
}

fn limit(bounds: &Bounds, metric: Metric) -> f64 {
    match metric {
        Metric::Time => bounds.ms_max,
        Metric::Bytes => bounds.bytes_max,
        Metric::Cost => bounds.cost_micros_max,
    }
}

fn set_limit(bounds: &mut Bounds, metric: Metric, value: f64) {
    match metric {
        Metric::Time => bounds.ms_max = value,
        Metric::Bytes => bounds.bytes_max = value,
        Metric::Cost => bounds.cost_micros_max = value,
    }
}

fn name(metric: Metric) -> ConstraintName {
    match metric {
        Metric::Time => ConstraintName::Deadline,
        Metric::Bytes => ConstraintName::Bytes,
        Metric::Cost => ConstraintName::Cost,
    }
}

/// A limit that is too tight: `needed` is what the job takes, `available` what the request allows.
fn over(metric: Metric, allowed: f64, taken: f64) -> Constraint {
    let (what, unit, helps) = match metric {
        Metric::Time => (
            "time",
            "ms",
            "Allow more time, fewer rounds or epochs, or fewer sites.",
        ),
        Metric::Bytes => (
            "bytes moved between nodes",
            "bytes",
            "Allow more, or take fewer rounds, fewer sites, a smaller model or an itinerary.",
        ),
        Metric::Cost => (
            "price",
            "micros",
            "Allow more, or take fewer rounds or epochs, or fewer sites.",
        ),
    };
    Constraint {
        name: name(metric),
        needed: taken,
        available: allowed,
        unit: unit.to_owned(),
        explanation: format!(
            "The least {what} that sites and records as asked take is {taken:.0} {unit}; the request allows \
             {allowed:.0}. {helps}"
        ),
    }
}

fn total_records(situation: &Situation<'_>) -> u64 {
    let records = situation.candidates.iter().map(|c| c.body.records);
    records.fold(0, u64::saturating_add)
}

/// Too few sites or records, and what keeps others away.
fn too_few(situation: &Situation<'_>, n_sites: usize, records: u64, n_refused: usize) -> Vec<Constraint> {
    let asked = Bounds::of(situation.request);
    let mut binding = Vec::new();
    let constraint = |name, needed: f64, available: f64, unit: &str, explanation: String| Constraint {
        name,
        needed,
        available,
        unit: unit.to_owned(),
        explanation,
    };
    let lacks_sites = n_sites < asked.sites_min;
    let lacks_records = records < asked.records_min;
    if lacks_sites {
        let explanation = format!(
            "{} can take part; the request needs {} (its `sites_min` or its quorum). Ask for fewer, or for \
             what the excluded ones want.",
            numbers::counted(n_sites, "site"),
            asked.sites_min
        );
        let (needed, available) = (asked.sites_min as f64, n_sites as f64);
        binding.push(constraint(
            ConstraintName::Sites,
            needed,
            available,
            "sites",
            explanation,
        ));
    }
    if lacks_records {
        let explanation = format!(
            "The sites that can take part hold {records} records; the request needs {}.",
            asked.records_min
        );
        let (needed, available) = (asked.records_min as f64, records as f64);
        binding.push(constraint(
            ConstraintName::Records,
            needed,
            available,
            "records",
            explanation,
        ));
    }
    if lacks_sites || lacks_records {
        let mut away: BTreeMap<ConstraintName, usize> = BTreeMap::new();
        for exclusion in &situation.excluded {
            *away.entry(exclusion.constraint).or_default() += 1;
        }
        away.insert(ConstraintName::Policy, n_refused);
        let n_unreachable = away.get(&ConstraintName::Reachability).copied();
        let unreachable = match situation.drained.n_datasets {
            0 => "on a node that is not connected",
            n if n_unreachable == Some(n) => "on a node that is being drained and takes no new work",
            _ => "on a node that is not connected or is being drained",
        };
        for (name, words) in [
            (ConstraintName::Policy, "refused by the owner's policy"),
            (ConstraintName::Reachability, unreachable),
            (ConstraintName::Resources, "without compute"),
        ] {
            let n_away = away.get(&name).copied().unwrap_or(0);
            if n_away > 0 {
                let explanation = format!(
                    "{} would fit but {} {words}; the exclusions name each with its reason.",
                    numbers::counted(n_away, "more dataset"),
                    if n_away == 1 { "is" } else { "are" },
                );
                let (needed, available) = (asked.sites_min as f64, n_sites as f64);
                binding.push(constraint(name, needed, available, "sites", explanation));
            }
        }
    }
    binding
}

fn refusals(situation: &Situation<'_>, evaluated: &[Evaluated]) -> Vec<Exclusion> {
    // Who takes part in one way is not excluded because it refuses another. Of ways with as many sites the simplest, which
    // is the one that was asked for where one was, is looked at.
    let best = evaluated
        .iter()
        .rev()
        .filter(|e| e.draft.is_some())
        .max_by_key(|e| e.draft.as_ref().map(|draft| draft.set.len()));
    let mut refused: BTreeMap<u32, Exclusion> = BTreeMap::new();
    let refusing = match best {
        Some(best) => &best.refusals,
        None => match evaluated.first() {
            Some(first) => &first.refusals,
            None => return Vec::new(),
        },
    };
    for refusal in refusing {
        // Told of the simplest way that the owner refuses.
        let simplest = evaluated.first().and_then(|first| {
            let same = |other: &&Refusal| other.candidate == refusal.candidate;
            first.refusals.iter().find(same)
        });
        let refusal = simplest.unwrap_or(refusal);
        refused
            .entry(refusal.candidate)
            .or_insert_with(|| assemble::refused(situation, refusal));
    }
    refused.into_values().collect()
}

/// The request with the bounds that were moved.
fn request_with(request: &TrainingRequest, asked: &Bounds, bounds: &Bounds) -> TrainingRequest {
    let mut nearest = request.clone();
    if bounds.sites_min < asked.sites_min {
        let sites_min = numbers::index(bounds.sites_min);
        nearest.sla.sites_min = nearest.sla.sites_min.min(sites_min);
        nearest.training.quorum = nearest.training.quorum.map(|quorum| quorum.min(sites_min));
    }
    nearest.sla.records_min = nearest.sla.records_min.min(bounds.records_min);
    nearest.sla.sites_max = nearest.sla.sites_max.max(numbers::index(bounds.sites_max));
    let raise = |bound: &mut Option<u64>, limit: f64| {
        if let Some(bound) = bound {
            *bound = (*bound).max(numbers::whole(limit));
        }
    };
    raise(&mut nearest.sla.deadline_ms, bounds.ms_max);
    raise(&mut nearest.sla.bytes_max, bounds.bytes_max);
    raise(&mut nearest.sla.cost_micros_max, bounds.cost_micros_max);
    nearest
}
