//! In tests: what was done to the disk below a directory, in order, and the disk as it is when the power is cut in between.
//!
//! Whoever writes files notes what it did; what survives is decided here, without asking it. A cut keeps what was flushed:
//! the content of a file with its file, a name with its directory. Of the rest the worst is tried that file systems do.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// What was done to the disk.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A directory was made.
    Directory(PathBuf),
    /// A file was written to.
    Write(PathBuf),
    /// A file's content was flushed.
    Flush(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// The names in a directory were flushed.
    FlushNames(PathBuf),
}

/// An operation, and for a file what was in it then.
pub(crate) type Noted = (Op, Vec<u8>);

/// The directories that are watched, and what was done below them.
static WATCHED: Mutex<Vec<(PathBuf, Vec<Noted>)>> = Mutex::new(Vec::new());

/// Notes from now on what is done below a directory.
pub(crate) fn watch(root: &Path) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.push((root.to_owned(), Vec::new()));
}

/// What was done below a directory so far.
pub(crate) fn noted(root: &Path) -> Vec<Noted> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = watched.iter().find(|(watched, _)| watched == root);
    found.map(|(_, noted)| noted.clone()).unwrap_or_default()
}

/// Notes what was done to a path, if that is watched.
pub(crate) fn note(path: &Path, op: impl FnOnce() -> Op) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, noted)) = watched.iter_mut().find(|(root, _)| path.starts_with(root)) {
        let op = op();
        let content = match &op {
            Op::Write(path) | Op::Flush(path) => fs::read(path).unwrap(),
            _ => Vec::new(),
        };
        noted.push((op, content));
    }
}

/// What becomes of that which was not flushed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cut {
    /// No name since the last flush of its directory is on disk.
    NamesLost,
    /// Names are, and of their files what was flushed of them.
    FilesEmpty,
    /// Files end in the middle.
    FilesTorn,
    /// Files have their length and nothing in them.
    FilesZeroed,
    /// It was on disk in time, or the process alone has ended.
    NothingLost,
}

const CUTS: [Cut; 5] = [
    Cut::NamesLost,
    Cut::FilesEmpty,
    Cut::FilesTorn,
    Cut::FilesZeroed,
    Cut::NothingLost,
];

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    flushed: Vec<u8>,
}

impl Content {
    fn after(&self, cut: Cut) -> Vec<u8> {
        match cut {
            _ if self.now == self.flushed => self.now.clone(),
            Cut::NothingLost => self.now.clone(),
            Cut::NamesLost | Cut::FilesEmpty => self.flushed.clone(),
            Cut::FilesTorn => self.now[..self.now.len() / 2].to_vec(),
            Cut::FilesZeroed => vec![0; self.now.len()],
        }
    }
}

/// What stands under a name: a directory, or a file by its number.
type Names = BTreeMap<PathBuf, Option<usize>>;

/// The names that are on disk after a cut, each with the content of its file; none: a directory.
fn after_cut(noted: &[Noted], cut: Cut) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut now, mut on_disk) = (Names::new(), Names::new());
    let mut files: Vec<Content> = Vec::new();
    for (op, bytes) in noted {
        match op {
            Op::Directory(path) => {
                now.insert(path.clone(), None);
            }
            Op::Write(path) | Op::Flush(path) => {
                let file = now.entry(path.clone()).or_insert_with(|| {
                    files.push(Content::default());
                    Some(files.len() - 1)
                });
                let content = &mut files[file.expect("what is written to is a file")];
                content.now.clone_from(bytes);
                if matches!(op, Op::Flush(_)) {
                    content.flushed.clone_from(bytes);
                }
            }
            Op::Rename(from, to) => {
                let entry = now.remove(from).expect("what is renamed is there");
                now.insert(to.clone(), entry);
            }
            Op::Remove(path) => {
                now.remove(path);
            }
            Op::FlushNames(directory) => {
                on_disk.retain(|path, _| path.parent() != Some(directory.as_path()));
                let names = now
                    .iter()
                    .filter(|(path, _)| path.parent() == Some(directory.as_path()));
                on_disk.extend(names.map(|(path, entry)| (path.clone(), *entry)));
            }
        }
    }
    let names = if cut == Cut::NamesLost { on_disk } else { now };
    let content = |(path, entry): (PathBuf, Option<usize>)| (path, entry.map(|file| files[file].after(cut)));
    names.into_iter().map(content).collect()
}

/// Makes the disk as it is after a cut, below another directory. What lies in a directory that is lost is lost with it.
fn lay(names: &BTreeMap<PathBuf, Option<Vec<u8>>>, from: &Path, to: &Path) {
    for (path, content) in names {
        let place = to.join(path.strip_prefix(from).unwrap());
        if !place.parent().is_some_and(Path::is_dir) {
            continue;
        }
        match content {
            None => fs::create_dir_all(&place).unwrap(),
            Some(bytes) => fs::write(&place, bytes).unwrap(),
        }
    }
}

/// Every cut of what was done below a directory: how much had been done, and the disk after it.
pub(crate) fn every_cut(root: &Path, mut look: impl FnMut(usize, Cut, &Path)) {
    let noted = noted(root);
    assert!(noted.len() > 10, "the test has seen nothing: {noted:?}");
    for done in 0..=noted.len() {
        for cut in CUTS {
            let disk = tempfile::tempdir().unwrap();
            lay(&after_cut(&noted[..done], cut), root, disk.path());
            look(done, cut, disk.path());
        }
    }
}
