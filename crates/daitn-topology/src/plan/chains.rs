//! How a hybrid's chains are formed, and in which order a model travels.

use super::costing::{Costing, Hops};
use crate::quality;

/// Orders of longer chains are not improved by exchanging: the first order is good enough where hops are many.
const IMPROVED_CHAIN_MAX: usize = 64;
/// Rounds of improvement at most; each looks at every pair of hops.
const IMPROVEMENTS_MAX: usize = 16;

/// Chains of nearby sites, none longer than its share: seeds as far apart as possible, then every site to the nearest
/// chain that has room, farthest from the first seed first. The same set gives the same chains.
pub(super) fn near(costing: &Costing<'_, '_>, set: &[u32], n_chains: usize) -> Vec<Vec<u32>> {
    let n_chains = n_chains.clamp(1, set.len().max(1));
    let Some(hops) = costing.hops else {
        return vec![set.to_vec()];
    };
    let Some(first) = set.first() else {
        return Vec::new();
    };
    let mut seeds = vec![*first];
    let mut nearest: Vec<f64> = set.iter().map(|site| hops.between(*first, *site)).collect();
    while seeds.len() < n_chains {
        let farthest = (0..set.len())
            .filter(|i| !seeds.contains(&set[*i]))
            .max_by(|a, b| nearest[*a].total_cmp(&nearest[*b]).then(b.cmp(a)))
            .expect("there are fewer seeds than sites");
        seeds.push(set[farthest]);
        for (i, site) in set.iter().enumerate() {
            nearest[i] = nearest[i].min(hops.between(set[farthest], *site));
        }
    }
    let room = set.len().div_ceil(n_chains);
    let mut chains: Vec<Vec<u32>> = seeds.iter().map(|seed| vec![*seed]).collect();
    for site in set.iter().filter(|site| !seeds.contains(site)) {
        let chain = (0..n_chains)
            .filter(|chain| chains[*chain].len() < room)
            .min_by(|a, b| {
                let (to_a, to_b) = (hops.between(seeds[*a], *site), hops.between(seeds[*b], *site));
                to_a.total_cmp(&to_b)
                    .then(chains[*a].len().cmp(&chains[*b].len()))
                    .then(a.cmp(b))
            })
            .expect("the chains' room adds up to the set");
        chains[chain].push(*site);
    }
    chains.iter_mut().for_each(|chain| chain.sort_unstable());
    chains.sort_unstable();
    chains
}

/// Chains whose mixes of labels resemble the whole: the largest sites first, each to the chain that it brings closest.
/// `None` if owners do not tell their shares.
pub(super) fn mixed(costing: &Costing<'_, '_>, set: &[u32], n_chains: usize) -> Option<Vec<Vec<u32>>> {
    let candidates = &costing.situation.candidates;
    let counts = |site: u32| {
        let candidate = &candidates[site as usize];
        let shares = candidate.shares.as_ref()?;
        let records = candidate.body.records as f64;
        Some(
            shares
                .iter()
                .map(|s| f64::from(*s) * records)
                .collect::<Vec<f64>>(),
        )
    };
    let counts: Option<Vec<Vec<f64>>> = set.iter().map(|site| counts(*site)).collect();
    let counts = counts?;
    let n_classes = counts.first()?.len();
    let mut pooled = vec![0.0; n_classes];
    for site in &counts {
        pooled
            .iter_mut()
            .zip(site)
            .for_each(|(pool, count)| *pool += count);
    }
    let total: f64 = pooled.iter().sum();
    let apart = |mix: &[f64]| {
        let size: f64 = mix.iter().sum();
        let pairs = mix.iter().zip(&pooled);
        pairs
            .map(|(count, pool)| (count - size * pool / total.max(1.0)).abs())
            .sum::<f64>()
    };
    let room = set.len().div_ceil(n_chains);
    let mut order: Vec<usize> = (0..set.len()).collect();
    let size = |i: usize| candidates[set[i] as usize].body.records;
    order.sort_by_key(|i| (std::cmp::Reverse(size(*i)), *i));
    let mut mixes = vec![vec![0.0; n_classes]; n_chains];
    let mut chains: Vec<Vec<u32>> = vec![Vec::new(); n_chains];
    for i in order {
        let with = |chain: usize| {
            let pairs = mixes[chain].iter().zip(&counts[i]);
            pairs.map(|(a, b)| a + b).collect::<Vec<f64>>()
        };
        let chain = (0..n_chains)
            .filter(|chain| chains[*chain].len() < room)
            .min_by(|a, b| {
                let gain = |chain: usize| apart(&with(chain)) - apart(&mixes[chain]);
                gain(*a)
                    .total_cmp(&gain(*b))
                    .then(chains[*a].len().cmp(&chains[*b].len()))
                    .then(a.cmp(b))
            })?;
        mixes[chain] = with(chain);
        chains[chain].push(set[i]);
    }
    chains.retain(|chain| !chain.is_empty());
    chains.iter_mut().for_each(|chain| chain.sort_unstable());
    chains.sort_unstable();
    Some(chains)
}

/// A short way through a chain: always to the nearest next, then pairs of hops exchanged while that helps.
pub(super) fn tour(hops: &Hops, chain: &[u32]) -> Vec<u32> {
    let mut left: Vec<u32> = chain.to_vec();
    let Some(first) = left.first().copied() else {
        return Vec::new();
    };
    left.remove(0);
    let mut way = vec![first];
    while let Some(last) = way.last().copied().filter(|_| !left.is_empty()) {
        let next = (0..left.len())
            .min_by(|a, b| {
                let (to_a, to_b) = (hops.between(last, left[*a]), hops.between(last, left[*b]));
                to_a.total_cmp(&to_b).then(left[*a].cmp(&left[*b]))
            })
            .expect("there is one left");
        way.push(left.remove(next));
    }
    if way.len() <= IMPROVED_CHAIN_MAX {
        improve(hops, &mut way);
    }
    way
}

/// 2-opt (Croes 1958) on an open way.
fn improve(hops: &Hops, way: &mut [u32]) {
    let hop = |a: Option<&u32>, b: Option<&u32>| match (a, b) {
        (Some(a), Some(b)) => hops.between(*a, *b),
        _ => 0.0,
    };
    for _ in 0..IMPROVEMENTS_MAX {
        let mut better = false;
        for i in 0..way.len() {
            for j in i + 1..way.len() {
                let before = i.checked_sub(1).and_then(|i| way.get(i));
                let after = way.get(j + 1);
                let now = hop(before, way.get(i)) + hop(way.get(j), after);
                let then = hop(before, way.get(j)) + hop(way.get(i), after);
                if then + 1e-9 < now {
                    way[i..=j].reverse();
                    better = true;
                }
            }
        }
        if !better {
            return;
        }
    }
}

/// Skew of the sites of a set; `None` if fewer than two tell their shares.
pub(super) fn skew(costing: &Costing<'_, '_>, set: &[u32]) -> Option<f64> {
    let sites = set.iter().filter_map(|site| {
        let candidate = &costing.situation.candidates[*site as usize];
        let shares = candidate.shares.as_ref()?;
        Some((shares.as_slice(), candidate.body.records as f64))
    });
    if sites.clone().count() < 2 {
        return None;
    }
    quality::skew(sites)
}

/// Skew within chains (mean, weighted by records) and between their mixes; the assumed one where owners do not tell.
pub(super) fn skew_of_chains(costing: &Costing<'_, '_>, chains: &[Vec<u32>]) -> (f64, f64) {
    let candidates = &costing.situation.candidates;
    let records = |chain: &[u32]| -> f64 {
        let records = chain.iter().map(|site| candidates[*site as usize].body.records);
        records.map(|r| r as f64).sum()
    };
    let total: f64 = chains.iter().map(|chain| records(chain)).sum();
    let within = chains.iter().map(|chain| match chain.len() {
        0 | 1 => 0.0,
        _ => skew(costing, chain).unwrap_or(costing.situation.skew_assumed()) * records(chain),
    });
    let within = within.sum::<f64>() / total.max(1.0);
    let mixes: Option<Vec<(Vec<f32>, f64)>> = chains.iter().map(|chain| mix(costing, chain)).collect();
    let between = mixes
        .and_then(|mixes| quality::skew(mixes.iter().map(|(mix, weight)| (mix.as_slice(), *weight))))
        .unwrap_or(costing.situation.skew_assumed() / 2.0);
    (within, between)
}

#[allow(clippy::cast_possible_truncation)]
fn mix(costing: &Costing<'_, '_>, chain: &[u32]) -> Option<(Vec<f32>, f64)> {
    let mut mix: Vec<f64> = Vec::new();
    let mut weight = 0.0;
    for site in chain {
        let candidate = &costing.situation.candidates[*site as usize];
        let shares = candidate.shares.as_ref()?;
        let records = candidate.body.records as f64;
        mix.resize(shares.len(), 0.0);
        mix.iter_mut()
            .zip(shares)
            .for_each(|(sum, share)| *sum += f64::from(*share) * records);
        weight += records;
    }
    // Shares are told in single precision: nothing is lost that was there.
    let shares = mix.iter().map(|sum| (sum / weight.max(1.0)) as f32).collect();
    Some((shares, weight))
}
