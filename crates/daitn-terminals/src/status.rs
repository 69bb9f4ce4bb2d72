//! A node as it sees itself, for its operator.

use daitn_messages::{
    ids::{NodeId, OrganisationId},
    rejection::Rejection,
    units::UnixMillis,
};
use serde::Serialize;

/// How the node stands with its center.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Contact {
    /// Not connected yet, or not any more; tried again soon.
    Connecting {
        /// What failed last.
        cause: Option<Rejection>,
    },
    /// Connected.
    Connected {
        /// Since when, by the node's clock.
        since: UnixMillis,
        /// The center's build.
        build: String,
    },
    /// The center refuses the node; tried again now and then.
    Refused {
        /// Why.
        cause: Rejection,
    },
    /// The center has revoked the node.
    Revoked,
}

/// A terminal as the node sees it.
#[derive(Debug, Clone, Serialize)]
pub struct TerminalStatus {
    /// Its name.
    pub entity: String,
    /// Version of its descriptor; zero where it could not be opened.
    pub version: u64,
    /// What stands against it: it cannot be opened, or the center does not attach it.
    pub problem: Option<Rejection>,
    /// Whether the center has this version of it.
    pub attached: bool,
    /// Under way.
    pub in_flight: u32,
    /// Served since the start.
    pub served_total: u64,
}

/// A node as it sees itself.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its key.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Its center.
    pub center: NodeId,
    /// How it stands with that.
    pub contact: Contact,
    /// Its terminals.
    pub terminals: Vec<TerminalStatus>,
    /// Receipts that wait for the center.
    pub receipts_waiting: usize,
    /// Receipts that the center could not take, set aside on disk since the start.
    pub receipts_aside: u64,
    /// Orders that are under way.
    pub orders_accepted: usize,
    /// Bytes of artifacts.
    pub artifact_bytes: u64,
}
