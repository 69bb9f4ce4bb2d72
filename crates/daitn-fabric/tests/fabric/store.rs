//! The artifact store by itself.

use crate::lab::{GIB, bytes_of, store};
use daitn_fabric::artifact::{Durability, PIECE_BYTES, Store, StoreError};
use daitn_messages::ids::ArtifactId;
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
};

const PIECE: usize = 256 * 1024;

#[tokio::test]
async fn what_is_put_is_read_again_under_its_hash() {
    let (_directory, store) = store();
    let mut used = 0;
    for len in [0, 1, PIECE, PIECE + 1, 5 * PIECE + 77] {
        let bytes = bytes_of(len as u64, len);
        let expected = ArtifactId(*blake3::hash(&bytes).as_bytes());
        let id = store.put_bytes(bytes.clone(), Durability::Durable).await.unwrap();
        assert_eq!(id, expected);
        let streamed = store
            .put_stream(&bytes[..], GIB, Durability::Transient)
            .await
            .unwrap();
        assert_eq!(streamed, (id, len as u64));
        assert_eq!(store.read(id, GIB).await.unwrap(), bytes);
        used += len as u64;
        assert_eq!(store.bytes_used(), used, "the same bytes count once");
    }
    assert_eq!(store.list().unwrap().len(), 5);
    assert_eq!(PIECE_BYTES, PIECE as u64);
}

#[tokio::test]
async fn import_copies_a_file_and_a_writer_takes_parts() {
    let (directory, store) = store();
    let bytes = bytes_of(1, 700_000);
    let path = directory.path().join("model.safetensors");
    fs::write(&path, &bytes).unwrap();
    let (id, len) = store.import(&path, Durability::Durable).await.unwrap();
    assert_eq!((id, len), (ArtifactId::of(&bytes), 700_000));
    let other = bytes_of(2, 600_001);
    let mut writer = store.writer(Durability::Transient).unwrap();
    for part in other.chunks(1000) {
        writer.write_all(part).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), (ArtifactId::of(&other), 600_001));
    let mut reader = store.reader(ArtifactId::of(&other)).unwrap();
    for (at, len) in [(0, 8), (262_140, 10), (599_990, 11), (300_000, 262_144)] {
        let mut part = vec![0; len];
        reader.seek(SeekFrom::Start(at)).unwrap();
        reader.read_exact(&mut part).unwrap();
        let at = usize::try_from(at).unwrap();
        assert_eq!(part, other[at..at + len]);
    }
    reader.seek(SeekFrom::End(0)).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

#[tokio::test]
async fn damage_on_disk_is_noticed_when_read() {
    let (_directory, store) = store();
    let bytes = bytes_of(1, 3 * PIECE);
    let id = store.put_bytes(bytes, Durability::Durable).await.unwrap();
    let path = store.path_of(id).unwrap();
    let mut damaged = fs::read(&path).unwrap();
    damaged[PIECE + 5] ^= 1;
    fs::write(&path, damaged).unwrap();
    let mut reader = store.reader(id).unwrap();
    let error = store.read(id, GIB).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { piece: 1, .. }), "{error}");
    let mut first = vec![0; PIECE];
    reader.read_exact(&mut first).unwrap();
    assert!(reader.read_exact(&mut first).is_err());
    // Of no use to anybody it goes, so that it can come again.
    assert_eq!((store.has(id), store.bytes_used()), (false, 0));
    store
        .put_bytes(bytes_of(1, 3 * PIECE), Durability::Durable)
        .await
        .unwrap();
    assert_eq!(store.read(id, GIB).await.unwrap(), bytes_of(1, 3 * PIECE));
}

#[tokio::test]
async fn lost_or_damaged_piece_hashes_are_made_again() {
    let (_directory, store) = store();
    let bytes = bytes_of(1, 3 * PIECE);
    let id = store.put_bytes(bytes.clone(), Durability::Durable).await.unwrap();
    let hashes = store.path_of(id).unwrap().with_extension("pieces");
    fs::write(&hashes, [0; 96]).unwrap();
    assert_eq!(store.read(id, GIB).await.unwrap(), bytes);
    fs::remove_file(&hashes).unwrap();
    assert_eq!(store.read(id, GIB).await.unwrap(), bytes);
    // Cut short, the file has not even that length any more.
    fs::write(store.path_of(id).unwrap(), &bytes[..2 * PIECE]).unwrap();
    assert!(matches!(
        store.read(id, GIB).await.unwrap_err(),
        StoreError::Damaged { .. }
    ));
}

#[tokio::test]
async fn the_cap_holds_and_what_is_removed_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1000).unwrap();
    let id = store
        .put_bytes(bytes_of(1, 800), Durability::Durable)
        .await
        .unwrap();
    let error = store
        .put_bytes(bytes_of(2, 300), Durability::Durable)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Full {
                wanted: 300,
                used: 800,
                max: 1000
            }
        ),
        "{error}"
    );
    let error = store
        .put_stream(&bytes_of(3, 100)[..], 99, Durability::Durable)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { max: 99, .. }), "{error}");
    assert_eq!(store.bytes_used(), 800, "what failed takes no room");
    assert!(store.remove(id).unwrap());
    assert!(!store.remove(id).unwrap());
    assert_eq!((store.bytes_used(), store.has(id)), (0, false));
    store
        .put_bytes(bytes_of(2, 1000), Durability::Durable)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing() {
    let (directory, store) = store();
    let mut writer = store.writer(Durability::Durable).unwrap();
    writer.push(&bytes_of(1, 5000)).unwrap();
    drop(writer);
    assert_eq!((store.bytes_used(), store.list().unwrap().len()), (0, 0));
    assert_eq!(fs::read_dir(directory.path().join("temp")).unwrap().count(), 0);
}

#[tokio::test]
async fn one_process_at_a_time_and_all_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), GIB).unwrap();
    assert!(matches!(
        Store::open(directory.path(), GIB),
        Err(StoreError::InUse(_))
    ));
    let bytes = bytes_of(1, 2 * PIECE);
    let id = store.put_bytes(bytes.clone(), Durability::Durable).await.unwrap();
    // Left over from a crash.
    fs::write(directory.path().join("temp/left"), b"over").unwrap();
    drop(store);
    let store = Store::open(directory.path(), GIB).unwrap();
    assert_eq!(
        (store.bytes_used(), store.read(id, GIB).await.unwrap()),
        (2 * PIECE as u64, bytes)
    );
    assert!(!directory.path().join("temp/left").exists());
}

#[tokio::test]
async fn what_is_not_here_is_said_so() {
    let (_directory, store) = store();
    let id = ArtifactId([7; 32]);
    assert!(matches!(store.read(id, GIB).await, Err(StoreError::NotHere(missing)) if missing == id));
    assert_eq!(
        (store.has(id), store.bytes_of(id), store.path_of(id)),
        (false, None, None)
    );
}
