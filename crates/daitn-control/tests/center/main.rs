//! The control center as others meet it: nodes over real endpoints, clients by its handle, its state in a real store.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail by panicking")]

#[path = "../described/mod.rs"]
mod described;
mod lab;
mod queries;
mod storage;

use daitn_control::CenterHandle;
use daitn_messages::{
    control::{CenterMessage, NodeMessage},
    descriptor::Telemetry,
    ids::{EntityId, EntityKind, JobId},
    job::{DeploymentPhase, JobEvent, JobPhase, JobView},
    leaf::LeafKind,
    learning::ModelVersion,
    operation::{Answer, NewKey, Operation, Principal, Scope},
    plan::{Plan, Verdict},
    policy::{PolicyQuestion, UseContext, Verb},
    rejection::Code,
    request::Search,
    snapshot::Snapshot,
    units::UnixMillis,
};
use lab::{Lab, Node, code, is_welcome, request};
use std::{sync::Arc, time::Duration};

/// Something that must come comes within this time.
const WITHIN: Duration = Duration::from_secs(30);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, what)
        .await
        .expect("it did not come in time")
}

/// Waits for a snapshot of which this holds.
async fn snapshot(center: &CenterHandle, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = center.snapshot();
    within(snapshots.wait_for(|snapshot| holds(snapshot)))
        .await
        .unwrap()
        .clone()
}

async fn full_lab() -> (Lab, Vec<Node>) {
    let mut lab = Lab::new().await;
    let nodes = vec![
        lab.node("north", &["dataset:north/digits", "model-host:north/host"])
            .await,
        lab.node("south", &["dataset:south/digits", "verifier:south/unit"])
            .await,
        lab.node(
            "east",
            &[
                "dataset:east/digits",
                "verifier:east/unit",
                "model-host:east/host",
            ],
        )
        .await,
        lab.node("west", &["aggregator:west/main"]).await,
    ];
    (lab, nodes)
}

async fn plan(lab: &Lab, replicas: u32) -> Plan {
    match lab
        .call(Operation::Plan(Box::new(request(replicas, "research"))))
        .await
        .unwrap()
    {
        Answer::Verdict(verdict) => match *verdict {
            Verdict::Feasible { plan } => *plan,
            other @ Verdict::Infeasible { .. } => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

async fn apply(lab: &Lab, plan: &Plan, key: Option<&str>) -> JobView {
    let apply = Operation::Apply {
        plan: plan.id.clone(),
        idempotency_key: key.map(ToOwned::to_owned),
    };
    match lab.call(apply).await.unwrap() {
        Answer::Job(view) => *view,
        other => panic!("{other:?}"),
    }
}

async fn job(lab: &Lab, id: &JobId) -> JobView {
    match lab.call(Operation::GetJob(id.clone())).await.unwrap() {
        Answer::Job(view) => *view,
        other => panic!("{other:?}"),
    }
}

/// Follows a job to its end; the phases that were seen.
async fn follow(lab: &Lab, id: &JobId) -> Vec<JobPhase> {
    let (view, mut events) = lab.center.watch_job(lab.admin.clone(), id.clone()).await.unwrap();
    let mut phases = vec![view.phase];
    while !phases.last().unwrap().is_terminal() {
        if let JobEvent::Phase { phase, .. } = within(events.recv()).await.unwrap() {
            phases.push(phase);
        }
    }
    phases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_joining_to_a_served_model() {
    let (lab, _nodes) = full_lab().await;
    let plan = plan(&lab, 2).await;
    assert_eq!(plan.sites.len(), 3);
    let view = apply(&lab, &plan, Some("k1")).await;
    let again = apply(&lab, &plan, Some("k1")).await;
    assert_eq!(
        again.id, view.id,
        "an idempotency key that is used again gives the same job"
    );
    let phases = follow(&lab, &view.id).await;
    assert_eq!(*phases.last().unwrap(), JobPhase::Succeeded);

    let ended = job(&lab, &view.id).await;
    assert_eq!(
        ended
            .cycles
            .iter()
            .map(|cycle| (cycle.cycle, cycle.n_sites))
            .collect::<Vec<_>>(),
        [(0, 3), (1, 3), (2, 3)]
    );
    assert_eq!(ended.model.as_ref().unwrap().version, 1);
    assert_eq!(ended.reports.len(), 2);
    assert!(ended.left_out.is_empty() && ended.cause.is_none());

    let served = snapshot(&lab.center, |snapshot| {
        snapshot.models.iter().any(|model| model.replicas.len() == 2)
    })
    .await;
    assert_eq!(served.models[0].model.name.as_str(), "digits");
    assert!(served.models[0].default_version);
    assert!(
        served.models[0]
            .replicas
            .iter()
            .all(|replica| !replica.peer.addresses.is_empty())
    );

    // Whatever was decided can be explained, and is in the log.
    let Answer::Decision(decision) = lab.call(Operation::Explain(plan.decision.clone())).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(decision.kind, "verdict");
    assert_eq!(
        decision
            .candidates
            .iter()
            .filter(|candidate| candidate.chosen)
            .count(),
        3
    );
    let Answer::Leaves(leaves) = lab
        .call(Operation::Leaves {
            from: 0,
            limit: 1_000,
        })
        .await
        .unwrap()
    else {
        panic!()
    };
    assert!(leaves.iter().zip(0..).all(|(leaf, index)| leaf.index == index));
    let count = |kind| leaves.iter().filter(|at| at.leaf.kind == kind).count();
    assert_eq!(count(LeafKind::Enrolment), 4);
    assert_eq!(count(LeafKind::Descriptor), 8);
    assert_eq!(count(LeafKind::Verdict), 1);
    assert_eq!(count(LeafKind::Plan), 1);
    assert_eq!(count(LeafKind::Report), 2);
    assert_eq!(count(LeafKind::Registration), 1);
    assert_eq!(count(LeafKind::JobEnd), 1);
    // 3 to train, 1 to conduct, 2 to verify, 2 to serve, 3 to end the training.
    assert_eq!(count(LeafKind::WorkOrder), 11);
    // 3 + 1 + 2 (units say nothing but their reports here: they accept too) ... and 3 sites in 3 cycles, 3 cycles, 1 end.
    assert!(count(LeafKind::Receipt) >= 3 + 1 + 9 + 3 + 1 + 4);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_forgets_nothing_and_orders_are_sent_again() {
    let (mut lab, mut nodes) = full_lab().await;
    let plan = plan(&lab, 1).await;
    let view = apply(&lab, &plan, None).await;
    follow(&lab, &view.id).await;
    let before = job(&lab, &view.id).await;
    lab.restart_center().await;
    assert_eq!(job(&lab, &view.id).await, before);
    assert_eq!(
        apply(&lab, &plan, None).await.id,
        view.id,
        "a plan becomes one job, also over a restart"
    );
    let Answer::Deployments(deployments) = lab.call(Operation::ListDeployments).await.unwrap() else {
        panic!()
    };
    assert_eq!(deployments[0].phase, DeploymentPhase::Degraded, "nobody is back");

    // The host comes back and gets its order again, since it may have lost what it had in memory.
    let host = deployments[0].hosts[0].1;
    let node = nodes.iter_mut().find(|node| node.key.id() == host).unwrap();
    node.endpoint.set_peer(lab.center.peer()).unwrap();
    let dialled = node
        .endpoint
        .connect(lab.center.peer().node, daitn_fabric::CONTROL_ALPN, WITHIN)
        .await
        .unwrap();
    node.connection = dialled;
    while node.heard.try_recv().is_ok() {}
    assert!(is_welcome(&node.hello(None).await));
    let again = within(async {
        loop {
            if let Some(CenterMessage::Order(order)) = node.heard.recv().await {
                break order.reread().unwrap();
            }
        }
    });
    assert_eq!(again.await.terminal, deployments[0].hosts[0].0);
    let Answer::Deployments(deployments) = lab.call(Operation::ListDeployments).await.unwrap() else {
        panic!()
    };
    assert_eq!(deployments[0].phase, DeploymentPhase::Ready);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_is_refused_with_its_cause() {
    let lab = Lab::new().await;
    let token = lab.token("north").await;
    let key = daitn_messages::signed::NodeKey::from_bytes(&[7; 32]);
    let mut node = Node::connect(&key, &token, Arc::default()).await;
    assert_eq!(code(node.hello(None).await), Code::NotEnrolled);
    assert_eq!(
        code(node.tell(NodeMessage::Telemetry(Vec::new())).await),
        Code::NotEnrolled
    );
    let mut late = node.greeting(Some(&token));
    late.now = UnixMillis(late.now.0 - 6 * 60 * 1000);
    assert_eq!(code(node.say(&late).await), Code::ClockSkew);
    let mut old = node.greeting(Some(&token));
    (old.version_min, old.version_max) = (0, 0);
    assert_eq!(code(node.say(&old).await), Code::VersionMismatch);
    let mut guess = token.clone();
    guess.secret[0] ^= 1;
    assert_eq!(code(node.hello(Some(&guess)).await), Code::TokenInvalid);
    // None of these spent it.
    assert!(is_welcome(&node.hello(Some(&token)).await));
    // The answer may have been lost: the same node may ask again, another may not.
    assert!(is_welcome(&node.hello(Some(&token)).await));
    let other = daitn_messages::signed::NodeKey::from_bytes(&[8; 32]);
    let mut second = Node::connect(&other, &token, Arc::default()).await;
    assert_eq!(code(second.hello(Some(&token)).await), Code::TokenInvalid);
    let revoked = lab.token("north").await;
    lab.call(Operation::RevokeToken(revoked.token.clone()))
        .await
        .unwrap();
    assert_eq!(code(second.hello(Some(&revoked)).await), Code::TokenInvalid);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_greets_only_to_enrol_is_not_cut_off_before_the_answer_is_read() {
    let mut lab = Lab::new().await;
    // So that the center has something to tell whoever comes next.
    let _aggregator = lab.node("north", &["aggregator:north/combiner"]).await;
    let token = lab.token("north").await;
    let key = daitn_messages::signed::NodeKey::from_bytes(&[7; 32]);
    let mut joining = Node::connect(&key, &token, Arc::default()).await;
    joining.endpoint.serve(daitn_fabric::Routes::new());
    assert!(is_welcome(&joining.hello(Some(&token)).await));
    within(async {
        while joining.endpoint.metrics().streams_refused_total == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The answer that it still waits for.
    let same_connection = joining.hello(Some(&token));
    assert!(is_welcome(&within(same_connection).await));
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_are_taken_from_their_own_node_only_and_grow_by_version() {
    let mut lab = Lab::new().await;
    let north = lab.node("north", &["dataset:north/digits"]).await;
    let other = lab.node("north", &[]).await;
    let attach = |node: &Node, entity: &str, version| NodeMessage::Attach(node.describe(entity, version));
    assert_eq!(
        code(north.tell(attach(&north, "dataset:south/digits", 1)).await),
        Code::TerminalNotAllowed
    );
    assert_eq!(
        code(other.tell(attach(&other, "dataset:north/digits", 2)).await),
        Code::Conflict
    );
    assert_eq!(
        code(other.tell(attach(&north, "dataset:north/more", 1)).await),
        Code::BadSignature
    );
    // The same again is no change; another content needs another version.
    north
        .tell(attach(&north, "dataset:north/digits", 1))
        .await
        .unwrap();
    let mut changed = lab::descriptor("dataset:north/digits", 1, north.key.id());
    changed.title = "Something else".to_owned();
    let changed = daitn_messages::signed::Signed::seal(&changed, &north.key);
    assert_eq!(
        code(north.tell(NodeMessage::Attach(changed)).await),
        Code::Conflict
    );
    north
        .tell(attach(&north, "dataset:north/digits", 2))
        .await
        .unwrap();
    assert_eq!(
        code(north.tell(attach(&north, "dataset:north/digits", 1)).await),
        Code::Conflict
    );
    let mut lawless = lab::descriptor("dataset:north/lawless", 1, north.key.id());
    if let daitn_messages::descriptor::Body::Dataset(body) = &mut lawless.body {
        body.policy = "permit (principal, action, ressource);".to_owned();
    }
    let lawless = daitn_messages::signed::Signed::seal(&lawless, &north.key);
    assert_eq!(
        code(north.tell(NodeMessage::Attach(lawless)).await),
        Code::PolicyInvalid
    );
    let Answer::Status(status) = lab.call(Operation::Status).await.unwrap() else {
        panic!()
    };
    assert_eq!((status.descriptors, status.nodes, status.nodes_online), (1, 2, 2));
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_joins_text_filter_and_policy() {
    let (lab, _nodes) = full_lab().await;
    let found = |search: Search| async {
        let Answer::Hits(answer) = lab.call(Operation::Search(search)).await.unwrap() else {
            panic!()
        };
        answer
            .hits
            .iter()
            .map(|hit| hit.descriptor.entity.to_string())
            .collect::<Vec<_>>()
    };
    let all = found(Search {
        kind: Some(EntityKind::Dataset),
        ..Search::default()
    })
    .await;
    assert_eq!(
        all,
        [
            "dataset:east/digits",
            "dataset:north/digits",
            "dataset:south/digits"
        ]
    );
    // The index is written beside the loop: a change is findable soon, not at once.
    let text = Search {
        text: "handwritten NORTH".to_owned(),
        ..Search::default()
    };
    within(async {
        while found(text.clone()).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let both = found(Search {
        kind: Some(EntityKind::ModelHost),
        ..text
    })
    .await;
    assert_eq!(both, ["model-host:north/host"]);
    lab.call(Operation::SetPolicy(
        r#"@id("hidden") forbid (principal == Organisation::"south", action == Action::"discover",
            resource == Dataset::"dataset:north/digits");"#
            .to_owned(),
    ))
    .await
    .unwrap();
    let south = key(&lab, "south", &[Scope::Read]).await;
    let hidden: EntityId = "dataset:north/digits".parse().unwrap();
    let get = |principal: &Principal| {
        lab.center
            .call(principal.clone(), Operation::GetEntity(hidden.clone()))
    };
    assert_eq!(code(get(&south).await), Code::NotFound);
    get(&lab.admin).await.unwrap();
    let north = key(&lab, "north", &[Scope::Read]).await;
    get(&north).await.unwrap();
    lab.center.shutdown().await;
}

/// A key of an organisation with these scopes.
async fn key(lab: &Lab, organisation: &str, scopes: &[Scope]) -> Principal {
    let new = NewKey {
        organisation: organisation.parse().unwrap(),
        scopes: scopes.to_vec(),
        note: String::new(),
    };
    let Answer::Key(made) = lab.call(Operation::CreateKey(new)).await.unwrap() else {
        panic!()
    };
    assert!(made.secret.starts_with("daitn_"));
    let hash = daitn_messages::ids::ArtifactId::of(made.secret.as_bytes());
    let snapshot = snapshot(&lab.center, |snapshot| {
        snapshot.keys.iter().any(|entry| entry.hash == hash)
    })
    .await;
    snapshot
        .keys
        .iter()
        .find(|entry| entry.hash == hash)
        .unwrap()
        .principal
        .clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_what_its_scopes_say_and_sees_its_own_organisation() {
    let (lab, _nodes) = full_lab().await;
    let plan = plan(&lab, 1).await;
    let view = apply(&lab, &plan, None).await;
    let stranger = key(&lab, "north", &[Scope::Read, Scope::Train]).await;
    let call = |operation| lab.center.call(stranger.clone(), operation);
    assert_eq!(
        code(call(Operation::GetJob(view.id.clone())).await),
        Code::NotFound
    );
    assert_eq!(
        code(call(Operation::StopJob(view.id.clone())).await),
        Code::NotFound
    );
    assert_eq!(
        code(
            call(Operation::Apply {
                plan: plan.id.clone(),
                idempotency_key: None
            })
            .await
        ),
        Code::NotFound
    );
    assert!(matches!(call(Operation::ListJobs).await, Ok(Answer::Jobs(jobs)) if jobs.is_empty()));
    assert_eq!(code(call(Operation::ListTokens).await), Code::Unauthorised);
    assert_eq!(
        code(call(Operation::Plan(Box::new(request(1, "research")))).await),
        Code::Unauthorised
    );
    assert_eq!(
        code(lab.center.watch_job(stranger.clone(), view.id.clone()).await),
        Code::NotFound
    );
    // Its data takes part, so that it may read how that was decided about; an outsider may not.
    call(Operation::Explain(plan.decision.clone())).await.unwrap_err();
    let mut more = stranger.clone();
    more.scopes.push(Scope::Admin);
    assert_eq!(
        code(lab.center.call(more, Operation::ListTokens).await),
        Code::Unauthorised
    );
    lab.call(Operation::RevokeKey(stranger.key.clone()))
        .await
        .unwrap();
    assert_eq!(code(call(Operation::ListJobs).await), Code::Unauthenticated);
    assert_eq!(
        code(lab.call(Operation::RevokeKey(lab.admin.key.clone())).await),
        Code::Conflict
    );
    assert_eq!(
        code(lab.center.bootstrap_key("north".parse().unwrap()).await),
        Code::Conflict
    );
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_stale_when_what_it_rests_on_moved_and_not_otherwise() {
    let (mut lab, nodes) = full_lab().await;
    let first = plan(&lab, 1).await;
    // Somebody else joins and describes something: none of the plan's business.
    let _other = lab.node("other", &["dataset:other/else"]).await;
    apply(&lab, &first, None).await;
    let second = plan(&lab, 1).await;
    let changed = nodes[0].describe("dataset:north/digits", 2);
    nodes[0].tell(NodeMessage::Attach(changed)).await.unwrap();
    let apply = |plan: &Plan| {
        lab.call(Operation::Apply {
            plan: plan.id.clone(),
            idempotency_key: None,
        })
    };
    assert_eq!(code(apply(&second).await), Code::StalePlan);
    let third = plan(&lab, 1).await;
    lab.call(Operation::SetPolicy(
        r#"forbid (principal, action, resource) when { context.purpose == "war" };"#.to_owned(),
    ))
    .await
    .unwrap();
    assert_eq!(code(apply(&third).await), Code::StalePlan);
    let fourth = plan(&lab, 1).await;
    lab.call(Operation::DrainNode(nodes[3].key.id(), true))
        .await
        .unwrap();
    assert_eq!(code(apply(&fourth).await), Code::StalePlan);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_forbid_and_say_by_which_rule() {
    let (lab, _nodes) = full_lab().await;
    let Answer::Verdict(verdict) = lab
        .call(Operation::Plan(Box::new(request(1, "commercial"))))
        .await
        .unwrap()
    else {
        panic!()
    };
    let Verdict::Infeasible {
        excluded,
        binding,
        decision: Some(decision),
        ..
    } = *verdict
    else {
        panic!("{verdict:?}")
    };
    assert_eq!(excluded.len(), 3);
    assert!(!binding.is_empty());
    // A refusal has its decision record as a plan has.
    let Answer::Decision(record) = lab.call(Operation::Explain(decision)).await.unwrap() else {
        panic!()
    };
    assert_eq!(record.outcome, "infeasible");
    assert_eq!(record.candidates.len(), 3);
    assert_eq!(record.reasons.len(), binding.len());
    let question = PolicyQuestion {
        who: "operator".parse().unwrap(),
        verb: Verb::Train,
        what: "dataset:north/digits".parse().unwrap(),
        context: UseContext {
            purpose: "research".to_owned(),
            algorithm: "fed-avg".to_owned(),
            protections: Vec::new(),
            cohort: 3,
            jurisdiction: "DE".to_owned(),
            recipients: Vec::new(),
        },
    };
    let Answer::Policy(answer) = lab.call(Operation::Can(question.clone())).await.unwrap() else {
        panic!()
    };
    assert!(answer.allowed);
    assert_eq!(answer.determining, ["research"]);
    lab.call(Operation::SetPolicy(
        r#"@id("embargo") forbid (principal, action, resource);"#.to_owned(),
    ))
    .await
    .unwrap();
    let Answer::Policy(answer) = lab.call(Operation::Can(question)).await.unwrap() else {
        panic!()
    };
    assert!(!answer.allowed);
    assert_eq!(answer.determining, ["domain:embargo"]);
    assert_eq!(
        code(lab.call(Operation::SetPolicy("permit (".to_owned())).await),
        Code::PolicyInvalid
    );
    let Answer::PolicyText { policy } = lab.call(Operation::GetPolicy).await.unwrap() else {
        panic!()
    };
    assert!(
        policy.contains("embargo"),
        "a policy that is refused changes nothing"
    );
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_cut_off_and_its_entities_are_gone() {
    let (lab, mut nodes) = full_lab().await;
    let plan = plan(&lab, 2).await;
    let view = apply(&lab, &plan, None).await;
    follow(&lab, &view.id).await;
    let host = nodes
        .iter()
        .position(|node| node.key.id() == plan.hosts[0].node)
        .unwrap();
    lab.call(Operation::RevokeNode(nodes[host].key.id()))
        .await
        .unwrap();
    let node = &mut nodes[host];
    within(async { while !matches!(node.heard.recv().await, Some(CenterMessage::Revoked) | None) {} }).await;
    within(node.connection.closed()).await;
    let left = snapshot(&lab.center, |snapshot| {
        snapshot.models.iter().all(|model| model.replicas.len() == 1)
    })
    .await;
    assert!(
        left.models[0]
            .replicas
            .iter()
            .all(|replica| replica.peer.node != plan.hosts[0].node)
    );
    let gone: EntityId = plan.hosts[0].entity.clone();
    assert_eq!(code(lab.call(Operation::GetEntity(gone)).await), Code::NotFound);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_deployed_again_rolled_back_and_stopped() {
    let (lab, nodes) = full_lab().await;
    for version in 1..=2 {
        let plan = plan(&lab, 1).await;
        let view = apply(&lab, &plan, None).await;
        assert_eq!(*follow(&lab, &view.id).await.last().unwrap(), JobPhase::Succeeded);
        assert_eq!(job(&lab, &view.id).await.model.unwrap().version, version);
    }
    let serves = |version: u32| {
        move |snapshot: &Snapshot| {
            snapshot.models.len() == 1
                && snapshot.models[0].model.version == version
                && snapshot.models[0].default_version
        }
    };
    snapshot(&lab.center, serves(2)).await;
    lab.call(Operation::RollBack("digits".parse().unwrap()))
        .await
        .unwrap();
    snapshot(&lab.center, serves(1)).await;
    let first = lab.call(Operation::RollBack("digits".parse().unwrap())).await;
    let refused = first.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    assert!(
        refused.hint.contains("daitn model deploy digits@2"),
        "{refused:?}"
    );
    let deploy = Operation::Deploy {
        model: "digits".parse().unwrap(),
        version: None,
        replicas: 2,
    };
    let Answer::Deployment(deployment) = lab.call(deploy).await.unwrap() else {
        panic!()
    };
    let served = snapshot(&lab.center, serves(2)).await;
    // Load reaches the gateways without anything else having changed.
    let host = served.models[0].replicas[0].clone();
    let node = nodes.iter().find(|node| node.key.id() == host.peer.node).unwrap();
    let telemetry = Telemetry {
        entity: host.host.clone(),
        measured_at: lab::now(),
        load: 0.5,
        queued: 3,
        in_flight: 1,
        free_memory_bytes: 1 << 30,
        service_seconds: 0.01,
    };
    node.tell(NodeMessage::Telemetry(vec![telemetry])).await.unwrap();
    snapshot(&lab.center, |snapshot| {
        let replicas = snapshot.models.iter().flat_map(|model| &model.replicas);
        replicas
            .filter_map(|replica| replica.telemetry.as_ref())
            .any(|telemetry| telemetry.queued == 3)
    })
    .await;
    // Of three replicas two are placed: what the third waits for is told at once.
    let deploy = |version, replicas| Operation::Deploy {
        model: "digits".parse().unwrap(),
        version,
        replicas,
    };
    let Answer::Deployment(short) = lab.call(deploy(None, 3)).await.unwrap() else {
        panic!()
    };
    let waiting = short.waiting.unwrap();
    assert!(waiting.reason.contains("2 of 3 replicas"), "{waiting:?}");
    assert!(waiting.until.unwrap() > waiting.since);
    for id in [short.id, deployment.id] {
        lab.call(Operation::StopDeployment(id.clone())).await.unwrap();
        assert_eq!(
            code(lab.call(Operation::StopDeployment(id)).await),
            Code::Conflict
        );
    }
    snapshot(&lab.center, |snapshot| snapshot.models.is_empty()).await;
    let version = |version| {
        Operation::GetModel(ModelVersion {
            name: "digits".parse().unwrap(),
            version,
        })
    };
    for number in [1, 2] {
        let Answer::Entity(hit) = lab.call(version(number)).await.unwrap() else {
            panic!()
        };
        assert_eq!(hit.descriptor.version, u64::from(number));
    }
    for asked in [deploy(Some(9), 1), version(9)] {
        let missing = lab.call(asked).await.unwrap_err();
        assert_eq!(missing.code, Code::NotFound);
        assert!(missing.message.contains("no version 9; it has 1, 2"), "{missing}");
    }
    // What is another organisation's looks as if it were not.
    let stranger = key(&lab, "north", &[Scope::Deploy]).await;
    let roll_back = Operation::RollBack("digits".parse().unwrap());
    assert_eq!(
        code(lab.center.call(stranger.clone(), roll_back).await),
        Code::NotFound
    );
    assert_eq!(
        code(lab.center.call(stranger, deploy(Some(9), 1)).await),
        Code::NotFound
    );
    let unknown = Operation::Deploy {
        model: "nothing".parse().unwrap(),
        version: None,
        replicas: 1,
    };
    assert_eq!(code(lab.call(unknown).await), Code::NotFound);
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_of_the_center_carries_no_payload() {
    let (lab, nodes) = full_lab().await;
    let center = lab.center.peer().node;
    let refused = nodes[0]
        .endpoint
        .connect(center, daitn_fabric::DATA_ALPN, WITHIN)
        .await;
    assert!(
        refused.is_err(),
        "the control center speaks the data plane's protocol"
    );
    lab.center.shutdown().await;
    let stats = lab.center.stats();
    assert!(stats.events > 0 && stats.store.groups > 0 && stats.faults == 0);
    assert_eq!(code(lab.call(Operation::Status).await), Code::ControlUnavailable);
}
