//! Tests of `daitn-learning`, one file for each of its sources. Expected values come from closed forms, from laws that
//! hold for any input, or from `vectors/`, which `vectors/make.py` makes with numpy, scipy and scikit-learn.
#![cfg(test)]

mod admission;
mod aggregation;
mod local;
mod metrics;
mod random;
mod server;
mod split;

/// A vector file, parsed.
fn vectors(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// An array of numbers as the `f32` that they were made from.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the file holds f32 values in full"
)]
fn floats(value: &serde_json::Value) -> Vec<f32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap() as f32)
        .collect()
}

/// An update as it lies in its artifact.
fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Panics unless each value is near the expected one, relative to its size.
fn assert_near(found: &[f32], expected: &serde_json::Value, tolerance: f64) {
    let expected: Vec<f64> = expected
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect();
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let distance = (f64::from(*found) - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(0.1),
            "value {i} is {found}, expected {expected}"
        );
    }
}
