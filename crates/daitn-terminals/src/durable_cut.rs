//! Cuts the power at every point of what a node's stores write, and opens them again: what was acknowledged is there.

use super::{
    power::{every_cut, noted, watch},
    *,
};
use crate::{
    dataset::{Answer, Answers},
    outbox::Outbox,
};
use daitn_messages::{
    ids::{JobId, NodeId, OrderId},
    receipt::{Outcome, Receipt, Trained},
    session::ArtifactRef,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
fn receipt(n: u64) -> Signed<Receipt> {
    let receipt = Receipt {
        order: OrderId::new(n, [0; 10]),
        job: None,
        epoch: n,
        node: NodeId([1; 32]),
        terminal: "dataset:a/d".parse().unwrap(),
        at: UnixMillis(n),
        outcome: Outcome::Stopped,
    };
    Signed::seal(&receipt, &NodeKey::from_bytes(&[1; 32]))
}

#[tokio::test]
async fn a_receipt_that_was_put_survives_every_power_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    watch(root);
    let directory = root.join("state/outbox");
    let outbox = Outbox::open(&directory).unwrap();
    // Which receipts were put, and which the center has, when so much had been done.
    let (mut put, mut acknowledged) = (Vec::new(), Vec::new());
    for n in 0..4 {
        outbox.put(receipt(n)).await.unwrap();
        put.push((noted(root).len(), n));
        if n == 1 {
            let (number, _) = outbox.oldest().await.unwrap();
            acknowledged.push((noted(root).len(), 0));
            outbox.acknowledge(number).await.unwrap();
        }
    }
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking({
        let root = root.to_owned();
        move || {
            every_cut(&root, |done, cut, disk| {
                let outbox = Outbox::open(&disk.join("state/outbox")).unwrap();
                let mut found = Vec::new();
                while outbox.len() > 0 {
                    // What was being written may be damaged: it is set aside and holds nobody up.
                    if let Ok((number, receipt)) = runtime.block_on(outbox.oldest()) {
                        found.push(receipt.reread().unwrap().epoch);
                        runtime.block_on(outbox.acknowledge(number)).unwrap();
                    }
                }
                assert!(found.is_sorted(), "in order: {found:?}");
                for (_, n) in put.iter().filter(|(at, _)| *at <= done) {
                    let told = acknowledged.iter().any(|(at, told)| told == n && *at <= done);
                    assert!(
                        told || found.contains(n),
                        "receipt {n} is lost by {cut:?} after {done}"
                    );
                }
            });
        }
    })
    .await
    .unwrap();
}

#[test]
fn a_record_that_was_written_survives_every_power_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    watch(root);
    let path = root.join("jobs/journal/one.rec");
    make_directory(path.parent().unwrap()).unwrap();
    let mut written = Vec::new();
    for n in 0..4u64 {
        write(&path, &n).unwrap();
        written.push((noted(root).len(), n));
    }
    let before_removal = noted(root).len();
    remove(&path).unwrap();
    let removed = noted(root).len();
    every_cut(root, |done, cut, disk| {
        let found = read::<u64>(&disk.join("jobs/journal/one.rec")).expect("never torn");
        let newest = written.iter().rfind(|(at, _)| *at <= done).map(|(_, n)| *n);
        if done <= before_removal {
            assert!(
                found >= newest,
                "{found:?} instead of {newest:?} by {cut:?} after {done}"
            );
        } else if done >= removed {
            assert_eq!(found, None, "{cut:?} after {done}");
        }
    });
}

#[test]
fn answers_that_a_power_cut_tears_are_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    watch(root);
    let job: JobId = JobId::new(1, [0; 10]);
    let answer = |cycle: u32| {
        let artifact = ArtifactRef {
            id: ArtifactId::of(&cycle.to_le_bytes()),
            bytes: 4,
        };
        Answer {
            input: artifact.id,
            control: None,
            trained: Trained {
                cycle,
                input: artifact.id,
                output: artifact,
                control: None,
                examples: 1,
                steps: 1,
                loss: 0.5,
                train_ms: 1.0,
                policies: Vec::new(),
            },
        }
    };
    let answers = Answers::open(&root.join("train"), &job, 0).unwrap();
    for cycle in 0..4 {
        answers.keep(answer(cycle)).unwrap();
    }
    let mut n_kept = 0;
    every_cut(root, |done, cut, disk| {
        let answers = Answers::open(&disk.join("train"), &job, 0)
            .unwrap_or_else(|error| panic!("the job cannot go on by {cut:?} after {done}: {error}"));
        for found in answers.all() {
            assert_eq!(found, answer(found.trained.cycle), "{cut:?} after {done}");
            n_kept += 1;
        }
        answers.keep(answer(4)).unwrap();
        assert_eq!(answers.of(4), Some(answer(4)));
    });
    assert!(n_kept > 0, "what the cut has spared is used");
}
