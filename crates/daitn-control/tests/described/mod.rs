//! What the tests of this crate describe: one entity of each kind, which fit one another and one request. Shared by the
//! core's own tests, the center's and the simulation's.

use daitn_messages::{
    descriptor::{AggregatorBody, Body, ComputeBody, DatasetBody, Descriptor, ModelHostBody, VerifierBody},
    ids::{ArtifactId, EntityId, EntityKind, NodeId},
    learning::Task,
    units::UnixMillis,
};

/// The column that is predicted.
pub(crate) const TARGET: &str = "label";

/// The columns that it is predicted from.
pub(crate) fn features() -> Vec<String> {
    vec!["x".to_owned(), "y".to_owned()]
}

/// What is learned.
pub(crate) fn task() -> Task {
    Task::Classification {
        classes: vec!["no".to_owned(), "yes".to_owned()],
    }
}

/// An entity on a node. A dataset is trained on where it is, under this policy of its owner.
pub(crate) fn descriptor(entity: &EntityId, version: u64, node: NodeId, policy: &str) -> Descriptor {
    let body = match entity.kind {
        EntityKind::Dataset => Body::Dataset(Box::new(dataset(entity, policy))),
        EntityKind::Compute => Body::Compute(ComputeBody {
            compute_rate: 1_000_000_000,
            memory_bytes: 1 << 34,
            price_micros_per_hour: 0,
        }),
        EntityKind::Verifier => Body::Verifier(VerifierBody {
            features: features(),
            target: TARGET.to_owned(),
            task: task(),
            records: 500,
        }),
        EntityKind::Aggregator => Body::Aggregator(AggregatorBody {
            storage_bytes: 1 << 40,
            price_micros_per_gb: 0,
        }),
        _ => Body::ModelHost(ModelHostBody {
            memory_bytes: 1 << 34,
            compute_rate: 1_000_000_000,
            price_micros_per_thousand: 0,
        }),
    };
    Descriptor {
        entity: entity.clone(),
        version,
        node,
        title: entity.name.to_string(),
        description: "made for a test".to_owned(),
        jurisdiction: "DE".to_owned(),
        issued_at: UnixMillis(1),
        body,
    }
}

fn dataset(entity: &EntityId, policy: &str) -> DatasetBody {
    DatasetBody {
        features: features(),
        target: TARGET.to_owned(),
        task: task(),
        records: 1_000,
        label_distribution: Some(vec![0.5, 0.5]),
        schema_fingerprint: ArtifactId::of(b"x,y,label"),
        license: "CC-BY-4.0".to_owned(),
        creator: entity.organisation.to_string(),
        date_published: "2026-01-01".to_owned(),
        url: "https://example.org".to_owned(),
        usage: "research".to_owned(),
        policy: policy.to_owned(),
        data_version: "1".to_owned(),
        price_micros_per_thousand: 0,
        compute_rate: 1_000_000_000,
        compute_allowed: Vec::new(),
    }
}
