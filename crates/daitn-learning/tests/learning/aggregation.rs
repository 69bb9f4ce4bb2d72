//! The weighted mean: its value, its order, its bounds, its refusals.

use crate::little_endian;
use daitn_learning::aggregation::{CHUNK_PARAMETERS, Mean, MeanError, Term, mean_of};
use proptest::prelude::*;
use std::{cell::RefCell, io::Read, rc::Rc};

fn streamed(updates: &[(f64, Vec<f32>)]) -> Result<Vec<f32>, MeanError> {
    let bytes: Vec<_> = updates
        .iter()
        .map(|(weight, values)| (*weight, little_endian(values)))
        .collect();
    let terms = bytes
        .iter()
        .map(|(weight, bytes)| Term {
            weight: *weight,
            reader: bytes.as_slice(),
        })
        .collect();
    let mut out = Vec::new();
    Mean::new(terms, updates[0].1.len())?
        .write_to(&mut out)
        .map_err(|error| match error {
            daitn_learning::aggregation::WriteMeanError::Mean(error) => error,
            daitn_learning::aggregation::WriteMeanError::Write(error) => {
                panic!("a vector takes all bytes: {error}")
            }
        })?;
    Ok(out
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}

fn in_memory(updates: &[(f64, Vec<f32>)]) -> Result<Vec<f32>, MeanError> {
    mean_of(
        &updates
            .iter()
            .map(|(weight, values)| (*weight, values.as_slice()))
            .collect::<Vec<_>>(),
    )
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn mean_by_hand() {
    // (1*2 + 3*6) / 4 = 5, (1*(-8) + 3*0.5) / 4 = -1.625
    let updates = [(1.0, vec![2.0, -8.0]), (3.0, vec![6.0, 0.5])];
    assert_eq!(streamed(&updates).unwrap(), [5.0, -1.625]);
    assert_eq!(in_memory(&updates).unwrap(), [5.0, -1.625]);
}

#[test]
fn sums_keep_what_f32_would_lose() {
    // In f32 the small parts vanish beside 2^25: the result would be 0.
    let updates = [
        (1.0, vec![33_554_432.0]),
        (1.0, vec![1.0]),
        (1.0, vec![-33_554_432.0]),
        (1.0, vec![1.0]),
    ];
    assert_eq!(streamed(&updates).unwrap(), [0.5]);
}

#[test]
fn divisor_of_its_own() {
    let bytes = little_endian(&[6.0, -3.0]);
    let mut mean = Mean::with_divisor(
        vec![Term {
            weight: 1.0,
            reader: bytes.as_slice(),
        }],
        4.0,
        2,
    )
    .unwrap();
    assert_eq!(mean.coverage(), 0.25);
    assert_eq!(mean.next_chunk().unwrap().unwrap(), [1.5, -0.75]);
    assert!(mean.next_chunk().unwrap().is_none());
}

/// Notes how far each reader has come, and the largest piece that was asked for.
struct Watched<'a> {
    index: usize,
    bytes: &'a [u8],
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    positions: Vec<usize>,
    n_ahead_max: usize,
    request_max: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        let mut seen = self.seen.borrow_mut();
        seen.positions[self.index] += n;
        let (least, most) = (
            seen.positions.iter().min().unwrap(),
            seen.positions.iter().max().unwrap(),
        );
        seen.n_ahead_max = seen.n_ahead_max.max(most - least);
        seen.request_max = seen.request_max.max(buffer.len());
        Ok(n)
    }
}

#[test]
fn no_source_is_read_more_than_one_chunk_ahead() {
    let (n_sites, n_parameters) = (50, 3 * CHUNK_PARAMETERS + 17);
    let values: Vec<f32> = (0..n_parameters).map(|i| (i % 251) as f32).collect();
    let bytes = little_endian(&values);
    let seen = Rc::new(RefCell::new(Seen {
        positions: vec![0; n_sites],
        ..Seen::default()
    }));
    let terms = (0..n_sites).map(|index| Term {
        weight: 1.0,
        reader: Watched {
            index,
            bytes: &bytes,
            seen: Rc::clone(&seen),
        },
    });
    let mut mean = Mean::new(terms.collect(), n_parameters).unwrap();
    let mut lengths = Vec::new();
    while let Some(chunk) = mean.next_chunk().unwrap() {
        lengths.push(chunk.len());
    }
    assert_eq!(
        lengths,
        [CHUNK_PARAMETERS, CHUNK_PARAMETERS, CHUNK_PARAMETERS, 17]
    );
    let seen = seen.borrow();
    assert_eq!(seen.n_ahead_max, 4 * CHUNK_PARAMETERS);
    assert_eq!(seen.request_max, 4 * CHUNK_PARAMETERS);
    assert!(seen.positions.iter().all(|position| *position == bytes.len()));
}

#[test]
fn refusals_name_the_source() {
    let good = vec![1.0; CHUNK_PARAMETERS + 3];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = good.clone();
        broken[CHUNK_PARAMETERS + 1] = bad;
        // Also where it carries no weight: zero times infinity is not zero.
        for weight in [0.0, 2.0] {
            let updates = [(1.0, good.clone()), (weight, broken.clone())];
            for result in [streamed(&updates), in_memory(&updates)] {
                let error = result.unwrap_err();
                assert!(
                    matches!(error, MeanError::NotFinite { term: 1, parameter } if parameter == CHUNK_PARAMETERS + 1)
                );
            }
        }
    }
    let short = [
        (1.0, good.clone()),
        (1.0, good.clone()),
        (1.0, vec![1.0; CHUNK_PARAMETERS]),
    ];
    assert!(matches!(streamed(&short), Err(MeanError::Read { term: 2, .. })));
    assert!(matches!(
        in_memory(&short),
        Err(MeanError::WrongLength { term: 2, .. })
    ));
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let updates = [(1.0, good.clone()), (weight, good.clone())];
        assert!(matches!(
            streamed(&updates),
            Err(MeanError::BadWeight { term: 1, .. })
        ));
        assert!(matches!(
            in_memory(&updates),
            Err(MeanError::BadWeight { term: 1, .. })
        ));
    }
    assert!(matches!(
        streamed(&[(0.0, good.clone()), (0.0, good)]),
        Err(MeanError::NoWeight { .. })
    ));
    assert!(matches!(in_memory(&[]), Err(MeanError::NoTerms)));
    assert!(matches!(
        Mean::<&[u8]>::new(Vec::new(), 3),
        Err(MeanError::NoTerms)
    ));
}

#[test]
fn after_a_failure_there_is_no_more_mean() {
    let short = little_endian(&[1.0; 4]);
    let mut mean = Mean::new(
        vec![Term {
            weight: 1.0,
            reader: short.as_slice(),
        }],
        5,
    )
    .unwrap();
    assert!(matches!(mean.next_chunk(), Err(MeanError::Read { term: 0, .. })));
    assert!(matches!(mean.next_chunk(), Err(MeanError::Spent)));
}

/// Some sites' updates of one length, with example counts; lengths reach over a chunk's end.
fn updates() -> impl Strategy<Value = Vec<(f64, Vec<f32>)>> {
    let length = prop_oneof![1..40usize, CHUNK_PARAMETERS - 1..CHUNK_PARAMETERS + 2];
    (length, 1..6usize).prop_flat_map(|(n_parameters, n_sites)| {
        let update = (0..5000u32, any::<u64>()).prop_map(move |(n, seed)| {
            let mut random = daitn_learning::random::SplitMix64::new(seed);
            #[expect(clippy::cast_possible_truncation, reason = "any f32 will do")]
            let values =
                (0..n_parameters).map(|_| (random.normal() * 10f64.powi((seed % 9) as i32 - 4)) as f32);
            (f64::from(n), values.collect())
        });
        prop::collection::vec(update, n_sites)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The stream, the slices, and the sum written out element by element are one value, bit for bit.
    #[test]
    fn stream_and_slices_are_the_definition(updates in updates()) {
        prop_assume!(updates.iter().any(|(weight, _)| *weight > 0.0));
        let total: f64 = updates.iter().map(|(weight, _)| weight).sum();
        #[expect(clippy::cast_possible_truncation, reason = "the definition rounds once")]
        let defined: Vec<f32> = (0..updates[0].1.len())
            .map(|i| (updates.iter().map(|(weight, values)| weight * f64::from(values[i])).sum::<f64>() / total) as f32)
            .map(|value| if value == 0.0 { 0.0 } else { value })
            .collect();
        prop_assert_eq!(bits(&streamed(&updates).unwrap()), bits(&defined));
        prop_assert_eq!(bits(&in_memory(&updates).unwrap()), bits(&defined));
    }

    /// Whoever answers first: once sorted by site the result is the same, bit for bit.
    #[test]
    fn arrival_does_not_matter(updates in updates(), seed in any::<u64>()) {
        prop_assume!(updates.iter().any(|(weight, _)| *weight > 0.0));
        let mut arrived: Vec<_> = updates.iter().cloned().enumerate().collect();
        daitn_learning::random::SplitMix64::new(seed).shuffle(&mut arrived);
        arrived.sort_by_key(|(site, _)| *site);
        let sorted: Vec<_> = arrived.into_iter().map(|(_, update)| update).collect();
        prop_assert_eq!(bits(&streamed(&sorted).unwrap()), bits(&streamed(&updates).unwrap()));
    }

    /// Unsorted, it is the same up to the rounding of `f64`.
    #[test]
    fn order_moves_nothing_but_the_last_bit(updates in updates(), seed in any::<u64>()) {
        prop_assume!(updates.iter().any(|(weight, _)| *weight > 0.0));
        let mut shuffled = updates.clone();
        daitn_learning::random::SplitMix64::new(seed).shuffle(&mut shuffled);
        let scale = updates.iter().flat_map(|(_, values)| values).fold(0f32, |most, value| most.max(value.abs()));
        for (a, b) in streamed(&shuffled).unwrap().iter().zip(streamed(&updates).unwrap()) {
            prop_assert!((a - b).abs() <= f32::EPSILON * scale, "{} {}", a, b);
        }
    }

    /// The mean of equal updates is that update exactly, whatever the weights.
    #[test]
    fn mean_of_the_same_is_the_same(updates in updates()) {
        let one = updates[0].1.clone();
        let same: Vec<_> = updates.iter().map(|(weight, _)| (weight + 1.0, one.clone())).collect();
        prop_assert_eq!(bits(&streamed(&same).unwrap()), bits(&one));
    }

    /// A site without examples is as if it were not there.
    #[test]
    fn no_examples_no_say(updates in updates(), at in any::<prop::sample::Index>()) {
        prop_assume!(updates.iter().any(|(weight, _)| *weight > 0.0));
        let mut with_idle = updates.clone();
        let idle = (0.0, vec![-123.5; updates[0].1.len()]);
        with_idle.insert(at.index(updates.len() + 1), idle);
        prop_assert_eq!(bits(&streamed(&with_idle).unwrap()), bits(&streamed(&updates).unwrap()));
    }

    /// Equal weights of any size are the plain mean, and every mean lies within its sources.
    #[test]
    fn equal_weights_and_bounds(updates in updates(), n in 1..1_000_000u32) {
        let weighed = |weight: f64| updates.iter().map(|(_, v)| (weight, v.clone())).collect::<Vec<_>>();
        let plain = streamed(&weighed(1.0)).unwrap();
        for (i, (a, b)) in plain.iter().zip(streamed(&weighed(f64::from(n))).unwrap()).enumerate() {
            let column = updates.iter().map(|(_, values)| values[i]);
            let (least, most) = (column.clone().fold(f32::MAX, f32::min), column.fold(f32::MIN, f32::max));
            prop_assert!((a - b).abs() <= f32::EPSILON * least.abs().max(most.abs()));
            prop_assert!((least..=most).contains(a));
        }
    }
}
