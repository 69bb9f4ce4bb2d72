//! The store: one file for each artifact, named by its hash, in a directory of its own.
//!
//! ```text
//! LOCK                       one process at a time
//! objects/3f/3f9a...         the bytes, flushed
//! objects/3f/3f9a....pieces  its piece hashes, where there is more than one piece
//! loose/3f9a...              the same of what was not flushed; looked at when the store is opened
//! loose/3f9a....pieces
//! partial/3f9a...            what has been fetched so far, as long as the whole will be
//! partial/3f9a....pieces     its piece hashes
//! temp/...                   being written; emptied when the store is opened
//! ```
//!
//! A durable artifact is written elsewhere, flushed, renamed into place, and its directory flushed, so a name never
//! stands for bytes that a power cut could take back.

use super::{
    disk::{
        Durability, StoreError, artifacts_in, blocking, disk, entries, make_directory, pieces, sync_directory,
    },
    places::{STEP_BYTES, hashed},
    reader::ArtifactReader,
    tree::Tree,
    writer::ArtifactWriter,
};
use daitn_messages::ids::ArtifactId;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// An open artifact store; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    bytes_max: u64,
    used: AtomicU64,
    next_temp: AtomicU64,
    /// One fetch at a time of one artifact: whoever comes second finds it there.
    fetching: Mutex<HashMap<ArtifactId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held for as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens the store in a directory, which is made if need be, with room for `bytes_max` bytes. Blocks.
    ///
    /// # Errors
    /// Where another process has it open, or the disk fails.
    pub fn open(directory: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        for sub in ["objects", "loose", "partial", "temp"] {
            make_directory(&directory.join(sub))?;
        }
        // A flushed file in a directory whose own name is not on disk is lost with it.
        sync_directory(directory)?;
        sync_directory(
            directory
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?;
        let path = directory.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(|e| disk("opening", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(directory.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(disk("locking", &path, e)),
        }
        for entry in entries(&directory.join("temp"))? {
            fs::remove_file(&entry).map_err(|e| disk("removing", &entry, e))?;
        }
        let store = Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                bytes_max,
                used: AtomicU64::new(0),
                next_temp: AtomicU64::new(0),
                fetching: Mutex::default(),
                _lock: file,
            }),
        };
        store.look_at_loose()?;
        let mut used = 0;
        for (_, bytes) in store.list()?.into_iter().chain(store.list_partial()?) {
            used += bytes;
        }
        store.shared.used.store(used, Ordering::Relaxed);
        Ok(store)
    }

    /// Whether an artifact is here, whole.
    #[must_use]
    pub fn has(&self, id: ArtifactId) -> bool {
        self.find(id).is_some()
    }

    /// Length of an artifact that is here.
    #[must_use]
    pub fn bytes_of(&self, id: ArtifactId) -> Option<u64> {
        self.find(id).map(|(_, bytes)| bytes)
    }

    /// Bytes in the store, partial artifacts counted as if whole.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Every artifact that is here, with its length. Blocks.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn list(&self) -> Result<Vec<(ArtifactId, u64)>, StoreError> {
        let mut found = artifacts_in(&self.shared.directory.join("loose"))?;
        for directory in entries(&self.shared.directory.join("objects"))? {
            found.extend(artifacts_in(&directory)?);
        }
        found.sort_unstable();
        // One may have moved in the meantime.
        found.dedup_by_key(|(id, _)| *id);
        Ok(found)
    }

    /// Every artifact of which a part is here, with the length of the whole. Blocks.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn list_partial(&self) -> Result<Vec<(ArtifactId, u64)>, StoreError> {
        artifacts_in(&self.shared.directory.join("partial"))
    }

    /// A writer for an artifact of unknown name. Blocks when written to.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn writer(&self, durability: Durability) -> Result<ArtifactWriter, StoreError> {
        ArtifactWriter::new(self.clone(), durability)
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// Where they do not fit or the disk fails.
    pub async fn put_bytes(
        &self,
        bytes: impl Into<bytes::Bytes>,
        durability: Durability,
    ) -> Result<ArtifactId, StoreError> {
        let (store, bytes) = (self.clone(), bytes.into());
        blocking(move || {
            let mut writer = store.writer(durability)?;
            writer.push(&bytes)?;
            writer.finish().map(|(id, _)| id)
        })
        .await
    }

    /// Stores what a reader yields, at most `bytes_max` bytes; returns the name and the length.
    ///
    /// # Errors
    /// Where it is too long or does not fit, the reader or the disk fails.
    pub async fn put_stream(
        &self,
        mut source: impl AsyncRead + Unpin,
        bytes_max: u64,
        durability: Durability,
    ) -> Result<(ArtifactId, u64), StoreError> {
        let store = self.clone();
        let mut writer = blocking(move || store.writer(durability)).await?;
        let mut buffer = vec![0u8; STEP_BYTES];
        loop {
            let n_bytes = source.read(&mut buffer).await.map_err(StoreError::Source)?;
            if n_bytes == 0 {
                return blocking(move || writer.finish()).await;
            }
            let found = writer.n_bytes() + n_bytes as u64;
            if found > bytes_max {
                return Err(StoreError::TooLarge {
                    found,
                    max: bytes_max,
                });
            }
            (writer, buffer) = blocking(move || {
                writer.push(&buffer[..n_bytes])?;
                Ok((writer, buffer))
            })
            .await?;
        }
    }

    /// Stores a copy of a file; returns the name and the length.
    ///
    /// # Errors
    /// Where it does not fit, cannot be read, or the disk fails.
    pub async fn import(
        &self,
        path: impl Into<PathBuf>,
        durability: Durability,
    ) -> Result<(ArtifactId, u64), StoreError> {
        let (store, path) = (self.clone(), path.into());
        blocking(move || {
            let mut source = File::open(&path).map_err(|e| disk("opening", &path, e))?;
            let mut writer = store.writer(durability)?;
            let mut buffer = vec![0u8; STEP_BYTES];
            loop {
                match source.read(&mut buffer).map_err(|e| disk("reading", &path, e))? {
                    0 => return writer.finish(),
                    n_bytes => writer.push(&buffer[..n_bytes])?,
                }
            }
        })
        .await
    }

    /// Opens an artifact for reading, each piece verified as it is read. Blocks.
    ///
    /// # Errors
    /// Where it is not here, is damaged, or the disk fails.
    pub fn reader(&self, id: ArtifactId) -> Result<ArtifactReader, StoreError> {
        for path in self.ways_to(id) {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|e| disk("opening", &path, e))?,
            };
            let bytes = file.metadata().map_err(|e| disk("reading", &path, e))?.len();
            let tree = self.tree_of(id, &file, &path, bytes)?;
            return Ok(ArtifactReader::new(self.clone(), id, file, tree));
        }
        Err(StoreError::NotHere(id))
    }

    /// The whole of an artifact of at most `bytes_max` bytes, verified.
    ///
    /// # Errors
    /// Where it is not here, too large, damaged, or the disk fails.
    pub async fn read(&self, id: ArtifactId, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let store = self.clone();
        blocking(move || {
            let mut reader = store.reader(id)?;
            let found = reader.n_bytes();
            if found > bytes_max {
                return Err(StoreError::TooLarge {
                    found,
                    max: bytes_max,
                });
            }
            reader.read_whole()
        })
        .await
    }

    /// Where an artifact lies now, for an engine that maps it into memory. What lies there is not verified again, and one
    /// that is not durable moves when it becomes so.
    #[must_use]
    pub fn path_of(&self, id: ArtifactId) -> Option<PathBuf> {
        self.find(id).map(|(path, _)| path)
    }

    pub(super) fn temp(&self) -> PathBuf {
        let n = self.shared.next_temp.fetch_add(1, Ordering::Relaxed);
        self.shared.directory.join("temp").join(n.to_string())
    }

    /// Takes room for so many more bytes.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let max = self.shared.bytes_max;
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= max);
        match self
            .shared
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(_) => Ok(()),
            Err(used) => Err(StoreError::Full {
                wanted: bytes,
                used,
                max,
            }),
        }
    }

    pub(super) fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        // Always possible.
        let _ = self
            .shared
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The lock under which one artifact is fetched.
    pub(super) fn fetch_lock(&self, id: ArtifactId) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = crate::endpoint::lock(&self.shared.fetching);
        // Whoever holds a lock has a clone of it: the others are left over.
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        match fetching.entry(id) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(Arc::default()).clone(),
        }
    }

    fn tree_of(&self, id: ArtifactId, file: &File, path: &Path, bytes: u64) -> Result<Tree, StoreError> {
        if Tree::n_pieces_of(bytes) == 1 {
            return Ok(Tree::single(bytes));
        }
        if let Ok(hashes) = fs::read(pieces(path))
            && let Some(tree) = Tree::from_bytes(id, bytes, &hashes)
        {
            return Ok(tree);
        }
        // Lost or damaged: the bytes themselves still tell.
        let (found, tree) = hashed(file, path)?;
        if found == id {
            Ok(tree)
        } else {
            Err(self.damaged(id, 0))
        }
    }
}
