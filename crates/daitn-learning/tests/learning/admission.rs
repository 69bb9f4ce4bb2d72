//! Admission: norms by closed form, refusals with their reason, clipping by hand.

use crate::little_endian;
use daitn_learning::{
    admission::{InspectError, Refusal, clip_factors, inspect},
    aggregation::CHUNK_PARAMETERS,
};
use std::io::{self, Read};

fn refusal(bytes: &[u8], n_parameters: usize) -> Refusal {
    match inspect(&mut &bytes[..], n_parameters, None) {
        Err(InspectError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn norm_is_that_of_the_difference() {
    // 3-4-5, then 1..=n: n(n+1)(2n+1)/6, over several chunks and a broken last block.
    let bytes = little_endian(&[4.0, 2.0]);
    assert_eq!(
        inspect(&mut bytes.as_slice(), 2, Some(&[1.0, -2.0])).unwrap(),
        5.0
    );
    let n = 2 * CHUNK_PARAMETERS + 13;
    let values: Vec<f32> = (1..=n).map(|i| i as f32 + 0.5).collect();
    let base = vec![0.5; n];
    let n_f64 = n as f64;
    let expected = (n_f64 * (n_f64 + 1.0) * (2.0 * n_f64 + 1.0) / 6.0).sqrt();
    let norm = inspect(&mut little_endian(&values).as_slice(), n, Some(&base)).unwrap();
    assert!((norm / expected - 1.0).abs() < 1e-13, "{norm} {expected}");
    let whole: Vec<f32> = (1..=n).map(|i| i as f32).collect();
    assert_eq!(
        inspect(&mut little_endian(&whole).as_slice(), n, None).unwrap(),
        norm
    );
}

#[test]
fn norm_does_not_overflow() {
    let bytes = little_endian(&[f32::MAX; 9]);
    let norm = inspect(&mut bytes.as_slice(), 9, Some(&[f32::MIN; 9])).unwrap();
    assert!((norm / (6.0 * f64::from(f32::MAX)) - 1.0).abs() < 1e-15);
}

#[test]
fn wrong_length() {
    let bytes = little_endian(&[1.0; 10]);
    assert_eq!(
        refusal(&bytes, 11),
        Refusal::WrongLength {
            n_expected: 11,
            n_found: 10
        }
    );
    assert_eq!(
        refusal(&bytes[..38], 10),
        Refusal::WrongLength {
            n_expected: 10,
            n_found: 9
        }
    );
    assert_eq!(
        refusal(&bytes, 9),
        Refusal::WrongLength {
            n_expected: 9,
            n_found: 10
        }
    );
    assert_eq!(
        refusal(&[], 1),
        Refusal::WrongLength {
            n_expected: 1,
            n_found: 0
        }
    );
    inspect(&mut bytes.as_slice(), 10, None).unwrap();
}

/// Ten times the bytes must not be read: this one would never end.
struct Endless {
    n_read: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One byte at a time now and then: a short read is no end.
        let n = if self.n_read.is_multiple_of(3) {
            1
        } else {
            buffer.len()
        };
        buffer[..n].fill(0);
        self.n_read += n;
        Ok(n)
    }
}

#[test]
fn reading_stops_at_the_first_byte_too_many() {
    let mut endless = Endless { n_read: 0 };
    let error = inspect(&mut endless, 1000, None).unwrap_err();
    assert!(matches!(
        error,
        InspectError::Refused(Refusal::WrongLength {
            n_expected: 1000,
            n_found: 1001
        })
    ));
    assert_eq!(endless.n_read, 4001);
}

#[test]
fn values_that_are_none() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; CHUNK_PARAMETERS + 5];
        values[CHUNK_PARAMETERS + 2] = bad;
        let found = refusal(&little_endian(&values), values.len());
        assert_eq!(
            found,
            Refusal::NotFinite {
                parameter: CHUNK_PARAMETERS as u64 + 2
            }
        );
    }
}

#[test]
fn refusals_go_into_records() {
    let refusal = Refusal::WrongLength {
        n_expected: 2410,
        n_found: 24100,
    };
    let record = serde_json::to_string(&refusal).unwrap();
    assert_eq!(
        record,
        r#"{"reason":"wrong-length","n_expected":2410,"n_found":24100}"#
    );
    assert_eq!(serde_json::from_str::<Refusal>(&record).unwrap(), refusal);
    assert_eq!(refusal.code(), "wrong-length");
    assert_eq!(Refusal::NotFinite { parameter: 3 }.code(), "not-finite");
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("disk"))
    }
}

#[test]
fn a_failing_reader_is_nobodys_fault() {
    assert!(matches!(
        inspect(&mut Broken, 3, None),
        Err(InspectError::Read(_))
    ));
}

#[test]
fn clipping_by_hand() {
    // Median 2 of five; three times that is 6.
    assert_eq!(
        clip_factors(&[1.0, 60.0, 2.0, 6.0, 1.5], 3.0).unwrap(),
        [1.0, 0.1, 1.0, 1.0, 1.0]
    );
    // Median of an even count: the mean of 2 and 4.
    assert_eq!(
        clip_factors(&[24.0, 4.0, 2.0, 1.0], 2.0).unwrap(),
        [0.25, 1.0, 1.0, 1.0]
    );
    assert_eq!(clip_factors(&[7.0], 1.0).unwrap(), [1.0]);
    assert_eq!(clip_factors(&[0.0, 0.0, 5.0], 4.0).unwrap(), [1.0, 1.0, 0.0]);
    assert_eq!(clip_factors(&[], 4.0).unwrap(), [0.0; 0]);
    for multiple in [0.99, f64::NAN, f64::INFINITY, -1.0] {
        assert!(clip_factors(&[1.0], multiple).is_err());
    }
}
