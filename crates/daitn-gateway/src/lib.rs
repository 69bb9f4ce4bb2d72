//! The outward APIs of the network, as translators: our REST API with its OpenAPI document, the Open Inference Protocol
//! v2, and A2A 1.0 for agents.
//!
//! A gateway decides from the newest topology snapshot that the control center pushed to it. The path of a query or an
//! agent's call holds no hop to the control center and goes on when that is gone. What is asked of the control center
//! itself goes through [`Control`], which the binary implements.

mod config;
mod control;
mod error;

mod server;

mod front;
mod net;
mod tls;

mod gateway;
mod view;

mod auth;
mod input;
mod reply;

mod openapi;

mod health;
mod rest;

mod hedging;
mod oip;
mod queries;
mod routing;
mod sessions;

mod a2a;

mod decisions;
mod stats;

pub use config::{GatewayConfig, GatewayLimits, TlsFiles};
pub use control::{Control, JobFeed};
pub use error::StartError;
pub use gateway::MetricsText;
pub use openapi::document;
pub use server::{Gateway, GatewayHandle};
pub use stats::{ClassStats, GatewayStats, LATENCY_BOUNDS_SECONDS, RouteClass, StatsSnapshot};
