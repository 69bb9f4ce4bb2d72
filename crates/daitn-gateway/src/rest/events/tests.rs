//! Where a client stands in a job's record, and what it has missed.

use super::*;
use daitn_messages::{
    ids::{ArtifactId, DecisionId, PlanId},
    job::{Actual, CycleView, LeftOut},
    learning::{Architecture, LocalTraining, Metric, Strategy, Task},
    plan::{Placement, Plan, Prediction},
    request::{PlanKind, TrainingParameters, TrainingRequest, Verification},
    units::UnixMillis,
};

fn cycle(n: u32) -> CycleView {
    CycleView {
        cycle: n,
        loss: 1.0,
        n_sites: 2,
        n_examples: 10,
        cycle_ms: 1.0,
        train_ms: 1.0,
        bytes: 8,
        global: ArtifactId([0; 32]),
    }
}

fn left_out(reason: &str) -> LeftOut {
    LeftOut {
        last_cycle: None,
        dataset: "dataset:acme/digits".parse().unwrap(),
        cycle: None,
        reason: Rejection::new(Code::PolicyForbids, reason),
    }
}

fn request() -> TrainingRequest {
    TrainingRequest {
        model: "digits".parse().unwrap(),
        organisation: "acme".parse().unwrap(),
        jurisdiction: "DE".to_owned(),
        purpose: "research".to_owned(),
        architecture: Architecture::Linear,
        features: vec!["a".to_owned()],
        target: "y".to_owned(),
        task: Task::Regression,
        scale: 1.0,
        offset: 0.0,
        data: daitn_messages::request::DataFilter::default(),
        training: TrainingParameters {
            strategy: None,
            kind: None,
            rounds: 3,
            local: LocalTraining {
                epochs: 1,
                batch_size: 1,
                learning_rate: 0.1,
                seed: 0,
            },
            quorum: None,
            round_deadline_ms: None,
            norm_clip: None,
        },
        protections: Vec::new(),
        sla: daitn_messages::request::Sla::default(),
        verification: Verification {
            metric: Metric::Rmse,
            target: 1.0,
            required: 1,
            units: None,
        },
        deployment: None,
    }
}

fn job(phase: JobPhase, n_cycles: u32, n_left_out: usize) -> JobView {
    let aggregator = Placement {
        entity: "aggregator:acme/one".parse().unwrap(),
        node: daitn_messages::ids::NodeId([1; 32]),
    };
    JobView {
        id: JobId::new(1, [1; 10]),
        organisation: "acme".parse().unwrap(),
        phase,
        epoch: 1,
        plan: Plan {
            id: PlanId::new(1, [1; 10]),
            decision: DecisionId::new(1, [1; 10]),
            request: request(),
            made_at: UnixMillis(1),
            valid_until: UnixMillis(2),
            state_version: 1,
            kind: PlanKind::Rounds,
            strategy: Strategy::FedAvg,
            rounds: 3,
            sites: Vec::new(),
            chains: Vec::new(),
            shuffle: false,
            quorum: 1,
            cohort: 1,
            quorum_why: String::new(),
            round_deadline_ms: 1,
            aggregator,
            aggregator_spares: Vec::new(),
            verifiers: Vec::new(),
            hosts: Vec::new(),
            excluded: Vec::new(),
            prediction: Prediction::default(),
            alternatives: Vec::new(),
            why: String::new(),
        },
        accepted_at: UnixMillis(1),
        ended_at: None,
        cause: None,
        cycles: (0..n_cycles).map(cycle).collect(),
        left_out: (0..n_left_out).map(|n| left_out(&n.to_string())).collect(),
        reports: Vec::new(),
        model: None,
        deployment: None,
        actual: Actual::default(),
        waiting: None,
    }
}

#[test]
fn a_newcomer_gets_the_whole_job() {
    let job = job(JobPhase::Training, 2, 1);
    assert_eq!(
        Position::default().missed(&job),
        [JobEvent::View {
            job: Box::new(job.clone())
        }]
    );
}

#[test]
fn who_comes_back_gets_what_was_missed() {
    let before = Position::of(&job(JobPhase::Training, 1, 0));
    let now = job(JobPhase::Training, 3, 1);
    let expected = [
        JobEvent::Cycle { cycle: cycle(1) },
        JobEvent::Cycle { cycle: cycle(2) },
        JobEvent::LeftOut {
            left_out: left_out("0"),
        },
    ];
    let missed = before.missed(&now);
    assert_eq!(missed, expected);
    // Having seen them, the client stands where the record stands.
    let mut after = before;
    missed.iter().for_each(|event| after.advance(event));
    assert_eq!(after, Position::of(&now));
    assert_eq!(after.missed(&now), []);
}

#[test]
fn where_more_has_moved_the_whole_job_comes_again() {
    let before = Position::of(&job(JobPhase::Training, 2, 0));
    let ended = job(JobPhase::Succeeded, 3, 0);
    assert!(matches!(before.missed(&ended)[..], [JobEvent::View { .. }]));
    // A record that is shorter than what the client knows is another job's, or a forged id.
    assert!(matches!(
        before.missed(&job(JobPhase::Training, 1, 0))[..],
        [JobEvent::View { .. }]
    ));
    let raised = JobView {
        epoch: 2,
        ..job(JobPhase::Training, 2, 0)
    };
    assert!(matches!(before.missed(&raised)[..], [JobEvent::View { .. }]));
}

#[test]
fn ids_go_to_text_and_back() {
    for phase in PHASES {
        let position = Position {
            epoch: 3,
            cycles: 12,
            left_out: 1,
            reports: 2,
            phase: Some(phase),
        };
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    assert_eq!(Position::default().to_string().parse(), Ok(Position::default()));
    for text in [
        "",
        "1",
        "1.2.3.4",
        "1.2.3.4.5.6",
        "-1.0.0.0.0",
        "a.b.c.d.e",
        "99999999999999999999.0.0.0.0",
    ] {
        assert_eq!(text.parse::<Position>(), Err(()), "{text}");
    }
}
