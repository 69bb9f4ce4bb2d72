//! Step 3: which sites, within the bounds.
//!
//! Sites are taken in a few fixed orders (most records, soonest, cheapest, …). Along an order, time, bytes and price only
//! grow, so the largest beginning that keeps the bounds is found by halving. The orders do not depend on the bounds:
//! relaxing a bound can only let more beginnings through. With very few candidates every subset is looked at as well.

use super::costing::{Arrangement, Costing, Totals};
use daitn_messages::request::TrainingRequest;

/// Up to this many candidates every subset is looked at when the orders find none: 255 subsets.
pub(super) const EXHAUSTIVE_MAX: usize = 8;

/// What a choice must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// The larger of the request's least number of sites and its quorum.
    pub(super) sites_min: usize,
    pub(super) sites_max: usize,
    pub(super) records_min: u64,
    pub(super) ms_max: f64,
    pub(super) bytes_max: f64,
    pub(super) cost_micros_max: f64,
}

impl Bounds {
    pub(super) fn of(request: &TrainingRequest) -> Self {
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |b| b as f64);
        let sla = &request.sla;
        Self {
            sites_min: sla.sites_min.max(request.training.quorum.unwrap_or(1)).max(1) as usize,
            sites_max: sla.sites_max as usize,
            records_min: sla.records_min,
            ms_max: bound(sla.deadline_ms),
            bytes_max: bound(sla.bytes_max),
            cost_micros_max: bound(sla.cost_micros_max),
        }
    }

    /// Without bounds on time, bytes and price.
    pub(super) fn without_limits(self) -> Self {
        Self {
            ms_max: f64::INFINITY,
            bytes_max: f64::INFINITY,
            cost_micros_max: f64::INFINITY,
            ..self
        }
    }

    /// Whether time, bytes and price are kept. Predictions travel as whole numbers, rounded up, and are compared so.
    pub(super) fn affords(&self, totals: &Totals) -> bool {
        totals.ms.ceil() <= self.ms_max
            && totals.bytes.ceil() <= self.bytes_max
            && totals.cost_micros.ceil() <= self.cost_micros_max
    }

    fn keeps(&self, n_sites: usize, totals: &Totals) -> bool {
        n_sites >= self.sites_min
            && n_sites <= self.sites_max
            && totals.records >= self.records_min
            && self.affords(totals)
    }
}

/// What to aim for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// As many sites as possible, then as many records.
    Most,
    /// The least of this.
    Least(Metric),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Time,
    Bytes,
    Cost,
}

impl Metric {
    pub(super) const ALL: [Self; 3] = [Self::Time, Self::Bytes, Self::Cost];

    pub(super) fn of(self, totals: &Totals) -> f64 {
        match self {
            Self::Time => totals.ms,
            Self::Bytes => totals.bytes,
            Self::Cost => totals.cost_micros,
        }
    }
}

/// The best set of the pool under this goal, sorted; `None` if the orders find none.
pub(super) fn select(
    costing: &Costing<'_, '_>,
    arrangement: Arrangement,
    pool: &[u32],
    bounds: &Bounds,
    goal: Goal,
) -> Option<Vec<u32>> {
    let longest = pool.len().min(bounds.sites_max);
    if longest < bounds.sites_min || longest == 0 {
        return None;
    }
    let mut best: Option<(Vec<u32>, Totals)> = None;
    for order in orders(costing, pool) {
        let found = match goal {
            Goal::Most => largest(costing, arrangement, &order[..longest], bounds),
            Goal::Least(_) => smallest(costing, arrangement, &order[..longest], bounds),
        };
        if let Some(found) = found
            && best
                .as_ref()
                .is_none_or(|known| better(goal, (&found.0, &found.1), (&known.0, &known.1)))
        {
            // Nothing can beat the whole pool.
            let all = goal == Goal::Most && found.0.len() == pool.len();
            best = Some(found);
            if all {
                break;
            }
        }
    }
    best.map(|(set, _)| set)
}

/// Every subset that keeps the bounds, best first. For at most [`EXHAUSTIVE_MAX`] candidates.
pub(super) fn subsets(
    costing: &Costing<'_, '_>,
    arrangement: Arrangement,
    pool: &[u32],
    bounds: &Bounds,
    goal: Goal,
) -> Vec<Vec<u32>> {
    debug_assert!(pool.len() <= EXHAUSTIVE_MAX);
    let mut found: Vec<(Vec<u32>, Totals)> = Vec::new();
    for mask in 1_u32..1 << pool.len() {
        let set: Vec<u32> = pool
            .iter()
            .enumerate()
            .filter(|(i, _)| mask & (1 << i) != 0)
            .map(|(_, site)| *site)
            .collect();
        let totals = costing.totals(arrangement, &set);
        if bounds.keeps(set.len(), &totals) {
            found.push((set, totals));
        }
    }
    found.sort_by(|a, b| {
        if better(goal, (&a.0, &a.1), (&b.0, &b.1)) {
            std::cmp::Ordering::Less
        } else if better(goal, (&b.0, &b.1), (&a.0, &a.1)) {
            std::cmp::Ordering::Greater
        } else {
            a.0.cmp(&b.0)
        }
    });
    found.into_iter().map(|(set, _)| set).collect()
}

fn better(goal: Goal, a: (&[u32], &Totals), b: (&[u32], &Totals)) -> bool {
    match goal {
        Goal::Most => (a.0.len(), a.1.records)
            .cmp(&(b.0.len(), b.1.records))
            .then(b.1.cost_micros.total_cmp(&a.1.cost_micros))
            .then(b.1.ms.total_cmp(&a.1.ms))
            .is_gt(),
        Goal::Least(metric) => metric
            .of(a.1)
            .total_cmp(&metric.of(b.1))
            .then(b.0.len().cmp(&a.0.len()))
            .is_lt(),
    }
}

/// The pool in each of the fixed orders.
fn orders(costing: &Costing<'_, '_>, pool: &[u32]) -> impl Iterator<Item = Vec<u32>> {
    let leg = |site: u32| &costing.legs[site as usize];
    let records = move |site: u32| leg(site).records.max(1) as f64;
    let ms = move |site: u32| 2.0 * leg(site).transfer_ms + leg(site).train_ms;
    let keys: [Box<dyn Fn(u32) -> f64 + '_>; 6] = [
        Box::new(move |site| -(leg(site).records as f64)),
        Box::new(ms),
        Box::new(move |site| ms(site) / records(site)),
        Box::new(move |site| leg(site).cost_micros),
        Box::new(move |site| leg(site).cost_micros / records(site)),
        Box::new(move |site| leg(site).table_bytes),
    ];
    keys.into_iter().map(move |key| {
        let mut keyed: Vec<(f64, u32)> = pool.iter().map(|site| (key(*site), *site)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        keyed.into_iter().map(|(_, site)| site).collect()
    })
}

fn sorted(beginning: &[u32]) -> Vec<u32> {
    let mut set = beginning.to_vec();
    set.sort_unstable();
    set
}

/// The largest beginning that keeps the bounds.
fn largest(
    costing: &Costing<'_, '_>,
    arrangement: Arrangement,
    order: &[u32],
    bounds: &Bounds,
) -> Option<(Vec<u32>, Totals)> {
    let of = |n: usize| {
        let set = sorted(&order[..n]);
        let totals = costing.totals(arrangement, &set);
        (set, totals)
    };
    let whole = of(order.len());
    if bounds.affords(&whole.1) {
        return bounds.keeps(whole.0.len(), &whole.1).then_some(whole);
    }
    let (mut affordable, mut too_much) = (0, order.len());
    while too_much - affordable > 1 {
        let middle = affordable.midpoint(too_much);
        if bounds.affords(&of(middle).1) {
            affordable = middle;
        } else {
            too_much = middle;
        }
    }
    if affordable == 0 {
        return None;
    }
    let found = of(affordable);
    bounds.keeps(affordable, &found.1).then_some(found)
}

/// The smallest beginning that has sites and records enough, if it keeps the bounds.
fn smallest(
    costing: &Costing<'_, '_>,
    arrangement: Arrangement,
    order: &[u32],
    bounds: &Bounds,
) -> Option<(Vec<u32>, Totals)> {
    let mut records = 0_u64;
    let mut n_needed = None;
    for (i, site) in order.iter().enumerate() {
        records = records.saturating_add(costing.legs[*site as usize].records);
        if i + 1 >= bounds.sites_min && records >= bounds.records_min {
            n_needed = Some(i + 1);
            break;
        }
    }
    let set = sorted(&order[..n_needed?]);
    let totals = costing.totals(arrangement, &set);
    bounds.keeps(set.len(), &totals).then_some((set, totals))
}
