//! Metrics against scikit-learn's values, and by hand where scikit-learn has no say.

use crate::{floats, vectors};
use daitn_learning::metrics::{
    ClassificationTally, MetricsError, RegressionTally, classification, regression,
};
use daitn_messages::learning::{Evaluation, Metric};

const VECTORS: &str = include_str!("vectors/evaluations.json");

fn near(found: f64, expected: &serde_json::Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{found}, expected {expected}"
    );
}

fn metric(evaluation: &Evaluation, metric: Metric) -> f64 {
    evaluation.metric(metric).unwrap()
}

#[test]
fn classification_agrees_with_scikit_learn() {
    let case = &vectors(VECTORS)["classification"];
    let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
    let confusion: Vec<Vec<u64>> = serde_json::from_value(case["confusion"].clone()).unwrap();
    let evaluation = classification(&floats(&case["logits"]), &labels, 5).unwrap();
    assert_eq!(evaluation.n_examples, 60);
    assert_eq!(evaluation.confusion, confusion);
    near(evaluation.loss, &case["loss"]);
    near(metric(&evaluation, Metric::Accuracy), &case["accuracy"]);
    near(metric(&evaluation, Metric::MacroF1), &case["macro_f1"]);
    assert_eq!(evaluation.metric(Metric::Rmse), None);
}

#[test]
fn regression_agrees_with_scikit_learn() {
    let case = &vectors(VECTORS)["regression"];
    let evaluation = regression(&floats(&case["predictions"]), &floats(&case["targets"])).unwrap();
    assert_eq!(evaluation.n_examples, 40);
    near(evaluation.loss, &case["mse"]);
    near(metric(&evaluation, Metric::Rmse), &case["rmse"]);
    near(metric(&evaluation, Metric::Mae), &case["mae"]);
    near(metric(&evaluation, Metric::R2), &case["r2"]);
    assert!(evaluation.confusion.is_empty());
}

#[test]
fn batches_change_nothing() {
    let case = &vectors(VECTORS)["classification"];
    let (logits, labels) = (
        floats(&case["logits"]),
        serde_json::from_value::<Vec<u32>>(case["labels"].clone()).unwrap(),
    );
    let mut tally = ClassificationTally::new(5).unwrap();
    for (logits, labels) in logits.chunks(7 * 5).zip(labels.chunks(7)) {
        tally.add(logits, labels).unwrap();
    }
    assert_eq!(tally.finish(), classification(&logits, &labels, 5));
    let case = &vectors(VECTORS)["regression"];
    let (predictions, targets) = (floats(&case["predictions"]), floats(&case["targets"]));
    let mut tally = RegressionTally::default();
    for (predictions, targets) in predictions.chunks(9).zip(targets.chunks(9)) {
        tally.add(predictions, targets).unwrap();
    }
    assert_eq!(tally.finish(), regression(&predictions, &targets));
}

#[test]
fn indifference_costs_the_logarithm_of_the_classes() {
    let evaluation = classification(&[0.0; 20], &[0, 1, 2, 3, 0], 4).unwrap();
    assert!((evaluation.loss - 4f64.ln()).abs() < 1e-15);
    // Equal logits are a vote for the first class.
    assert_eq!(evaluation.metric(Metric::Accuracy), Some(0.4));
    assert_eq!(
        evaluation.confusion,
        [[2, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    );
}

#[test]
fn huge_logits_stay_finite() {
    let evaluation = classification(&[f32::MAX, f32::MIN, f32::MIN, f32::MAX], &[0, 0], 2).unwrap();
    // The first costs nothing, the second the whole distance.
    assert!((evaluation.loss / f64::from(f32::MAX) - 1.0).abs() < 1e-12);
}

#[test]
fn constant_targets() {
    // As scikit-learn's r2_score with its default force_finite.
    assert_eq!(
        regression(&[2.0, 2.0], &[2.0, 2.0]).unwrap().metric(Metric::R2),
        Some(1.0)
    );
    assert_eq!(
        regression(&[2.0, 3.0], &[2.0, 2.0]).unwrap().metric(Metric::R2),
        Some(0.0)
    );
    // Of one example there is no spread to explain.
    assert_eq!(regression(&[2.0], &[2.0]).unwrap().metric(Metric::R2), None);
}

#[test]
fn what_cannot_be_judged() {
    assert_eq!(classification(&[], &[], 3), Err(MetricsError::NoExamples));
    assert_eq!(regression(&[], &[]), Err(MetricsError::NoExamples));
    assert_eq!(ClassificationTally::new(0), Err(MetricsError::NoClasses));
    let wrong = MetricsError::WrongLength {
        n_outputs: 5,
        n_targets: 2,
        n_expected: 6,
    };
    assert_eq!(classification(&[0.0; 5], &[0, 1], 3), Err(wrong));
    let wrong = MetricsError::WrongLength {
        n_outputs: 1,
        n_targets: 2,
        n_expected: 2,
    };
    assert_eq!(regression(&[0.0], &[0.0, 1.0]), Err(wrong));
    let bad = MetricsError::BadLabel {
        example: 1,
        label: 3,
        n_classes: 3,
    };
    assert_eq!(classification(&[0.0; 6], &[0, 3], 3), Err(bad));
    assert_eq!(
        classification(&[0.0, 0.0, 0.0, f32::NAN], &[0, 1], 2),
        Err(MetricsError::NotFinite { example: 1 })
    );
    assert_eq!(
        regression(&[0.0], &[f32::INFINITY]),
        Err(MetricsError::NotFinite { example: 0 })
    );
}

#[test]
fn a_refused_batch_counts_for_nothing() {
    let mut tally = ClassificationTally::new(2).unwrap();
    tally.add(&[1.0, 0.0], &[0]).unwrap();
    let before = tally.clone();
    assert_eq!(
        tally.add(&[1.0, 0.0, 0.0, 1.0], &[0, 9]),
        Err(MetricsError::BadLabel {
            example: 2,
            label: 9,
            n_classes: 2
        })
    );
    assert_eq!(tally, before);
    let mut tally = RegressionTally::default();
    tally.add(&[1.0], &[2.0]).unwrap();
    let before = tally.clone();
    assert_eq!(
        tally.add(&[1.0, f32::NAN], &[2.0, 2.0]),
        Err(MetricsError::NotFinite { example: 2 })
    );
    assert_eq!(tally, before);
}
