//! What a node runs: dataset terminal, compute facility, aggregator, verification unit, model host, agent host.
//!
//! Invariant: a node acts on an order only after its own checks, whoever signed it; nothing leaves a dataset terminal but
//! the artifacts that its receipts name; what is acknowledged is durable. The crate knows neither the control center nor
//! the gateway, only their messages.
//!
//! Every terminal is a folder of the same files: `options` (how it is configured), `descriptor` (what it tells), `admit`
//! (whether it takes an order), `act` (what it does).
//!
//! ```text
//!   center ──order──▶ center.rs ──▶ orders.rs ──▶ terminal: admit ──▶ receipt ──▶ outbox.rs ──▶ uplink.rs ──▶ center
//!                                        └── durable ──▶ terminal: act
//!   peer ──session──▶ sessions.rs ──▶ terminal: act ──▶ answer, artifacts (holds.rs says who may fetch them)
//! ```

mod limits;

mod clock;

mod durable;

mod outbox;

mod holds;

mod cpu;

mod load;

mod orders;

mod columns;

mod rates;

mod options;

mod shared;

mod terminal;

mod works;

mod dataset;

mod compute;

mod aggregator;

mod conduct;

mod verifier;

mod host;

mod agent;

mod describe;

mod describe_all;

mod sessions;

mod gateways;

mod center;

mod status;

mod contact;

mod uplink;

mod node;

mod admin;

pub use admin::{AdminAnswer, AdminRequest};
pub use agent::AgentOptions;
pub use aggregator::AggregatorOptions;
pub use clock::Clock;
pub use columns::check_columns;
pub use compute::ComputeOptions;
pub use dataset::{DatasetOptions, Facility, TaskKind};
pub use host::HostOptions;
pub use node::{Node, NodeHandle, StartError, enrol};
pub use options::{ByteSize, NodeOptions, OptionsError, TerminalOptions, load_terminal, load_terminals};
pub use status::{Contact, NodeStatus, TerminalStatus};
pub use verifier::VerifierOptions;
