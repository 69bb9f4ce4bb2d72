//! An artifact that is being fetched: a file as long as the whole will be, and its piece hashes beside it.
//!
//! Pieces are written when they are verified, in any order. After a crash the file is hashed piece by piece, which
//! tells what is there without having to trust anything written down.

use super::{
    disk::{Durability, StoreError, disk, extend, flush_file, pieces, remove_if_there, write_at, write_file},
    reader::read_piece,
    store::Store,
    tree::{PIECE_BYTES, Tree},
};
use daitn_messages::ids::ArtifactId;
use std::{
    fs::{self, File, OpenOptions},
    path::PathBuf,
    sync::Arc,
};

/// A partial artifact, open for writing pieces.
#[derive(Debug)]
pub(super) struct Partial {
    store: Store,
    id: ArtifactId,
    path: PathBuf,
    file: File,
    tree: Arc<Tree>,
}

impl Partial {
    /// What is left of an earlier fetch, with the pieces that are there. Blocks for as long as hashing takes.
    pub(super) fn resume(
        store: &Store,
        id: ArtifactId,
        bytes: u64,
    ) -> Result<Option<(Self, Vec<u64>)>, StoreError> {
        let path = store.partial(id);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(disk("opening", &path, e)),
        };
        let found = file.metadata().map_err(|e| disk("reading", &path, e))?.len();
        let hashes = fs::read(pieces(&path)).unwrap_or_default();
        let tree = Tree::from_bytes(id, bytes, &hashes).filter(|tree| tree.bytes() == found);
        let Some(tree) = tree else {
            // Cut off while it was being made: begin anew.
            store.remove_partial(id, found)?;
            return Ok(None);
        };
        let partial = Self {
            store: store.clone(),
            id,
            path,
            file,
            tree: Arc::new(tree),
        };
        let mut there = Vec::new();
        for piece in 0..partial.tree.n_pieces() {
            let bytes = read_piece(&partial.file, &partial.tree, piece)?;
            if partial.tree.holds(id, piece, &bytes) {
                there.push(piece);
            }
        }
        Ok(Some((partial, there)))
    }

    /// A new partial artifact. Its room in the store is taken now.
    pub(super) fn create(store: &Store, id: ArtifactId, tree: Tree) -> Result<Self, StoreError> {
        let path = store.partial(id);
        store.reserve(tree.bytes())?;
        let make = || {
            write_file(&pieces(&path), &tree.to_bytes(), Durability::Transient)?;
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path);
            let file = file.map_err(|e| disk("making", &path, e))?;
            // A sparse file: the disk's room is taken piece by piece.
            extend(&file, &path, tree.bytes())?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Self {
                store: store.clone(),
                id,
                path,
                file,
                tree: Arc::new(tree),
            }),
            Err(error) => {
                store.release(tree.bytes());
                Err(error)
            }
        }
    }

    pub(super) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Writes a piece if it is the right one; false if it is not. Blocks.
    pub(super) fn write(&self, piece: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        if !self.tree.holds(self.id, piece, bytes) {
            return Ok(false);
        }
        write_at(&self.file, &self.path, bytes, piece * PIECE_BYTES)?;
        Ok(true)
    }

    /// Makes an artifact of it, all pieces being there. Blocks.
    pub(super) fn complete(&self, durability: Durability) -> Result<(), StoreError> {
        if durability == Durability::Durable {
            flush_file(&self.file, &self.path)?;
        }
        self.store.place(self.id, &self.tree, &self.path, durability)?;
        remove_if_there(&pieces(&self.path)).map(drop)
    }
}

impl Store {
    fn remove_partial(&self, id: ArtifactId, bytes: u64) -> Result<(), StoreError> {
        let path = self.partial(id);
        remove_if_there(&path)?;
        remove_if_there(&pieces(&path))?;
        self.release(bytes);
        Ok(())
    }
}
