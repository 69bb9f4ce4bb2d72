//! The checks of a node's directory: its disk, its key, its terminals and the data behind them.

use super::Finding;
use crate::{
    render::{bytes, counted},
    roles::member::terminals,
};
use daitn_terminals::{TerminalOptions, load_terminals};
use std::path::Path;

/// Less free space than this is a warning, bytes.
const FREE_WARN_BYTES: u64 = 5 << 30;
/// Less than this is a failure: state can no longer be kept safely.
const FREE_FAIL_BYTES: u64 = 100 << 20;

/// Looks at a node's directory.
pub(super) fn look(directory: &Path) -> Vec<Finding> {
    if !directory.is_dir() {
        let found = format!("{} is not a directory", directory.display());
        return vec![Finding::fail(
            "directory",
            found,
            "daitn node join TOKEN --dir DIRECTORY",
        )];
    }
    let mut findings = vec![disk(directory), key(directory)];
    findings.extend(attached(directory));
    findings
}

/// Whether terminals can be read, and the data behind them.
fn attached(directory: &Path) -> Vec<Finding> {
    let options = match load_terminals(&terminals(directory)) {
        Ok(options) => options,
        Err(error) => {
            return vec![Finding::fail(
                "terminals",
                error.to_string(),
                "Correct the file, or remove it.",
            )];
        }
    };
    if options.is_empty() {
        let mend = "daitn data publish FILE --node-dir DIRECTORY, or daitn node attach";
        return vec![Finding::warn("terminals", "the node has none", mend)];
    }
    options.iter().map(terminal).collect()
}

fn terminal(options: &TerminalOptions) -> Finding {
    let check = format!("{} {}", options.kind(), options.name());
    let path = match options {
        TerminalOptions::Dataset(dataset) => &dataset.path,
        TerminalOptions::Verifier(verifier) => &verifier.path,
        _ => return Finding::pass(check, "its file is valid"),
    };
    match daitn_engine::data::inspect(path) {
        Ok(found) => Finding::pass(check, format!("{} can be read", counted(found.n_rows, "record"))),
        Err(error) => Finding::fail(check, format!("its data: {error}"), error.remedy()),
    }
}

fn disk(directory: &Path) -> Finding {
    match rustix::fs::statvfs(directory) {
        Ok(state) => {
            let free = state.f_bavail.saturating_mul(state.f_frsize);
            let found = format!("{} free", bytes(free));
            if free < FREE_FAIL_BYTES {
                Finding::fail(
                    "disk",
                    found,
                    "Make room, or move the directory to a larger disk.",
                )
            } else if free < FREE_WARN_BYTES {
                Finding::warn("disk", found, "Models and updates may not fit: make room.")
            } else {
                Finding::pass("disk", found)
            }
        }
        Err(error) => Finding::fail("disk", error.to_string(), "Check that the directory can be read."),
    }
}

fn key(directory: &Path) -> Finding {
    let path = directory.join("node.key");
    if !path.exists() {
        return Finding::fail(
            "key",
            "this directory holds no node",
            "daitn node join TOKEN --dir DIRECTORY",
        );
    }
    match crate::files::key(&path) {
        Ok(key) => Finding::pass(
            "key",
            format!("{}, readable to its owner alone", key.id().short()),
        ),
        Err(failure) => Finding::fail("key", failure.rejection.message, failure.rejection.hint),
    }
}
