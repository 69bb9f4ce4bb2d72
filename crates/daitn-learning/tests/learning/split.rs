//! Splits: every example once, the promised minimum, the skew that the distribution has.

use daitn_learning::{
    random::SplitMix64,
    split::{Shares, Skew, SplitError, dirichlet, even, sized},
};
use proptest::prelude::*;

/// All indices of the shares, ascending.
fn all(shares: &Shares) -> Vec<usize> {
    let mut all: Vec<usize> = shares.iter().flatten().copied().collect();
    all.sort_unstable();
    all
}

fn random_labels(n: usize, n_classes: usize, seed: u64) -> Vec<u32> {
    let mut random = SplitMix64::new(seed);
    (0..n)
        .map(|_| u32::try_from(random.below(n_classes)).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn even_shares(n in 0..300usize, n_sites in 1..20usize, seed in any::<u64>()) {
        let shares = even(n, n_sites, seed).unwrap();
        prop_assert_eq!(shares.len(), n_sites);
        prop_assert_eq!(all(&shares), (0..n).collect::<Vec<_>>());
        let sizes = shares.iter().map(Vec::len);
        prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        prop_assert_eq!(even(n, n_sites, seed).unwrap(), shares);
    }

    #[test]
    fn skewed_shares(
        n in 0..400usize,
        n_classes in 1..12usize,
        n_sites in 1..15usize,
        alpha in prop_oneof![Just(1e-6), Just(0.1), Just(0.5), Just(1e4), 0.01..10.0f64],
        seed in any::<u64>(),
    ) {
        let labels = random_labels(n, n_classes, seed);
        let n_min = n / n_sites;
        for n_min in [0, n_min / 3, n_min] {
            let skew = Skew { n_sites, alpha, n_min, seed };
            let shares = dirichlet(&labels, skew).unwrap();
            prop_assert_eq!(shares.len(), n_sites);
            prop_assert_eq!(all(&shares), (0..n).collect::<Vec<_>>());
            prop_assert!(shares.iter().all(|share| share.len() >= n_min && share.is_sorted()));
            prop_assert_eq!(dirichlet(&labels, skew).unwrap(), shares);
        }
    }
}

#[test]
fn shares_of_given_sizes() {
    let shares = sized(100, &[60, 0, 25], 9).unwrap();
    assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [60, 0, 25]);
    let mut once = all(&shares);
    once.dedup();
    assert_eq!(once.len(), 85);
    assert!(once.iter().all(|example| *example < 100));
    // Not the first ones in order: shuffled.
    assert_ne!(shares[0], (0..60).collect::<Vec<_>>());
    assert_ne!(sized(100, &[60, 0, 25], 10).unwrap(), shares);
}

#[test]
fn what_cannot_be_cut() {
    assert_eq!(even(3, 0, 1), Err(SplitError::NoSites));
    assert_eq!(
        sized(3, &[2, 2], 1),
        Err(SplitError::TooFewExamples {
            n_asked: 4,
            n_examples: 3
        })
    );
    assert_eq!(
        sized(3, &[usize::MAX, 2], 1),
        Err(SplitError::TooFewExamples {
            n_asked: usize::MAX,
            n_examples: 3
        })
    );
    let skew = Skew {
        n_sites: 2,
        alpha: 0.5,
        n_min: 2,
        seed: 1,
    };
    assert_eq!(
        dirichlet(&[0; 3], skew),
        Err(SplitError::TooFewExamples {
            n_asked: 4,
            n_examples: 3
        })
    );
    assert_eq!(
        dirichlet(&[0; 3], Skew { n_sites: 0, ..skew }),
        Err(SplitError::NoSites)
    );
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            dirichlet(&[0; 9], Skew { alpha, ..skew }),
            Err(SplitError::BadConcentration { .. })
        ));
    }
}

/// The proportions of one label over n sites are Dirichlet(alpha): each has mean 1/n and variance
/// (n - 1) / (n² (n alpha + 1)).
#[test]
fn proportions_have_the_moments_of_the_distribution() {
    let (n_sites, n_classes, n_each) = (10usize, 2000u32, 1000);
    let labels: Vec<u32> = (0..n_classes)
        .flat_map(|label| std::iter::repeat_n(label, n_each))
        .collect();
    for alpha in [0.1, 0.5, 5.0] {
        let shares = dirichlet(
            &labels,
            Skew {
                n_sites,
                alpha,
                n_min: 0,
                seed: 5,
            },
        )
        .unwrap();
        let n = n_sites as f64;
        let variance = (n - 1.0) / (n * n * (n * alpha + 1.0));
        let mut squares = 0.0;
        for share in &shares {
            let mut counts = vec![0f64; n_classes as usize];
            share
                .iter()
                .for_each(|example| counts[labels[*example] as usize] += 1.0 / n_each as f64);
            let mean = counts.iter().sum::<f64>() / f64::from(n_classes);
            assert!(
                (mean - 1.0 / n).abs() < 5.0 * (variance / f64::from(n_classes)).sqrt(),
                "alpha {alpha}: {mean}"
            );
            squares += counts.iter().map(|share| (share - 1.0 / n).powi(2)).sum::<f64>();
        }
        let found = squares / f64::from(n_classes) / n;
        assert!(
            (found / variance - 1.0).abs() < 0.05,
            "alpha {alpha}: variance {found}, expected {variance}"
        );
    }
}
