//! Where a center and its gateway listen, kept beside their state: a port that was taken free at the first start stays
//! the same afterwards, because nodes and contexts remember it.

use crate::{
    failure::Failure,
    files::{read_text, write_private},
};
use daitn_messages::rejection::Code;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::Path};

/// The ports that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Bound {
    /// UDP of the control plane.
    pub(crate) control: u16,
    /// UDP of the gateway's sessions.
    pub(crate) sessions: u16,
    /// TCP of the APIs.
    pub(crate) api: u16,
    /// TCP of the relay.
    pub(crate) relay: u16,
}

impl Bound {
    /// Reads them; none yet at the first start.
    ///
    /// A center that ran here before must find its keys and its database: with a new database it would tell every node
    /// that it is not enrolled, with a new key none would know it.
    pub(crate) fn load(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join("ports.toml");
        if !path.exists() {
            return Ok(Self::default());
        }
        for needed in ["center.key", "gateway.key", "control.db"] {
            is_there(&directory.join(needed))?;
        }
        toml::from_str(&read_text(&path)?).map_err(|error| Failure::file(&path, error))
    }

    /// Writes them.
    pub(crate) fn save(self, directory: &Path) -> Result<(), Failure> {
        let text = toml::to_string(&self).map_err(|error| Failure::internal(error.to_string()))?;
        write_private(&directory.join("ports.toml"), text.as_bytes())
    }
}

fn is_there(path: &Path) -> Result<(), Failure> {
    let what = match path.metadata() {
        Ok(found) if found.len() > 0 => return Ok(()),
        Ok(_) => "is empty",
        Err(_) => "is missing",
    };
    let message = format!(
        "{} {what}, although a control center ran in this directory",
        path.display()
    );
    let failure = Failure::new(Code::Conflict, message);
    Err(failure.hint("Put the directory back from a backup as a whole, or begin anew in another one: daitn up --dir DIRECTORY"))
}

/// The address with the port that was taken before, where any port will do.
pub(crate) fn again(address: SocketAddr, port: u16) -> SocketAddr {
    if address.port() == 0 {
        SocketAddr::new(address.ip(), port)
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Bound::load(directory.path()).unwrap(), Bound::default());
        let bound = Bound {
            control: 4001,
            api: 4002,
            ..Bound::default()
        };
        bound.save(directory.path()).unwrap();
        for needed in ["center.key", "gateway.key", "control.db"] {
            let failure = Bound::load(directory.path()).unwrap_err();
            assert!(failure.rejection.message.contains(needed), "{failure:?}");
            std::fs::write(directory.path().join(needed), "").unwrap();
            let failure = Bound::load(directory.path()).unwrap_err();
            assert!(failure.rejection.message.contains("is empty"), "{failure:?}");
            std::fs::write(directory.path().join(needed), "something").unwrap();
        }
        assert_eq!(Bound::load(directory.path()).unwrap(), bound);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(again(any, 4001).port(), 4001);
        assert_eq!(again("127.0.0.1:8471".parse().unwrap(), 4001).port(), 8471);
    }
}
