//! The checks of a node's directory: its disk, its key, its terminals and the data behind them.

use super::{Finding, Mark, checks};
use crate::{
    files, preview,
    render::bytes,
    roles::{
        member::{Member, terminals},
        socket::{self, ContactTold, Told},
    },
};
use daitn_messages::signed::NodeKey;
use daitn_terminals::{AdminRequest, load_terminals};
use std::path::Path;

/// Less free space than this is a warning, bytes.
const FREE_WARN_BYTES: u64 = 5 << 30;
/// Less than this is a failure: state can no longer be kept safely.
const FREE_FAIL_BYTES: u64 = 100 << 20;

/// Looks at a node's directory, and asks whether the control center still knows the node.
pub(super) async fn look(directory: &Path) -> Vec<Finding> {
    if !directory.is_dir() {
        let found = format!("{} is not a directory", directory.display());
        return vec![Finding::fail(
            "directory",
            found,
            "daitn node join TOKEN --dir DIRECTORY",
        )];
    }
    let mut findings = vec![disk(directory), key(directory)];
    if findings[1].mark == Mark::Fail {
        return findings;
    }
    match (Member::load(directory), files::key(&directory.join("node.key"))) {
        (Ok(member), Ok(key)) => {
            findings.extend(known(directory, &member, &key).await);
            findings.extend(attached(directory, &member, &key).await);
        }
        (Err(failure), _) | (_, Err(failure)) => {
            findings.push(Finding::failed("membership", &failure.rejection));
        }
    }
    findings
}

/// Whether the control center knows the node: a node that runs is asked, for one that does not its key asks.
async fn known(directory: &Path, member: &Member, key: &NodeKey) -> Vec<Finding> {
    let mend = "Ask the operator why. To come back, join with a new token in another directory.";
    let finding = match socket::ask(directory, &AdminRequest::Status).await {
        Ok(Some(Told::Status(status))) => match status.contact {
            ContactTold::Connected {} => {
                Finding::pass("admission", "the node is connected to its control center")
            }
            ContactTold::Connecting { cause } => Finding::fail(
                "admission",
                cause.map_or_else(
                    || "the node is not connected yet".to_owned(),
                    |cause| cause.message,
                ),
                "Is the control center running? Does a firewall let UDP out to it? The node tries again by itself.",
            ),
            ContactTold::Refused { cause } => Finding::failed("admission", &cause),
            ContactTold::Revoked => Finding::fail(
                "admission",
                "the control center does not know the node any more: it was revoked, or the center began anew",
                mend,
            ),
        },
        Ok(_) => return checks::member(directory, member, key).await,
        Err(failure) => Finding::failed("admission", &failure.rejection),
    };
    vec![finding]
}

/// Whether terminals can be read, and the data behind them as the node would use it.
async fn attached(directory: &Path, member: &Member, key: &NodeKey) -> Vec<Finding> {
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
    let mut findings = Vec::new();
    for options in options {
        let check = format!("{} {}", options.kind(), options.name());
        let organisation = member.organisation.clone();
        findings.push(
            match preview::descriptor(options, organisation, Some(key.clone())).await {
                Ok(_) => Finding::pass(check, "can be used as its file says"),
                Err(failure) => Finding::failed(check, &failure.rejection),
            },
        );
    }
    findings
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
    match files::key(&path) {
        Ok(key) => Finding::pass(
            "key",
            format!("{}, readable to its owner alone", key.id().short()),
        ),
        Err(failure) => Finding::failed("key", &failure.rejection),
    }
}
