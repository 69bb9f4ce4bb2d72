//! Writes an artifact whose name is not known yet, for instance an aggregate as it is computed.

use super::{
    disk::{Durability, StoreError, create, flush_file, remove_if_there, write_all},
    store::Store,
    tree::TreeBuilder,
};
use daitn_messages::{ids::ArtifactId, limits::ARTIFACT_BYTES_MAX};
use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

/// Takes bytes in order; [`Self::finish`] names them. Dropped before, it leaves nothing behind. Blocks.
pub struct ArtifactWriter {
    store: Store,
    durability: Durability,
    path: PathBuf,
    file: File,
    tree: TreeBuilder,
    /// Room taken in the store, given back when dropped.
    reserved: u64,
}

impl ArtifactWriter {
    pub(super) fn new(store: Store, durability: Durability) -> Result<Self, StoreError> {
        let path = store.temp();
        let file = create(&path)?;
        Ok(Self {
            store,
            durability,
            path,
            file,
            tree: TreeBuilder::new(),
            reserved: 0,
        })
    }

    /// How many bytes came so far.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.tree.bytes()
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// Where they do not fit or the disk fails.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let found = self.n_bytes() + bytes.len() as u64;
        if found > ARTIFACT_BYTES_MAX {
            return Err(StoreError::TooLarge {
                found,
                max: ARTIFACT_BYTES_MAX,
            });
        }
        self.store.reserve(bytes.len() as u64)?;
        self.reserved += bytes.len() as u64;
        write_all(&self.file, &self.path, bytes)?;
        self.tree.push(bytes);
        Ok(())
    }

    /// Names what came and gives it its place. Returns the name and the length.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn finish(mut self) -> Result<(ArtifactId, u64), StoreError> {
        if self.durability == Durability::Durable {
            flush_file(&self.file, &self.path)?;
        }
        let (id, tree) = std::mem::replace(&mut self.tree, TreeBuilder::new()).finish();
        self.store.place(id, &tree, &self.path, self.durability)?;
        // The room is now the artifact's.
        self.reserved = 0;
        Ok((id, tree.bytes()))
    }
}

impl Write for ArtifactWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.push(buf).map_err(io::Error::other)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ArtifactWriter {
    fn drop(&mut self) {
        self.store.release(self.reserved);
        if let Err(error) = remove_if_there(&self.path) {
            tracing::warn!("a temporary file stays until the next start: {error}");
        }
    }
}

impl std::fmt::Debug for ArtifactWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactWriter")
            .field("bytes", &self.n_bytes())
            .finish_non_exhaustive()
    }
}
