//! How a model host is configured.

use crate::options::ByteSize;
use daitn_messages::ids::Slug;
use serde::{Deserialize, Serialize};

/// Serves models from memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// For people.
    pub title: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
    /// Memory for the weights of all models at once.
    pub memory: ByteSize,
    /// Price in micro-units for a thousand queries.
    #[serde(default)]
    pub price_micros_per_thousand: u64,
}
