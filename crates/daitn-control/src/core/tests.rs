//! A fault in one process ends that process and nothing else.

use crate::{
    Entropy, Timing,
    core::{
        ConnectionId, Core, CoreConfig, Effect, Event, Records, RequestId, Timer, Transition, orders::Process,
    },
};
use daitn_messages::{
    control::{CenterMessage, Enrolment, Hello, JoinToken, NodeMessage},
    descriptor::Descriptor,
    ids::{ArtifactId, EntityId, JobId, NodeId},
    job::{JobEvent, JobPhase, JobView, Waiting},
    learning::{Architecture, Evaluation, LocalTraining, Metric},
    operation::{Answer, NewToken, Operation, Principal},
    plan::Verdict,
    receipt::{Outcome, Receipt, TrainingDone, TrainingFailed, VerificationReport},
    rejection::{Code, Rejection},
    request::{DataFilter, PlanKind, Sla, TrainingParameters, TrainingRequest, Verification},
    session::{ArtifactRef, Peer},
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use daitn_store::{Change, Record};
use std::collections::BTreeMap;

mod absence;
#[path = "../../tests/described/mod.rs"]
mod described;
mod hosts;
mod permissions;
mod plans;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

struct Fixture {
    core: Core,
    entropy: Entropy,
    admin: Principal,
    keys: BTreeMap<NodeId, NodeKey>,
    /// What was written.
    records: Records,
    next: u64,
    now: UnixMillis,
}

impl Fixture {
    fn new() -> Self {
        let key = NodeKey::from_bytes(&[42; 32]);
        let config = CoreConfig {
            domain: "test".to_owned(),
            operator: "operator".parse().unwrap(),
            peer: Peer {
                node: key.id(),
                addresses: Vec::new(),
                relay: None,
            },
            key,
            relay: None,
            gateways: Vec::new(),
            timing: Timing::default(),
            plans_apart: false,
        };
        let mut core = Core::restore(config, &Records::default(), NOW).unwrap();
        let mut entropy = Entropy::new([1; 32]);
        let begun = core.bootstrap(RequestId(0), "operator".parse().unwrap(), NOW, &mut entropy);
        let admin = core.snapshot(NOW).keys[0].principal.clone();
        let mut fixture = Self {
            core,
            entropy,
            admin,
            keys: BTreeMap::new(),
            records: Records::default(),
            next: 0,
            now: NOW,
        };
        fixture.write(begun);
        let entities = [
            "dataset:a/d",
            "dataset:b/d",
            "aggregator:a/agg",
            "verifier:a/v",
            "model-host:a/h",
        ];
        for (number, entity) in (1..).zip(entities) {
            fixture.join(number, &entity.parse().unwrap());
        }
        fixture
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let transition = self.core.handle(event, self.now, &mut self.entropy);
        self.write(transition)
    }

    /// Keeps what is to be written, as a store would; what is to be done after it.
    fn write(&mut self, transition: Transition) -> Vec<Effect> {
        for change in transition.batch.changes() {
            let (Change::Put { family, key, .. } | Change::Delete { family, key }) = change;
            let records = self.records.by_family.entry(*family).or_default();
            records.retain(|record| record.key != *key);
            if let Change::Put { value, .. } = change {
                records.push(Record {
                    family: *family,
                    key: key.clone(),
                    value: value.clone(),
                });
            }
        }
        transition.effects
    }

    /// The center stops, is away for so long, and makes its state of its records again. Nobody is connected then.
    fn away(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        self.core = Core::restore(self.core.config.clone(), &self.records, self.now).unwrap();
        let started = self.core.start(self.now, &mut self.entropy);
        self.write(started);
    }

    fn call(&mut self, operation: Operation) -> Result<Answer, Rejection> {
        self.next += 1;
        let request = RequestId(self.next);
        let event = Event::Operation {
            request,
            principal: self.admin.clone(),
            operation: Box::new(operation),
        };
        let reply = |effect| match effect {
            Effect::Reply { result, .. } => Some(result),
            _ => None,
        };
        self.handle(event).into_iter().find_map(reply).unwrap()
    }

    fn token(&mut self, uses: u32) -> JoinToken {
        let new = NewToken {
            organisation: "a".parse().unwrap(),
            terminals: Vec::new(),
            uses,
            valid_ms: 1_000,
        };
        match self.call(Operation::CreateToken(new)) {
            Ok(Answer::Token(token)) => JoinToken::from_text(&token.text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, number: u8, entity: &EntityId) -> Vec<Effect> {
        let new = NewToken {
            organisation: entity.organisation.clone(),
            terminals: Vec::new(),
            uses: 1,
            valid_ms: 1_000,
        };
        let Ok(Answer::Token(token)) = self.call(Operation::CreateToken(new)) else {
            panic!()
        };
        let token = JoinToken::from_text(&token.text).unwrap();
        let key = NodeKey::from_bytes(&[number; 32]);
        self.keys.insert(key.id(), key.clone());
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            build: "test".to_owned(),
            now: NOW,
            addresses: Vec::new(),
            enrolment: Some(Enrolment {
                token: token.token,
                secret: token.secret,
                name: "node".to_owned(),
            }),
            asks_only: false,
        };
        let (request, connection) = (RequestId(900), ConnectionId(u64::from(number)));
        self.handle(Event::Hello {
            request,
            node: key.id(),
            connection,
            hello: Box::new(hello),
        });
        let message = NodeMessage::Attach(Signed::seal(&descriptor(entity, &key), &key));
        let effects = self.handle(Event::Message {
            request,
            node: key.id(),
            message,
        });
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::ReplyNode { reply: Ok(_), .. }))
        );
        effects
    }

    fn train(&mut self, model: &str) -> JobView {
        self.train_as(request(model))
    }

    fn train_as(&mut self, request: TrainingRequest) -> JobView {
        let Ok(Answer::Verdict(verdict)) = self.call(Operation::Plan(Box::new(request))) else {
            panic!()
        };
        let Verdict::Feasible { plan } = *verdict else {
            panic!("{verdict:?}")
        };
        let apply = Operation::Apply {
            plan: plan.id,
            idempotency_key: None,
        };
        let Ok(Answer::Job(view)) = self.call(apply) else {
            panic!()
        };
        *view
    }

    fn job(&mut self, id: &JobId) -> JobView {
        let Ok(Answer::Job(view)) = self.call(Operation::GetJob(id.clone())) else {
            panic!()
        };
        *view
    }
}

/// A dataset whose owner takes part among five sites at least.
const AMONG_FIVE: &str = r#"permit (principal, action, resource);
    @id("cohort-too-small") forbid (principal, action == Action::"train", resource) unless { context.cohort >= 5 };"#;

impl Fixture {
    /// A node, by the number that it joined with, loses its connection.
    fn leave(&mut self, number: u8) -> Vec<JobEvent> {
        let event = Event::Gone {
            node: NodeKey::from_bytes(&[number; 32]).id(),
            connection: ConnectionId(u64::from(number)),
        };
        self.told(event)
    }

    /// It connects again.
    fn come_back(&mut self, number: u8) -> Vec<JobEvent> {
        let event = self.hello_again(number);
        self.told(event)
    }

    fn hello_again(&self, number: u8) -> Event {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            build: "test".to_owned(),
            now: self.now,
            addresses: Vec::new(),
            enrolment: None,
            asks_only: false,
        };
        Event::Hello {
            request: RequestId(902),
            node: NodeKey::from_bytes(&[number; 32]).id(),
            connection: ConnectionId(u64::from(number)),
            hello: Box::new(hello),
        }
    }

    /// What watchers of jobs hear of an event.
    fn told(&mut self, event: Event) -> Vec<JobEvent> {
        let told = |effect| match effect {
            Effect::JobEvent { event, .. } => Some(*event),
            _ => None,
        };
        self.handle(event).into_iter().filter_map(told).collect()
    }

    fn all_accept(&mut self, job: &JobId) {
        for dataset in ["dataset:a/d", "dataset:b/d"] {
            self.answer(job, dataset, Outcome::Accepted { policies: Vec::new() });
        }
        assert_eq!(self.job(job).phase, JobPhase::Training);
    }

    /// All cycles are done: the job is verified now.
    fn trained(&mut self, job: &JobId) {
        self.all_accept(job);
        let done = TrainingDone {
            cycles: 2,
            weights: WEIGHTS,
        };
        self.answer(job, "aggregator:a/agg", Outcome::TrainingDone(done));
        assert_eq!(self.job(job).phase, JobPhase::Verifying);
    }

    /// Answers a site's order as its node would.
    fn answer(&mut self, job: &JobId, dataset: &str, outcome: Outcome) {
        let entity: EntityId = dataset.parse().unwrap();
        let mut records = self.core.orders.by_id.values();
        let record = records
            .find(|record| record.terminal == entity && record.owner == Process::Job(job.clone()))
            .unwrap()
            .clone();
        let key = self.keys[&record.node].clone();
        let receipt = Receipt {
            order: record.id,
            job: Some(job.clone()),
            epoch: record.epoch,
            node: key.id(),
            terminal: entity,
            at: NOW,
            outcome,
        };
        self.handle(Event::Message {
            request: RequestId(901),
            node: key.id(),
            message: NodeMessage::Report(Signed::seal(&receipt, &key)),
        });
    }
}

const WEIGHTS: ArtifactRef = ArtifactRef {
    id: ArtifactId([9; 32]),
    bytes: 100,
};

/// A unit's report that an accuracy of so much was found, where a half is asked for.
fn found(accuracy: f64) -> Outcome {
    Outcome::Verified(Box::new(VerificationReport {
        weights: WEIGHTS.id,
        evaluation: Evaluation {
            n_examples: 100,
            loss: 0.1,
            metrics: vec![(Metric::Accuracy, accuracy)],
            confusion: Vec::new(),
        },
        metric: Metric::Accuracy,
        target: 0.5,
        reached: accuracy >= 0.5,
    }))
}

fn descriptor(entity: &EntityId, key: &NodeKey) -> Descriptor {
    let policy = match entity.name.as_str() {
        "among-five" => AMONG_FIVE,
        "hidden" => permissions::HIDDEN,
        _ => "permit (principal, action, resource);",
    };
    described::descriptor(entity, 1, key.id(), policy)
}

fn request(model: &str) -> TrainingRequest {
    TrainingRequest {
        model: model.parse().unwrap(),
        organisation: "operator".parse().unwrap(),
        jurisdiction: "DE".to_owned(),
        purpose: "research".to_owned(),
        architecture: Architecture::Linear,
        features: described::features(),
        target: described::TARGET.to_owned(),
        task: described::task(),
        scale: 1.0,
        offset: 0.0,
        data: DataFilter::default(),
        training: TrainingParameters {
            strategy: None,
            kind: Some(PlanKind::Rounds),
            rounds: 2,
            local: LocalTraining {
                epochs: 1,
                batch_size: 8,
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
            target: 0.5,
            required: 1,
            units: None,
        },
        deployment: None,
    }
}

#[test]
fn a_panic_in_one_job_ends_that_job_with_its_cause_and_no_other() {
    let mut fixture = Fixture::new();
    let good = fixture.train("fine");
    let bad = fixture.train("panics");
    assert_eq!(bad.phase, JobPhase::Failed);
    assert_eq!(bad.cause.unwrap().code, Code::Internal);
    assert!(bad.ended_at.is_some());
    assert_eq!(fixture.job(&good.id).phase, JobPhase::Preparing);
    let after = fixture.train("also-fine");
    assert_eq!(after.phase, JobPhase::Preparing);
}

#[test]
fn the_relay_serves_members_and_who_holds_a_join_token_in_force() {
    let mut fixture = Fixture::new();
    let (member, stranger) = (
        NodeKey::from_bytes(&[1; 32]).id(),
        NodeKey::from_bytes(&[99; 32]).id(),
    );
    let center = NodeKey::from_bytes(&[42; 32]).id();
    let may = |fixture: &Fixture, node, pass: Option<&str>| fixture.core.may_relay(node, pass, NOW);
    assert!(may(&fixture, center, None) && may(&fixture, member, None));
    assert!(!may(&fixture, stranger, None));

    let token = fixture.token(1);
    let pass = token.relay_pass();
    assert!(may(&fixture, stranger, Some(&pass)));
    assert!(
        !fixture.core.may_relay(stranger, Some(&pass), NOW.plus(1_000)),
        "expired"
    );
    let other = fixture.token(1);
    let mixed = format!(
        "{}.{}",
        token.token,
        other.relay_pass().split_once('.').unwrap().1
    );
    for wrong in ["", ".", "x.y", token.token.as_str(), &mixed] {
        assert!(!may(&fixture, stranger, Some(wrong)), "{wrong}");
    }
    // What is shown to the relay is neither the secret nor its hash.
    let hash = ArtifactId::of(&token.secret).to_string();
    assert!(!pass.contains(&hash));
    fixture.call(Operation::RevokeToken(token.token)).unwrap();
    assert!(!may(&fixture, stranger, Some(&pass)), "revoked");

    fixture.call(Operation::RevokeNode(member)).unwrap();
    assert!(!may(&fixture, member, None), "thrown out");
}

#[test]
fn a_job_does_not_go_on_with_fewer_sites_than_an_owner_agreed_to() {
    let mut fixture = Fixture::new();
    for (number, entity) in (10..).zip(["dataset:c/d", "dataset:d/d", "dataset:e/among-five"]) {
        fixture.join(number, &entity.parse().unwrap());
    }
    let job = fixture.train("fine").id;
    let plan = fixture.job(&job).plan;
    // Two thirds of five would be four.
    assert_eq!((plan.sites.len(), plan.quorum), (5, 5));
    let accepted = || Outcome::Accepted { policies: Vec::new() };
    for dataset in [
        "dataset:a/d",
        "dataset:b/d",
        "dataset:c/d",
        "dataset:e/among-five",
    ] {
        fixture.answer(&job, dataset, accepted());
    }
    assert_eq!(fixture.job(&job).phase, JobPhase::Preparing);
    let refusal = Rejection::new(Code::Overloaded, "no room");
    fixture.answer(&job, "dataset:d/d", Outcome::Refused(refusal));
    let view = fixture.job(&job);
    assert_eq!(view.phase, JobPhase::Failed);
    let cause = view.cause.unwrap();
    assert_eq!(cause.code, Code::QuorumMissed);
    for part in ["4 of 5", "no room", "dataset:e/among-five (cohort-too-small)"] {
        assert!(cause.message.contains(part), "{cause:?}");
    }
    // The next plan goes without the strict owner where there are only four.
    let Ok(Answer::Verdict(verdict)) = fixture.call(Operation::Plan(Box::new(TrainingRequest {
        data: DataFilter {
            datasets: [
                "dataset:a/d",
                "dataset:b/d",
                "dataset:c/d",
                "dataset:e/among-five",
            ]
            .map(|id| id.parse().unwrap())
            .to_vec(),
            ..DataFilter::default()
        },
        ..request("again")
    }))) else {
        panic!()
    };
    let Verdict::Feasible { plan } = *verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!((plan.sites.len(), plan.quorum), (3, 2));
    let excluded = plan
        .excluded
        .iter()
        .find(|out| out.entity.organisation.as_str() == "e");
    assert_eq!(excluded.unwrap().policies, ["cohort-too-small"]);
}

/// The aggregator of the fixture.
const AGGREGATOR: u8 = 3;
/// Its verification unit.
const UNIT: u8 = 4;

fn waits(events: &[JobEvent]) -> Vec<Option<Waiting>> {
    let waits = events.iter().filter_map(|event| match event {
        JobEvent::Waiting { waiting } => Some(waiting.clone()),
        _ => None,
    });
    waits.collect()
}

#[test]
fn a_job_says_at_once_that_its_only_aggregator_is_away() {
    let mut fixture = Fixture::new();
    let job = fixture.train("fine").id;
    fixture.all_accept(&job);
    assert_eq!(fixture.job(&job).waiting, None);
    let told = waits(&fixture.leave(AGGREGATOR));
    let [Some(waiting)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(waiting.reason.contains("aggregator:a/agg"), "{waiting:?}");
    let lost_max_ms = Timing::default().conductor_lost_max_ms;
    assert_eq!((waiting.since, waiting.until), (NOW, Some(NOW.plus(lost_max_ms))));
    assert_eq!(fixture.job(&job).waiting.as_ref(), Some(waiting));

    // Before its silence would count as another reason to replace it.
    fixture.now = NOW.plus(60_000);
    assert_eq!(waits(&fixture.come_back(AGGREGATOR)), [None]);
    assert_eq!(fixture.job(&job).waiting, None);

    fixture.leave(AGGREGATOR);
    fixture.now = fixture.now.plus(lost_max_ms);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    let view = fixture.job(&job);
    assert_eq!((view.phase, view.waiting), (JobPhase::Failed, None));
    let cause = view.cause.unwrap();
    assert_eq!(cause.code, Code::NodeLost);
    assert!(cause.message.contains("aggregator:a/agg"), "{cause}");
}

#[test]
fn a_conductor_that_was_cut_off_may_tell_what_it_did_before_its_silence_counts() {
    let mut fixture = Fixture::new();
    let mut wanted = request("fine");
    wanted.training.round_deadline_ms = Some(10_000);
    let job = fixture.train_as(wanted).id;
    fixture.all_accept(&job);
    let epoch = fixture.job(&job).epoch;
    fixture.leave(AGGREGATOR);
    // Longer than a connected one may be silent: a minute and three rounds.
    fixture.now = NOW.plus(300_000);
    fixture.come_back(AGGREGATOR);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    assert_eq!(fixture.job(&job).epoch, epoch);
    fixture.now = fixture.now.plus(300_000);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    assert_eq!(fixture.job(&job).epoch, epoch + 1);
}

#[test]
fn what_one_conductor_failed_without_is_not_said_of_the_next_one() {
    let mut fixture = Fixture::new();
    fixture.join(9, &"aggregator:z/spare".parse().unwrap());
    let failed = |cycle, left_out: &[u32]| {
        let reason = || Rejection::new(Code::Internal, "the disk is full");
        Outcome::TrainingFailed(Box::new(TrainingFailed {
            cycle,
            reason: reason(),
            left_out: left_out.iter().map(|site| (*site, reason())).collect(),
        }))
    };
    let job = fixture.train("fine").id;
    fixture.all_accept(&job);
    let epoch = fixture.job(&job).epoch;
    fixture.answer(&job, "aggregator:a/agg", failed(1, &[0]));
    let view = fixture.job(&job);
    assert_eq!((view.phase, view.epoch), (JobPhase::Training, epoch + 1));
    assert!(view.left_out.is_empty(), "{:?}", view.left_out);
    // An end that no plan comes to is not kept.
    for (cycle, left_out) in [(u32::MAX, &[0][..]), (1, &[0, 0]), (1, &[77])] {
        let job = fixture.train("other").id;
        fixture.all_accept(&job);
        fixture.answer(&job, "aggregator:a/agg", failed(cycle, left_out));
        assert!(fixture.job(&job).left_out.is_empty(), "{cycle} {left_out:?}");
    }
}

/// A job for one unit of two that could judge; the other one, if it is there, joined with this number.
fn judged_by_one(fixture: &mut Fixture, other: Option<u8>) -> JobId {
    if let Some(number) = other {
        fixture.join(number, &"verifier:b/w".parse().unwrap());
    }
    let mut wanted = request("fine");
    wanted.verification.units = Some(1);
    let job = fixture.train_as(wanted).id;
    assert_eq!(
        fixture.job(&job).plan.verifiers[0].entity.to_string(),
        "verifier:a/v"
    );
    fixture.trained(&job);
    job
}

#[test]
fn a_unit_that_is_lost_is_replaced_by_another() {
    let mut fixture = Fixture::new();
    let job = judged_by_one(&mut fixture, Some(30));
    let told = waits(&fixture.leave(UNIT));
    assert!(
        matches!(told.as_slice(), [Some(waiting)] if waiting.reason.contains("verifier:a/v")),
        "{told:?}"
    );
    fixture.now = fixture.now.plus(Timing::default().verifying_ms + 1_000);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    assert_eq!(fixture.job(&job).phase, JobPhase::Verifying);
    fixture.answer(&job, "verifier:b/w", found(0.9));
    let view = fixture.job(&job);
    assert_eq!((view.phase, view.reports.len()), (JobPhase::Succeeded, 1));
}

#[test]
fn without_another_unit_the_loss_of_one_ends_the_job_with_its_cause() {
    let mut fixture = Fixture::new();
    let job = judged_by_one(&mut fixture, None);
    fixture.leave(UNIT);
    fixture.now = fixture.now.plus(Timing::default().verifying_ms + 1_000);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    let view = fixture.job(&job);
    assert_eq!(view.phase, JobPhase::NotVerified);
    assert!(view.cause.unwrap().message.contains("no report within"));
}

#[test]
fn a_unit_that_found_the_target_missed_is_not_replaced() {
    let mut fixture = Fixture::new();
    let job = judged_by_one(&mut fixture, Some(30));
    fixture.answer(&job, "verifier:a/v", found(0.1));
    assert_eq!(fixture.job(&job).phase, JobPhase::NotVerified);
}

#[test]
fn what_has_ended_cannot_be_stopped() {
    let mut fixture = Fixture::new();
    let job = fixture.train("fine").id;
    fixture.call(Operation::StopJob(job.clone())).unwrap();
    let refusal = fixture.call(Operation::StopJob(job)).unwrap_err();
    assert_eq!(refusal.code, Code::Conflict);
    assert!(refusal.message.contains("was stopped already"), "{refusal}");
}

#[test]
fn what_a_job_promises_is_known_and_is_what_it_does() {
    let mut fixture = Fixture::new();
    let mut promised = request("fine");
    promised.protections = vec!["norm-clip".to_owned()];
    let mut plan = |request: &TrainingRequest| fixture.call(Operation::Plan(Box::new(request.clone())));
    let refusal = plan(&promised).unwrap_err();
    assert_eq!(refusal.code, Code::Malformed);
    assert!(refusal.message.contains("training.norm_clip"), "{refusal}");
    promised.training.norm_clip = Some(3.0);
    plan(&promised).unwrap();
    promised.protections.push("magic".to_owned());
    let refusal = plan(&promised).unwrap_err();
    assert!(refusal.message.contains("`magic`"), "{refusal}");
}

#[test]
fn an_aggregator_that_comes_after_the_sites_measures_the_ways_to_them() {
    let mut fixture = Fixture::new();
    let late: EntityId = "aggregator:z/late".parse().unwrap();
    let effects = fixture.join(9, &late);
    let probed: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { node, message } if *node == NodeKey::from_bytes(&[9; 32]).id() => Some(message),
            _ => None,
        })
        .filter_map(|message| match message.as_ref() {
            CenterMessage::Probe(peers) => Some(peers.iter().map(|peer| peer.node).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    for site in [1, 2] {
        assert!(
            probed.contains(&NodeKey::from_bytes(&[site; 32]).id()),
            "site {site} of {probed:?}"
        );
    }
}
