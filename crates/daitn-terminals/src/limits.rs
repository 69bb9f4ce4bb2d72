//! Every bound and time of a node, in one place, each with the reason for its value.

use std::time::Duration;

/// Receipts that wait for the center. A node that conducts a job of 10,000 cycles without the center fits.
pub(crate) const OUTBOX_MAX: usize = 16 * 1024;
/// Orders that a node remembers. The oldest that have ended make room.
pub(crate) const ORDERS_MAX: usize = 4 * 1024;
/// Entries for artifacts that terminals need or let others have.
pub(crate) const HOLDS_MAX: usize = 64 * 1024;
/// Nodes that may have one artifact.
pub(crate) const READERS_MAX: usize = 16 * 1024;
/// An order that is presented, and its answer.
pub(crate) const PRESENT_WITHIN: Duration = Duration::from_secs(10);
/// Tries to tell the center one receipt that it has no answer to but a fault of its own: with the waits between them about
/// half a minute. Then the others go on.
pub(crate) const RECEIPT_TRIES_MAX: u32 = 12;
/// Pieces of CPU work that wait for a thread; further ones are refused as overloaded.
pub(crate) const CPU_QUEUE_MAX: usize = 256;
/// Tables in memory at once: a node's terminals rarely train at the same time, and a table is read again in a second.
pub(crate) const TABLES_MAX: usize = 2;
/// Cycles of which a dataset terminal keeps its answers, so that a conductor that was restarted can ask again.
pub(crate) const ANSWERS_KEPT: u32 = 3;
/// Jobs that have ended of which an aggregator keeps the last state, and models that were judged of which a verification
/// unit keeps the weights: a job whose conductor is replaced goes on from there, and hosts to come fetch from there.
pub(crate) const RESULTS_KEPT: usize = 64;
/// Jobs whose state a spare keeps for others.
pub(crate) const KEPT_STATES_MAX: usize = 1024;
/// Largest terminal file, bytes: a policy of the longest kind and room for thousands of columns.
pub(crate) const TERMINAL_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Gateways that a node keeps connections to.
pub(crate) const GATEWAYS_MAX: usize = 64;
/// Queries in flight on a model host; more are refused at once, so that the gateway can choose another replica.
pub(crate) const QUERIES_MAX: usize = 256;
/// Models in memory on one host.
pub(crate) const MODELS_MAX: usize = 256;
/// Calls in flight to one agent.
pub(crate) const AGENT_CALLS_MAX: usize = 64;
/// Body of a call to an agent, bytes.
pub(crate) const AGENT_BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Nesting of an agent card.
pub(crate) const CARD_DEPTH_MAX: usize = 64;
/// Peers that the center may ask to be probed at once.
pub(crate) const PROBES_MAX: usize = 256;
/// Probes under way at once: probing must not become load.
pub(crate) const PROBES_AT_ONCE: usize = 4;
/// Administration requests at once on the local socket.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 8;
/// Longest line on the local socket, bytes.
pub(crate) const ADMIN_LINE_BYTES_MAX: usize = 64 * 1024;

/// One attempt to reach the center.
pub(crate) const CENTER_DIAL_WITHIN: Duration = Duration::from_secs(10);
/// One message to the center, until it is durable there.
pub(crate) const CENTER_REPLY_WITHIN: Duration = Duration::from_secs(30);
/// First wait before the center is tried again.
pub(crate) const CENTER_BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before the center is tried again: short enough that a restarted center has its nodes within seconds.
pub(crate) const CENTER_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Wait after the center has refused the node: a person has to do something first.
pub(crate) const CENTER_REFUSED_WAIT: Duration = Duration::from_secs(30);
/// Telemetry is pushed at most this often.
pub(crate) const TELEMETRY_EVERY_MIN: Duration = Duration::from_millis(250);
/// Telemetry is pushed at least this often, so that the center knows its age.
pub(crate) const TELEMETRY_EVERY_MAX: Duration = Duration::from_secs(15);
/// Descriptors are compared with what they describe at least this often.
pub(crate) const DESCRIBE_EVERY: Duration = Duration::from_secs(30);
/// Reaching a site, a spare or a facility, once.
pub(crate) const PEER_DIAL_WITHIN: Duration = Duration::from_secs(5);
/// A fetch without progress for this long fails.
pub(crate) const FETCH_PATIENCE: Duration = Duration::from_secs(15);
/// Keeping a state at a spare.
pub(crate) const KEEP_WITHIN: Duration = Duration::from_secs(60);
/// A shutdown waits this long for what runs to come to a durable point. With the sessions after it that is less than the
/// ten seconds after which those who stop processes become impatient; what is broken off goes on after the next start.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// A shutdown then waits this long for sessions. A stream of an agent may last for hours: it is not waited for.
pub(crate) const SESSIONS_GRACE: Duration = Duration::from_secs(3);
/// Fetching an agent's card.
pub(crate) const CARD_WITHIN: Duration = Duration::from_secs(10);
/// Connecting to an agent.
pub(crate) const AGENT_CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An agent's stream without a byte for this long is broken off. Agents think for minutes.
pub(crate) const AGENT_SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
