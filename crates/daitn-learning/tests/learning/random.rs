//! The generator against its published sequence, its draws against scipy's quantiles.

use crate::vectors;
use daitn_learning::random::SplitMix64;

const VECTORS: &str = include_str!("vectors/quantiles.json");
const N_DRAWS: usize = 100_000;

#[test]
fn published_sequence() {
    // Seed 1234567, as printed by the reference implementation (prng.di.unimi.it/splitmix64.c).
    let mut random = SplitMix64::new(1_234_567);
    let found: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
    let expected = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    assert_eq!(found, expected);
}

/// The share of draws below each quantile must be its level, within five standard deviations of a fair count. The seed
/// is fixed, so this passes always or never.
fn check_quantiles(draws: &[f64], quantiles: &serde_json::Value) {
    for pair in quantiles.as_array().unwrap() {
        let (level, quantile) = (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
        let found = draws.iter().filter(|draw| **draw < quantile).count() as f64 / draws.len() as f64;
        let deviation = (level * (1.0 - level) / draws.len() as f64).sqrt();
        assert!(
            (found - level).abs() < 5.0 * deviation,
            "{found} of the draws lie below the quantile of {level}"
        );
    }
}

#[test]
fn normal_draws() {
    let mut random = SplitMix64::new(1);
    let draws: Vec<f64> = (0..N_DRAWS).map(|_| random.normal()).collect();
    check_quantiles(&draws, &vectors(VECTORS)["normal"]);
}

#[test]
fn gamma_draws() {
    for case in vectors(VECTORS)["gamma"].as_array().unwrap() {
        let shape = case["shape"].as_f64().unwrap();
        let mut random = SplitMix64::new(2);
        let draws: Vec<f64> = (0..N_DRAWS).map(|_| random.ln_gamma_draw(shape).exp()).collect();
        check_quantiles(&draws, &case["quantiles"]);
    }
}

#[test]
fn bounded_draws_are_even() {
    let mut random = SplitMix64::new(3);
    for n in [1usize, 2, 3, 7] {
        let mut counts = vec![0f64; n];
        (0..N_DRAWS).for_each(|_| counts[random.below(n)] += 1.0);
        let expected = N_DRAWS as f64 / n as f64;
        assert!(
            counts
                .iter()
                .all(|count| (count - expected).abs() <= 5.0 * expected.sqrt()),
            "{counts:?}"
        );
    }
}

#[test]
fn shuffles_are_even() {
    let mut random = SplitMix64::new(4);
    let mut counts = std::collections::BTreeMap::<[u8; 3], f64>::new();
    for _ in 0..N_DRAWS {
        let mut items = [0, 1, 2];
        random.shuffle(&mut items);
        *counts.entry(items).or_default() += 1.0;
    }
    let expected = N_DRAWS as f64 / 6.0;
    assert_eq!(counts.len(), 6);
    assert!(
        counts
            .values()
            .all(|count| (count - expected).abs() <= 5.0 * expected.sqrt()),
        "{counts:?}"
    );
}
