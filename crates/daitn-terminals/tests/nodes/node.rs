//! The node itself: joining, being seen, being told things, terminals that come and go.

use crate::lab::*;
use daitn_engine::{Engine, builtin::Builtin, weights};
use daitn_fabric::{CONTROL_ALPN, Refusal, SessionError};
use daitn_messages::{
    control::{Acknowledged, CenterMessage, JoinToken},
    ids::{EntityId, NodeId, TokenId},
    learning::Architecture,
    limits::FRAME_BYTES_MAX,
    order::Instruction,
    rejection::Code,
    session::{KeepState, SessionReply, SessionRequest, TrainStep},
    signed::{NodeKey, Signed},
};
use daitn_terminals::{AdminRequest, Contact, Node, TerminalOptions, enrol};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

async fn tell(lab: &Lab, node: NodeId, message: &CenterMessage) {
    let connection = lab
        .center
        .inbound(node, CONTROL_ALPN)
        .expect("the node is connected");
    let answer: Acknowledged = connection
        .request(message, FRAME_BYTES_MAX, PATIENCE)
        .await
        .unwrap();
    answer.unwrap();
}

/// One line to the node's socket and one back.
async fn admin(node: &Running, line: &str) -> serde_json::Value {
    let stream = UnixStream::connect(node.options.state.join("node.sock"))
        .await
        .unwrap();
    let (reader, mut writer) = stream.into_split();
    writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    BufReader::new(reader).read_line(&mut answer).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_enrolled_ends_and_joining_names_the_cause() {
    let lab = Lab::new().await;
    let options = lab.options(1, "st-mary", vec![host()]);
    lab.forget(options.key.id());
    let handle = Node::start(options.clone(), endpoint(&options.key).await)
        .await
        .unwrap();
    let mut contact = handle.contact();
    // Only a new token helps, so the node does not go on asking.
    let thrown_out = contact.wait_for(|contact| matches!(contact, Contact::Revoked));
    tokio::time::timeout(PATIENCE, thrown_out).await.unwrap().unwrap();
    handle.shutdown().await;
    // Joining tells it at once.
    let token = JoinToken {
        token: TokenId::new(1, [0; 10]),
        secret: vec![1; 32],
        center: lab.peer(),
        organisation: "st-mary".parse().unwrap(),
    };
    let endpoint = endpoint(&NodeKey::from_bytes(&[1; 32])).await;
    let cause = enrol(&endpoint, &token, "ward 3", now()).await.unwrap_err();
    assert_eq!(cause.code, Code::NotEnrolled);
    lab.options(1, "st-mary", Vec::new());
    let welcome = enrol(&endpoint, &token, "ward 3", now()).await.unwrap();
    assert_eq!(welcome.organisation.as_str(), "st-mary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_come_and_go_by_the_local_socket() {
    let lab = Lab::new().await;
    let node = lab.node(1, "st-mary", vec![host()]).await;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(node.options.state.join("node.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    digits(lab.directory.path(), "digits.csv", 0, 10, 100);
    let file = lab.directory.path().join("digits.toml");
    let mut options = dataset_options("digits", "digits.csv".as_ref());
    options.policy = Some(PERMIT_RESEARCH.to_owned());
    std::fs::write(
        &file,
        TerminalOptions::Dataset(Box::new(options)).to_toml().unwrap(),
    )
    .unwrap();
    let attach = serde_json::to_string(&AdminRequest::Attach { file: file.clone() }).unwrap();
    let answer = admin(&node, &attach).await;
    assert_eq!(
        (&answer["answer"], &answer["entity"]),
        (&"attached".into(), &"dataset:st-mary/digits".into())
    );
    let entity = "dataset:st-mary/digits".parse().unwrap();
    lab.wait("the dataset", |told| {
        told.attached.contains_key(&entity).then_some(())
    })
    .await;
    let status = admin(&node, r#"{"do":"status"}"#).await;
    assert_eq!(status["terminals"].as_array().unwrap().len(), 2, "{status}");
    assert_eq!(status["contact"]["state"], "connected");
    let metrics = admin(&node, r#"{"do":"metrics"}"#).await;
    assert!(metrics["connections_total"].as_u64().unwrap() >= 1, "{metrics}");

    let detach = r#"{"do":"detach","entity":"dataset:st-mary/digits"}"#;
    assert_eq!(admin(&node, detach).await["answer"], "detached");
    lab.wait("its end", |told| {
        (!told.attached.contains_key(&entity)).then_some(())
    })
    .await;
    assert_eq!(admin(&node, detach).await["code"], "E0104");
    assert_eq!(admin(&node, r#"{"do":"explode"}"#).await["answer"], "refused");
    std::fs::write(&file, "kind = \"dataset\"").unwrap();
    assert_eq!(admin(&node, &attach).await["code"], "E0101");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restored_from_a_backup_describes_its_terminals_anew() {
    let lab = Lab::new().await;
    let path = digits(lab.directory.path(), "digits.csv", 0, 10, 100);
    let policy = lab.directory.path().join("policy.cedar");
    let terminal = || {
        let mut options = dataset_options("digits", &path);
        options.policy_file = Some(policy.clone());
        vec![TerminalOptions::Dataset(Box::new(options))]
    };
    std::fs::write(&policy, PERMIT_RESEARCH).unwrap();
    let mut options = lab.node(1, "st-mary", terminal()).await.stop().await;
    let entity: EntityId = "dataset:st-mary/digits".parse().unwrap();
    let record = options.state.join("descriptors/dataset.digits.rec");
    let backup = std::fs::read(&record).unwrap();
    for n in 0..3 {
        std::fs::write(&policy, format!("{PERMIT_RESEARCH}// {n}\n")).unwrap();
        options = lab.start(options).await.stop().await;
    }
    assert_eq!(lab.told.borrow().attached[&entity].version, 4);
    std::fs::write(&record, backup).unwrap();
    let node = lab.start(options).await;
    let version = lab
        .wait("a version after all that the center knows", |told| {
            Some(told.attached[&entity].version).filter(|version| *version > 4)
        })
        .await;
    node.when(|status| status.terminals[0].attached && status.terminals[0].version == version)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_does_not_wait_for_a_training_step() {
    let lab = Lab::new().await;
    let (mut nodes, sites, _) = sites(&lab, 1).await;
    let conductor = Stranger::new(70).await;
    let mut job = Job::rounds(&lab, sites.clone(), &nodes[0], 3);
    job.conductor = (
        "aggregator:strangers/main".parse().unwrap(),
        conductor.endpoint.peer(),
    );
    // Far longer than the test.
    (job.local.epochs, job.local.batch_size) = (1_000, 1);
    let mut order = job.train(0);
    let Instruction::Train(train) = &mut order.instruction else {
        panic!("not an order to train")
    };
    train.spec.architecture = Architecture::Mlp {
        hidden: vec![256, 256],
    };
    let layout = Builtin.layout(&train.spec).unwrap();
    let input = weights::write(&Builtin.initial(&train.spec, 1).unwrap(), &layout).unwrap();
    lab.order(&order).await;
    lab.accepted(&order.id).await;
    let step = TrainStep {
        order: order.id,
        job: job.id,
        position: 0,
        epoch: 1,
        cycle: 0,
        input: conductor.put(input).await,
        control: None,
        holders: vec![conductor.endpoint.peer()],
        counted_cycles: None,
    };
    let connection = conductor.reach(&sites[0].peer).await;
    let request = SessionRequest::Train(step);
    let asked = connection.request::<_, SessionReply>(&request, FRAME_BYTES_MAX, 10 * PATIENCE);
    let node = nodes.remove(0);
    let stopped = async {
        node.when(|status| status.terminals[0].in_flight == 1).await;
        node.stop().await
    };
    let (answer, _) = tokio::join!(asked, stopped);
    // Not broken off: the conductor is told at once that the site goes.
    assert!(
        matches!(answer, Err(SessionError::Refused(Refusal::ShuttingDown))),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_with_what_was_found() {
    let lab = Lab::new().await;
    let (one, other) = (
        lab.node(1, "one", Vec::new()).await,
        lab.node(2, "other", Vec::new()).await,
    );
    tell(&lab, one.id(), &CenterMessage::Probe(vec![other.peer()])).await;
    let link = lab.wait("a link", |told| told.links.first().copied()).await;
    assert_eq!((link.from, link.to, link.relayed), (one.id(), other.id(), false));
    assert!(link.rtt_micros > 0 && link.bytes_per_second > 0, "{link:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_tells_what_a_host_has_left() {
    let lab = Lab::new().await;
    let node = lab.node(1, "hosts", vec![host()]).await;
    let telemetry = lab
        .wait("telemetry", |told| told.telemetry.get(&node.entities[0]).cloned())
        .await;
    assert_eq!(
        (telemetry.free_memory_bytes, telemetry.in_flight, telemetry.queued),
        (1 << 20, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_stops_what_it_does() {
    let lab = Lab::new().await;
    let (nodes, sites, _) = sites(&lab, 1).await;
    let conductor = Stranger::new(70).await;
    let mut job = Job::rounds(&lab, sites.clone(), &nodes[0], 3);
    job.conductor = (
        "aggregator:strangers/main".parse().unwrap(),
        conductor.endpoint.peer(),
    );
    job.chains = vec![vec![0], Vec::new()];
    let order = job.train(0);
    lab.order(&order).await;
    lab.accepted(&order.id).await;
    tell(&lab, nodes[0].id(), &CenterMessage::Revoked).await;
    assert!(matches!(nodes[0].handle.status().contact, Contact::Revoked));
    assert_eq!(nodes[0].handle.status().orders_accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_keeps_states_of_its_own_jobs_only() {
    let lab = Lab::new().await;
    let spare = lab.node(1, "spares", vec![aggregator()]).await;
    let (conductor, mallory) = (Stranger::new(70).await, Stranger::new(71).await);
    let site = SiteAt {
        dataset: "dataset:a/b".parse().unwrap(),
        peer: mallory.endpoint.peer(),
        records: 10,
    };
    let mut job = Job::rounds(&lab, vec![site], &spare, 1);
    job.conductor = (
        "aggregator:strangers/main".parse().unwrap(),
        conductor.endpoint.peer(),
    );
    job.spares = vec![(spare.entities[0].clone(), spare.peer())];
    let order = job.conduct(&[0], None);
    let keep =
        async |asker: &Stranger, proof: Option<Signed<daitn_messages::order::WorkOrder>>, epoch: u64| {
            let state = asker.put(vec![7; 100]).await;
            let connection = asker.reach(&spare.peer()).await;
            let asked = KeepState {
                job: job.id.clone(),
                epoch,
                state,
                holders: vec![asker.endpoint.peer()],
            };
            let mut session = connection
                .open(&SessionRequest::Keep(asked), PATIENCE)
                .await
                .unwrap();
            session.send_last(&proof).await.unwrap();
            match session.recv::<SessionReply>(FRAME_BYTES_MAX).await.unwrap() {
                SessionReply::Kept => None,
                SessionReply::Refused(rejection) => Some(rejection.code),
                reply => panic!("{reply:?}"),
            }
        };
    let proof = || Some(Signed::seal(&order, &lab.key));
    assert_eq!(
        keep(&conductor, None, 1).await,
        Some(Code::NotFound),
        "it has to prove that it conducts"
    );
    assert_eq!(
        keep(&mallory, proof(), 1).await,
        Some(Code::Unauthorised),
        "with an order of its own"
    );
    assert_eq!(
        keep(&conductor, Some(Signed::seal(&order, &mallory.key)), 1).await,
        Some(Code::BadSignature)
    );
    let mut elsewhere = order.clone();
    let Instruction::Conduct(conduct) = &mut elsewhere.instruction else {
        panic!()
    };
    conduct.spares.clear();
    assert_eq!(
        keep(&conductor, Some(Signed::seal(&elsewhere, &lab.key)), 1).await,
        Some(Code::Unauthorised)
    );
    assert_eq!(
        keep(&conductor, proof(), 2).await,
        Some(Code::Unauthorised),
        "of this epoch"
    );
    assert_eq!(keep(&conductor, proof(), 1).await, None);
    assert_eq!(keep(&conductor, None, 1).await, None, "once is enough");
    assert_eq!(keep(&mallory, None, 1).await, Some(Code::NotFound));
    assert_eq!(keep(&conductor, None, 0).await, Some(Code::StaleEpoch));
}
