//! How an aggregator is configured.

use crate::options::ByteSize;
use daitn_messages::ids::Slug;
use serde::{Deserialize, Serialize};

/// Combines updates and drives jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// For people.
    pub title: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
    /// Disk for the updates of one round.
    pub storage: ByteSize,
    /// Price in micro-units for a gigabyte of updates.
    #[serde(default)]
    pub price_micros_per_gb: u64,
}
