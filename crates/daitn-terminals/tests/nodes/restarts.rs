//! Nodes that go away and come back, or do not: the job goes on, and its result is the same.

use crate::lab::*;
use daitn_messages::{
    ids::EntityId,
    learning::Strategy,
    order::{Instruction, Resume, WorkOrder},
    receipt::{CycleReport, Outcome},
    rejection::Code,
    session::Peer,
};

const FED_ADAM: Strategy = Strategy::FedAdam {
    eta: 0.03,
    beta1: 0.9,
    beta2: 0.99,
    tau: 1e-3,
};

/// What a job gives that nothing disturbs.
async fn undisturbed(
    lab: &Lab,
    sites: &[SiteAt],
    conductor: &Running,
    strategy: Strategy,
    rounds: u32,
) -> daitn_messages::session::ArtifactRef {
    let mut job = Job::rounds(lab, sites.to_vec(), conductor, rounds);
    job.strategy = strategy;
    job.run().await.1.weights
}

async fn a_cycle(lab: &Lab, order: &daitn_messages::ids::OrderId, cycle: u32) {
    lab.outcome(order, "a cycle", |outcome| match outcome {
        Outcome::Cycle(report) if report.cycle >= cycle => Some(()),
        _ => None,
    })
    .await;
}

/// Orders a job of two sites anew in the next epoch, from the state after a cycle that this conductor has.
async fn replaced(job: &mut Job<'_>, conductor: (EntityId, Peer), last: &CycleReport) -> WorkOrder {
    job.epoch += 1;
    job.spares = Vec::new();
    job.conductor = conductor;
    let lab = job.lab;
    for position in [0, 1] {
        let order = job.train(position);
        lab.order(&order).await;
        lab.accepted(&order.id).await;
    }
    let resume = Resume {
        cycles_done: last.cycle + 1,
        state: last.state,
        holders: vec![job.conductor.1.clone()],
    };
    let order = job.conduct(&[0, 1], Some(resume));
    lab.order(&order).await;
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conductor_that_is_restarted_goes_on_from_its_last_cycle() {
    let lab = Lab::new().await;
    let (_nodes, sites, _) = sites(&lab, 3).await;
    for strategy in [FED_ADAM, Strategy::Scaffold] {
        let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
        let expected = undisturbed(&lab, &sites, &conductor, strategy, 30).await;
        let mut job = Job::rounds(&lab, sites.clone(), &conductor, 30);
        job.strategy = strategy;
        let order = job.begin(&[0, 1, 2]).await;
        a_cycle(&lab, &order.id, 3).await;
        let options = conductor.stop().await;
        let before = lab.cycles(&order.id).len();
        assert!(before < 30, "it was stopped before the end");
        // Another port: sites find it where it is now, since it dials them.
        let conductor = lab.start(options).await;
        let done = lab.training_done(&order.id).await;
        assert_eq!(done.weights, expected);
        let cycles = lab.cycles(&order.id);
        assert_eq!(
            cycles.iter().map(|report| report.cycle).collect::<Vec<_>>(),
            (0..30).collect::<Vec<_>>()
        );
        assert!(cycles.iter().all(|report| report.contributions.len() == 3));
        conductor.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_takes_over_where_the_conductor_stopped() {
    let lab = Lab::new().await;
    let (_nodes, sites, _) = sites(&lab, 2).await;
    let spare = lab.node(51, "aggregators", vec![aggregator()]).await;
    let expected = undisturbed(&lab, &sites, &spare, FED_ADAM, 30).await;
    let conductor = lab.node(50, "others", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 30);
    job.strategy = FED_ADAM;
    job.spares = vec![(spare.entities[0].clone(), spare.peer())];
    let order = job.begin(&[0, 1]).await;
    a_cycle(&lab, &order.id, 3).await;
    conductor.stop().await;
    let last = lab
        .cycles(&order.id)
        .into_iter()
        .rfind(|report| report.holders.contains(&spare.id()));
    let last = last.expect("the spare has kept a state");
    assert!(last.cycle < 29);
    // The center raises the epoch and orders anew, from the newest state that somebody else has.
    let order = replaced(&mut job, (spare.entities[0].clone(), spare.peer()), &last).await;
    let done = lab.training_done(&order.id).await;
    assert_eq!(done.weights, expected);
    assert_eq!(lab.cycles(&order.id)[0].cycle, last.cycle + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_site_is_left_out_and_taken_back_when_it_returns() {
    let lab = Lab::new().await;
    let (mut nodes, sites, _) = sites(&lab, 3).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 400);
    job.quorum = 2;
    let order = job.begin(&[0, 1, 2]).await;
    a_cycle(&lab, &order.id, 2).await;
    let options = nodes.pop().unwrap().stop().await;
    let without = |outcome: &Outcome| match outcome {
        Outcome::Cycle(report) if report.contributions.len() == 2 => Some(report.clone()),
        _ => None,
    };
    let report = lab.outcome(&order.id, "a cycle without the site", without).await;
    assert_eq!(
        (report.left_out[0].0, report.left_out[0].1.code),
        (2, Code::NodeLost)
    );
    // It comes back where it was: the conductor dials it again.
    let address = job.sites[2].peer.addresses[0];
    let _node = lab.start_at(options, address).await;
    lab.outcome(
        &order.id,
        "a cycle with the site again",
        |outcome| match outcome {
            Outcome::Cycle(again) if again.cycle > report.cycle && again.contributions.len() == 3 => Some(()),
            _ => None,
        },
    )
    .await;
    lab.training_done(&order.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_works_on_while_the_center_is_away_and_tells_it_later() {
    let mut lab = Lab::new().await;
    let (_nodes, sites, _) = sites(&lab, 2).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let expected = undisturbed(&lab, &sites, &conductor, Strategy::FedAvg, 40).await;
    let job = Job::rounds(&lab, sites.clone(), &conductor, 40);
    let order = job.begin(&[0, 1]).await;
    let peer = lab.peer();
    lab.center.shutdown(std::time::Duration::ZERO).await;
    let before = lab.cycles(&order.id).len();
    assert!(before < 40);
    // The job ends at the conductor without the center.
    let mut contact = conductor.handle.contact();
    contact
        .wait_for(|contact| matches!(contact, daitn_terminals::Contact::Connecting { cause: Some(_) }))
        .await
        .unwrap();
    conductor
        .when(|status| status.receipts_waiting > 40 - before)
        .await;
    lab.restart_center(peer.addresses[0]).await;
    let done = lab.training_done(&order.id).await;
    assert_eq!(done.weights, expected);
    assert_eq!(lab.cycles(&order.id).len(), 40, "no report is lost");
    conductor.when(|status| status.receipts_waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conductor_can_be_replaced_by_itself() {
    let lab = Lab::new().await;
    let (_nodes, sites, _) = sites(&lab, 2).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let expected = undisturbed(&lab, &sites, &conductor, Strategy::Scaffold, 20).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 20);
    job.strategy = Strategy::Scaffold;
    let order = job.begin(&[0, 1]).await;
    a_cycle(&lab, &order.id, 3).await;
    // The center ends the old order first, then asks the sites anew, then appoints.
    let instruction = Instruction::Stop {
        order: order.id.clone(),
    };
    let stop = lab.work_order(conductor.id(), &conductor.entities[0], Some(&job.id), instruction);
    lab.order(&stop).await;
    let last = lab.cycles(&order.id).pop().unwrap();
    assert!(last.cycle < 19);
    let order = replaced(&mut job, (conductor.entities[0].clone(), conductor.peer()), &last).await;
    assert_eq!(lab.training_done(&order.id).await.weights, expected);
}

/// A site and the center go at once. The site comes back elsewhere and finds the center first, when there is nobody yet
/// whom the center could tell of it: the next site of the chain has to learn from the conductor where to fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_has_moved_while_the_center_was_away_is_found_by_the_next_of_its_chain() {
    const CYCLES: u32 = 100;
    let mut lab = Lab::new().await;
    let (mut nodes, sites, _) = sites(&lab, 3).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let chain = |lab| {
        let mut job = Job::rounds(lab, sites.clone(), &conductor, CYCLES);
        job.chains = vec![vec![0, 1, 2]];
        // Who asks for weights where nobody is has not even given up by then.
        job.deadline_ms = 8_000;
        job
    };
    let expected = chain(&lab).run().await.1.weights;
    let order = chain(&lab).begin(&[0, 1, 2]).await;
    a_cycle(&lab, &order.id, 2).await;
    let address = lab.peer().addresses[0];
    lab.center.shutdown(std::time::Duration::ZERO).await;
    let first = nodes.remove(0).stop().await;
    assert!(lab.cycles(&order.id).len() < CYCLES as usize);
    lab.restart_center(address).await;
    let first = lab.start(first).await;
    assert_ne!(first.peer().addresses, sites[0].peer.addresses);
    // Every cycle needs all three.
    let done = lab.training_done(&order.id).await;
    assert_eq!(done.weights, expected);
    // The conductor has given weights to the first of each cycle, and once more to whom it has lost, but never passed on
    // what one site made to the next.
    let sent = conductor.endpoint.metrics().artifact_bytes_sent_total / done.weights.bytes;
    assert!(sent <= u64::from(2 * CYCLES) + 4, "{sent} times");
}
