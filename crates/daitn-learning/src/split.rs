//! Cuts one labelled dataset into the shares of several sites, for demonstrations and tests: evenly, or skewed by label
//! as in the literature. The same seed gives the same shares.

use crate::random::SplitMix64;

/// For each site the indices of its examples, ascending. Every example is in at most one share.
pub type Shares = Vec<Vec<usize>>;

/// Least concentration: already at 0.001 nearly every label lies at one site, and the logarithms below stay finite.
pub const ALPHA_MIN: f64 = 1e-6;

/// Why a dataset cannot be cut so.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// There is no site.
    #[error("a split needs at least one site")]
    NoSites,
    /// More is asked than there is.
    #[error("{n_asked} examples are asked for where there are {n_examples}")]
    TooFewExamples {
        /// What the shares need together.
        n_asked: usize,
        /// What there is.
        n_examples: usize,
    },
    /// The concentration is unusable.
    #[error("the concentration {alpha} is not a finite number from {ALPHA_MIN}")]
    BadConcentration {
        /// What was given.
        alpha: f64,
    },
}

/// Shuffles and deals out as evenly as can be: sizes differ by at most one.
///
/// # Errors
/// [`SplitError::NoSites`].
pub fn even(n_examples: usize, n_sites: usize, seed: u64) -> Result<Shares, SplitError> {
    if n_sites == 0 {
        return Err(SplitError::NoSites);
    }
    let sizes: Vec<usize> = (0..n_sites)
        .map(|site| n_examples / n_sites + usize::from(site < n_examples % n_sites))
        .collect();
    sized(n_examples, &sizes, seed)
}

/// Shuffles and deals out shares of these sizes: training data and several hold-outs, for example. What is left over is
/// in no share.
///
/// # Errors
/// [`SplitError::TooFewExamples`].
pub fn sized(n_examples: usize, sizes: &[usize], seed: u64) -> Result<Shares, SplitError> {
    let n_asked = sizes.iter().fold(0usize, |sum, size| sum.saturating_add(*size));
    if n_asked > n_examples {
        return Err(SplitError::TooFewExamples { n_asked, n_examples });
    }
    let mut examples: Vec<usize> = (0..n_examples).collect();
    SplitMix64::new(seed).shuffle(&mut examples);
    let mut rest = examples.as_slice();
    let mut shares: Shares = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (share, after) = rest.split_at(*size);
        shares.push(share.to_vec());
        rest = after;
    }
    shares.iter_mut().for_each(|share| share.sort_unstable());
    Ok(shares)
}

/// How a dataset is cut with skewed labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skew {
    /// Sites.
    pub n_sites: usize,
    /// Concentration: 0.1 leaves a site with a few of the labels, 100 is nearly even.
    pub alpha: f64,
    /// Fewest examples of a site.
    pub n_min: usize,
    /// Seed.
    pub seed: u64,
}

/// Deals out each label by proportions drawn from a symmetric Dirichlet distribution (Hsu 2019, arXiv 1909.06335; by
/// label as in Yurochkin 2019, arXiv 1905.12022), every example to one site.
///
/// A site left with fewer than `n_min` is topped up from the largest share, out of that share's commonest label: the
/// fewest moves that keep the promise and most of the skew.
///
/// # Errors
/// [`SplitError`].
pub fn dirichlet(labels: &[u32], skew: Skew) -> Result<Shares, SplitError> {
    let Skew {
        n_sites,
        alpha,
        n_min,
        seed,
    } = skew;
    if n_sites == 0 {
        return Err(SplitError::NoSites);
    }
    if !(alpha.is_finite() && alpha >= ALPHA_MIN) {
        return Err(SplitError::BadConcentration { alpha });
    }
    let n_asked = n_sites.saturating_mul(n_min);
    if n_asked > labels.len() {
        return Err(SplitError::TooFewExamples {
            n_asked,
            n_examples: labels.len(),
        });
    }
    let mut random = SplitMix64::new(seed);
    let mut by_label = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (example, label) in labels.iter().enumerate() {
        by_label.entry(*label).or_default().push(example);
    }
    let mut shares: Shares = vec![Vec::new(); n_sites];
    for examples in by_label.values_mut() {
        random.shuffle(examples);
        let proportions = draw_proportions(&mut random, n_sites, alpha);
        let mut n_dealt = 0;
        let mut cumulative = 0.0;
        for (site, share) in shares.iter_mut().enumerate() {
            cumulative += proportions[site];
            let end = if site + 1 == n_sites {
                examples.len()
            } else {
                fraction_of(examples.len(), cumulative)
            };
            let end = end.max(n_dealt);
            share.extend_from_slice(&examples[n_dealt..end]);
            n_dealt = end;
        }
    }
    top_up(&mut shares, labels, n_min);
    shares.iter_mut().for_each(|share| share.sort_unstable());
    Ok(shares)
}

/// One draw from a symmetric Dirichlet distribution: normalised gamma draws, from logarithms so that the largest is
/// never zero.
fn draw_proportions(random: &mut SplitMix64, n_sites: usize, alpha: f64) -> Vec<f64> {
    let logarithms: Vec<f64> = (0..n_sites).map(|_| random.ln_gamma_draw(alpha)).collect();
    let largest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let draws: Vec<f64> = logarithms
        .iter()
        .map(|logarithm| (logarithm - largest).exp())
        .collect();
    let sum: f64 = draws.iter().sum();
    draws.iter().map(|draw| draw / sum).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=n"
)]
fn fraction_of(n: usize, fraction: f64) -> usize {
    ((n as f64 * fraction).round().max(0.0) as usize).min(n)
}

/// Each move takes one example from a share above the minimum to one below it, so this ends: together the shares hold
/// at least the minimum for each.
fn top_up(shares: &mut [Vec<usize>], labels: &[u32], n_min: usize) {
    while let Some(short) = shares.iter().position(|share| share.len() < n_min) {
        let largest = (0..shares.len())
            .rev()
            .max_by_key(|site| shares[*site].len())
            .expect("a share is short");
        let taken = take_commonest(&mut shares[largest], labels);
        shares[short].push(taken);
    }
}

/// Takes the last example of the share's commonest label, the lowest label of several.
fn take_commonest(share: &mut Vec<usize>, labels: &[u32]) -> usize {
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    for example in share.iter() {
        *counts.entry(labels[*example]).or_default() += 1;
    }
    let commonest = counts
        .iter()
        .rev()
        .max_by_key(|(_, n)| **n)
        .map(|(label, _)| *label);
    let position = share
        .iter()
        .rposition(|example| Some(labels[*example]) == commonest);
    share.remove(position.expect("the largest of shares that hold enough together is not empty"))
}
