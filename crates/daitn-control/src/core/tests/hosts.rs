//! A deployment whose only host goes, drains and comes back, and what those are told meanwhile who query its model.

use super::*;
use daitn_messages::{
    ids::DeploymentId,
    job::{DeploymentPhase, DeploymentView},
    order::Instruction,
    request::Deployment,
};

/// Number of the node of the only host.
pub(super) const HOST: u8 = 5;

/// A model that its one host is to serve, with its job.
pub(super) fn placing(fixture: &mut Fixture) -> (JobId, DeploymentId) {
    let mut wanted = request("fine");
    wanted.deployment = Some(Deployment {
        replicas: 1,
        policy: String::new(),
    });
    let job = fixture.train_as(wanted).id;
    fixture.trained(&job);
    fixture.answer(&job, "verifier:a/v", found(0.9));
    let id = fixture.job(&job).deployment.unwrap();
    assert_eq!(
        unserved(fixture),
        ["version 1 is deployed, and model-host:a/h is loading it"]
    );
    (job, id)
}

/// A model that is served by its one host.
fn served(fixture: &mut Fixture) -> DeploymentId {
    let (_, id) = placing(fixture);
    serve(fixture);
    assert_eq!(unserved(fixture), Vec::<String>::new());
    id
}

/// The host answers its newest order.
pub(super) fn serve(fixture: &mut Fixture) {
    let host: EntityId = "model-host:a/h".parse().unwrap();
    let mut records = fixture.core.orders.by_id.values();
    let record = records.rfind(|record| record.terminal == host).unwrap().clone();
    let key = fixture.keys[&record.node].clone();
    let receipt = Receipt {
        order: record.id,
        job: None,
        epoch: record.epoch,
        node: key.id(),
        terminal: host,
        at: fixture.now,
        outcome: Outcome::Serving,
    };
    fixture.handle(Event::Message {
        request: RequestId(903),
        node: key.id(),
        message: NodeMessage::Report(Signed::seal(&receipt, &key)),
    });
}

/// How many orders to serve go out.
fn n_serve_orders(effects: &[Effect]) -> usize {
    let center = NodeKey::from_bytes(&[42; 32]).id();
    let serves = |effect: &&Effect| match effect {
        Effect::Send { message, .. } => match &**message {
            CenterMessage::Order(signed) => {
                matches!(signed.open(center).unwrap().instruction, Instruction::Serve(_))
            }
            _ => false,
        },
        _ => false,
    };
    effects.iter().filter(serves).count()
}

/// What gateways say of models that are not served.
fn unserved(fixture: &Fixture) -> Vec<String> {
    let snapshot = fixture.core.snapshot(fixture.now);
    snapshot.unserved.into_iter().map(|model| model.why).collect()
}

pub(super) fn view(fixture: &mut Fixture, id: &DeploymentId) -> DeploymentView {
    let Ok(Answer::Deployments(all)) = fixture.call(Operation::ListDeployments) else {
        panic!()
    };
    all.into_iter().find(|view| view.id == *id).unwrap()
}

/// The host is gone longer than is waited for it.
fn lose(fixture: &mut Fixture, id: &DeploymentId) {
    fixture.leave(HOST);
    fixture.now = fixture.now.plus(Timing::default().host_lost_ms + 1);
    fixture.handle(Event::Timer(Timer::Deployment(id.clone())));
    let view = view(fixture, id);
    assert_eq!((view.phase, view.hosts.len()), (DeploymentPhase::Degraded, 0));
    // Orders sort by their millisecond: the next one is newer than what ended this one.
    fixture.now = fixture.now.plus(1);
}

#[test]
fn a_host_that_comes_back_is_given_its_model_at_once() {
    let mut fixture = Fixture::new();
    let id = served(&mut fixture);
    lose(&mut fixture, &id);
    assert!(
        unserved(&fixture)[0].contains("no other connected host fits"),
        "{:?}",
        unserved(&fixture)
    );
    let event = fixture.hello_again(HOST);
    let effects = fixture.handle(event);
    assert_eq!(
        n_serve_orders(&effects),
        1,
        "nothing but its coming is waited for"
    );
    serve(&mut fixture);
    assert_eq!(view(&mut fixture, &id).phase, DeploymentPhase::Ready);
    assert_eq!(unserved(&fixture), Vec::<String>::new());
}

#[test]
fn a_host_that_is_away_is_told_of_at_once_and_keeps_its_place_for_a_while() {
    let mut fixture = Fixture::new();
    let id = served(&mut fixture);
    let ready = view(&mut fixture, &id);
    assert_eq!((ready.phase, ready.waiting), (DeploymentPhase::Ready, None));
    let n_leaves = fixture.core.n_leaves;
    fixture.leave(HOST);
    let away = view(&mut fixture, &id);
    assert_eq!(away.phase, DeploymentPhase::Degraded);
    assert!(matches!(away.hosts.as_slice(), [(_, _, false)]), "{away:?}");
    let waiting = away.waiting.unwrap();
    assert!(waiting.reason.contains("model-host:a/h"), "{waiting:?}");
    let lost_at = fixture.now.plus(Timing::default().host_lost_ms);
    assert_eq!((waiting.since, waiting.until), (fixture.now, Some(lost_at)));
    // Gateways have ways of their own to it.
    assert_eq!(fixture.core.snapshot(fixture.now).models[0].replicas.len(), 1);
    fixture.now = UnixMillis(lost_at.0 - 1);
    fixture.come_back(HOST);
    let back = view(&mut fixture, &id);
    assert_eq!((back.phase, back.hosts), (DeploymentPhase::Ready, ready.hosts));
    assert_eq!(back.waiting, None);
    assert_eq!(fixture.core.n_leaves, n_leaves, "nothing was decided");
}

#[test]
fn a_host_that_is_being_drained_is_called_so_and_taken_when_that_ends() {
    let mut fixture = Fixture::new();
    let id = served(&mut fixture);
    lose(&mut fixture, &id);
    let node = NodeKey::from_bytes(&[HOST; 32]).id();
    fixture.call(Operation::DrainNode(node, true)).unwrap();
    fixture.come_back(HOST);
    let waiting = view(&mut fixture, &id).waiting.unwrap();
    assert!(
        waiting.reason.contains("1 host that would do is being drained"),
        "{waiting:?}"
    );
    fixture.call(Operation::DrainNode(node, false)).unwrap();
    assert_eq!(view(&mut fixture, &id).hosts.len(), 1);
    serve(&mut fixture);
    assert_eq!(view(&mut fixture, &id).phase, DeploymentPhase::Ready);
}

#[test]
fn a_model_whose_deployment_was_stopped_is_said_not_to_be_deployed() {
    let mut fixture = Fixture::new();
    let id = served(&mut fixture);
    fixture.call(Operation::StopDeployment(id)).unwrap();
    assert_eq!(unserved(&fixture), ["it is registered, but not deployed"]);
    let snapshot = fixture.core.snapshot(fixture.now);
    // Its owner may know of it, and nobody else.
    let access = &snapshot.unserved[0].access;
    assert!(!access.others);
    assert!(
        access.named.iter().all(|(who, _)| who.as_str() == "operator"),
        "{access:?}"
    );
}
