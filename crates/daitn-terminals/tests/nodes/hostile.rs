//! Sites that send what they should not: they are left out, with the reason, and the result is that without them.

use crate::lab::*;
use daitn_engine::{Engine, Layout, LocalRule, TensorSpec, builtin::Builtin, weights};
use daitn_fabric::{DATA_ALPN, Routes};
use daitn_messages::{
    limits::SESSION_HEADER_BYTES_MAX,
    receipt::{Outcome, Receipt, Trained},
    rejection::Code,
    session::{ArtifactRef, SessionReply, SessionRequest, TrainStep},
    signed::Signed,
};
use std::sync::Arc;

type Forge = fn(&TrainStep, ArtifactRef) -> (TrainStep, ArtifactRef);

/// A node that answers every step with these bytes as its update, its receipt changed by `forge`.
async fn liar(lab: &Lab, seed: u8, update: Vec<u8>, forge: Forge) -> SiteAt {
    let stranger = Stranger::new(seed).await;
    let dataset: daitn_messages::ids::EntityId = format!("dataset:liar-{seed}/digits").parse().unwrap();
    let output = stranger.put(update).await;
    let (key, terminal, order) = (stranger.key.clone(), dataset.clone(), lab.random());
    let answer = move |mut incoming: daitn_fabric::IncomingSession| {
        let (key, terminal) = (key.clone(), terminal.clone());
        async move {
            let Ok(SessionRequest::Train(asked)) = incoming.header() else {
                return;
            };
            let (step, output) = forge(&asked, output);
            let trained = Trained {
                cycle: step.cycle,
                input: step.input.id,
                output,
                control: None,
                examples: 500,
                steps: 1,
                loss: 0.1,
                train_ms: 1.0,
                policies: Vec::new(),
            };
            let receipt = Receipt {
                order: daitn_messages::ids::OrderId::new(1, order),
                job: Some(step.job),
                epoch: step.epoch,
                node: key.id(),
                terminal,
                at: now(),
                outcome: Outcome::Trained(trained),
            };
            let _ = incoming
                .session
                .send_last(&SessionReply::Trained(Signed::seal(&receipt, &key)))
                .await;
        }
    };
    stranger.endpoint.serve(
        Routes::new()
            .on(DATA_ALPN, SESSION_HEADER_BYTES_MAX, answer)
            .artifacts(stranger.store.clone(), Arc::new(|_, _| true)),
    );
    let peer = stranger.endpoint.peer();
    // It answers for as long as the test runs.
    std::mem::forget(stranger);
    SiteAt {
        dataset,
        peer,
        records: 500,
    }
}

fn honest(step: &TrainStep, output: ArtifactRef) -> (TrainStep, ArtifactRef) {
    (step.clone(), output)
}

fn raw(values: &[f32]) -> Vec<u8> {
    let mut file = weights::header(&Builtin.layout(&spec()).unwrap());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_updates_are_left_out_and_change_nothing() {
    let lab = Lab::new().await;
    let (_nodes, mut sites, paths) = sites(&lab, 2).await;
    let n = initial().len();
    let mut not_finite = initial();
    not_finite[n / 2] = f32::NAN;
    let other_shape = {
        let layout = Layout::new(vec![TensorSpec::new("00.dense.weight", &[n])]).unwrap();
        let mut file = weights::write(&vec![0.5; n], &layout).unwrap();
        file.resize(usize::try_from(weights_of(&initial()).bytes).unwrap(), b' ');
        file
    };
    let good = raw(&vec![100.0; n]);
    let cases: [(Vec<u8>, Forge); 7] = [
        (raw(&not_finite), honest),
        (other_shape, honest),
        // Ten times the bytes, told or not.
        (good.repeat(10), honest),
        (good.repeat(10), |step, output| {
            (
                step.clone(),
                ArtifactRef {
                    bytes: output.bytes / 10,
                    ..output
                },
            )
        }),
        // Another round, another input, an epoch that is over.
        (good.clone(), |step, output| {
            (
                TrainStep {
                    cycle: step.cycle + 1,
                    ..step.clone()
                },
                output,
            )
        }),
        (good.clone(), |step, output| {
            (
                TrainStep {
                    input: output,
                    ..step.clone()
                },
                output,
            )
        }),
        (good.clone(), |step, output| {
            (
                TrainStep {
                    epoch: step.epoch - 1,
                    ..step.clone()
                },
                output,
            )
        }),
    ];
    for (i, (update, forge)) in cases.into_iter().enumerate() {
        sites.push(liar(&lab, 100 + u8::try_from(i).unwrap(), update, forge).await);
    }
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 2);
    job.quorum = 2;
    let order = job.begin(&[0, 1]).await;
    let done = lab.training_done(&order.id).await;

    let mut global = initial();
    for cycle in 0..2 {
        let step = |(position, path): (u32, &std::path::PathBuf)| {
            let made = local_step(&global, &table(path), cycle, position, LocalRule::Plain);
            (made.n_examples, made.parameters)
        };
        global = mean(&(0..).zip(&paths).map(step).collect::<Vec<_>>());
    }
    assert_eq!(done.weights, weights_of(&global));
    for report in lab.cycles(&order.id) {
        assert_eq!(report.contributions.len(), 2);
        let left_out: Vec<(u32, Code)> = report
            .left_out
            .iter()
            .map(|(site, reason)| (*site, reason.code))
            .collect();
        let refused = |site| (site, Code::UpdateRefused);
        let expected = [
            refused(2),
            refused(3),
            refused(4),
            (5, Code::Unreachable),
            refused(6),
            refused(7),
            refused(8),
        ];
        assert_eq!(left_out, expected, "{:?}", report.left_out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_update_is_clipped_where_the_request_says_so() {
    let lab = Lab::new().await;
    let (_nodes, mut sites, _) = sites(&lab, 2).await;
    let n = initial().len();
    // Finite, of the right shape, and a thousand times as long as an honest update.
    sites.push(liar(&lab, 100, raw(&vec![100.0; n]), honest).await);
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let holdout = table(&digits(lab.directory.path(), "holdout.csv", 1_500, 1, 297));
    let reader = Stranger::new(70).await;
    let mut accuracies = Vec::new();
    for clip in [None, Some(1.0)] {
        let mut job = Job::rounds(&lab, sites.clone(), &conductor, 5);
        job.readers = vec![reader.endpoint.node()];
        job.norm_clip = clip;
        let order = job.begin(&[0, 1]).await;
        let done = lab.training_done(&order.id).await;
        let weights = fetched(&reader, &conductor.peer(), done.weights).await.unwrap();
        accuracies.push(accuracy(&weights, &holdout));
    }
    // The attack is alive without the clip, and not with it.
    assert!(accuracies[0] < 0.3 && accuracies[1] > 0.6, "{accuracies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_do_not_travel_along_a_chain() {
    let lab = Lab::new().await;
    let (_nodes, honest_sites, paths) = sites(&lab, 2).await;
    let mut not_finite = initial();
    not_finite[0] = f32::INFINITY;
    let bad = liar(&lab, 100, raw(&not_finite), honest).await;
    let sites = vec![honest_sites[0].clone(), bad, honest_sites[1].clone()];
    let conductor = lab.node(50, "aggregators", vec![aggregator()]).await;
    let mut job = Job::rounds(&lab, sites, &conductor, 1);
    job.chains = vec![vec![0, 1, 2]];
    job.quorum = 2;
    let order = job.begin(&[0, 2]).await;
    let done = lab.training_done(&order.id).await;
    let first = local_step(&initial(), &table(&paths[0]), 0, 0, LocalRule::Plain).parameters;
    let second = local_step(&first, &table(&paths[1]), 0, 2, LocalRule::Plain).parameters;
    assert_eq!(done.weights, weights_of(&second));
    let left_out = &lab.cycles(&order.id)[0].left_out;
    assert_eq!(
        left_out
            .iter()
            .map(|(site, reason)| (*site, reason.code))
            .collect::<Vec<_>>(),
        [(1, Code::UpdateRefused)]
    );
}
