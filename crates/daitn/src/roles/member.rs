//! A node's directory: its key, and whose it is (`member.toml`), written when it joins.

use crate::{
    failure::{Exit, Failure},
    files::{read_text, write_private},
};
use daitn_messages::{
    ids::{OrganisationId, Slug},
    session::Peer,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a node remembers of joining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// What it calls itself.
    pub(crate) name: Slug,
    /// Whose it is.
    pub(crate) organisation: OrganisationId,
    /// A relay of the domain, for where UDP does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<String>,
    /// The control center, its key pinned by the join token.
    pub(crate) center: Peer,
}

impl Member {
    /// The file in a node's directory.
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join("member.toml")
    }

    /// Reads it.
    pub(crate) fn load(directory: &Path) -> Result<Self, Failure> {
        let path = Self::path(directory);
        if !path.exists() {
            let message = format!("{} holds no node that has joined a domain", directory.display());
            return Err(Failure::usage(message).hint("daitn node join TOKEN --dir DIRECTORY"));
        }
        toml::from_str(&read_text(&path)?).map_err(|error| Failure::file(&path, error))
    }

    /// Writes it.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), Failure> {
        let text = toml::to_string_pretty(self)
            .map_err(|error| Failure::internal(format!("membership cannot be written: {error}")))?;
        write_private(&Self::path(directory), text.as_bytes())
    }

    /// Refuses a directory whose node has joined already.
    pub(crate) fn none_in(directory: &Path) -> Result<(), Failure> {
        match Self::load(directory) {
            Ok(member) => Err(Failure {
                exit: Exit::Stale,
                ..Failure::new(
                    daitn_messages::rejection::Code::Conflict,
                    format!(
                        "the node in {} has joined already, for {}",
                        directory.display(),
                        member.organisation
                    ),
                )
            }
            .hint(format!(
                "Run it: daitn node run --dir {}. Or give another directory with --dir.",
                directory.display()
            ))),
            Err(_) if !Self::path(directory).exists() => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// Where a node keeps the certificates that it believes a relay by, besides those of the well-known authorities.
pub(crate) fn relay_ca(directory: &Path) -> PathBuf {
    directory.join("relay-ca.pem")
}

/// Those certificates (DER); usually none.
pub(crate) fn relay_authorities(directory: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let path = relay_ca(directory);
    if !path.exists() {
        return Ok(Vec::new());
    }
    daitn_fabric::certificates(read_text(&path)?.as_bytes()).map_err(|error| Failure::file(&path, error))
}

/// Where the files of a node's terminals are.
pub(crate) fn terminals(directory: &Path) -> PathBuf {
    directory.join("terminals")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Member::load(directory.path()).unwrap_err().exit as u8, 2);
        Member::none_in(directory.path()).unwrap();
        let member = Member {
            name: "a".parse().unwrap(),
            organisation: "st-mary".parse().unwrap(),
            relay: None,
            center: Peer {
                node: daitn_messages::ids::NodeId([7; 32]),
                addresses: vec!["127.0.0.1:8471".parse().unwrap()],
                relay: None,
            },
        };
        member.save(directory.path()).unwrap();
        assert_eq!(Member::load(directory.path()).unwrap(), member);
        assert_eq!(Member::none_in(directory.path()).unwrap_err().exit as u8, 5);
    }
}
