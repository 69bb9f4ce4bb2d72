//! The chosen draft as a plan, with its reasons in words.

use super::{
    PLAN_VALID_MS, PlanIds,
    consent::{AgreedQuorum, Asker, Choice, Refusal},
    select::Bounds,
    situation::Situation,
    ways::{Considered, Draft, Evaluated, Way},
};
use crate::numbers;
use daitn_messages::{
    descriptor::Descriptor,
    ids::NodeId,
    learning::Strategy,
    plan::{Alternative, ConstraintName, Exclusion, Placement, Plan, Prediction, Site},
    request::PlanKind,
};
use std::{collections::HashSet, fmt::Write as _};

/// A cycle is given this many times its predicted time before it closes without those who are late.
const ROUND_DEADLINE_FACTOR: f64 = 4.0;
/// And never less than this: a garbage collection or a reconnect must not cost a site its round.
const ROUND_DEADLINE_MS_MIN: f64 = 15_000.0;
/// Where every link was measured, a prediction is taken to be right within a factor of two.
const SPREAD_KNOWN: f64 = 2.0;
/// Where some are assumed, within a factor of four.
const SPREAD_ASSUMED: f64 = 4.0;

/// The plan, if a way was chosen.
pub(super) fn plan(
    situation: &Situation<'_>,
    asker: &mut Asker<'_, '_>,
    considered: &Considered,
    ids: &PlanIds,
) -> Option<Plan> {
    let chosen = &considered.ways[considered.chosen?];
    let draft = chosen.draft.as_ref()?;
    let conductors = &situation.conductors[draft.conductors];
    let mut agreed = asker.agreed_quorum(&Choice {
        situation,
        way: &chosen.way,
        conductors,
        set: &draft.set,
    });
    let policies = std::mem::take(&mut agreed.policies);
    let sites = sites(situation, chosen, draft, policies);
    let chains = positions(draft);
    let request = situation.request;
    let cycle_ms = draft.totals.cycle_ms * ROUND_DEADLINE_FACTOR;
    Some(Plan {
        id: ids.plan.clone(),
        decision: ids.decision.clone(),
        request: request.clone(),
        made_at: situation.now,
        valid_until: situation.now.plus(PLAN_VALID_MS),
        state_version: situation.topology.version(),
        kind: chosen.way.kind,
        strategy: chosen.way.strategy,
        rounds: request.training.rounds,
        quorum: agreed.n_sites,
        cohort: agreed.cohort,
        quorum_why: quorum_why(situation, &agreed),
        round_deadline_ms: request
            .training
            .round_deadline_ms
            .unwrap_or_else(|| numbers::whole(cycle_ms.max(ROUND_DEADLINE_MS_MIN))),
        shuffle: draft.shuffle,
        aggregator: placement(conductors.main),
        aggregator_spares: conductors.spares.iter().map(|d| placement(d)).collect(),
        verifiers: verifiers(situation, &sites),
        hosts: situation.hosts.clone(),
        excluded: excluded(situation, chosen, draft),
        prediction: prediction(draft),
        alternatives: alternatives(situation, considered),
        why: why(situation, considered, chosen, draft),
        sites,
        chains,
    })
}

fn placement(descriptor: &Descriptor) -> Placement {
    Placement {
        entity: descriptor.entity.clone(),
        node: descriptor.node,
    }
}

fn sites(
    situation: &Situation<'_>,
    chosen: &Evaluated,
    draft: &Draft,
    policies: Vec<Vec<String>>,
) -> Vec<Site> {
    let conductors = &situation.conductors[draft.conductors];
    let costing = super::costing::Costing::new(situation, conductors, &chosen.way.strategy, None);
    draft
        .set
        .iter()
        .zip(policies)
        .map(|(number, policies)| {
            let candidate = &situation.candidates[*number as usize];
            let leg = &costing.legs[*number as usize];
            Site {
                dataset: candidate.descriptor.entity.clone(),
                descriptor_version: candidate.descriptor.version,
                node: candidate.descriptor.node,
                organisation: candidate.descriptor.organisation().clone(),
                compute: candidate.facility.map(|facility| placement(facility.descriptor)),
                records: candidate.body.records,
                policies,
                train_ms: numbers::whole(leg.train_ms),
                transfer_ms: numbers::whole(leg.transfer_ms),
            }
        })
        .collect()
}

/// Policies that a quorum's reason names before it says "and so many more".
const STRICT_NAMED_MAX: usize = 3;

/// Why the quorum is larger than the request asks for; empty where it is not.
fn quorum_why(situation: &Situation<'_>, agreed: &AgreedQuorum) -> String {
    if agreed.strict.is_empty() {
        return String::new();
    }
    let named = agreed.strict.iter().take(STRICT_NAMED_MAX).map(|refusal| {
        let entity = &situation.candidates[refusal.candidate as usize].descriptor.entity;
        match refusal.answer.determining.as_slice() {
            [] => entity.to_string(),
            determining => format!("{entity} ({})", determining.join(", ")),
        }
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if agreed.strict.len() > STRICT_NAMED_MAX {
        let _ = write!(named, " and {} more", agreed.strict.len() - STRICT_NAMED_MAX);
    }
    format!(
        "every round combines at least {} sites, since policies refuse fewer: {named}",
        agreed.n_sites
    )
}

/// The chains as positions in the plan's sites.
fn positions(draft: &Draft) -> Vec<Vec<u32>> {
    let position = |site: &u32| {
        let place = draft.set.binary_search(site);
        numbers::index(place.expect("chains are made of the set"))
    };
    draft
        .chains
        .iter()
        .map(|chain| chain.iter().map(position).collect())
        .collect()
}

/// Verification units: away from the training nodes, then from the training organisations, as far as there are enough.
fn verifiers(situation: &Situation<'_>, sites: &[Site]) -> Vec<Placement> {
    let nodes: HashSet<NodeId> = sites.iter().map(|site| site.node).collect();
    let organisations: HashSet<_> = sites.iter().map(|site| &site.organisation).collect();
    let mut units: Vec<_> = situation
        .units
        .iter()
        .map(|unit| {
            let same_node = nodes.contains(&unit.node);
            (same_node, organisations.contains(unit.organisation()), *unit)
        })
        .collect();
    units.sort_by(|a, b| (a.0, a.1, &a.2.entity).cmp(&(b.0, b.1, &b.2.entity)));
    let request = &situation.request.verification;
    let n_apart = units.iter().filter(|(same_node, _, _)| !same_node).count();
    let n_units = match request.units {
        Some(units) => units as usize,
        // All that fit, without those that sit on a training node where the others are enough.
        None => n_apart.max(request.required as usize),
    };
    units
        .into_iter()
        .take(n_units)
        .map(|(_, _, unit)| placement(unit))
        .collect()
}

/// What is expected of a draft.
pub(super) fn prediction(draft: &Draft) -> Prediction {
    let spread = if draft.totals.known {
        SPREAD_KNOWN
    } else {
        SPREAD_ASSUMED
    };
    Prediction {
        ms_low: numbers::whole(draft.totals.ms / spread),
        ms: numbers::whole(draft.totals.ms),
        ms_high: numbers::whole(draft.totals.ms * spread),
        bytes: numbers::whole(draft.totals.bytes),
        cost_micros: numbers::whole(draft.totals.cost_micros),
        quality: draft.quality,
        skew: draft.skew_reckoned,
    }
}

/// A refusal as an exclusion.
pub(super) fn refused(situation: &Situation<'_>, refusal: &Refusal) -> Exclusion {
    let answer = &refusal.answer;
    let mut reason = if !answer.errors.is_empty() {
        format!("a policy could not be evaluated ({})", answer.errors.join("; "))
    } else if answer.determining.is_empty() {
        "no policy permits it".to_owned()
    } else {
        "a policy forbids it".to_owned()
    };
    let _ = write!(
        reason,
        ": purpose `{}`, algorithm `{}`, a cohort of {}",
        situation.request.purpose, refusal.algorithm, refusal.cohort
    );
    Exclusion {
        entity: situation.candidates[refusal.candidate as usize]
            .descriptor
            .entity
            .clone(),
        constraint: ConstraintName::Policy,
        reason,
        policies: answer.determining.clone(),
    }
}

/// Everything that was looked at and left out, in the order of ids.
fn excluded(situation: &Situation<'_>, chosen: &Evaluated, draft: &Draft) -> Vec<Exclusion> {
    let mut all = situation.excluded.clone();
    let in_set: HashSet<u32> = draft.set.iter().copied().collect();
    let mut told = HashSet::new();
    for refusal in &chosen.refusals {
        if !in_set.contains(&refusal.candidate) && told.insert(refusal.candidate) {
            all.push(refused(situation, refusal));
        }
    }
    let bounds = Bounds::of(situation.request);
    let (constraint, reason) = if draft.set.len() >= bounds.sites_max {
        let reason = format!(
            "the request takes at most {}; others suit it better",
            numbers::counted(bounds.sites_max, "site")
        );
        (ConstraintName::Sites, reason)
    } else if chosen.way.kind != PlanKind::Rounds && draft.set.len() >= super::CHAINED_SITES_MAX {
        let reason = format!(
            "a model travels through at most {} sites; others have more records",
            super::CHAINED_SITES_MAX
        );
        (ConstraintName::Sites, reason)
    } else {
        let reason = "with it the bounds on time, bytes or price would not be kept".to_owned();
        let constraint = if bounds.ms_max.is_finite() {
            ConstraintName::Deadline
        } else if bounds.bytes_max.is_finite() {
            ConstraintName::Bytes
        } else {
            ConstraintName::Cost
        };
        (constraint, reason)
    };
    for (number, candidate) in situation.candidates.iter().enumerate() {
        let number = numbers::index(number);
        if !in_set.contains(&number) && !told.contains(&number) {
            all.push(Exclusion {
                entity: candidate.descriptor.entity.clone(),
                constraint,
                reason: reason.clone(),
                policies: Vec::new(),
            });
        }
    }
    all.sort_by(|a, b| a.entity.cmp(&b.entity));
    all
}

fn name(way: &Way) -> String {
    match way.kind {
        PlanKind::Rounds => format!("rounds of {}", way.strategy.as_str()),
        PlanKind::Itinerary => "an itinerary".to_owned(),
        PlanKind::Hybrid => "several itineraries side by side".to_owned(),
    }
}

fn seconds(ms: f64) -> String {
    if ms < 10_000.0 {
        format!("{:.1} s", ms / 1e3)
    } else {
        format!("{:.0} s", ms / 1e3)
    }
}

fn alternatives(situation: &Situation<'_>, considered: &Considered) -> Vec<Alternative> {
    let best = considered
        .chosen
        .and_then(|chosen| considered.ways[chosen].draft.as_ref());
    considered
        .ways
        .iter()
        .enumerate()
        .map(|(i, other)| Alternative {
            kind: other.way.kind,
            strategy: other.way.strategy,
            prediction: other.draft.as_ref().map(prediction).unwrap_or_default(),
            why_not: match (&other.draft, best) {
                _ if considered.chosen == Some(i) => String::new(),
                (None, _) => why_none(situation, other),
                (Some(draft), Some(best)) => why_not(draft, best),
                (Some(_), None) => String::new(),
            },
        })
        .collect()
}

fn why_none(situation: &Situation<'_>, way: &Evaluated) -> String {
    let refused: HashSet<u32> = way.refusals.iter().map(|refusal| refusal.candidate).collect();
    if refused.is_empty() {
        "no set of sites keeps the request's bounds in this way".to_owned()
    } else {
        format!(
            "policies refuse `{}` at {} of {}, and the rest does not keep the request's bounds",
            way.way.algorithm(),
            refused.len(),
            numbers::counted(situation.candidates.len(), "site")
        )
    }
}

fn why_not(draft: &Draft, best: &Draft) -> String {
    let mut reasons = Vec::new();
    let (this, chosen) = (format!("{:.3}", draft.quality), format!("{:.3}", best.quality));
    reasons.push(if this == chosen {
        "no better quality is expected".to_owned()
    } else if draft.quality < best.quality {
        format!("expected quality {this} instead of {chosen}")
    } else {
        format!("expected quality {this} is no worthwhile gain over {chosen}")
    });
    if draft.totals.ms > best.totals.ms * 1.05 {
        reasons.push(format!(
            "{} instead of {}",
            seconds(draft.totals.ms),
            seconds(best.totals.ms)
        ));
    }
    if draft.totals.bytes > best.totals.bytes * 1.05 {
        let more = draft.totals.bytes / best.totals.bytes.max(1.0);
        reasons.push(format!("{more:.1} times the bytes"));
    }
    if draft.set.len() < best.set.len() {
        reasons.push(format!(
            "only {} of {} sites take part",
            draft.set.len(),
            best.set.len()
        ));
    }
    reasons.join("; ")
}

fn why(situation: &Situation<'_>, considered: &Considered, chosen: &Evaluated, draft: &Draft) -> String {
    let mut text = format!(
        "Chose {} over {} with {} records. ",
        name(&chosen.way),
        numbers::counted(draft.set.len(), "site"),
        draft.totals.records
    );
    let is_measured = situation.has_classes();
    text.push_str(&why_skew(situation, chosen, draft));
    let _ = write!(text, "; with {:.0} steps a site and round this way ", draft.steps);
    let _ = if is_measured {
        write!(
            text,
            "is expected to reach {:.1} % of centralised quality in {}.",
            draft.quality * 100.0,
            seconds(draft.totals.ms)
        )
    } else {
        write!(text, "is expected to take {}.", seconds(draft.totals.ms))
    };
    for other in &considered.ways {
        let Some(other_draft) = other.draft.as_ref().filter(|_| other.way != chosen.way) else {
            continue;
        };
        let (way, time) = (capital(&name(&other.way)), seconds(other_draft.totals.ms));
        let _ = if is_measured {
            write!(
                text,
                " {way} would reach {:.1} % in {time}.",
                other_draft.quality * 100.0
            )
        } else {
            write!(text, " {way} would take {time}.")
        };
    }
    text.push_str(if considered.ways.len() == 1 {
        " No other way was considered: the request or the number of sites rules them out."
    } else if is_measured {
        " A doubling of the time must buy 0.01 of quality; of ways that are alike the simplest is taken."
    } else {
        " Of ways that are alike the simplest is taken."
    });
    text
}

/// What was known of the sites' labels, or assumed.
fn why_skew(situation: &Situation<'_>, chosen: &Evaluated, draft: &Draft) -> String {
    if !situation.has_classes() {
        let is_plain = (chosen.way.kind, chosen.way.strategy) == (PlanKind::Rounds, Strategy::FedAvg);
        let way = if is_plain {
            ", so plain averaging is taken"
        } else {
            ""
        };
        return format!("A regression has no label shares{way}");
    }
    match draft.skew {
        Some(skew) => {
            format!("Label skew is {skew:.2} (0 is the same mix everywhere, 1 is one class a site)")
        }
        None if draft.set.len() < 2 => "One site has no label skew".to_owned(),
        None => format!(
            "Too few owners tell their label shares, so a skew of {:.2} is assumed",
            draft.skew_reckoned
        ),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}
