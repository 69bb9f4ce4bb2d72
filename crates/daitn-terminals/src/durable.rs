//! Small files that survive a crash and a power cut: written beside, flushed, renamed, the directory flushed; each
//! begins with the hash of what follows, which is checked when it is read.

use daitn_messages::{encoding, ids::ArtifactId, limits::FRAME_BYTES_MAX};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file of ours is at most this long: a record holds at most one message and a few words.
const BYTES_MAX: u64 = FRAME_BYTES_MAX as u64 + 64 * 1024;
const HASH_BYTES: usize = 32;

/// Why a record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The disk said no.
    #[error("{doing} {path}: {source}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{0} is damaged: its content does not match its hash. Restore it from a backup, or remove it")]
    Damaged(PathBuf),
    /// A record of another kind.
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

impl DurableError {
    /// As told to users and peers: without paths of this machine.
    #[must_use]
    pub fn rejection(&self) -> daitn_messages::rejection::Rejection {
        let message = "the node's state cannot be read or written; its log says which file";
        daitn_messages::rejection::Rejection::new(daitn_messages::rejection::Code::Internal, message)
    }
}

fn disk(doing: &'static str, path: &Path, source: io::Error) -> DurableError {
    DurableError::Disk {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Makes a directory that only its owner reads, with its parents, durably: what lies in a directory whose own name is not
/// on disk is lost with it.
///
/// # Errors
/// What the disk says.
pub(crate) fn make_directory(path: &Path) -> Result<(), DurableError> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    let made = match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    };
    #[cfg(test)]
    power::note(path, || power::Op::Directory(path.to_owned()));
    made.and_then(|()| flush_directory_of(path))
        .map_err(|error| disk("making", path, error))
}

/// Writes a value, durably, in the place of what was there. Blocks.
///
/// # Errors
/// What the disk says; what was there before is then still there.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    put(path, value, true).map_err(|error| disk("writing", path, error))
}

/// Writes a value that can be made again, in one step but not flushed: a crash of the process does not lose it, a power
/// cut may. Blocks.
///
/// # Errors
/// What the disk says; what was there before is then still there.
pub(crate) fn write_unflushed<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    put(path, value, false).map_err(|error| disk("writing", path, error))
}

fn put<T: Serialize>(path: &Path, value: &T, flush: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let payload = encoding::encode(value);
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&ArtifactId::of(&payload).0)?;
    file.write_all(&payload)?;
    #[cfg(test)]
    power::note(&beside, || power::Op::Write(beside.clone()));
    if flush {
        file.sync_all()?;
        #[cfg(test)]
        power::note(&beside, || power::Op::Flush(beside.clone()));
    }
    fs::rename(&beside, path)?;
    #[cfg(test)]
    power::note(path, || power::Op::Rename(beside.clone(), path.to_owned()));
    if flush { flush_directory_of(path) } else { Ok(()) }
}

/// Reads a value; `None` if there is no file. Blocks.
///
/// # Errors
/// What the disk says, and if the file is not what was written.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DurableError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk("reading", path, error)),
        Ok(metadata) if metadata.len() > BYTES_MAX => return Err(DurableError::Damaged(path.to_owned())),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| disk("reading", path, error))?;
    let Some((hash, payload)) = bytes.split_first_chunk::<HASH_BYTES>() else {
        return Err(DurableError::Damaged(path.to_owned()));
    };
    if ArtifactId::of(payload).0 != *hash {
        return Err(DurableError::Damaged(path.to_owned()));
    }
    let bytes_max = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
    encoding::decode_at_most(payload, bytes_max)
        .map(Some)
        .map_err(|error| DurableError::Unreadable {
            path: path.to_owned(),
            cause: error.to_string(),
        })
}

/// Gives a file that was written beside, and flushed, its place. Blocks.
///
/// # Errors
/// What the disk says.
pub(crate) fn place(beside: &Path, path: &Path) -> Result<(), DurableError> {
    let place = || {
        fs::rename(beside, path)?;
        #[cfg(test)]
        power::note(path, || power::Op::Rename(beside.to_owned(), path.to_owned()));
        flush_directory_of(path)
    };
    place().map_err(|error| disk("writing", path, error))
}

/// Removes a file, durably; nothing happens if there is none. Blocks.
///
/// # Errors
/// What the disk says.
pub(crate) fn remove(path: &Path) -> Result<(), DurableError> {
    let removed = fs::remove_file(path);
    #[cfg(test)]
    power::note(path, || power::Op::Remove(path.to_owned()));
    match removed {
        Ok(()) => flush_directory_of(path).map_err(|error| disk("removing", path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(disk("removing", path, error)),
    }
}

/// Removes a file that does no harm if a power cut brings it back. Blocks.
///
/// # Errors
/// What the disk says.
pub(crate) fn discard(path: &Path) -> Result<(), DurableError> {
    let removed = fs::remove_file(path);
    #[cfg(test)]
    power::note(path, || power::Op::Remove(path.to_owned()));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("removing", path, error)),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; nothing happens if there is none. Blocks.
///
/// # Errors
/// What the disk says.
pub(crate) fn remove_directory(path: &Path) -> Result<(), DurableError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(disk("removing", path, error)),
    }
}

/// The files of a directory with this extension, sorted by name. Blocks.
///
/// # Errors
/// What the disk says.
pub(crate) fn list(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, DurableError> {
    let fail = |error| disk("listing", directory, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn flush_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()?;
    #[cfg(test)]
    power::note(directory, || power::Op::FlushNames(directory.to_owned()));
    Ok(())
}

#[cfg(test)]
#[path = "../../daitn-fabric/src/power.rs"]
mod power;

#[cfg(test)]
#[path = "durable_cut.rs"]
mod cut;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.rec");
        assert_eq!(read::<String>(&path).unwrap(), None);
        write(&path, &"first".to_owned()).unwrap();
        write(&path, &"second".to_owned()).unwrap();
        assert_eq!(read::<String>(&path).unwrap().as_deref(), Some("second"));
        assert!(matches!(read::<u32>(&path), Err(DurableError::Unreadable { .. })));
        let mut bytes = fs::read(&path).unwrap();
        for position in [0, bytes.len() - 1] {
            bytes[position] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(
                matches!(read::<String>(&path), Err(DurableError::Damaged(_))),
                "byte {position}"
            );
            bytes[position] ^= 1;
        }
        fs::write(&path, b"short").unwrap();
        assert!(matches!(read::<String>(&path), Err(DurableError::Damaged(_))));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(list(directory.path(), "rec").unwrap(), Vec::<PathBuf>::new());
    }
}
