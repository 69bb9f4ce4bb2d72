//! Models that are served, and training on a facility.

use crate::lab::*;
use bytes::BytesMut;
use daitn_engine::{Engine, LocalRule, builtin::Builtin, data};
use daitn_fabric::DATA_ALPN;
use daitn_messages::{
    ids::{DecisionId, DeploymentId, NodeId},
    learning::{ModelVersion, Strategy},
    limits::SESSION_HEADER_BYTES_MAX,
    order::{ComputeOrder, Instruction, ServeOrder},
    receipt::Outcome,
    rejection::Code,
    session::{ArtifactRef, InferQuery, Peer, SessionReply, SessionRequest},
    signed::Signed,
};
use daitn_terminals::{Facility, TerminalOptions};

fn version() -> ModelVersion {
    ModelVersion {
        name: "digits".parse().unwrap(),
        version: 1,
    }
}

fn serve(lab: &Lab, weights: ArtifactRef, holder: &Stranger, gateways: &[NodeId]) -> Instruction {
    Instruction::Serve(Box::new(ServeOrder {
        deployment: DeploymentId::new(1, lab.random()),
        model: version(),
        spec: spec(),
        weights,
        holders: vec![holder.endpoint.peer()],
        gateways: gateways.to_vec(),
        readers: Vec::new(),
    }))
}

/// Asks a host as a gateway does.
async fn infer(gateway: &Stranger, host: &Peer, rows: &[f32]) -> Result<Vec<f32>, Code> {
    let connection = gateway.reach(host).await;
    let n_rows = u32::try_from(rows.len() / 64).unwrap();
    let query = InferQuery {
        model: version(),
        n_rows,
        decision: DecisionId::new(1, [0; 10]),
    };
    let mut session = connection
        .open(&SessionRequest::Infer(query), PATIENCE)
        .await
        .unwrap();
    let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    // A host that refuses stops reading before it has everything; its reason is in the reply.
    if session.sender().send_bytes(bytes.into()).await.is_ok() {
        session.sender().finish().unwrap();
    }
    match session
        .recv::<SessionReply>(SESSION_HEADER_BYTES_MAX)
        .await
        .unwrap()
    {
        SessionReply::Inferred {
            n_rows: answered,
            in_flight,
            ..
        } => {
            assert_eq!((answered, in_flight), (n_rows, 0));
            let mut bytes = BytesMut::new();
            session
                .receiver()
                .append(&mut bytes, 4 * 10 * n_rows as usize)
                .await
                .unwrap();
            assert_eq!(session.receiver().recv_bytes(1).await.unwrap(), None);
            Ok(bytes
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect())
        }
        SessionReply::Refused(rejection) => Err(rejection.code),
        reply => panic!("{reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_answers_its_gateways_also_after_a_restart_without_the_center() {
    let lab = Lab::new().await;
    let node = lab.node(1, "hosts", vec![host()]).await;
    let (gateway, other) = (Stranger::new(70).await, Stranger::new(71).await);
    let rows: Vec<f32> = (0..3 * 64).map(|i| (i % 17) as f32).collect();
    assert_eq!(
        infer(&gateway, &node.peer(), &rows).await,
        Err(Code::ModelUnavailable)
    );
    let weights = gateway.put_weights(&initial()).await;
    let order = lab.work_order(
        node.id(),
        &node.entities[0],
        None,
        serve(&lab, weights, &gateway, &[gateway.endpoint.node()]),
    );
    lab.order(&order).await;
    let serving = |outcome: &Outcome| matches!(outcome, Outcome::Serving).then_some(());
    lab.outcome(&order.id, "service", serving).await;

    let loaded = Builtin.load(&spec(), &initial()).unwrap();
    let expected = loaded.infer(&rows).unwrap().probabilities.unwrap();
    assert_eq!(infer(&gateway, &node.peer(), &rows).await.unwrap(), expected);
    assert_eq!(infer(&other, &node.peer(), &rows).await, Err(Code::Unauthorised));
    assert_eq!(
        infer(&gateway, &node.peer(), &[f32::NAN; 64]).await,
        Err(Code::BadTensor)
    );

    // The host comes back alone: neither the center nor who had the weights is there.
    let options = node.stop().await;
    lab.center.shutdown(std::time::Duration::ZERO).await;
    let key = options.key.clone();
    let endpoint = endpoint(&key).await;
    let handle = daitn_terminals::Node::start(options, endpoint.clone())
        .await
        .unwrap();
    let gateway = Stranger::new(70).await;
    let mut answer = infer(&gateway, &endpoint.peer(), &rows).await;
    // Loading is under way when the node answers first.
    while answer == Err(Code::ModelUnavailable) {
        tokio::task::yield_now().await;
        answer = infer(&gateway, &endpoint.peer(), &rows).await;
    }
    assert_eq!(answer.unwrap(), expected);
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_disk_has_damaged_a_model_fetches_it_anew() {
    let lab = Lab::new().await;
    let node = lab.node(1, "hosts", vec![host()]).await;
    let gateway = Stranger::new(70).await;
    let weights = gateway.put_weights(&initial()).await;
    let instruction = serve(&lab, weights, &gateway, &[gateway.endpoint.node()]);
    let order = lab.work_order(node.id(), &node.entities[0], None, instruction);
    lab.order(&order).await;
    let n_serving = |told: &Told| {
        let served = |receipt: &&daitn_messages::receipt::Receipt| receipt.outcome == Outcome::Serving;
        told.receipts.iter().filter(served).count()
    };
    lab.wait("service", |told| (n_serving(told) == 1).then_some(()))
        .await;
    let options = node.stop().await;
    let name = weights.id.to_string();
    let file = options
        .state
        .join("artifacts/objects")
        .join(&name[..2])
        .join(&name);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let node = lab.start(options).await;
    lab.wait("service again", |told| (n_serving(told) == 2).then_some(()))
        .await;
    let rows = vec![3.0; 64];
    let loaded = Builtin.load(&spec(), &initial()).unwrap();
    let expected = loaded.infer(&rows).unwrap().probabilities.unwrap();
    assert_eq!(infer(&gateway, &node.peer(), &rows).await.unwrap(), expected);
    bytes[middle] ^= 1;
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_takes_no_other_weights_and_no_more_than_fit() {
    let lab = Lab::new().await;
    let node = lab.node(1, "hosts", vec![host()]).await;
    let gateway = Stranger::new(70).await;
    // The name is of weights that nobody has; the holder offers others.
    let promised = weights_of(&vec![0.25; initial().len()]);
    gateway.put_weights(&initial()).await;
    let order = lab.work_order(
        node.id(),
        &node.entities[0],
        None,
        serve(&lab, promised, &gateway, &[]),
    );
    lab.order(&order).await;
    lab.accepted(&order.id).await;
    let code = lab.outcome(&order.id, "refusal", |outcome| match outcome {
        Outcome::Refused(rejection) => Some(rejection.code),
        _ => None,
    });
    assert_eq!(code.await, Code::Unreachable);
    let mut order = lab.work_order(
        node.id(),
        &node.entities[0],
        None,
        serve(&lab, promised, &gateway, &[]),
    );
    let Instruction::Serve(serve) = &mut order.instruction else {
        panic!()
    };
    serve.weights.bytes += 1;
    lab.order(&order).await;
    assert_eq!(lab.refused(&order.id).await.code, Code::UpdateRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_facility_trains_as_the_node_itself_would() {
    let lab = Lab::new().await;
    let path = digits(lab.directory.path(), "data.csv", 0, 1, 400);
    let facility = lab.node(2, "uni", vec![compute()]).await;
    let mut options = dataset_options("digits", &path);
    options.policy = Some(PERMIT_RESEARCH.to_owned());
    options.compute = false;
    options.compute_allowed = vec![Facility {
        entity: facility.entities[0].clone(),
        node: Some(facility.id()),
    }];
    let owner = lab
        .node(1, "owner", vec![TerminalOptions::Dataset(Box::new(options))])
        .await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let sites = vec![SiteAt {
        dataset: owner.entities[0].clone(),
        peer: owner.peer(),
        records: 400,
    }];
    for strategy in [Strategy::FedAvg, Strategy::Scaffold] {
        let mut job = Job::rounds(&lab, sites.clone(), &conductor, 2);
        job.strategy = strategy;
        job.chains = vec![vec![0], Vec::new()];
        let compute = ComputeOrder {
            client: owner.peer(),
            dataset: owner.entities[0].clone(),
            spec: spec(),
        };
        let compute = Instruction::Compute(Box::new(compute));
        let order = lab.work_order(facility.id(), &facility.entities[0], Some(&job.id), compute);
        lab.order(&order).await;
        lab.accepted(&order.id).await;
        let mut order = job.train(0);
        let Instruction::Train(train) = &mut order.instruction else {
            panic!()
        };
        train.compute = Some(facility.peer());
        train.compute_entity = Some(facility.entities[0].clone());
        lab.order(&order).await;
        lab.accepted(&order.id).await;
        let order = job.conduct(&[0], None);
        lab.order(&order).await;
        let done = lab.training_done(&order.id).await;

        let table = data::read(&path, &spec()).unwrap();
        let mut x = initial();
        let (mut c, mut c_k) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for cycle in 0..2 {
            let rule = match strategy {
                Strategy::Scaffold => LocalRule::Scaffold { c: &c, c_k: &c_k },
                _ => LocalRule::Plain,
            };
            let made = local_step(&x, &table, cycle, 0, rule);
            x = made.parameters;
            if let Some(control) = made.control {
                // With one site the variate of all is its own.
                c = c
                    .iter()
                    .zip(&control.delta)
                    .map(|(c, delta)| (f64::from(*c) + f64::from(*delta)) as f32)
                    .collect();
                c_k = control.next;
            }
        }
        assert_eq!(done.weights, weights_of(&x), "{strategy:?}");
    }
    assert_eq!(facility.handle.status().terminals[0].served_total, 4);
    // Without an order nobody trains there.
    let mallory = Stranger::new(70).await;
    let step = daitn_messages::session::ComputeStep {
        order: daitn_messages::ids::OrderId::new(1, [0; 10]),
        job: None,
        dataset: None,
        n_rows: 1,
        local: local(),
        strategy: Strategy::FedAvg,
        n_parameters: initial().len() as u64,
    };
    let reply = mallory
        .ask(&facility.peer(), &SessionRequest::Compute(Box::new(step)))
        .await;
    assert!(matches!(reply, SessionReply::Refused(rejection) if rejection.code == Code::NotFound));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_came_later_serves_by_the_centers_order_and_nobody_else_gets_the_weights() {
    let lab = Lab::new().await;
    let first = lab.node(1, "hosts", vec![host()]).await;
    let (gateway, mallory) = (Stranger::new(70).await, Stranger::new(71).await);
    let weights = gateway.put_weights(&initial()).await;
    let serving = |outcome: &Outcome| match outcome {
        Outcome::Serving => Some(Ok(())),
        Outcome::Refused(rejection) => Some(Err(rejection.clone())),
        _ => None,
    };
    let order = serve(&lab, weights, &gateway, &[gateway.endpoint.node()]);
    let order = lab.work_order(first.id(), &first.entities[0], None, order);
    lab.order(&order).await;
    lab.outcome(&order.id, "service", serving).await.unwrap();

    // The first was told of no other host. This one came after it, and whoever had the weights before is gone.
    let later = lab.node(2, "others", vec![host()]).await;
    let of = |holders: Vec<Peer>| {
        Instruction::Serve(Box::new(ServeOrder {
            deployment: DeploymentId::new(1, lab.random()),
            model: version(),
            spec: spec(),
            weights,
            holders,
            gateways: vec![gateway.endpoint.node()],
            readers: Vec::new(),
        }))
    };
    let order = lab.work_order(later.id(), &later.entities[0], None, of(vec![first.peer()]));
    lab.order(&order).await;
    lab.outcome(&order.id, "service", serving).await.unwrap();
    let rows = [3.0; 64];
    let loaded = Builtin.load(&spec(), &initial()).unwrap();
    let expected = loaded.infer(&rows).unwrap().probabilities.unwrap();
    assert_eq!(infer(&gateway, &later.peer(), &rows).await.unwrap(), expected);

    // The order is for that host: another one gets nothing by showing it, nor by an order that it has signed itself.
    let for_mallory = lab.work_order(mallory.endpoint.node(), &later.entities[0], None, of(Vec::new()));
    let mut expired = for_mallory.clone();
    expired.expires_at = daitn_messages::units::UnixMillis(1);
    for proof in [
        Signed::seal(&order, &lab.key),
        Signed::seal(&for_mallory, &mallory.key),
        Signed::seal(&expired, &lab.key),
    ] {
        mallory.endpoint.set_peer(first.peer()).unwrap();
        let connection = mallory
            .endpoint
            .connect(first.id(), DATA_ALPN, PATIENCE)
            .await
            .unwrap();
        let request = SessionRequest::Present { weights: weights.id };
        let mut session = connection.open(&request, PATIENCE).await.unwrap();
        session.send_last(&proof).await.unwrap();
        let reply = session
            .recv::<SessionReply>(SESSION_HEADER_BYTES_MAX)
            .await
            .unwrap();
        assert!(matches!(reply, SessionReply::Refused(_)), "{reply:?}");
    }
    assert!(fetched(&mallory, &first.peer(), weights).await.is_err());
}
