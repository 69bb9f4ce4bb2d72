//! Reads an artifact from the store, each piece verified before a byte of it is handed out: disks rot.

use super::{
    disk::{StoreError, disk},
    store::Store,
    tree::{PIECE_BYTES, Tree},
};
use bytes::Bytes;
use daitn_messages::ids::ArtifactId;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// An open artifact. Reading blocks; one piece of it is in memory.
#[derive(Debug)]
pub struct ArtifactReader {
    store: Store,
    id: ArtifactId,
    file: Arc<File>,
    tree: Arc<Tree>,
    position: u64,
    /// The verified piece that the position is in.
    current: Option<(u64, Bytes)>,
}

impl ArtifactReader {
    pub(super) fn new(store: Store, id: ArtifactId, file: File, tree: Tree) -> Self {
        Self {
            store,
            id,
            file: Arc::new(file),
            tree: Arc::new(tree),
            position: 0,
            current: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ArtifactId {
        self.id
    }

    /// Its length.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.tree.bytes()
    }

    /// The whole of it, verified.
    ///
    /// # Errors
    /// Where it is damaged or the disk fails.
    pub fn read_whole(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut whole = Vec::with_capacity(usize::try_from(self.n_bytes()).unwrap_or(0));
        for piece in 0..self.tree.n_pieces() {
            whole.extend_from_slice(&self.piece(piece)?);
        }
        Ok(whole)
    }

    pub(super) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn piece(&self, piece: u64) -> Result<Bytes, StoreError> {
        let bytes = read_piece(&self.file, &self.tree, piece)?;
        if self.tree.holds(self.id, piece, &bytes) {
            Ok(bytes)
        } else {
            Err(self.store.damaged(self.id, piece))
        }
    }
}

/// The bytes of one piece as they are on disk.
pub(super) fn read_piece(file: &File, tree: &Tree, piece: u64) -> Result<Bytes, StoreError> {
    let mut bytes = vec![0u8; tree.piece_len(piece)];
    file.read_exact_at(&mut bytes, piece * PIECE_BYTES)
        .map_err(|e| disk("reading a piece of", Path::new("an artifact"), e))?;
    Ok(bytes.into())
}

impl Read for ArtifactReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.n_bytes() || buf.is_empty() {
            return Ok(0);
        }
        let at = self.position / PIECE_BYTES;
        let piece = match &self.current {
            Some((piece, bytes)) if *piece == at => bytes.clone(),
            _ => {
                let bytes = self
                    .piece(at)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                self.current = Some((at, bytes.clone()));
                bytes
            }
        };
        let from = usize::try_from(self.position % PIECE_BYTES).expect("a piece fits in memory");
        let n_bytes = buf.len().min(piece.len() - from);
        buf[..n_bytes].copy_from_slice(&piece[from..from + n_bytes]);
        self.position += n_bytes as u64;
        Ok(n_bytes)
    }
}

impl Seek for ArtifactReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.n_bytes().checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
