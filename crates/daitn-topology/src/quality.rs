//! A stated model of quality: what share of the centralised result each kind of plan is expected to reach, given how
//! skewed the labels are, how much each site computes, and how many rounds there are.
//!
//! # Skew
//!
//! For site `k` with label shares `p_k` and weight `w_k` (its share of the records), and the pooled shares `p`:
//!
//! ```text
//! skew = Σ_k w_k · TV(p_k, p) / (1 − Σ_c p_c²)        TV(a, b) = ½ Σ_c |a_c − b_c|
//! ```
//!
//! The divisor is the largest that the sum can be for the pooled shares (every site has one class), so that 0 means the
//! same mix everywhere and 1 means one class a site, whatever the number of classes.
//!
//! # Shortfall
//!
//! With `R` rounds, `h` optimiser steps of a site in a round, `S = R·h` steps in a row on the way to one aggregation, `n`
//! sites and skew `s`, the shortfall against centralised training is the sum of *too few steps* and *drift*:
//!
//! | way | too few steps | drift |
//! |---|---|---|
//! | FedAvg, FedProx | `10/S` | `0.12 s³ (50/R)^0.7` |
//! | SCAFFOLD | `10/S` | `0.006 s³ (50/R)^1.8` |
//! | FedAvgM | `2.5/S + (2/R)²` | `0.02 s³ (50/R)^1.5` |
//! | FedAdam, FedYogi | `0.8/S + (2.6/R)²` | `0.02 s³ (50/R)^1.2` |
//! | FedAdagrad | `6/(S + 30)` | `0.03 s³ (50/R)^0.85` |
//! | itinerary | `10/(S·n)` | `0.23 s³ h/R` |
//! | hybrid, `c` chains | `10·c/(S·n)` | itinerary's within a chain, and the larger of a quarter of FedAvg's at `s` and FedAvg's between the chains' mixes |
//!
//! In words: averaging many sites that each do little converges slowly, because a round only goes as far as one site's
//! steps; server momentum repairs that once there are rounds enough. Skew pulls averaged sites apart, more so when there
//! are few rounds. A travelling model sees all data in every cycle, so that it converges soonest, but forgets: the
//! longer it stays at a skewed site (`h`), the more.
//!
//! The forms and constants were fitted to 1,014 runs of digits (MLP 64-32-10, 1,437 records, 3 to 40 sites, IID and
//! Dirichlet 0.5, 0.1, 0.03, 10 and 50 rounds of 2 epochs, batch 32, rate 0.1, three seeds): `calibration/digits.py` in
//! this crate makes the table, and a test compares. Mean absolute error at 50 rounds is under 0.02 for every way, at 10
//! rounds up to 0.07. On other problems the order of the ways carries over better than the numbers; that is what they
//! are used for. Chains of complementary label mixes were not measurably better than arbitrary ones (0.961 against 0.957
//! and 0.935 against 0.960 with ten sites), so chains are formed by nearness first.

use daitn_messages::learning::Strategy;

/// Skew that is assumed where owners do not tell their label shares: what Dirichlet 0.5 gives.
pub const SKEW_ASSUMED: f64 = 0.45;
/// No way is expected to lose more than this.
const SHORTFALL_MAX: f64 = 0.95;

/// What the quality of a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circumstances {
    /// How skewed the sites' labels are, 0 to 1.
    pub skew: f64,
    /// Rounds, or cycles.
    pub rounds: f64,
    /// Optimiser steps of a site in one round, on average.
    pub steps: f64,
    /// Sites that take part.
    pub sites: f64,
}

/// How a group of sites is combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    /// Side by side, combined by this strategy.
    Rounds(Strategy),
    /// One after the other.
    Itinerary,
    /// Several chains, averaged.
    Hybrid {
        /// How many.
        chains: f64,
        /// Skew of the sites within their chain, weighted by records.
        skew_within: f64,
        /// Skew of the chains' mixes.
        skew_between: f64,
    },
}

/// How skewed these label shares are; each with its weight. `None` if there is nothing to compare.
///
/// Shares that do not add up to one (small cells are suppressed) are scaled to do so; a site without shares is left out.
#[must_use]
pub fn skew<'a>(sites: impl Iterator<Item = (&'a [f32], f64)> + Clone) -> Option<f64> {
    let n_classes = sites.clone().map(|(shares, _)| shares.len()).max()?;
    let mut pooled = vec![0.0; n_classes];
    let mut weights = 0.0;
    for (shares, weight) in sites.clone() {
        let total = sum(shares);
        if total > 0.0 && weight > 0.0 {
            weights += weight;
            for (pool, share) in pooled.iter_mut().zip(shares) {
                *pool += weight * f64::from(*share) / total;
            }
        }
    }
    if weights <= 0.0 {
        return None;
    }
    pooled.iter_mut().for_each(|pool| *pool /= weights);
    let distance: f64 = sites
        .map(|(shares, weight)| {
            let total = sum(shares);
            if total <= 0.0 || weight <= 0.0 {
                return 0.0;
            }
            let pairs = pooled.iter().zip(shares);
            let apart: f64 = pairs
                .map(|(pool, share)| (f64::from(*share) / total - pool).abs())
                .sum();
            weight / weights * apart / 2.0
        })
        .sum();
    let largest = 1.0 - pooled.iter().map(|pool| pool * pool).sum::<f64>();
    Some(if largest <= f64::EPSILON {
        0.0
    } else {
        (distance / largest).clamp(0.0, 1.0)
    })
}

fn sum(shares: &[f32]) -> f64 {
    shares.iter().map(|share| f64::from(*share)).sum()
}

/// The share of the centralised quality that is expected, 0.05 to 1.
#[must_use]
pub fn expected(way: Way, given: Circumstances) -> f64 {
    let n_rounds = given.rounds.max(1.0);
    let steps = (given.steps * n_rounds).max(1.0);
    let sites = given.sites.max(1.0);
    let cubed = given.skew.powi(3);
    let slow = 50.0 / n_rounds;
    let averaging = |skew: f64| 0.12 * skew.powi(3) * slow.powf(0.7);
    let forgetting = |skew: f64| 0.23 * skew.powi(3) * given.steps / n_rounds;
    let shortfall = match way {
        Way::Rounds(Strategy::FedAvg | Strategy::FedProx { .. }) => 10.0 / steps + averaging(given.skew),
        Way::Rounds(Strategy::Scaffold) => 10.0 / steps + 0.006 * cubed * slow.powf(1.8),
        Way::Rounds(Strategy::FedAvgM { .. }) => {
            2.5 / steps + (2.0 / n_rounds).powi(2) + 0.02 * cubed * slow.powf(1.5)
        }
        Way::Rounds(Strategy::FedAdam { .. } | Strategy::FedYogi { .. }) => {
            0.8 / steps + (2.6 / n_rounds).powi(2) + 0.02 * cubed * slow.powf(1.2)
        }
        Way::Rounds(Strategy::FedAdagrad { .. }) => 6.0 / (steps + 30.0) + 0.03 * cubed * slow.powf(0.85),
        Way::Itinerary => 10.0 / (steps * sites) + forgetting(given.skew),
        Way::Hybrid {
            chains,
            skew_within,
            skew_between,
        } => {
            let chains = chains.max(1.0);
            10.0 * chains / (steps * sites)
                + forgetting(skew_within)
                + (0.25 * averaging(given.skew)).max(averaging(skew_between))
        }
    };
    1.0 - shortfall.min(SHORTFALL_MAX)
}
