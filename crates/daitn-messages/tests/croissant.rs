//! The Croissant face of a dataset: read by mlcroissant, the reference validator (PyPI), where it is installed; and what
//! must never be in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daitn_messages::{
    croissant::croissant,
    descriptor::{Body, DatasetBody, Descriptor},
    ids::{ArtifactId, NodeId},
    learning::Task,
    units::UnixMillis,
};
use std::process::Command;

fn digits() -> Descriptor {
    Descriptor {
        entity: "dataset:st-mary/digits".parse().unwrap(),
        version: 3,
        node: NodeId([1; 32]),
        title: "Handwritten digits of St Mary".to_owned(),
        description: "8 x 8 pixels".to_owned(),
        jurisdiction: "DE".to_owned(),
        issued_at: UnixMillis(1_700_000_000_000),
        body: Body::Dataset(Box::new(DatasetBody {
            features: (0..64).map(|i| format!("p{i}")).collect(),
            target: "label".to_owned(),
            task: Task::Classification {
                classes: (0..10).map(|i| i.to_string()).collect(),
            },
            records: 290,
            label_distribution: Some(vec![0.1; 10]),
            schema_fingerprint: ArtifactId([2; 32]),
            license: "https://creativecommons.org/licenses/by/4.0/".to_owned(),
            creator: "St Mary".to_owned(),
            date_published: "2026-11-01".to_owned(),
            url: "https://st-mary.example/digits".to_owned(),
            usage: "research".to_owned(),
            policy: "permit(principal, action, resource);".to_owned(),
            data_version: "1.0.0".to_owned(),
            price_micros_per_thousand: 0,
            compute_rate: 1,
            compute_allowed: vec![],
        })),
    }
}

#[test]
fn the_reference_validator_accepts_it() {
    let Some(python) = std::env::var_os("DAITN_PYTHON") else {
        eprintln!("skipped: DAITN_PYTHON names no Python with mlcroissant; scripts/check.sh sets it");
        return;
    };
    let file = std::env::temp_dir().join(format!("daitn-croissant-{}.json", std::process::id()));
    std::fs::write(&file, croissant(&digits()).unwrap().to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../daitn/tests/python/croissant.py");
    let output = Command::new(python).arg(script).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains(r#""errors": []"#), "{out}");
}

#[test]
fn what_stays_private_is_not_in_it() {
    let text = croissant(&digits()).unwrap().to_string();
    assert!(
        !text.contains(".csv") && !text.contains("sha256") && !text.contains("data\":["),
        "{text}"
    );
    let other = Descriptor {
        body: Body::Compute(daitn_messages::descriptor::ComputeBody {
            compute_rate: 1,
            memory_bytes: 1,
            price_micros_per_hour: 1,
        }),
        ..digits()
    };
    assert!(croissant(&other).is_none(), "only datasets have a Croissant face");
}
