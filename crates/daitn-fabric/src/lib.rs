//! The data plane's transport: endpoints that dial each other by key, sessions of bounded frames over them,
//! content-addressed artifacts that are verified while they stream, reachability probes, and an embeddable relay.
//!
//! The only crate that knows iroh. It does not know which messages exist: sessions carry any serde type as a bounded
//! CBOR frame. It contacts nothing but the peers and relays that its caller names: no public relay, no public name
//! server, no address lookup service.

mod counters;
mod error;
mod limits;

mod backoff;

mod session;

mod connection;

mod options;

mod news;

mod book;

mod endpoint;

mod serve;

mod link;

pub mod artifact;

mod probe;

mod relay;

#[cfg(test)]
mod power;

pub use backoff::Backoff;
pub use book::Heard;
pub use connection::Connection;
pub use counters::FabricMetrics;
pub use endpoint::Endpoint;
pub use error::{BindError, ConnectError, PeerError, Refusal, RelayError, SessionError};
pub use limits::{CONTROL_ALPN, DATA_ALPN};
pub use link::Link;
pub use news::News;
pub use options::{Admit, EndpointLimits, EndpointOptions};
pub use probe::{Effort, Probe};
pub use relay::{Relay, RelayAccess, RelayDoor, RelayOptions, RelayTls, certificates};
pub use serve::{IncomingSession, Routes};
pub use session::{Session, SessionReceiver, SessionSender};
