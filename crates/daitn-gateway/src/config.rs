//! How a gateway is configured, and every bound that it keeps.

use daitn_messages::limits::QUERY_BYTES_MAX;
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// The section `[gateway]` of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where to listen. Port 0 takes a free one. An address that is not loopback needs [`Self::tls`].
    /// Default: `127.0.0.1:8470`.
    pub listen: SocketAddr,
    /// Certificate and key for HTTPS. Absent: plain HTTP, on loopback only.
    pub tls: Option<TlsFiles>,
    /// The URL under which clients know this gateway, for instance `https://ai.example.org`; goes into agent cards.
    /// Absent: made from the `Host` of each request.
    pub public_url: Option<String>,
    /// Names that a request's `Host` may carry besides those of loopback and of `public_url`. On loopback every other
    /// name is refused, so that a web page cannot reach the gateway by a name that it points there.
    pub hosts: Vec<String>,
    /// Origins of web pages, besides the gateway's own, whose requests are answered: `https://console.example.org`.
    pub origins: Vec<String>,
    /// Bounds. Not part of the file: they protect the process and are not tuned.
    #[serde(skip)]
    pub limits: GatewayLimits,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8470)),
            tls: None,
            public_url: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            limits: GatewayLimits::default(),
        }
    }
}

/// Where certificate and key lie.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Every bound of a gateway. Tests lower them; nothing else changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayLimits {
    /// TCP connections at once. Further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Requests under way at once; a further one is refused as overloaded.
    pub requests_max: usize,
    /// Requests under way at once with one API key, so that one client cannot take all of `requests_max`.
    pub requests_per_key_max: usize,
    /// Responses that stream without a known end at once: job events and agents.
    pub streams_max: usize,
    /// Memory for the bodies of requests and for answers of agents, over all requests.
    pub bodies_bytes_max: usize,
    /// Longest request line and headers.
    pub head_bytes_max: usize,
    /// Most header lines.
    pub headers_max: usize,
    /// Longest JSON body of the REST API. A request with 16,384 columns takes about 1 MiB.
    pub json_bytes_max: usize,
    /// Longest body of an inference query: the tensor and its header.
    pub query_bytes_max: usize,
    /// Longest JSON-RPC body to an agent.
    pub agent_bytes_max: usize,
    /// Longest answer of an agent that is no stream.
    pub agent_reply_bytes_max: usize,
    /// Longest event in a stream of an agent.
    pub agent_event_bytes_max: usize,
    /// The TLS handshake must be done within this time.
    pub handshake_timeout: Duration,
    /// A request's head must arrive within this time after the one before it was answered: bounds idle connections and
    /// writers that trickle.
    pub head_timeout: Duration,
    /// A request body must make progress within this time.
    pub body_stall: Duration,
    /// A request body must be there after this time, plus a second for each of [`Self::body_bytes_per_second_min`].
    pub body_timeout: Duration,
    /// The slowest writer that is waited for.
    pub body_bytes_per_second_min: usize,
    /// A client that does not read for this long loses its connection.
    pub write_stall: Duration,
    /// The control center must answer within this time.
    pub control_timeout: Duration,
    /// An inference query is answered or refused within this time.
    pub query_timeout: Duration,
    /// An agent must begin to answer within this time, and then end within it where its answer is no stream.
    pub agent_timeout: Duration,
    /// A stream of an agent on which nothing comes for this long is ended.
    pub agent_idle: Duration,
    /// A comment is sent on an event stream that was silent for this long, so that nothing between takes it for dead.
    pub heartbeat: Duration,
    /// When shutting down, requests under way get this long.
    pub shutdown_grace: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 1024,
            requests_per_key_max: 512,
            streams_max: 2048,
            bodies_bytes_max: 512 * 1024 * 1024,
            head_bytes_max: 32 * 1024,
            headers_max: 64,
            json_bytes_max: 4 * 1024 * 1024,
            query_bytes_max: QUERY_BYTES_MAX + 64 * 1024,
            agent_bytes_max: 10 * 1024 * 1024,
            agent_reply_bytes_max: 32 * 1024 * 1024,
            agent_event_bytes_max: 10 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            body_stall: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            body_bytes_per_second_min: 128 * 1024,
            write_stall: Duration::from_secs(30),
            control_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(30),
            agent_timeout: Duration::from_secs(120),
            agent_idle: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
