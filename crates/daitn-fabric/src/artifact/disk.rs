//! Files under the store: errors, and everything that is done to the disk, in one place, so that tests can cut the power
//! after each of it.

#[cfg(test)]
use crate::power::{Op, note};
use daitn_messages::{
    ids::ArtifactId,
    limits::ARTIFACT_BYTES_MAX,
    rejection::{Code, Rejection},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Most entries of one directory that are looked at: more were not made by us.
const ENTRIES_MAX: usize = 1 << 24;

/// Whether an artifact must outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to disk before its name exists.
    Durable,
    /// Not flushed: for what a job can make again. A crash of the process alone does not lose it.
    Transient,
}

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the artifact store {0} is in use by another process")]
    InUse(PathBuf),
    /// The disk said no.
    #[error("artifact store, {doing} {path}: {source}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no such artifact here.
    #[error("artifact {0} is not here")]
    NotHere(ArtifactId),
    /// The bytes on disk are not those of the name.
    #[error("artifact {artifact} is damaged on disk: piece {piece} does not match its hash")]
    Damaged {
        /// Which.
        artifact: ArtifactId,
        /// Where.
        piece: u64,
    },
    /// The store's cap would be passed.
    #[error("{wanted} more bytes do not fit: the artifact store holds {used} of at most {max}")]
    Full {
        /// How many were to come.
        wanted: u64,
        /// How many there are.
        used: u64,
        /// The cap.
        max: u64,
    },
    /// One artifact is over its bound.
    #[error("artifact of {found} bytes is over the bound of {max}")]
    TooLarge {
        /// Its length, or how much of it came.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The source of the bytes failed.
    #[error("the source of the artifact failed: {0}")]
    Source(io::Error),
    /// The bytes that were to be stored are not those of the name.
    #[error("bytes of hash {found} came in the name of {expected}")]
    OtherContent {
        /// The name.
        expected: ArtifactId,
        /// The hash of what came.
        found: ArtifactId,
    },
}

impl StoreError {
    /// As told to users and peers: without paths of this machine.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::NotHere(id) => Rejection::not_found("artifact", id),
            Self::Damaged { .. } | Self::OtherContent { .. } => {
                Rejection::new(Code::HashMismatch, self.to_string())
            }
            Self::Full { .. } => Rejection::new(Code::Overloaded, self.to_string()),
            Self::TooLarge { .. } => Rejection::new(Code::TooLarge, self.to_string()),
            Self::InUse(_) | Self::Disk { .. } | Self::Source(_) => {
                Rejection::new(Code::Internal, "the artifact store cannot be read or written")
            }
        }
    }
}

/// Runs what blocks on the pool for it. A panic there goes on here.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and so is whoever waits for this.
            Err(_) => Err(StoreError::Source(io::Error::other("the program is ending"))),
        },
    }
}

pub(super) fn disk(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Disk {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Where the piece hashes of a file lie.
pub(super) fn pieces(path: &Path) -> PathBuf {
    path.with_extension("pieces")
}

pub(super) fn write_file(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StoreError> {
    let file = File::create(path).map_err(|e| disk("making", path, e))?;
    write_all(&file, path, bytes)?;
    if durability == Durability::Durable {
        flush_file(&file, path)?;
    }
    Ok(())
}

/// A new file.
pub(super) fn create(path: &Path) -> Result<File, StoreError> {
    let file = File::create_new(path).map_err(|e| disk("making", path, e))?;
    #[cfg(test)]
    note(path, || Op::Write(path.to_owned()));
    Ok(file)
}

pub(super) fn write_all(mut file: &File, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    file.write_all(bytes).map_err(|e| disk("writing", path, e))?;
    #[cfg(test)]
    note(path, || Op::Write(path.to_owned()));
    Ok(())
}

pub(super) fn write_at(file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    file.write_all_at(bytes, at)
        .map_err(|e| disk("writing", path, e))?;
    #[cfg(test)]
    note(path, || Op::Write(path.to_owned()));
    Ok(())
}

pub(super) fn extend(file: &File, path: &Path, bytes: u64) -> Result<(), StoreError> {
    file.set_len(bytes).map_err(|e| disk("extending", path, e))?;
    #[cfg(test)]
    note(path, || Op::Write(path.to_owned()));
    Ok(())
}

/// Sees to it that a file's content outlives a power cut.
pub(super) fn flush_file(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(|e| disk("flushing", path, e))?;
    #[cfg(test)]
    note(path, || Op::Flush(path.to_owned()));
    Ok(())
}

/// Sees to it that the names in a directory outlive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| disk("flushing", path, e))?;
    #[cfg(test)]
    note(path, || Op::FlushNames(path.to_owned()));
    Ok(())
}

/// Makes a directory with those above it, if need be.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_directory(above)?;
    }
    match fs::create_dir(path) {
        // Somebody else was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made.map_err(|e| disk("making", path, e))?,
    }
    #[cfg(test)]
    note(path, || Op::Directory(path.to_owned()));
    Ok(())
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| disk("renaming", from, e))?;
    #[cfg(test)]
    note(to, || Op::Rename(from.to_owned(), to.to_owned()));
    Ok(())
}

/// Whether it was there.
pub(super) fn remove_if_there(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => {
            #[cfg(test)]
            note(path, || Op::Remove(path.to_owned()));
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(disk("removing", path, e)),
    }
}

pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listing = fs::read_dir(directory).map_err(|e| disk("listing", directory, e))?;
    let paths = listing
        .take(ENTRIES_MAX)
        .map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<Result<_, _>>()
        .map_err(|e| disk("listing", directory, e))
}

/// Files in a directory whose names are hashes, with their lengths. What else lies there is not ours and stays.
pub(super) fn artifacts_in(directory: &Path) -> Result<Vec<(ArtifactId, u64)>, StoreError> {
    let mut found = Vec::new();
    for path in entries(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| name.parse::<ArtifactId>().ok()) else {
            continue;
        };
        let metadata = fs::metadata(&path).map_err(|e| disk("reading", &path, e))?;
        // What passes the bound was not written by us.
        if metadata.is_file() && metadata.len() <= ARTIFACT_BYTES_MAX {
            found.push((id, metadata.len()));
        }
    }
    Ok(found)
}
