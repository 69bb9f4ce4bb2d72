//! How a dataset terminal is configured.

use daitn_messages::{
    ids::{EntityId, NodeId, Slug},
    learning::Task,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, path::PathBuf, str::FromStr};

/// A dataset that its owner lets others train on, where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// For people.
    pub title: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
    /// The file: CSV or Parquet. Never told to anybody.
    pub path: PathBuf,
    /// Columns that may be used as features, in this order; empty: all but the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The column that can be predicted.
    pub target: String,
    /// What the target is; none: told by its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKind>,
    /// The labels, also such as do not occur in this file; empty: those that occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// SPDX id or URL.
    pub license: String,
    /// Who made the data.
    pub creator: String,
    /// `YYYY-MM-DD`.
    pub date_published: String,
    /// The landing page.
    #[serde(default)]
    pub url: String,
    /// Conditions of use, in words.
    #[serde(default)]
    pub usage: String,
    /// The policy, in Cedar. Either this or `policy_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The file that holds the policy: read again before each use, so that a change is in force at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
    /// Version of the data, for provenance.
    #[serde(default = "first_version")]
    pub data_version: String,
    /// Price in micro-units for a thousand records used once.
    #[serde(default)]
    pub price_micros_per_thousand: u64,
    /// Whether the share of each class is told.
    #[serde(default)]
    pub share_label_distribution: bool,
    /// Whether this node may train on it itself.
    #[serde(default = "yes")]
    pub compute: bool,
    /// Facilities that may train on it: `compute:organisation/name`, or with the node's key pinned
    /// `compute:organisation/name@KEY`. The data is sent there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compute_allowed: Vec<Facility>,
}

fn first_version() -> String {
    "1".to_owned()
}

fn yes() -> bool {
    true
}

/// What a target is, where the file does not tell by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One of some classes.
    Classification,
    /// A number.
    Regression,
}

impl TaskKind {
    /// The task with these classes.
    #[must_use]
    pub fn with_classes(self, classes: Vec<String>) -> Task {
        match self {
            Self::Classification => Task::Classification { classes },
            Self::Regression => Task::Regression,
        }
    }
}

/// A compute facility that an owner trusts with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facility {
    /// Which.
    pub entity: EntityId,
    /// The key of its node, if the owner does not leave it to the control center to say whose node it is.
    pub node: Option<NodeId>,
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{}@{node}", self.entity),
            None => write!(f, "{}", self.entity),
        }
    }
}

impl FromStr for Facility {
    type Err = daitn_messages::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('@') {
            Some((entity, node)) => Self {
                entity: entity.parse()?,
                node: Some(node.parse()?),
            },
            None => Self {
                entity: text.parse()?,
                node: None,
            },
        })
    }
}

impl Serialize for Facility {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Facility {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
