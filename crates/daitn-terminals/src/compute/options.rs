//! How a compute facility is configured.

use crate::options::ByteSize;
use daitn_messages::ids::Slug;
use serde::{Deserialize, Serialize};

/// Compute that trains for datasets whose owners name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// For people.
    pub title: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
    /// Memory for all tables and parameters at once.
    pub memory: ByteSize,
    /// Price in micro-units for an hour.
    #[serde(default)]
    pub price_micros_per_hour: u64,
}
