//! A small network made by a sentence, and a request for it.
#![allow(dead_code, clippy::unwrap_used)]

use daitn_messages::{
    control::Link,
    descriptor::{AggregatorBody, Body, ComputeBody, DatasetBody, Descriptor, ModelHostBody, VerifierBody},
    ids::{ArtifactId, DecisionId, EntityId, NodeId, PlanId},
    learning::{Architecture, LocalTraining, Metric, Task},
    plan::{Constraint, ConstraintName, Plan, Verdict},
    policy::{PolicyAnswer, UseContext, Verb},
    request::{DataFilter, Sla, TrainingParameters, TrainingRequest, Verification},
    units::UnixMillis,
};
use daitn_topology::{NodeState, PlanIds, Topology, plan};

pub(crate) const NOW: UnixMillis = UnixMillis(1_000_000_000);

/// The node of this name.
pub(crate) fn node(name: &str) -> NodeId {
    NodeId(*ArtifactId::of(name.as_bytes()).as_bytes())
}

pub(crate) fn classes() -> Vec<String> {
    (0..4).map(|c| c.to_string()).collect()
}

fn task() -> Task {
    Task::Classification { classes: classes() }
}

fn features() -> Vec<String> {
    (0..8).map(|f| format!("p{f}")).collect()
}

/// A topology that is being described.
#[derive(Clone, Default)]
pub(crate) struct Net(pub(crate) Topology);

impl Net {
    /// An entity on a node of its own, named like it, connected.
    pub(crate) fn entity(&mut self, id: &str, body: Body) -> &mut Self {
        self.on(id, id, body)
    }

    /// An entity on this node, connected.
    pub(crate) fn on(&mut self, node_name: &str, id: &str, body: Body) -> &mut Self {
        let taken = self.0.upsert(Descriptor {
            entity: id.parse().unwrap(),
            version: 1,
            node: node(node_name),
            title: "A title".into(),
            description: "A description".into(),
            jurisdiction: "DE".into(),
            issued_at: UnixMillis(1),
            body,
        });
        assert!(taken);
        self.connected(node_name, true)
    }

    pub(crate) fn connected(&mut self, node_name: &str, online: bool) -> &mut Self {
        let state = NodeState {
            online,
            draining: false,
        };
        self.0.set_node(node(node_name), state);
        self
    }

    /// Connected, but to be given no new work.
    pub(crate) fn draining(&mut self, node_name: &str) -> &mut Self {
        let state = NodeState {
            online: true,
            draining: true,
        };
        self.0.set_node(node(node_name), state);
        self
    }

    pub(crate) fn dataset(&mut self, id: &str, records: u64, shares: Option<Vec<f32>>) -> &mut Self {
        self.entity(id, dataset(records, shares))
    }

    pub(crate) fn aggregator(&mut self, id: &str) -> &mut Self {
        self.entity(id, aggregator(0))
    }

    pub(crate) fn verifier(&mut self, id: &str) -> &mut Self {
        self.entity(id, verifier())
    }

    pub(crate) fn host(&mut self, id: &str) -> &mut Self {
        self.entity(id, host(1 << 30))
    }

    /// Aggregator, verification unit and host, each of its own organisation.
    pub(crate) fn furnished(&mut self) -> &mut Self {
        self.aggregator("aggregator:agg/main")
            .verifier("verifier:judge/unit")
            .host("model-host:hosting/one")
    }

    pub(crate) fn link(&mut self, a: &str, b: &str, rtt_ms: u64, bytes_per_ms: u64) -> &mut Self {
        assert!(self.0.link(Link {
            from: node(a),
            to: node(b),
            rtt_micros: rtt_ms * 1_000,
            bytes_per_second: bytes_per_ms * 1_000,
            relayed: false,
            measured_at: NOW,
        }));
        self
    }
}

pub(crate) fn dataset(records: u64, shares: Option<Vec<f32>>) -> Body {
    Body::Dataset(Box::new(DatasetBody {
        features: features(),
        target: "label".into(),
        task: task(),
        records,
        label_distribution: shares,
        schema_fingerprint: ArtifactId::of(b"schema"),
        license: "CC-BY-4.0".into(),
        creator: "Somebody".into(),
        date_published: "2026-01-01".into(),
        url: "https://example.org".into(),
        usage: "As the policy says".into(),
        policy: "permit (principal, action, resource);".into(),
        data_version: "1".into(),
        price_micros_per_thousand: 0,
        compute_rate: 1_000_000_000,
        compute_allowed: Vec::new(),
    }))
}

/// A dataset with some fields changed.
pub(crate) fn dataset_with(
    records: u64,
    shares: Option<Vec<f32>>,
    change: impl FnOnce(&mut DatasetBody),
) -> Body {
    let mut body = dataset(records, shares);
    if let Body::Dataset(body) = &mut body {
        change(body);
    }
    body
}

pub(crate) fn aggregator(price_micros_per_gb: u64) -> Body {
    Body::Aggregator(AggregatorBody {
        storage_bytes: 1 << 40,
        price_micros_per_gb,
    })
}

pub(crate) fn verifier() -> Body {
    Body::Verifier(VerifierBody {
        features: features(),
        target: "label".into(),
        task: task(),
        records: 100,
    })
}

pub(crate) fn host(memory_bytes: u64) -> Body {
    Body::ModelHost(ModelHostBody {
        memory_bytes,
        compute_rate: 1_000_000_000,
        price_micros_per_thousand: 0,
    })
}

pub(crate) fn facility(memory_bytes: u64) -> Body {
    Body::Compute(ComputeBody {
        compute_rate: 4_000_000_000,
        memory_bytes,
        price_micros_per_hour: 3_600_000,
    })
}

/// A linear model, 10 rounds of one epoch.
pub(crate) fn request() -> TrainingRequest {
    TrainingRequest {
        model: "digits".parse().unwrap(),
        organisation: "university".parse().unwrap(),
        jurisdiction: "DE".into(),
        purpose: "research".into(),
        architecture: Architecture::Linear,
        features: features(),
        target: "label".into(),
        task: task(),
        scale: 1.0,
        offset: 0.0,
        data: DataFilter::default(),
        training: TrainingParameters {
            strategy: None,
            kind: None,
            rounds: 10,
            local: LocalTraining {
                epochs: 1,
                batch_size: 32,
                learning_rate: 0.1,
                seed: 1,
            },
            quorum: None,
            round_deadline_ms: None,
            norm_clip: None,
        },
        protections: Vec::new(),
        sla: Sla::default(),
        verification: Verification {
            metric: Metric::Accuracy,
            target: 0.9,
            required: 1,
            units: None,
        },
        deployment: None,
    }
}

/// Bytes of its model: 8·4 weights and 4 biases in f32, and a header of 1,024.
pub(crate) const MODEL_BYTES: f64 = (8.0 * 4.0 + 4.0) * 4.0 + 1_024.0;

pub(crate) fn ids() -> PlanIds {
    PlanIds {
        plan: PlanId::new(1, [1; 10]),
        decision: DecisionId::new(1, [2; 10]),
    }
}

pub(crate) fn allow(ids: &[&str]) -> PolicyAnswer {
    PolicyAnswer {
        allowed: true,
        determining: ids.iter().map(|i| (*i).to_owned()).collect(),
        errors: vec![],
    }
}

pub(crate) fn deny(ids: &[&str]) -> PolicyAnswer {
    PolicyAnswer {
        allowed: false,
        ..allow(ids)
    }
}

/// The verdict when every policy permits.
pub(crate) fn verdict(net: &Net, request: &TrainingRequest) -> Verdict {
    verdict_with(net, request, |_, _| allow(&["all"]))
}

pub(crate) fn verdict_with(
    net: &Net,
    request: &TrainingRequest,
    mut permit: impl FnMut(&Descriptor, &UseContext) -> PolicyAnswer,
) -> Verdict {
    let mut permit = |verb, descriptor: &Descriptor, context: &UseContext| match verb {
        Verb::Train => permit(descriptor, context),
        _ => allow(&[]),
    };
    verdict_by(net, request, &mut permit)
}

/// The verdict under policies that are asked for every verb.
pub(crate) fn verdict_by(
    net: &Net,
    request: &TrainingRequest,
    permit: &mut dyn FnMut(Verb, &Descriptor, &UseContext) -> PolicyAnswer,
) -> Verdict {
    plan(&net.0, request, permit, ids(), NOW, 7)
}

#[track_caller]
pub(crate) fn feasible(verdict: Verdict) -> Plan {
    match verdict {
        Verdict::Feasible { plan } => *plan,
        Verdict::Infeasible {
            binding, excluded, ..
        } => panic!("infeasible: {binding:#?} {excluded:#?}"),
    }
}

#[track_caller]
pub(crate) fn infeasible(verdict: Verdict) -> (Vec<Constraint>, Option<Box<TrainingRequest>>) {
    match verdict {
        Verdict::Feasible { plan } => panic!("feasible: {plan:#?}"),
        Verdict::Infeasible { binding, nearest, .. } => (binding, nearest),
    }
}

pub(crate) fn names(binding: &[Constraint]) -> Vec<ConstraintName> {
    let mut names: Vec<ConstraintName> = binding.iter().map(|c| c.name).collect();
    names.sort_unstable();
    names
}

pub(crate) fn entity(id: &str) -> EntityId {
    id.parse().unwrap()
}

pub(crate) fn datasets(plan: &Plan) -> Vec<String> {
    plan.sites.iter().map(|site| site.dataset.to_string()).collect()
}

/// `n` sites of `records` records with one class each, or all classes alike.
pub(crate) fn sites(n: usize, records: u64, one_class_each: bool) -> Net {
    let mut net = Net::default();
    net.furnished();
    for i in 0..n {
        let shares = if one_class_each {
            (0..4).map(|c| f32::from(u8::from(c == i % 4))).collect()
        } else {
            vec![0.25; 4]
        };
        net.dataset(&format!("dataset:org-{i:03}/data"), records, Some(shares));
    }
    net
}
