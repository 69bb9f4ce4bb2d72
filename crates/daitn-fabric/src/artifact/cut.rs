//! Cuts the power at every point of what the store does, and opens it again: what was acknowledged as durable is there,
//! and whatever is there is what its name says.

use super::{
    Durability, Store,
    partial::Partial,
    tree::{PIECE_LEN, TreeBuilder},
};
use crate::power::{every_cut, noted, watch};
use daitn_messages::ids::ArtifactId;
use std::path::Path;

const GIB: u64 = 1 << 30;

/// Something incompressible of so many bytes.
fn bytes_of(seed: u8, len: usize) -> Vec<u8> {
    (0..len / 32 + 1)
        .flat_map(|n| *blake3::hash(&[&[seed][..], &n.to_le_bytes()[..]].concat()).as_bytes())
        .take(len)
        .collect()
}

fn put(store: &Store, bytes: &[u8], durability: Durability) -> ArtifactId {
    let mut writer = store.writer(durability).unwrap();
    for part in bytes.chunks(200_000) {
        writer.push(part).unwrap();
    }
    writer.finish().unwrap().0
}

/// What is fetched piece by piece, out of order.
fn fetch(store: &Store, bytes: &[u8], durability: Durability) -> ArtifactId {
    let mut builder = TreeBuilder::new();
    builder.push(bytes);
    let (id, tree) = builder.finish();
    let partial = Partial::create(store, id, tree).unwrap();
    for (piece, part) in (0_u64..)
        .zip(bytes.chunks(PIECE_LEN))
        .collect::<Vec<_>>()
        .iter()
        .rev()
    {
        assert!(partial.write(*piece, part).unwrap());
    }
    partial.complete(durability).unwrap();
    id
}

/// Opens the store of every cut. `durable` says what had been acknowledged by when, `of` what belongs to a name.
/// Returns how often something was there that need not have been.
fn check(root: &Path, durable: &[(usize, ArtifactId)], of: &[Vec<u8>]) -> usize {
    let mut n_more = 0;
    every_cut(root, |done, cut, disk| {
        let store = Store::open(&disk.join("artifacts"), GIB).unwrap();
        for (at, id) in durable {
            assert!(
                *at > done || store.has(*id),
                "{id} is lost by {cut:?} after {done}"
            );
        }
        let mut used = 0;
        for (id, len) in store.list().unwrap() {
            let mut reader = store
                .reader(id)
                .unwrap_or_else(|error| panic!("{cut:?} after {done}: {error}"));
            let found = reader
                .read_whole()
                .unwrap_or_else(|error| panic!("{cut:?} after {done}: {error}"));
            assert!(
                of.contains(&found),
                "{id} is something else by {cut:?} after {done}"
            );
            assert_eq!(found.len() as u64, len);
            used += len;
            n_more += usize::from(!durable.iter().any(|(at, known)| *known == id && *at <= done));
        }
        // What was being fetched is gone on with, or begun anew.
        for (id, len) in store.list_partial().unwrap() {
            if let Some((_, there)) = Partial::resume(&store, id, len).unwrap() {
                assert!(there.len() as u64 <= len.div_ceil(PIECE_LEN as u64));
                used += len;
            }
        }
        assert_eq!(store.bytes_used(), used, "{cut:?} after {done}");
        // And nothing stands in the way of having everything again.
        for bytes in of {
            let id = put(&store, bytes, Durability::Transient);
            assert!(store.reader(id).unwrap().read_whole().unwrap() == *bytes);
        }
    });
    n_more
}

#[test]
fn what_is_acknowledged_as_durable_survives_every_power_cut_and_nothing_is_ever_torn() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    watch(root);
    let store = Store::open(&root.join("artifacts"), GIB).unwrap();
    let of: Vec<Vec<u8>> = [
        (1, 100),
        (2, PIECE_LEN + 7),
        (3, 2 * PIECE_LEN),
        (4, 300),
        (5, PIECE_LEN + 1),
    ]
    .map(|(seed, len)| bytes_of(seed, len))
    .to_vec();
    let mut durable = Vec::new();
    let mut acknowledged = |id| durable.push((noted(root).len(), id));
    acknowledged(put(&store, &of[0], Durability::Durable));
    acknowledged(put(&store, &of[1], Durability::Durable));
    acknowledged(fetch(&store, &of[2], Durability::Durable));
    // What was put without being flushed is flushed later.
    let (small, large) = (
        put(&store, &of[3], Durability::Transient),
        fetch(&store, &of[4], Durability::Transient),
    );
    for id in [small, large] {
        store.flush(id).unwrap();
        acknowledged(id);
    }
    // Once more, while it is durable already.
    put(&store, &of[1], Durability::Transient);
    put(&store, &of[0], Durability::Durable);
    drop(store);
    check(root, &durable, &of);
}

#[test]
fn what_need_not_outlive_a_power_cut_is_whole_or_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    watch(root);
    let store = Store::open(&root.join("artifacts"), GIB).unwrap();
    let of = vec![bytes_of(1, 500), bytes_of(2, PIECE_LEN + 9)];
    put(&store, &of[0], Durability::Transient);
    let second = put(&store, &of[1], Durability::Transient);
    // Made durable in another way than by being flushed.
    let whole = put(&store, &of[1], Durability::Durable);
    assert_eq!(second, whole);
    let durable = [(noted(root).len(), whole)];
    drop(store);
    let n_more = check(root, &durable, &of);
    assert!(n_more > 0, "what the cut has spared is used");
}
