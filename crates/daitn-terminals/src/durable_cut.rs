//! Cuts the power at every point of what a node's stores write, and opens them again: what was acknowledged is there.
//!
//! A cut keeps what was flushed. Of the rest the test tries the worst that a file system does: no name since the last
//! flush of its directory is on disk, or all are, with what was not flushed of the files missing or torn.

use super::{
    trace::{Noted, Op, noted, watch},
    *,
};
use crate::outbox::Outbox;
use daitn_messages::{
    ids::{NodeId, OrderId},
    receipt::{Outcome, Receipt},
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    NamesLost,
    FilesEmpty,
    FilesTorn,
}

#[derive(Debug, Clone)]
enum Entry {
    Directory,
    /// What was written, and whether it was flushed.
    File(Vec<u8>, bool),
}

type Names = BTreeMap<PathBuf, Entry>;

/// The names and files that are on disk after a cut.
fn after_cut(noted: &[Noted], cut: Cut) -> Names {
    let (mut now, mut on_disk) = (Names::new(), Names::new());
    for (op, bytes) in noted {
        match op {
            Op::Directory(path) => drop(now.insert(path.clone(), Entry::Directory)),
            Op::Write(path, flushed) => drop(now.insert(path.clone(), Entry::File(bytes.clone(), *flushed))),
            Op::Rename(from, to) => {
                let entry = now.remove(from).expect("what is renamed is there");
                now.insert(to.clone(), entry);
            }
            Op::Remove(path) => drop(now.remove(path)),
            Op::Flush(directory) => {
                on_disk.retain(|path, _| path.parent() != Some(directory.as_path()));
                let names = now
                    .iter()
                    .filter(|(path, _)| path.parent() == Some(directory.as_path()));
                on_disk.extend(names.map(|(path, entry)| (path.clone(), entry.clone())));
            }
        }
    }
    let mut names = if cut == Cut::NamesLost { on_disk } else { now };
    for entry in names.values_mut() {
        if let Entry::File(bytes, false) = entry {
            let kept = if cut == Cut::FilesTorn { bytes.len() / 2 } else { 0 };
            bytes.truncate(kept);
        }
    }
    names
}

/// Makes the disk as it is after a cut, below another directory. What lies in a directory that is lost is lost with it.
fn lay(names: &Names, from: &Path, to: &Path) {
    for (path, entry) in names {
        let place = to.join(path.strip_prefix(from).unwrap());
        match entry {
            Entry::Directory if place.parent().is_some_and(Path::is_dir) => fs::create_dir(&place).unwrap(),
            Entry::File(bytes, _) if place.parent().is_some_and(Path::is_dir) => {
                fs::write(&place, bytes).unwrap();
            }
            _ => {}
        }
    }
}

/// Every cut of what was done below a directory: how much had been done, and the disk after it.
fn every_cut(root: &Path, mut look: impl FnMut(usize, Cut, &Path)) {
    let noted = noted(root);
    assert!(noted.len() > 10, "the test has seen nothing: {noted:?}");
    for done in 0..=noted.len() {
        for cut in [Cut::NamesLost, Cut::FilesEmpty, Cut::FilesTorn] {
            let disk = tempfile::tempdir().unwrap();
            lay(&after_cut(&noted[..done], cut), root, disk.path());
            look(done, cut, disk.path());
        }
    }
}

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
