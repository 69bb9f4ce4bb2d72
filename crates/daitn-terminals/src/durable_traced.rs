//! In tests: what was done to the disk below a directory, in order.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// What is done to the disk.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Directory(PathBuf),
    Write(PathBuf, bool),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Flush(PathBuf),
}

/// An operation, and for a write what was written.
pub(super) type Noted = (Op, Vec<u8>);

/// The directory that is watched, and what was done below it.
static WATCHED: Mutex<Vec<(PathBuf, Vec<Noted>)>> = Mutex::new(Vec::new());

pub(super) fn watch(root: &Path) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.push((root.to_owned(), Vec::new()));
}

/// What was done below a directory so far.
pub(super) fn noted(root: &Path) -> Vec<Noted> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = watched.iter().find(|(watched, _)| watched == root);
    found.map(|(_, noted)| noted.clone()).unwrap_or_default()
}

pub(super) fn note(path: &Path, op: impl FnOnce() -> Op) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, noted)) = watched.iter_mut().find(|(root, _)| path.starts_with(root)) {
        let op = op();
        let bytes = match &op {
            Op::Write(path, _) => fs::read(path).unwrap(),
            _ => Vec::new(),
        };
        noted.push((op, bytes));
    }
}
