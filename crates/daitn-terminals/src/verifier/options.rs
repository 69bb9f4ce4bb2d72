//! How a verification unit is configured.

use crate::dataset::TaskKind;
use daitn_messages::ids::Slug;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Judges models on data that no trainer saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// For people.
    pub title: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
    /// The hold-out: CSV or Parquet. Never told to anybody.
    pub path: PathBuf,
    /// Columns that may be used as features, in this order; empty: all but the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The column that it knows the truth of.
    pub target: String,
    /// What the target is; none: told by its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskKind>,
    /// The labels, also such as do not occur in this file; empty: those that occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}
