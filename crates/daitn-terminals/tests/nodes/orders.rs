//! What a node does about an order, however well it is signed.

use crate::lab::*;
use daitn_engine::{Layout, weights};
use daitn_messages::{
    ids::NodeId,
    learning::Strategy,
    order::{Instruction, WorkOrder},
    receipt::Outcome,
    rejection::Code,
    session::{SessionReply, SessionRequest, TrainStep},
    signed::NodeKey,
};
use daitn_terminals::{ByteSize, Facility, TerminalOptions, load_terminals};

/// A site and a party that the site's orders name as conductor.
async fn site_and_conductor(lab: &Lab) -> (Running, Stranger, Vec<SiteAt>) {
    let (mut nodes, sites, _) = sites(lab, 1).await;
    (nodes.remove(0), Stranger::new(70).await, sites)
}

fn job<'a>(lab: &'a Lab, sites: &[SiteAt], conductor: &Stranger) -> Job<'a> {
    Job {
        lab,
        id: lab.job(),
        sites: sites.to_vec(),
        chains: vec![vec![0], Vec::new()],
        shuffle: false,
        strategy: Strategy::FedAvg,
        rounds: 3,
        quorum: 1,
        deadline_ms: 20_000,
        conductor: (
            "aggregator:strangers/main".parse().unwrap(),
            conductor.endpoint.peer(),
        ),
        spares: Vec::new(),
        readers: Vec::new(),
        epoch: 1,
        local: local(),
        norm_clip: None,
    }
}

fn with_train(
    mut order: WorkOrder,
    change: impl FnOnce(&mut daitn_messages::order::TrainOrder),
) -> WorkOrder {
    let Instruction::Train(train) = &mut order.instruction else {
        panic!("not an order to train")
    };
    change(train);
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_policy_refuses_a_validly_signed_order() {
    let lab = Lab::new().await;
    let (_node, conductor, sites) = site_and_conductor(&lab).await;
    let job = job(&lab, &sites, &conductor);
    let order = with_train(job.train(0), |train| {
        train.context.purpose = "commercial".to_owned();
    });
    lab.order(&order).await;
    let refusal = lab.refused(&order.id).await;
    assert_eq!(refusal.code, Code::PolicyForbids);
    // Steps of a refused order are refused as well.
    let input = conductor.put_weights(&initial()).await;
    let step = step(&job, &order, 0, input, &conductor);
    let reply = conductor.ask(&sites[0].peer, &SessionRequest::Train(step)).await;
    assert!(matches!(reply, SessionReply::Refused(rejection) if rejection.code == Code::NotFound));
}

/// The owner is asked about what the order does, not about what it calls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_passed_on_is_an_itinerary_to_the_owner_whatever_the_center_says() {
    const NO_ITINERARY: &str = r#"
@id("rounds-of-two")
permit (principal, action == Action::"train", resource)
when { context.algorithm == "fed-avg" && context.cohort >= 2 };
@id("not-from-site-to-site")
forbid (principal, action == Action::"train", resource) when { context.algorithm == "itinerary" };
"#;
    let lab = Lab::new().await;
    let path = digits(lab.directory.path(), "own.csv", 0, 3, 500);
    let owner = lab
        .node(9, "owner", vec![dataset("digits", &path, NO_ITINERARY)])
        .await;
    let conductor = Stranger::new(70).await;
    let own = SiteAt {
        dataset: owner.entities[0].clone(),
        peer: owner.peer(),
        records: 500,
    };
    let mate = SiteAt {
        dataset: "dataset:mates/digits".parse().unwrap(),
        peer: Stranger::new(71).await.endpoint.peer(),
        records: 500,
    };
    let mut job = job(&lab, &[own, mate], &conductor);
    let refusal = async |order: WorkOrder| {
        lab.order(&order).await;
        lab.refused(&order.id).await
    };

    job.chains = vec![vec![0, 1]];
    let told = refusal(job.train(0)).await;
    assert_eq!(
        (told.code, told.policies.as_slice()),
        (Code::PolicyForbids, &["not-from-site-to-site".to_owned()][..])
    );
    let called_rounds = with_train(job.train(0), |train| {
        train.context.algorithm = "fed-avg".to_owned();
        train.context.cohort = 2;
    });
    assert_eq!(refusal(called_rounds).await.code, Code::Malformed);
    // Whoever has the model next finds one site's work in it, not that of many.
    let called_many = with_train(job.train(0), |train| train.context.cohort = 2);
    assert_eq!(refusal(called_many).await.code, Code::Malformed);

    job.chains = vec![vec![0], vec![1]];
    let order = job.train(0);
    lab.order(&order).await;
    assert_eq!(lab.accepted(&order.id).await, ["rounds-of-two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_checked_before_its_terminal_sees_it() {
    let lab = Lab::new().await;
    let (node, conductor, sites) = site_and_conductor(&lab).await;
    let job = job(&lab, &sites, &conductor);
    let good = job.train(0);
    let mallory = NodeKey::from_bytes(&[66; 32]);
    let code = async |order: &WorkOrder, key: &NodeKey| lab.send(order, key).await.unwrap_err().code;
    assert_eq!(code(&good, &mallory).await, Code::BadSignature);
    let expired = WorkOrder {
        issued_at: now(),
        expires_at: daitn_messages::units::UnixMillis(1),
        ..job.train(0)
    };
    assert_eq!(code(&expired, &lab.key).await, Code::DeadlinePassed);
    let future = WorkOrder {
        issued_at: now().plus(3_600_000),
        ..job.train(0)
    };
    assert_eq!(code(&future, &lab.key).await, Code::ClockSkew);
    let endless = with_train(job.train(0), |train| train.cycles = 1_000_000);
    assert_eq!(code(&endless, &lab.key).await, Code::OutOfRange);
    // Delivered to this node, meant for another.
    let connection = lab.center.inbound(node.id(), daitn_fabric::CONTROL_ALPN).unwrap();
    let other = WorkOrder {
        node: NodeId([9; 32]),
        ..job.train(0)
    };
    let message =
        daitn_messages::control::CenterMessage::Order(daitn_messages::signed::Signed::seal(&other, &lab.key));
    let answer: daitn_messages::control::Acknowledged =
        connection.request(&message, 1 << 20, PATIENCE).await.unwrap();
    assert_eq!(answer.unwrap_err().code, Code::Malformed);
    // Nobody else than the center gives orders.
    conductor.endpoint.set_peer(node.peer()).unwrap();
    let connection = conductor
        .endpoint
        .connect(node.id(), daitn_fabric::CONTROL_ALPN, PATIENCE)
        .await
        .unwrap();
    let message =
        daitn_messages::control::CenterMessage::Order(daitn_messages::signed::Signed::seal(&good, &lab.key));
    let answer = connection
        .request::<_, daitn_messages::control::Acknowledged>(&message, 1 << 20, PATIENCE)
        .await;
    assert!(answer.is_err());
    assert!(lab.told.borrow().receipts.is_empty(), "nothing was decided");
    lab.order(&good).await;
    lab.accepted(&good.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_must_fit_the_terminal() {
    let lab = Lab::new().await;
    let (_node, conductor, sites) = site_and_conductor(&lab).await;
    let job = job(&lab, &sites, &conductor);
    let refusal = async |order: WorkOrder| {
        lab.order(&order).await;
        lab.refused(&order.id).await.code
    };
    assert_eq!(
        refusal(with_train(job.train(0), |train| train.descriptor_version = 2)).await,
        Code::Conflict
    );
    let other = "dataset:site-0/other".parse().unwrap();
    assert_eq!(
        refusal(WorkOrder {
            terminal: other,
            ..job.train(0)
        })
        .await,
        Code::NotFound
    );
    let column = with_train(job.train(0), |train| train.spec.features[0] = "secret".to_owned());
    assert_eq!(refusal(column).await, Code::DataUnusable);
    // What the policy was told must be what is done.
    let algorithm = with_train(job.train(0), |train| {
        train.context.algorithm = "fed-prox".to_owned();
    });
    assert_eq!(refusal(algorithm).await, Code::Malformed);
    // The data goes to no facility that the owner did not name.
    let away = with_train(job.train(0), |train| {
        train.compute = Some(conductor.endpoint.peer());
        train.compute_entity = Some("compute:strangers/pool".parse().unwrap());
    });
    assert_eq!(refusal(away).await, Code::PolicyForbids);
    let unnamed = with_train(job.train(0), |train| {
        train.compute = Some(conductor.endpoint.peer());
    });
    assert_eq!(refusal(unnamed).await, Code::PolicyForbids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_order_is_decided_once_and_an_older_epoch_never() {
    let lab = Lab::new().await;
    let (_node, conductor, sites) = site_and_conductor(&lab).await;
    let mut job = job(&lab, &sites, &conductor);
    let order = job.train(0);
    lab.order(&order).await;
    lab.accepted(&order.id).await;
    lab.order(&order).await;
    let receipts = lab.wait("the receipt again", |told| {
        let same: Vec<_> = told
            .receipts
            .iter()
            .filter(|receipt| receipt.order == order.id)
            .cloned()
            .collect();
        (same.len() >= 2).then_some(same)
    });
    let receipts = receipts.await;
    assert_eq!(receipts[0], receipts[1], "told again, not decided again");
    job.epoch = 3;
    let newer = job.train(0);
    lab.order(&newer).await;
    lab.accepted(&newer.id).await;
    job.epoch = 2;
    assert_eq!(
        lab.send(&job.train(0), &lab.key).await.unwrap_err().code,
        Code::StaleEpoch
    );
}

fn step(
    job: &Job<'_>,
    order: &WorkOrder,
    cycle: u32,
    input: daitn_messages::session::ArtifactRef,
    holder: &Stranger,
) -> TrainStep {
    TrainStep {
        order: order.id.clone(),
        job: job.id.clone(),
        position: 0,
        epoch: order.epoch,
        cycle,
        input,
        control: None,
        holders: vec![holder.endpoint.peer()],
        counted_cycles: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_made_once_and_for_the_orders_conductor_only() {
    let lab = Lab::new().await;
    let (node, conductor, sites) = site_and_conductor(&lab).await;
    let mut job = job(&lab, &sites, &conductor);
    job.epoch = 2;
    let order = job.train(0);
    lab.order(&order).await;
    lab.accepted(&order.id).await;
    let input = conductor.put_weights(&initial()).await;
    let ask = async |asker: &Stranger, step: TrainStep| {
        asker.ask(&sites[0].peer, &SessionRequest::Train(step)).await
    };
    let trained = |reply: SessionReply| {
        let SessionReply::Trained(signed) = reply else {
            panic!("{reply:?}")
        };
        let receipt = signed.open(node.id()).unwrap();
        let Outcome::Trained(trained) = receipt.outcome else {
            panic!("not trained")
        };
        (receipt.epoch, trained)
    };
    let served = || node.handle.status().terminals[0].served_total;

    let (_, first) = trained(ask(&conductor, step(&job, &order, 0, input, &conductor)).await);
    assert_eq!((served(), first.examples, first.policies.len()), (1, 1_500, 1));
    // Repeated by a conductor of a later epoch: the same answer, no second training.
    let again = TrainStep {
        epoch: 5,
        ..step(&job, &order, 0, input, &conductor)
    };
    let (epoch, second) = trained(ask(&conductor, again).await);
    assert_eq!((epoch, &second, served()), (5, &first, 1));
    // Another input in the same cycle is another question.
    let other = conductor.put_weights(&vec![0.01; initial().len()]).await;
    let (_, third) = trained(ask(&conductor, step(&job, &order, 0, other, &conductor)).await);
    assert_ne!(third.output, first.output);
    assert_eq!(served(), 2);

    let refused = |reply: SessionReply| match reply {
        SessionReply::Refused(rejection) => rejection.code,
        reply => panic!("{reply:?}"),
    };
    let old = TrainStep {
        epoch: 1,
        ..step(&job, &order, 1, input, &conductor)
    };
    assert_eq!(refused(ask(&conductor, old).await), Code::StaleEpoch);
    assert_eq!(
        refused(ask(&conductor, step(&job, &order, 3, input, &conductor)).await),
        Code::OutOfRange
    );
    let mallory = Stranger::new(71).await;
    assert_eq!(
        refused(ask(&mallory, step(&job, &order, 1, input, &conductor)).await),
        Code::Unauthorised
    );
    // The update is for the conductor, not for everybody who knows its name.
    assert!(fetched(&mallory, &sites[0].peer, third.output).await.is_err());
    assert!(fetched(&conductor, &sites[0].peer, third.output).await.is_ok());
    // Weights that nobody has, or of another shape, are told as such.
    let nowhere = weights_of(&vec![0.5; initial().len()]);
    assert_eq!(
        refused(ask(&conductor, step(&job, &order, 1, nowhere, &conductor)).await),
        Code::Unreachable
    );
    let garbage = conductor
        .put(vec![0; usize::try_from(input.bytes).unwrap()])
        .await;
    assert_eq!(
        refused(ask(&conductor, step(&job, &order, 1, garbage, &conductor)).await),
        Code::UpdateRefused
    );
    let short = conductor.put(vec![0; 16]).await;
    assert_eq!(
        refused(ask(&conductor, step(&job, &order, 1, short, &conductor)).await),
        Code::UpdateRefused
    );
    assert_eq!(served(), 2, "no refused step was trained");

    // Stopped: nothing is answered and nothing can be fetched any more.
    let stop = lab.work_order(
        node.id(),
        &sites[0].dataset,
        Some(&job.id),
        Instruction::Stop {
            order: order.id.clone(),
        },
    );
    lab.order(&stop).await;
    lab.outcome(&stop.id, "stop", |outcome| {
        matches!(outcome, Outcome::Stopped).then_some(())
    })
    .await;
    assert_eq!(
        refused(ask(&conductor, step(&job, &order, 1, input, &conductor)).await),
        Code::NotFound
    );
    let late = Stranger::new(70).await;
    assert!(fetched(&late, &sites[0].peer, third.output).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_changes_takes_the_site_out_of_a_running_job() {
    let lab = Lab::new().await;
    let (_nodes, mut all, paths) = sites(&lab, 2).await;
    let file = lab.directory.path().join("policy.cedar");
    std::fs::write(&file, PERMIT_RESEARCH).unwrap();
    let mut options = dataset_options("digits", &paths[0]);
    options.policy_file = Some(file.clone());
    let owner = lab
        .node(9, "owner", vec![TerminalOptions::Dataset(Box::new(options))])
        .await;
    all.push(SiteAt {
        dataset: owner.entities[0].clone(),
        peer: owner.peer(),
        records: 750,
    });
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, all, &conductor, 12);
    job.quorum = 2;
    let order = job.begin(&[0, 1, 2]).await;
    lab.outcome(&order.id, "a cycle", |outcome| {
        matches!(outcome, Outcome::Cycle(_)).then_some(())
    })
    .await;
    std::fs::write(&file, r#"@id("closed") forbid (principal, action, resource);"#).unwrap();
    lab.training_done(&order.id).await;
    let cycles = lab.cycles(&order.id);
    assert_eq!(cycles[0].contributions.len(), 3);
    let last = cycles.last().unwrap();
    assert_eq!(last.contributions.len(), 2);
    let (site, reason) = &last.left_out[0];
    assert_eq!(
        (*site, reason.code, reason.policies.as_slice()),
        (2, Code::PolicyForbids, &["closed".to_owned()][..])
    );
    // Others get to see the new policy.
    lab.wait("the new descriptor", |told| {
        let descriptor = told.attached.get(&owner.entities[0])?;
        (descriptor.version == 2).then_some(())
    })
    .await;
    // A policy that cannot be read denies.
    std::fs::remove_file(&file).unwrap();
    let again = Job {
        id: lab.job(),
        sites: job.sites.clone(),
        ..Job::rounds(&lab, job.sites.clone(), &conductor, 1)
    };
    let order = with_train(again.train(2), |train| train.descriptor_version = 2);
    lab.order(&order).await;
    assert_eq!(lab.refused(&order.id).await.code, Code::PolicyInvalid);
}

#[test]
fn terminal_files_are_read_and_misspelt_keys_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "a.toml",
        r#"
kind = "dataset"
name = "digits"
title = "Digits"
jurisdiction = "DE"
path = "digits.csv"
target = "label"
license = "CC-BY-4.0"
creator = "UCI"
date_published = "1998-07-01"
policy_file = "policy.cedar"
share_label_distribution = true
compute_allowed = ["compute:uni/pool", "compute:uni/gpu@0101010101010101010101010101010101010101010101010101010101010101"]
"#,
    );
    write(
        "b.toml",
        "kind = \"model-host\"\nname = \"host\"\ntitle = \"Host\"\njurisdiction = \"DE\"\nmemory = \"512MiB\"\n",
    );
    write("c.txt", "not a terminal");
    let terminals = load_terminals(directory.path()).unwrap();
    let TerminalOptions::Dataset(dataset) = &terminals[0] else {
        panic!("a dataset")
    };
    assert_eq!(dataset.path, directory.path().join("digits.csv"));
    assert_eq!(dataset.policy_file, Some(directory.path().join("policy.cedar")));
    assert_eq!(dataset.compute_allowed[1].node, Some(NodeId([1; 32])));
    assert_eq!(
        dataset.compute_allowed[0],
        Facility {
            entity: "compute:uni/pool".parse().unwrap(),
            node: None
        }
    );
    let TerminalOptions::ModelHost(host) = &terminals[1] else {
        panic!("a host")
    };
    assert_eq!(host.memory, ByteSize(512 << 20));
    for terminal in &terminals {
        let text = terminal.to_toml().unwrap();
        assert_eq!(
            &TerminalOptions::from_toml(&text, directory.path()).unwrap(),
            terminal,
            "{text}"
        );
    }
    write(
        "d.toml",
        "kind = \"model-host\"\nname = \"other\"\ntitle = \"\"\njurisdiction = \"DE\"\nmemory = 1\npolcy = \"x\"\n",
    );
    let error = load_terminals(directory.path()).unwrap_err().to_string();
    assert!(error.contains("d.toml") && error.contains("polcy"), "{error}");
    write(
        "d.toml",
        "kind = \"model-host\"\nname = \"host\"\ntitle = \"\"\njurisdiction = \"DE\"\nmemory = 1\n",
    );
    assert!(
        load_terminals(directory.path())
            .unwrap_err()
            .to_string()
            .contains("two terminals")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_not_counted_leaves_no_trace_in_a_sites_control_variate() {
    let lab = Lab::new().await;
    let (node, conductor, sites) = site_and_conductor(&lab).await;
    let input = conductor.put_weights(&initial()).await;
    let layout = Layout::vectors(&[("control", initial().len())]).unwrap();
    let zeros = weights::write(&vec![0.0; initial().len()], &layout).unwrap();
    let control = conductor.put(zeros).await;
    // Trains in these cycles, told how many counted, in a job of its own; the last update.
    let run = async |cycles: &[(u32, Option<u32>)]| {
        let mut job = job(&lab, &sites, &conductor);
        job.id = lab.job();
        job.strategy = Strategy::Scaffold;
        job.rounds = 10;
        let order = job.train(0);
        lab.order(&order).await;
        lab.accepted(&order.id).await;
        let mut last = None;
        for (cycle, counted) in cycles {
            let asked = TrainStep {
                control: Some(control),
                counted_cycles: *counted,
                ..step(&job, &order, *cycle, input, &conductor)
            };
            let reply = conductor.ask(&sites[0].peer, &SessionRequest::Train(asked)).await;
            let SessionReply::Trained(signed) = reply else {
                panic!("{reply:?}")
            };
            let Outcome::Trained(trained) = signed.open(node.id()).unwrap().outcome else {
                panic!("not trained")
            };
            last = Some(trained.output);
        }
        last.unwrap()
    };
    // The first step was left out of its cycle: the second is as if it had never been made.
    let alone = run(&[(1, Some(0))]).await;
    assert_eq!(run(&[(0, Some(0)), (1, Some(0))]).await, alone);
    assert_ne!(
        run(&[(0, Some(0)), (1, Some(1))]).await,
        alone,
        "a step that counted is remembered"
    );
    // Left out many times in a row, longer than answers are kept.
    let counted_once = run(&[(0, Some(0)), (6, Some(1))]).await;
    let mut left_out: Vec<(u32, Option<u32>)> = (1..=6).map(|cycle| (cycle, Some(1))).collect();
    left_out.insert(0, (0, Some(0)));
    assert_eq!(run(&left_out).await, counted_once);
}
