//! One sample of everything that the control center answers.

use daitn_messages::{
    descriptor::{Body, DatasetBody, Descriptor, ModelBody, Provenance},
    ids::{ApiKeyId, ArtifactId, DecisionId, DeploymentId, EntityKind, JobId, NodeId, PlanId, TokenId},
    job::{
        Actual, CycleView, DecisionRecord, DeploymentPhase, DeploymentView, JobPhase, JobSummary, JobView,
    },
    leaf::{Leaf, LeafKind},
    learning::{Architecture, LocalTraining, Metric, ModelSpec, ModelVersion, Strategy, Task},
    operation::{
        Answer, CreatedKey, CreatedToken, KeyView, LeafAt, NodeView, Operation, Scope, SearchAnswer,
        StatusView, TokenView,
    },
    plan::{Placement, Plan, Prediction, Verdict},
    policy::PolicyAnswer,
    rejection::{Code, Rejection},
    request::{DataFilter, Hit, PlanKind, Search, Sla, TrainingParameters, TrainingRequest, Verification},
    units::UnixMillis,
};

pub(crate) const NODE: NodeId = NodeId([7; 32]);

pub(crate) fn job_id() -> JobId {
    JobId::new(1, [1; 10])
}

pub(crate) fn plan_id() -> PlanId {
    PlanId::new(2, [2; 10])
}

pub(crate) fn decision_id() -> DecisionId {
    DecisionId::new(3, [3; 10])
}

pub(crate) fn deployment_id() -> DeploymentId {
    DeploymentId::new(4, [4; 10])
}

pub(crate) fn token_id() -> TokenId {
    TokenId::new(5, [5; 10])
}

pub(crate) fn key_id(n: u8) -> ApiKeyId {
    ApiKeyId::new(6, [n; 10])
}

pub(crate) fn spec(n_features: usize, classes: &[&str]) -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Linear,
        features: (0..n_features).map(|n| format!("x{n}")).collect(),
        target: "y".to_owned(),
        task: Task::Classification {
            classes: classes.iter().map(|c| (*c).to_owned()).collect(),
        },
        scale: 1.0,
        offset: 0.0,
    }
}

pub(crate) fn request() -> TrainingRequest {
    TrainingRequest {
        model: "digits".parse().unwrap(),
        organisation: "acme".parse().unwrap(),
        jurisdiction: "DE".to_owned(),
        purpose: "research".to_owned(),
        architecture: Architecture::Mlp { hidden: vec![8] },
        features: vec!["x0".to_owned(), "x1".to_owned()],
        target: "y".to_owned(),
        task: Task::Classification {
            classes: vec!["no".to_owned(), "yes".to_owned()],
        },
        scale: 1.0,
        offset: 0.0,
        data: DataFilter::default(),
        training: TrainingParameters {
            strategy: Some(Strategy::FedProx { mu: 0.1 }),
            kind: Some(PlanKind::Rounds),
            rounds: 3,
            local: LocalTraining {
                epochs: 1,
                batch_size: 8,
                learning_rate: 0.1,
                seed: 1,
            },
            quorum: None,
            round_deadline_ms: None,
            norm_clip: Some(3.0),
        },
        protections: vec!["norm-clip".to_owned()],
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

fn placement(entity: &str) -> Placement {
    Placement {
        entity: entity.parse().unwrap(),
        node: NODE,
    }
}

pub(crate) fn plan() -> Plan {
    Plan {
        id: plan_id(),
        decision: decision_id(),
        request: request(),
        made_at: UnixMillis(1),
        valid_until: UnixMillis(2),
        state_version: 9,
        kind: PlanKind::Rounds,
        strategy: Strategy::FedAvg,
        rounds: 3,
        sites: Vec::new(),
        chains: vec![vec![0]],
        shuffle: false,
        quorum: 1,
        cohort: 1,
        quorum_why: String::new(),
        round_deadline_ms: 1000,
        aggregator: placement("aggregator:acme/sum"),
        aggregator_spares: Vec::new(),
        verifiers: vec![placement("verifier:acme/judge")],
        hosts: Vec::new(),
        excluded: Vec::new(),
        prediction: Prediction::default(),
        alternatives: Vec::new(),
        why: "it is a sample".to_owned(),
    }
}

pub(crate) fn cycle(n: u32) -> CycleView {
    CycleView {
        cycle: n,
        loss: 0.5,
        n_sites: 1,
        n_examples: 100,
        cycle_ms: 12.5,
        train_ms: 10.0,
        bytes: 1000,
        global: ArtifactId([9; 32]),
    }
}

pub(crate) fn job(phase: JobPhase, n_cycles: u32) -> JobView {
    JobView {
        id: job_id(),
        organisation: "acme".parse().unwrap(),
        phase,
        epoch: 1,
        plan: plan(),
        accepted_at: UnixMillis(10),
        ended_at: phase.is_terminal().then_some(UnixMillis(20)),
        cause: (phase == JobPhase::Failed).then(|| Rejection::new(Code::NodeLost, "gone")),
        cycles: (0..n_cycles).map(cycle).collect(),
        left_out: Vec::new(),
        reports: Vec::new(),
        model: None,
        deployment: None,
        actual: Actual::default(),
        waiting: None,
    }
}

pub(crate) fn dataset() -> Descriptor {
    Descriptor {
        entity: "dataset:acme/digits".parse().unwrap(),
        version: 1,
        node: NODE,
        title: "Digits".to_owned(),
        description: "Written by hand".to_owned(),
        jurisdiction: "DE".to_owned(),
        issued_at: UnixMillis(1),
        body: Body::Dataset(Box::new(DatasetBody {
            features: vec!["x0".to_owned(), "x1".to_owned()],
            target: "y".to_owned(),
            task: Task::Classification {
                classes: vec!["no".to_owned(), "yes".to_owned()],
            },
            records: 100,
            label_distribution: Some(vec![0.5, 0.5]),
            schema_fingerprint: ArtifactId([1; 32]),
            license: "CC-BY-4.0".to_owned(),
            creator: "Acme".to_owned(),
            date_published: "2026-01-01".to_owned(),
            url: "https://acme.example/digits".to_owned(),
            usage: "Research".to_owned(),
            policy: "permit(principal, action, resource);".to_owned(),
            data_version: "1".to_owned(),
            price_micros_per_thousand: 0,
            compute_rate: 1,
            compute_allowed: Vec::new(),
        })),
    }
}

pub(crate) fn model() -> Descriptor {
    Descriptor {
        entity: "model:acme/digits".parse().unwrap(),
        body: Body::Model(Box::new(ModelBody {
            model_version: 2,
            spec: spec(2, &["no", "yes"]),
            weights: ArtifactId([2; 32]),
            weights_bytes: 1000,
            provenance: Provenance {
                job: job_id(),
                request: ArtifactId([3; 32]),
                plan: ArtifactId([4; 32]),
                datasets: vec![("dataset:acme/digits".parse().unwrap(), 1)],
                receipts: Vec::new(),
                reports: Vec::new(),
                build: "0".to_owned(),
            },
            evaluations: Vec::new(),
        })),
        ..dataset()
    }
}

fn hit(descriptor: Descriptor) -> Hit {
    Hit {
        descriptor,
        online: true,
        score: 0.0,
    }
}

fn deployment() -> DeploymentView {
    DeploymentView {
        id: deployment_id(),
        model: ModelVersion {
            name: "digits".parse().unwrap(),
            version: 2,
        },
        phase: DeploymentPhase::Ready,
        replicas: 1,
        hosts: vec![("model-host:acme/host".parse().unwrap(), NODE, true)],
        cause: None,
        waiting: None,
    }
}

fn node() -> NodeView {
    NodeView {
        relayed: Some(false),
        links: Vec::new(),
        node: NODE,
        name: "one".to_owned(),
        organisation: "acme".parse().unwrap(),
        online: true,
        draining: false,
        revoked: false,
        build: "0".to_owned(),
        last_seen: UnixMillis(1),
        entities: vec!["dataset:acme/digits".parse().unwrap()],
    }
}

fn search(search: &Search) -> Answer {
    let all = [dataset(), model()];
    let found: Vec<Hit> = all
        .into_iter()
        .filter(|d| search.kind.is_none_or(|kind| d.body.kind() == kind))
        .map(hit)
        .collect();
    let total = found.len() as u64;
    Answer::Hits(SearchAnswer {
        hits: found.into_iter().skip(search.offset as usize).collect(),
        total,
    })
}

/// What a control center in which everything exists answers.
pub(crate) fn answer(operation: &Operation) -> Result<Answer, Rejection> {
    Ok(match operation {
        Operation::CreateToken(_) => Answer::Token(CreatedToken {
            token: token_id(),
            text: "daitn1-sample".to_owned(),
            expires_at: UnixMillis(5),
        }),
        Operation::ListTokens => Answer::Tokens(vec![TokenView {
            token: token_id(),
            organisation: "acme".parse().unwrap(),
            terminals: vec![EntityKind::Dataset],
            uses_left: 1,
            expires_at: UnixMillis(5),
            revoked: false,
        }]),
        Operation::RevokeToken(_) | Operation::RevokeKey(_) | Operation::SetPolicy(_) => Answer::Done {},
        Operation::CreateKey(_) => Answer::Key(CreatedKey {
            key: key_id(0),
            secret: "daitn_sample".to_owned(),
        }),
        Operation::ListKeys => Answer::Keys(vec![KeyView {
            key: key_id(0),
            organisation: "acme".parse().unwrap(),
            scopes: vec![Scope::Read],
            note: String::new(),
            revoked: false,
        }]),
        Operation::ListNodes => Answer::Nodes(vec![node()]),
        Operation::GetNode(_) | Operation::RevokeNode(_) | Operation::DrainNode(..) => Answer::Node(node()),
        Operation::Search(wanted) => search(wanted),
        Operation::GetEntity(entity) if entity.kind == EntityKind::Dataset => {
            Answer::Entity(Box::new(hit(dataset())))
        }
        Operation::GetEntity(entity) if entity.kind == EntityKind::Model => {
            Answer::Entity(Box::new(hit(model())))
        }
        Operation::GetModel(_) => Answer::Entity(Box::new(hit(model()))),
        Operation::GetEntity(entity) => return Err(Rejection::not_found("entity", entity)),
        Operation::Plan(_) => Answer::Verdict(Box::new(Verdict::Feasible {
            plan: Box::new(plan()),
        })),
        Operation::Apply { .. } | Operation::GetJob(_) | Operation::StopJob(_) => {
            Answer::Job(Box::new(job(JobPhase::Training, 1)))
        }
        Operation::ListJobs => Answer::Jobs(vec![JobSummary {
            id: job_id(),
            model: "digits".to_owned(),
            organisation: "acme".parse().unwrap(),
            phase: JobPhase::Training,
            cycles_done: 1,
            cycles: 3,
            accepted_at: UnixMillis(10),
        }]),
        Operation::ListDeployments => Answer::Deployments(vec![deployment()]),
        Operation::Deploy { .. } | Operation::StopDeployment(_) | Operation::RollBack(_) => {
            Answer::Deployment(deployment())
        }
        Operation::Can(_) => Answer::Policy(PolicyAnswer {
            allowed: true,
            determining: vec!["p0".to_owned()],
            errors: Vec::new(),
        }),
        Operation::GetPolicy => Answer::PolicyText {
            policy: "permit(principal, action, resource);".to_owned(),
        },
        Operation::Explain(id) => Answer::Decision(Box::new(DecisionRecord {
            id: id.clone(),
            at: UnixMillis(1),
            kind: "verdict".to_owned(),
            subject: plan_id().to_string(),
            outcome: "feasible".to_owned(),
            reasons: Vec::new(),
            candidates: Vec::new(),
            prediction: None,
        })),
        Operation::Leaves { .. } => Answer::Leaves(vec![LeafAt {
            index: 0,
            leaf: Leaf::new(
                LeafKind::Key,
                UnixMillis(1),
                key_id(0).to_string(),
                ArtifactId([5; 32]),
            ),
        }]),
        Operation::Status => Answer::Status(StatusView {
            domain: "test".to_owned(),
            build: "0".to_owned(),
            center: NODE,
            nodes: 1,
            nodes_online: 1,
            descriptors: 2,
            jobs_active: 1,
            jobs: 1,
            models_served: 1,
            leaves: 1,
            state_version: 9,
        }),
    })
}
