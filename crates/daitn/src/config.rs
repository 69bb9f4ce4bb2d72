//! `daitn.toml`: a section for each role, unknown keys refused. The sample file in `samples/` documents every key with
//! its unit and default; a test reads it and compares.

use crate::{failure::Failure, files::read_text, measure::Size};
use daitn_messages::ids::{OrganisationId, Slug};
use serde::{Deserialize, Deserializer, de};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    str::FromStr,
};

/// The configuration of a process.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Log lines.
    pub(crate) log: Log,
    /// Metrics and health.
    pub(crate) metrics: Metrics,
    /// The control center.
    pub(crate) center: Center,
    /// The gateway.
    pub(crate) gateway: daitn_gateway::GatewayConfig,
    /// A node.
    pub(crate) node: Node,
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// Which lines.
    pub(crate) filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info,iroh=off,noq=off,tantivy=warn".to_owned(),
        }
    }
}

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// Where; none: nowhere.
    #[serde(deserialize_with = "address_or_off")]
    pub(crate) listen: Option<SocketAddr>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        }
    }
}

/// The control center.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Center {
    /// The domain's name; none: that of the state directory, or [`Center::DOMAIN`] for a fresh one.
    pub(crate) domain: Option<Slug>,
    /// Who operates it.
    pub(crate) organisation: OrganisationId,
    /// UDP address of the control plane.
    pub(crate) listen: SocketAddr,
    /// Addresses that join tokens name.
    pub(crate) announce: Vec<SocketAddr>,
    /// TCP address of the relay; none: no relay.
    #[serde(deserialize_with = "address_or_off")]
    pub(crate) relay: Option<SocketAddr>,
    /// The relay's URL as nodes see it; empty: made from its address.
    pub(crate) relay_url: String,
}

impl Default for Center {
    fn default() -> Self {
        Self {
            domain: None,
            organisation: "operator".parse().expect("a constant name"),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8471)),
            announce: Vec::new(),
            relay: None,
            relay_url: String::new(),
        }
    }
}

impl Center {
    /// What a domain is called that nobody has named.
    const DOMAIN: &'static str = "local";

    /// The domain's name.
    pub(crate) fn name(&self) -> Slug {
        let unnamed = || Self::DOMAIN.parse().expect("a constant name");
        self.domain.clone().unwrap_or_else(unnamed)
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Node {
    /// UDP address of the data plane.
    pub(crate) listen: SocketAddr,
    /// Room for artifacts.
    pub(crate) artifacts_max: Size,
    /// Threads for training; zero: one for each core.
    pub(crate) threads: usize,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            artifacts_max: Size(64 << 30),
            threads: 0,
        }
    }
}

/// An address, or `off`: as it is written in the configuration and on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressOrOff(pub(crate) Option<SocketAddr>);

impl FromStr for AddressOrOff {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let wrong = |_| format!("`{text}` is neither \"off\" nor an address such as 127.0.0.1:8470");
        text.parse().map(|address| Self(Some(address))).map_err(wrong)
    }
}

fn address_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<AddressOrOff>()
        .map(|given| given.0)
        .map_err(de::Error::custom)
}

impl Config {
    /// From a file that was named, or `daitn.toml` in the directory if there is one.
    pub(crate) fn load(named: Option<&Path>, directory: &Path) -> Result<Self, Failure> {
        let found = directory.join("daitn.toml");
        match named {
            Some(path) => Self::read(path),
            None if found.exists() => Self::read(&found),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        toml::from_str(&read_text(path)?).map_err(|error| Failure::file(path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../samples/daitn.toml");

    #[test]
    fn the_sample_says_what_the_defaults_are() {
        assert_eq!(toml::from_str::<Config>(SAMPLE).unwrap(), Config::default());
    }

    /// Also what is commented out in the sample must be readable.
    #[test]
    fn the_sample_is_readable_with_every_key() {
        let all: String = SAMPLE
            .lines()
            .map(|line| {
                if ["# public_url", "# tls", "# domain"]
                    .iter()
                    .any(|key| line.starts_with(key))
                {
                    &line[2..]
                } else {
                    line
                }
            })
            .collect::<Vec<_>>()
            .join("\n");
        let config: Config = toml::from_str(&all).unwrap();
        assert!(config.gateway.public_url.is_some() && config.gateway.tls.is_some());
        assert_eq!(config.center.domain, Some(Center::default().name()));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            "[center]\ndomian = \"x\"",
            "[nodes]\n",
            "[node]\nartifacts_max = \"64\"",
            "[center]\nrelay = \"on\"",
        ] {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
    }
}
