//! The store: one file for each artifact, named by its hash, in a directory of its own.
//!
//! ```text
//! LOCK                       one process at a time
//! objects/3f/3f9a...         the bytes
//! objects/3f/3f9a....pieces  its piece hashes, where there is more than one piece
//! partial/3f9a...            what has been fetched so far, as long as the whole will be
//! partial/3f9a....pieces     its piece hashes
//! temp/...                   being written; emptied when the store is opened
//! ```
//!
//! A durable artifact is written elsewhere, flushed, renamed into place, and its directory flushed, so a name never
//! stands for bytes that a power cut could take back.

use super::{
    disk::{
        Durability, StoreError, artifacts_in, blocking, disk, entries, pieces, remove_if_there,
        sync_directory, write_file,
    },
    reader::ArtifactReader,
    tree::{Tree, TreeBuilder},
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

/// Read from a source at once.
const STEP_BYTES: usize = 256 * 1024;

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
        for sub in ["objects", "partial", "temp"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).map_err(|e| disk("making", &path, e))?;
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
        self.object(id).is_file()
    }

    /// Length of an artifact that is here.
    #[must_use]
    pub fn bytes_of(&self, id: ArtifactId) -> Option<u64> {
        fs::metadata(self.object(id))
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len())
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
        let mut found = Vec::new();
        for directory in entries(&self.shared.directory.join("objects"))? {
            found.extend(artifacts_in(&directory)?);
        }
        found.sort_unstable();
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
        let path = self.object(id);
        let file = File::open(&path).map_err(|e| self.missing(id, &path, e))?;
        let bytes = file.metadata().map_err(|e| disk("reading", &path, e))?.len();
        let tree = self.tree_of(id, &file, bytes)?;
        Ok(ArtifactReader::new(id, file, tree))
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

    /// Where an artifact lies, for an engine that maps it into memory. What lies there is not verified again.
    #[must_use]
    pub fn path_of(&self, id: ArtifactId) -> Option<PathBuf> {
        Some(self.object(id)).filter(|path| path.is_file())
    }

    /// Removes an artifact, and what there is of it partially. Returns whether there was any. Who has it open reads
    /// on. Blocks.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove(&self, id: ArtifactId) -> Result<bool, StoreError> {
        let mut any = false;
        for path in [self.object(id), self.partial(id)] {
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            match fs::remove_file(&path) {
                Ok(()) => {
                    any = true;
                    self.release(metadata.len());
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(disk("removing", &path, e)),
            }
            remove_if_there(&pieces(&path))?;
        }
        Ok(any)
    }

    pub(super) fn object(&self, id: ArtifactId) -> PathBuf {
        let name = id.to_string();
        self.shared.directory.join("objects").join(&name[..2]).join(name)
    }

    pub(super) fn partial(&self, id: ArtifactId) -> PathBuf {
        self.shared.directory.join("partial").join(id.to_string())
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
        self.shared.used.fetch_sub(bytes, Ordering::Relaxed);
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

    /// Gives a written file and its piece hashes their place. Returns false where the artifact was there already.
    pub(super) fn place(
        &self,
        id: ArtifactId,
        tree: &Tree,
        from: &Path,
        durability: Durability,
    ) -> Result<bool, StoreError> {
        let to = self.object(id);
        let directory = to.parent().expect("objects lie two levels down");
        // Also over what is there: that may never have been flushed, and be torn since a power cut.
        let is_new = self.bytes_of(id) != Some(tree.bytes());
        fs::create_dir_all(directory).map_err(|e| disk("making", directory, e))?;
        // First the hashes, so that an artifact is never without.
        if tree.n_pieces() > 1 {
            let temp = self.temp();
            write_file(&temp, &tree.to_bytes(), durability)?;
            fs::rename(&temp, pieces(&to)).map_err(|e| disk("renaming", &temp, e))?;
        }
        fs::rename(from, &to).map_err(|e| disk("renaming", from, e))?;
        if durability == Durability::Durable {
            self.sync_way_to(directory)?;
        }
        Ok(is_new)
    }

    /// Makes an artifact durable that was put or fetched without that. Blocks.
    ///
    /// # Errors
    /// Where it is not here, or the disk fails.
    pub fn flush(&self, id: ArtifactId) -> Result<(), StoreError> {
        let path = self.object(id);
        let flush = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        flush(&path).map_err(|error| self.missing(id, &path, error))?;
        let hashes = pieces(&path);
        match flush(&hashes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(disk("flushing", &hashes, error));
            }
            _ => {}
        }
        self.sync_way_to(path.parent().expect("objects lie two levels down"))
    }

    /// The directory of an object, and the one above it: who made it may not have flushed that.
    fn sync_way_to(&self, directory: &Path) -> Result<(), StoreError> {
        sync_directory(directory)?;
        sync_directory(&self.shared.directory.join("objects"))
    }

    fn tree_of(&self, id: ArtifactId, file: &File, bytes: u64) -> Result<Tree, StoreError> {
        let path = pieces(&self.object(id));
        if Tree::n_pieces_of(bytes) == 1 {
            return Ok(Tree::single(bytes));
        }
        if let Ok(hashes) = fs::read(&path)
            && let Some(tree) = Tree::from_bytes(id, bytes, &hashes)
        {
            return Ok(tree);
        }
        // Lost or damaged: the bytes themselves still tell.
        let mut builder = TreeBuilder::new();
        let mut buffer = vec![0u8; STEP_BYTES];
        loop {
            match (&*file)
                .read(&mut buffer)
                .map_err(|e| disk("reading", &path, e))?
            {
                0 => break,
                n_bytes => builder.push(&buffer[..n_bytes]),
            }
        }
        let (found, tree) = builder.finish();
        if found == id {
            Ok(tree)
        } else {
            Err(StoreError::Damaged {
                artifact: id,
                piece: 0,
            })
        }
    }

    fn missing(&self, id: ArtifactId, path: &Path, error: io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::NotFound {
            StoreError::NotHere(id)
        } else {
            disk("opening", path, error)
        }
    }
}
