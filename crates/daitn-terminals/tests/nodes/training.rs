//! Whole jobs between real nodes, held against the same training as a plain loop.

use crate::lab::*;
use daitn_engine::LocalRule;
use daitn_messages::{
    ids::ArtifactId,
    learning::{Metric, Strategy},
    order::{Instruction, VerifyOrder},
    receipt::Outcome,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_give_what_a_plain_loop_gives_bit_for_bit() {
    let lab = Lab::new().await;
    let (_nodes, sites, paths) = sites(&lab, 3).await;
    let holdout = digits(lab.directory.path(), "holdout.csv", 1_500, 1, 297);
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let unit = lab.node(60, "verifiers", vec![verifier(&holdout)]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 6);
    job.readers = vec![unit.id()];
    let (order, done) = job.run().await;

    let tables: Vec<_> = paths.iter().map(|path| table(path)).collect();
    let mut global = initial();
    for cycle in 0..job.rounds {
        let step = |(position, table)| {
            let made = local_step(&global, table, cycle, position, LocalRule::Plain);
            (made.n_examples, made.parameters)
        };
        global = mean(&(0..).zip(&tables).map(step).collect::<Vec<_>>());
    }
    assert_eq!(done.weights, weights_of(&global));
    assert_eq!(done.cycles, 6);
    let cycles = lab.cycles(&order);
    assert_eq!(
        cycles.iter().map(|report| report.cycle).collect::<Vec<_>>(),
        (0..6).collect::<Vec<_>>()
    );
    assert!(
        cycles
            .iter()
            .all(|report| report.contributions.len() == 3 && report.left_out.is_empty())
    );
    assert!(cycles[5].loss < cycles[0].loss);

    // The same job again, as another job: the same model.
    let again = Job { id: lab.job(), ..job };
    assert_eq!(again.run().await.1.weights, done.weights);

    // A unit judges it on data that no site has.
    let verify = VerifyOrder {
        spec: spec(),
        weights: done.weights,
        holders: vec![conductor.peer()],
        metric: Metric::Accuracy,
        target: 0.8,
        readers: Vec::new(),
    };
    let verify = lab.work_order(
        unit.id(),
        &unit.entities[0],
        None,
        Instruction::Verify(Box::new(verify)),
    );
    lab.order(&verify).await;
    let report = lab.outcome(&verify.id, "verification", |outcome| match outcome {
        Outcome::Verified(report) => Some((**report).clone()),
        Outcome::Refused(rejection) => panic!("{rejection}"),
        _ => None,
    });
    let report = report.await;
    let expected = accuracy(&global, &table(&holdout));
    assert_eq!(report.evaluation.metric(Metric::Accuracy), Some(expected));
    assert!(report.reached && expected > 0.8, "{expected}");
    assert_eq!(report.weights, done.weights.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_itinerary_carries_the_weights_from_site_to_site() {
    let lab = Lab::new().await;
    let (nodes, sites, paths) = sites(&lab, 3).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 3);
    job.chains = vec![vec![2, 0, 1]];
    let (order, done) = job.run().await;

    let tables: Vec<_> = paths.iter().map(|path| table(path)).collect();
    let mut travelling = initial();
    for cycle in 0..3 {
        for site in [2, 0, 1] {
            travelling =
                local_step(&travelling, &tables[site as usize], cycle, site, LocalRule::Plain).parameters;
        }
    }
    assert_eq!(done.weights, weights_of(&travelling));
    assert!(
        lab.cycles(&order)
            .iter()
            .all(|report| report.contributions.len() == 3)
    );
    // Sites 0 and 1 had the weights from another site: the conductor has sent them to the first of each cycle only.
    let sent = conductor.endpoint.metrics().artifact_bytes_sent_total;
    assert_eq!(sent, 3 * done.weights.bytes);
    assert!(nodes[2].endpoint.metrics().artifact_bytes_sent_total >= 3 * done.weights.bytes);
    // Another order each cycle, if the plan says so, and still the same model for the same seed.
    let shuffled = Job {
        id: lab.job(),
        shuffle: true,
        ..job
    };
    let first = shuffled.run().await.1.weights;
    assert_ne!(first, done.weights);
    let again = Job {
        id: lab.job(),
        ..shuffled
    };
    assert_eq!(again.run().await.1.weights, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaffold_keeps_its_variates_at_the_sites() {
    let lab = Lab::new().await;
    let (_nodes, sites, paths) = sites(&lab, 3).await;
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 4);
    job.strategy = Strategy::Scaffold;
    let (_, done) = job.run().await;

    // Option II of the paper as a plain loop; sums in f64, rounded once, as documented.
    let tables: Vec<_> = paths.iter().map(|path| table(path)).collect();
    let mut x = initial();
    let mut c = vec![0.0_f32; x.len()];
    let mut c_k = vec![c.clone(); 3];
    for cycle in 0..4 {
        let (mut updates, mut deltas) = (Vec::new(), Vec::new());
        for (site, table) in (0..).zip(&tables) {
            let own = &mut c_k[site as usize];
            let made = local_step(&x, table, cycle, site, LocalRule::Scaffold { c: &c, c_k: own });
            let control = made.control.unwrap();
            *own = control.next;
            deltas.push(control.delta);
            updates.push((1, made.parameters));
        }
        x = mean(&updates);
        for (i, c) in c.iter_mut().enumerate() {
            let change = deltas.iter().map(|delta| f64::from(delta[i])).sum::<f64>() / 3.0;
            *c = (f64::from(*c) + change) as f32;
        }
    }
    assert_eq!(done.weights, weights_of(&x));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_terminals_of_one_node_work_together() {
    let lab = Lab::new().await;
    let paths = [0, 1].map(|i| digits(lab.directory.path(), &format!("{i}.csv"), i, 2, 300));
    let terminals = vec![
        dataset("one", &paths[0], PERMIT_RESEARCH),
        dataset("two", &paths[1], PERMIT_RESEARCH),
        aggregator(),
    ];
    let node = lab.node(1, "st-mary", terminals).await;
    let site = |i: usize| SiteAt {
        dataset: node.entities[i].clone(),
        peer: node.peer(),
        records: 300,
    };
    let mut job = Job::rounds(&lab, vec![site(0), site(1)], &node, 2);
    job.conductor.0 = node.entities[2].clone();
    let (_, done) = job.run().await;
    let mut global = initial();
    for cycle in 0..2 {
        let step = |(position, path): (u32, &std::path::PathBuf)| {
            let made = local_step(&global, &table(path), cycle, position, LocalRule::Plain);
            (made.n_examples, made.parameters)
        };
        global = mean(&(0..).zip(&paths).map(step).collect::<Vec<_>>());
    }
    assert_eq!(done.weights, weights_of(&global));
    assert_ne!(done.weights.id, ArtifactId::of(b""));
}
