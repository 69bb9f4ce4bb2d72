//! How an agent host is configured.

use daitn_messages::ids::Slug;
use serde::{Deserialize, Serialize};

/// Relays to an A2A agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOptions {
    /// Its name within the organisation.
    pub name: Slug,
    /// Where the agent is, for instance `http://127.0.0.1:8000`: its card lies at the origin's
    /// `/.well-known/agent-card.json`.
    pub url: String,
    /// ISO 3166-1 alpha-2 code of the law that it is under.
    pub jurisdiction: String,
}
