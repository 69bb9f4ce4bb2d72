//! Files that only their owner reads, written whole or not at all, and the lock on a state directory.

use crate::failure::Failure;
use daitn_messages::{rejection::Code, signed::NodeKey};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Largest text file of the user that is read whole.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Makes a directory, and those above it, that only its owner enters. Their names are flushed: what is written into a
/// directory that a power cut takes back is lost with it.
pub(crate) fn private_directory(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        private_directory(above)?;
    }
    let made = match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    };
    made.and_then(|()| File::open(above.unwrap_or(Path::new(".")))?.sync_all())
        .map_err(|error| Failure::file(path, error))
}

/// Writes a file of mode 0600: first beside it, synced, then renamed, so that a crash leaves the old or the new one.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file(path, error);
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}

/// The path of something that is there, from the root.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| Failure::io(path, &error))
}

/// Reads a text file of the user.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::io(path, &error);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(TEXT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::file(path, "is larger than 16 MiB"));
    }
    Ok(text)
}

/// A secret given as itself, as `@file`, or as `-` for standard input, so that it need not stand on a command line.
pub(crate) fn read_secret(given: &str) -> Result<String, Failure> {
    let text = match given.strip_prefix('@') {
        Some(path) => read_text(Path::new(path))?,
        None if given == "-" => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .take(TEXT_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| Failure::usage(format!("standard input: {error}")))?;
            text
        }
        None if Path::new(given).is_file() => {
            return Err(
                Failure::usage(format!("`{given}` is a file and not the secret itself"))
                    .hint(format!("Did you mean @{given}?")),
            );
        }
        None => given.to_owned(),
    };
    let text = text.trim();
    if text.is_empty() {
        Err(Failure::usage("the secret is empty"))
    } else {
        Ok(text.to_owned())
    }
}

/// Reads a key from a file that only its owner reads, or makes it.
pub(crate) fn key(path: &Path) -> Result<NodeKey, Failure> {
    if path.exists() {
        return read_key(path);
    }
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::internal(format!("no random numbers: {error}")))?;
    let key = NodeKey::from_bytes(&secret);
    let text = secret
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    write_private(path, text.as_bytes())?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<NodeKey, Failure> {
    let mode = fs::metadata(path)
        .map_err(|error| Failure::file(path, error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        let message = format!(
            "{}: others may read this key (mode {:o})",
            path.display(),
            mode & 0o777
        );
        return Err(Failure::usage(message).hint(format!("chmod 600 {}", path.display())));
    }
    let bytes = fs::read(path).map_err(|error| Failure::io(path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    // An id of 32 bytes has the same form: 64 hexadecimal digits.
    let bytes: daitn_messages::ids::NodeId = text.trim().parse().map_err(|_| {
        let message = format!("{}: is not a key: expected 64 hexadecimal digits", path.display());
        Failure::new(Code::Storage, message)
            .hint("Something else wrote this file, or the disk lost it. Restore it from a backup.")
    })?;
    Ok(NodeKey::from_bytes(bytes.as_bytes()))
}

/// The lock's name in a state directory.
const LOCK: &str = "lock";

/// A state directory in use by this process. Dropped with the process, also when it is killed.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Whether some process has had this directory: without one nothing is kept there.
    pub(crate) fn exists(directory: &Path) -> bool {
        directory.join(LOCK).exists()
    }

    /// Takes the directory, or says that another process has it.
    pub(crate) fn take(directory: &Path) -> Result<Self, Failure> {
        private_directory(directory)?;
        let path = directory.join(LOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Failure::file(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!("{} is in use by another daitn process", directory.display());
                Err(Failure {
                    exit: crate::failure::Exit::Stale,
                    ..Failure::new(Code::Conflict, message)
                }
                .hint("Stop the other process, or give this one its own directory with --dir."))
            }
            Err(fs::TryLockError::Error(error)) => Err(Failure::file(&path, error)),
        }
    }
}

/// A path from an environment variable, if set and not empty.
pub(crate) fn environment_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_the_same_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let made = key(&path).unwrap();
        assert_eq!(key(&path).unwrap().id(), made.id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = key(&path).unwrap_err();
        assert!(refused.rejection.message.contains("mode 644"), "{refused:?}");
        assert!(refused.rejection.hint.starts_with("chmod 600"));
    }

    #[test]
    fn a_key_that_was_damaged_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        key(&path).unwrap();
        for damaged in [&b""[..], b"ab", &[0xff; 64], &[b'g'; 64]] {
            fs::write(&path, damaged).unwrap();
            let refused = key(&path).unwrap_err();
            assert_eq!((refused.exit as u8, refused.rejection.code), (70, Code::Storage));
            assert!(refused.rejection.message.contains("node.key"), "{refused:?}");
            assert!(refused.rejection.hint.contains("backup"), "{refused:?}");
        }
    }

    #[test]
    fn a_directory_has_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let held = Lock::take(directory.path()).unwrap();
        let refused = Lock::take(directory.path()).unwrap_err();
        assert_eq!(refused.exit as u8, 5);
        drop(held);
        Lock::take(directory.path()).unwrap();
    }

    #[test]
    fn secrets_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "daitn1-abc\n").unwrap();
        assert_eq!(
            read_secret(&format!("@{}", path.display())).unwrap(),
            "daitn1-abc"
        );
        assert_eq!(read_secret("daitn1-abc").unwrap(), "daitn1-abc");
        let bare = read_secret(&path.display().to_string()).unwrap_err();
        assert!(
            bare.rejection.hint.contains(&format!("@{}", path.display())),
            "{bare:?}"
        );
        fs::write(&path, "\n").unwrap();
        assert_eq!(
            read_secret(&format!("@{}", path.display())).unwrap_err().exit as u8,
            2
        );
    }
}
