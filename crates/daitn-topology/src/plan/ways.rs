//! Step 5: each kind and strategy considered, scored, and the best taken.
//!
//! A way's score is the expected quality, less what its time and its missing data are worth:
//!
//! ```text
//! score = quality − 0.01·log2((ms + 10 s) / (fastest ms + 10 s)) − 0.02·log2(most records / records)
//! ```
//!
//! so that waiting twice as long must buy a hundredth of quality, and seconds matter little. Of ways within half a
//! hundredth of the best, which the quality model cannot tell apart, the simplest is taken.

use super::{
    CHAINED_SITES_MAX, chains,
    consent::{self, Asker, Refusal},
    costing::{Arrangement, Chains, Costing, Hops, Totals},
    select::{self, Bounds, EXHAUSTIVE_MAX, Goal, Metric},
    situation::{Conductors, Situation, may_travel},
};
use crate::{
    numbers,
    quality::{self, Circumstances},
};
use daitn_messages::{learning::Strategy, request::PlanKind};

/// What a doubling of the time is worth in quality.
const TIME_DOUBLING_WORTH: f64 = 0.01;
/// Times are compared as if everything took this much longer.
const UNNOTICED_MS: f64 = 10_000.0;
/// What a doubling of the data is worth in quality.
const DATA_DOUBLING_WORTH: f64 = 0.02;
/// Scores closer than this are alike: the quality model is not more exact.
const ALIKE: f64 = 0.005;
/// With more candidates only rounds of the most promising strategy are considered: a model would travel for days, and
/// each way costs a question to every owner.
const MANY_CANDIDATES: usize = 1_024;
/// A choice is made again at most this often after refusals, and more often where sets are small.
const CHOICES_MAX: usize = 8;
/// Questions that small sets may cost in all.
const QUESTIONS_SMALL: usize = 4_096;
/// Below this skew an order of sites does not show in the result, so the shortest is taken every time.
const ORDER_MATTERS_SKEW: f64 = 0.2;

/// Momentum is not chosen for fewer rounds than this: its swing about the goal shrinks by `sqrt(0.9)` a round, so that
/// fewer end in the middle of it, and the quality model was measured from here on.
const MOMENTUM_ROUNDS_MIN: u32 = 10;

/// FedAvgM as its paper recommends it. The adaptive strategies are left to the user: their server rate must fit the size
/// of the updates, which nobody knows before.
const FED_AVG_M: Strategy = Strategy::FedAvgM { beta: 0.9, eta: 1.0 };

/// One kind with one strategy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Way {
    pub(super) kind: PlanKind,
    pub(super) strategy: Strategy,
    pub(super) arrangement: Arrangement,
}

impl Way {
    /// The name that policies see.
    pub(super) fn algorithm(&self) -> &'static str {
        consent::algorithm(self.kind, &self.strategy)
    }
}

/// A way with sites that nobody refused.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Sorted; positions in the situation's candidates.
    pub(super) set: Vec<u32>,
    pub(super) chains: Vec<Vec<u32>>,
    pub(super) shuffle: bool,
    /// Position in the situation's conductors.
    pub(super) conductors: usize,
    pub(super) totals: Totals,
    /// As owners tell it.
    pub(super) skew: Option<f64>,
    /// As it is reckoned with: assumed where too few tell.
    pub(super) skew_reckoned: f64,
    pub(super) quality: f64,
    /// Optimiser steps of a site in one round.
    pub(super) steps: f64,
}

/// A way with what came of it.
pub(super) struct Evaluated {
    pub(super) way: Way,
    pub(super) draft: Option<Draft>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) score: f64,
}

/// All ways, simplest first.
pub(super) struct Considered {
    pub(super) ways: Vec<Evaluated>,
    pub(super) chosen: Option<usize>,
}

/// Everything that is considered for a request, within these bounds.
pub(super) fn consider(situation: &Situation<'_>, asker: &mut Asker<'_, '_>, bounds: &Bounds) -> Considered {
    let mut evaluated = evaluate_all(situation, asker, bounds, Goal::Most);
    score(&mut evaluated);
    keep_best_hybrid(&mut evaluated);
    let chosen = simplest_of_best(&evaluated);
    Considered {
        ways: evaluated,
        chosen,
    }
}

/// Each way's best draft under a goal, unscored.
pub(super) fn evaluate_all(
    situation: &Situation<'_>,
    asker: &mut Asker<'_, '_>,
    bounds: &Bounds,
    goal: Goal,
) -> Vec<Evaluated> {
    let ways = ways(situation);
    let travels = ways.iter().any(|way| way.kind != PlanKind::Rounds);
    let travellers = travellers(situation);
    let hops = travels.then(|| Hops::new(situation, &travellers));
    let hall = Hall {
        situation,
        travellers,
        hops,
    };
    ways.into_iter()
        .map(|way| hall.evaluate(asker, way, bounds, goal))
        .collect()
}

/// The candidates that a model may travel through: all, or those with most records.
fn travellers(situation: &Situation<'_>) -> Vec<u32> {
    let mut pool: Vec<u32> = (0..numbers::index(situation.candidates.len())).collect();
    if pool.len() > CHAINED_SITES_MAX {
        let records = |site: u32| situation.candidates[site as usize].body.records;
        pool.sort_by_key(|site| (std::cmp::Reverse(records(*site)), *site));
        pool.truncate(CHAINED_SITES_MAX);
        pool.sort_unstable();
    }
    pool
}

/// Which ways are considered, simplest first.
fn ways(situation: &Situation<'_>) -> Vec<Way> {
    let training = &situation.request.training;
    let n = situation.candidates.len();
    let many = n > MANY_CANDIDATES;
    let mut ways = Vec::new();
    let rounds = |strategy| Way {
        kind: PlanKind::Rounds,
        strategy,
        arrangement: Arrangement::Rounds,
    };
    if training.kind.is_none_or(|kind| kind == PlanKind::Rounds) {
        match training.strategy {
            Some(strategy) => ways.push(rounds(strategy)),
            None => ways.extend(promising(situation, many).into_iter().map(rounds)),
        }
    }
    let travelling = training.strategy.unwrap_or(Strategy::FedAvg);
    if !may_travel(situation.request) {
        return ways;
    }
    let forced = training.kind == Some(PlanKind::Itinerary);
    if forced || (training.kind.is_none() && n >= 2 && !many) {
        ways.push(Way {
            kind: PlanKind::Itinerary,
            strategy: travelling,
            arrangement: Arrangement::Itinerary,
        });
    }
    let forced = training.kind == Some(PlanKind::Hybrid);
    if forced || (training.kind.is_none() && n >= 4 && !many) {
        let mut counts = Vec::new();
        for chains in [Chains::Two, Chains::Root, Chains::Quarter] {
            let count = chains.count(n.min(CHAINED_SITES_MAX));
            if !counts.contains(&count) {
                counts.push(count);
                ways.push(Way {
                    kind: PlanKind::Hybrid,
                    strategy: travelling,
                    arrangement: Arrangement::Hybrid(chains),
                });
            }
        }
    }
    ways
}

/// Strategies for rounds that are worth asking about, simplest first: plain FedAvg and, where the quality model expects
/// more of it, another; of many candidates only the better one. For a regression FedAvg alone: momentum overshoots, which
/// costs a class's rank little and a predicted number everything.
fn promising(situation: &Situation<'_>, only_one: bool) -> Vec<Strategy> {
    if !situation.has_classes() {
        return vec![Strategy::FedAvg];
    }
    let all: Vec<u32> = (0..numbers::index(situation.candidates.len())).collect();
    let given = circumstances(situation, &all);
    let expected = |strategy: Strategy| quality::expected(quality::Way::Rounds(strategy), given);
    let plain = expected(Strategy::FedAvg);
    let settles = situation.request.training.rounds >= MOMENTUM_ROUNDS_MIN;
    let other = if settles && expected(FED_AVG_M) + ALIKE >= expected(Strategy::Scaffold) {
        FED_AVG_M
    } else {
        Strategy::Scaffold
    };
    let worth_it = expected(other) > plain + ALIKE;
    match (worth_it, only_one) {
        (false, _) => vec![Strategy::FedAvg],
        (true, true) => vec![other],
        (true, false) => vec![Strategy::FedAvg, other],
    }
}

fn circumstances(situation: &Situation<'_>, set: &[u32]) -> Circumstances {
    let sites = set.iter().filter_map(|site| {
        let candidate = &situation.candidates[*site as usize];
        Some((candidate.shares.as_deref()?, candidate.body.records as f64))
    });
    let known = if sites.clone().count() < 2 {
        None
    } else {
        quality::skew(sites)
    };
    let skew = if set.len() < 2 {
        0.0
    } else {
        known.unwrap_or(situation.skew_assumed())
    };
    Circumstances {
        skew,
        rounds: f64::from(situation.request.training.rounds),
        steps: steps(situation, set),
        sites: set.len() as f64,
    }
}

/// Optimiser steps of a site in one round, on average.
fn steps(situation: &Situation<'_>, set: &[u32]) -> f64 {
    let local = &situation.request.training.local;
    let steps = set.iter().map(|site| {
        let records = situation.candidates[*site as usize].body.records;
        records.div_ceil(u64::from(local.batch_size.max(1))) as f64 * f64::from(local.epochs)
    });
    steps.sum::<f64>() / set.len().max(1) as f64
}

/// Where ways are evaluated: the situation with what travelling plans need.
struct Hall<'s, 'a> {
    situation: &'s Situation<'a>,
    travellers: Vec<u32>,
    hops: Option<Hops>,
}

impl Hall<'_, '_> {
    /// The best draft of a way: with the first conductors that no policy refuses, or else those with most sites.
    fn evaluate(&self, asker: &mut Asker<'_, '_>, way: Way, bounds: &Bounds, goal: Goal) -> Evaluated {
        let mut best: Option<(Option<Draft>, Vec<Refusal>)> = None;
        for number in 0..self.situation.conductors.len() {
            let (draft, refusals) = self.evaluate_with(asker, &way, number, bounds, goal);
            let untroubled = refusals.is_empty() && draft.is_some();
            let replaces = match (&best, &draft) {
                (None, _) => true,
                (Some((None, _)), Some(_)) => true,
                (Some((Some(known), _)), Some(found)) => match goal {
                    Goal::Most => found.set.len() > known.set.len(),
                    Goal::Least(metric) => metric.of(&found.totals) < metric.of(&known.totals),
                },
                (Some(_), None) => false,
            };
            if replaces {
                best = Some((draft, refusals));
            }
            if untroubled && goal == Goal::Most {
                break;
            }
        }
        let (draft, refusals) = best.unwrap_or_default();
        Evaluated {
            way,
            draft,
            refusals,
            score: f64::NEG_INFINITY,
        }
    }

    fn evaluate_with(
        &self,
        asker: &mut Asker<'_, '_>,
        way: &Way,
        number: usize,
        bounds: &Bounds,
        goal: Goal,
    ) -> (Option<Draft>, Vec<Refusal>) {
        let conductors = &self.situation.conductors[number];
        let costing = Costing::new(self.situation, conductors, &way.strategy, self.hops.as_ref());
        let chosen = (way, conductors, &costing);
        let (mut set, refusals) = self.agree(asker, chosen, bounds, goal);
        if set.is_none() && goal == Goal::Most {
            // The largest beginnings did not do. The frugal sets are looked for as if there were no limits, so that what
            // is found does not depend on the limits, and taken if they are kept: the nearest request of a verdict is
            // made of such sets.
            let frugal = Metric::ALL.map(Goal::Least).into_iter().chain([Goal::Most]);
            set = frugal
                .filter_map(|goal| self.agree(asker, chosen, &bounds.without_limits(), goal).0)
                .find(|set| bounds.affords(&costing.totals(way.arrangement, set)));
        }
        let set = set.or_else(|| self.exhaust(asker, chosen, bounds, goal));
        (set.map(|set| draft(&costing, way, number, set, bounds)), refusals)
    }

    /// Chooses, asks everybody who was chosen, chooses again without those who refuse, until nobody does.
    fn agree(
        &self,
        asker: &mut Asker<'_, '_>,
        (way, conductors, costing): (&Way, &Conductors<'_>, &Costing<'_, '_>),
        bounds: &Bounds,
        goal: Goal,
    ) -> (Option<Vec<u32>>, Vec<Refusal>) {
        let mut pool = match way.kind {
            PlanKind::Rounds => (0..numbers::index(self.situation.candidates.len())).collect(),
            PlanKind::Itinerary | PlanKind::Hybrid => self.travellers.clone(),
        };
        let mut refusals = Vec::new();
        let n_choices = CHOICES_MAX + QUESTIONS_SMALL / pool.len().max(1);
        for _ in 0..n_choices {
            let Some(set) = select::select(costing, way.arrangement, &pool, bounds, goal) else {
                break;
            };
            let refused = asker.refusals(self.situation, way, conductors, &set);
            if refused.is_empty() {
                return (Some(set), refusals);
            }
            pool.retain(|site| !refused.iter().any(|refusal| refusal.candidate == *site));
            refusals.extend(refused);
        }
        (None, refusals)
    }

    /// Where few candidates are: every subset, best first, until nobody refuses.
    fn exhaust(
        &self,
        asker: &mut Asker<'_, '_>,
        (way, conductors, costing): (&Way, &Conductors<'_>, &Costing<'_, '_>),
        bounds: &Bounds,
        goal: Goal,
    ) -> Option<Vec<u32>> {
        let n = self.situation.candidates.len();
        if n > EXHAUSTIVE_MAX {
            return None;
        }
        let all: Vec<u32> = (0..numbers::index(n)).collect();
        select::subsets(costing, way.arrangement, &all, bounds, goal)
            .into_iter()
            .find(|set| asker.refusals(self.situation, way, conductors, set).is_empty())
    }
}

/// What is expected of a way. Ways were measured against each other by classes guessed right; what that says of predicted
/// numbers is unknown, so that of a regression the same is expected in every way, and the simplest is taken.
fn expected(situation: &Situation<'_>, way: quality::Way, given: Circumstances) -> f64 {
    let way = if situation.has_classes() {
        way
    } else {
        quality::Way::Rounds(Strategy::FedAvg)
    };
    quality::expected(way, given)
}

/// Arranges the chosen sites and says what is expected of them.
fn draft(costing: &Costing<'_, '_>, way: &Way, conductors: usize, set: Vec<u32>, bounds: &Bounds) -> Draft {
    let given = circumstances(costing.situation, &set);
    let skew = chains::skew(costing, &set);
    let expected = |way| expected(costing.situation, way, given);
    let mut draft = Draft {
        totals: costing.totals(way.arrangement, &set),
        chains: Vec::new(),
        shuffle: false,
        conductors,
        skew,
        skew_reckoned: given.skew,
        quality: 0.0,
        steps: given.steps,
        set,
    };
    match way.arrangement {
        Arrangement::Rounds => {
            draft.chains = draft.set.iter().map(|site| vec![*site]).collect();
            draft.quality = expected(quality::Way::Rounds(way.strategy));
        }
        Arrangement::Itinerary => {
            draft.chains = vec![draft.set.clone()];
            draft.quality = expected(quality::Way::Itinerary);
        }
        Arrangement::Hybrid(count) => {
            let n_chains = count.count(draft.set.len());
            let expected_of = |chains: &[Vec<u32>]| {
                let (skew_within, skew_between) = chains::skew_of_chains(costing, chains);
                expected(quality::Way::Hybrid {
                    chains: chains.len() as f64,
                    skew_within,
                    skew_between,
                })
            };
            draft.chains = chains::near(costing, &draft.set, n_chains);
            draft.quality = expected_of(&draft.chains);
            if let Some(mixed) = chains::mixed(costing, &draft.set, n_chains) {
                let totals = costing.chained(&mixed, None);
                let quality = expected_of(&mixed);
                if bounds.affords(&totals) && quality > draft.quality + ALIKE {
                    (draft.chains, draft.totals, draft.quality) = (mixed, totals, quality);
                }
            }
        }
    }
    if way.kind != PlanKind::Rounds {
        order(costing, &mut draft, given.skew);
    }
    draft
}

/// In which order the model travels: by the shortest way where the order does not show in the result, in another order
/// each cycle where it does.
fn order(costing: &Costing<'_, '_>, draft: &mut Draft, skew: f64) {
    let hops = costing.hops.expect("chained plans are costed with hops");
    let tours: Vec<Vec<u32>> = draft
        .chains
        .iter()
        .map(|chain| chains::tour(hops, chain))
        .collect();
    let totals = costing.chained(&draft.chains, Some(&tours));
    draft.shuffle = skew >= ORDER_MATTERS_SKEW || totals.ms > draft.totals.ms;
    if !draft.shuffle {
        draft.totals = totals;
    }
    draft.chains = tours;
}

fn score(evaluated: &mut [Evaluated]) {
    let drafts = || evaluated.iter().filter_map(|e| e.draft.as_ref());
    let fastest_ms = drafts().map(|d| d.totals.ms).fold(f64::INFINITY, f64::min);
    let most_records = drafts().map(|d| d.totals.records).max().unwrap_or(0).max(1) as f64;
    for one in evaluated {
        if let Some(draft) = &one.draft {
            let times = (draft.totals.ms + UNNOTICED_MS) / (fastest_ms + UNNOTICED_MS);
            let data = most_records / draft.totals.records.max(1) as f64;
            one.score =
                draft.quality - TIME_DOUBLING_WORTH * times.log2() - DATA_DOUBLING_WORTH * data.log2();
        }
    }
}

/// Of the hybrids with different numbers of chains only the best is an alternative of its own.
fn keep_best_hybrid(evaluated: &mut Vec<Evaluated>) {
    let is_hybrid = |e: &Evaluated| e.way.kind == PlanKind::Hybrid;
    let best = evaluated
        .iter()
        .enumerate()
        .filter(|(_, e)| is_hybrid(e))
        .max_by(|(i, a), (j, b)| a.score.total_cmp(&b.score).then(j.cmp(i)))
        .map(|(i, _)| i);
    let mut i = 0;
    evaluated.retain(|e| {
        let kept = !is_hybrid(e) || Some(i) == best;
        i += 1;
        kept
    });
}

fn simplest_of_best(evaluated: &[Evaluated]) -> Option<usize> {
    let best = evaluated
        .iter()
        .filter(|e| e.draft.is_some())
        .map(|e| e.score)
        .fold(f64::NEG_INFINITY, f64::max);
    evaluated
        .iter()
        .position(|e| e.draft.is_some() && e.score + ALIKE >= best)
}
