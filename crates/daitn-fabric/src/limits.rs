//! Every bound and time of the transport, in one place, each with the reason for its value.

use std::time::Duration;

/// The protocol between nodes and the control center.
pub const CONTROL_ALPN: &[u8] = b"daitn/control/1";
/// The protocol between terminals: sessions and artifacts.
pub const DATA_ALPN: &[u8] = b"daitn/data/1";

/// A connection on which nothing is heard for this long is lost. QUIC's usual 30 s would let a killed peer go
/// unnoticed for half a minute; three lost keep-alives in a row are a good enough sign.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The side that dialled says that it lives this often: three times within [`IDLE_TIMEOUT`].
pub(crate) const KEEP_ALIVE_DIALLED: Duration = Duration::from_secs(1);
/// The side that accepted speaks only when the other has been silent: a control center with 10,000 nodes must not
/// send 10,000 keep-alives a second of its own.
pub(crate) const KEEP_ALIVE_ACCEPTED: Duration = Duration::from_secs(2);
/// A handshake that takes longer is given up, so that half-open connections cannot fill the table.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The header of a session must arrive within this time after its stream was opened.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A session operation without progress for this long fails, unless the caller sets another time.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Closing an endpoint waits this long for peers to take notice: two round trips of a long way. Who does not hear of it
/// notices after [`IDLE_TIMEOUT`].
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Between the last reply and the closing of its connection, so that the peer has read what it has received.
pub(crate) const LINGER: Duration = Duration::from_millis(50);

/// Connections at once, both directions: a domain of 10,000 nodes and some room.
pub(crate) const CONNECTIONS_MAX: usize = 16 * 1024;
/// Inbound connections at once from one peer: two protocols, each once more while a lost one is not yet noticed.
pub(crate) const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Streams that one peer may have open on one connection; its further ones wait.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// Inbound streams that are handled at once, over all connections; further ones are refused as overloaded.
pub(crate) const STREAMS_MAX: usize = 4 * 1024;
/// Connections at once of peers who have not been welcomed: enough for all of a large domain to come back within
/// seconds, and little beside [`CONNECTIONS_MAX`].
pub(crate) const STRANGERS_MAX: usize = 1024;
/// Streams of theirs that are handled at once: a greeting takes one, for milliseconds.
pub(crate) const STRANGER_STREAMS_MAX: usize = 256;
/// Who has not been welcomed after this time is sent away: a greeting takes a round trip and a commit.
pub(crate) const WELCOME_WITHIN: Duration = Duration::from_secs(30);
/// Peers in the address book: the nodes of a domain and some room.
pub(crate) const PEERS_MAX: usize = 64 * 1024;
/// Memory is taken for a frame in steps of this many bytes as they arrive, so that a length alone buys none.
pub(crate) const FRAME_STEP_BYTES: usize = 64 * 1024;

/// First wait before a lost connection is dialled again.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait before a lost connection is dialled again.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A connection that lived this long was a good one: the next wait begins anew.
pub(crate) const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(5);
/// Signs that a peer is there which a waiter may be behind; past them it is woken once for nothing.
pub(crate) const NEWS_KEPT: usize = 256;
/// A waiter is woken by signs this often at most.
pub(crate) const NEWS_EVERY: Duration = Duration::from_secs(1);
/// One attempt to dial in a kept link.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes that a probe may ask for: 4 MiB end the slow start of a gigabit path, and cost a slow one its time only.
pub(crate) const PROBE_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Probes answered at once: probing must not become load.
pub(crate) const PROBES_MAX: usize = 4;
/// Round trips of which a probe takes the shortest.
pub(crate) const PROBE_ROUND_TRIPS: usize = 3;

/// Streams that serve artifacts at once. Each holds one piece in memory.
pub(crate) const ARTIFACT_STREAMS_MAX: usize = 64;
/// Range streams of one fetch. One stream is capped at about 12 MB/s at 100 ms by its 1.25 MB window; larger windows
/// break connections, so parallel streams it is.
pub(crate) const FETCH_LANES: usize = 8;
/// The same while every holder is near: their windows fill the line, and more would only push each other's pieces out of
/// the processor's cache between receiving, hashing and writing.
pub(crate) const FETCH_LANES_NEAR: usize = 4;
/// From this round-trip time on a holder is not near: four windows of 1.25 MB in 10 ms are 500 MB/s.
pub(crate) const FAR_RTT: Duration = Duration::from_millis(10);
/// Most holders that one fetch uses.
pub(crate) const HOLDERS_MAX: usize = 64;
/// A range stream without a complete piece for this long is given up and its holder set back.
pub(crate) const FETCH_STALL: Duration = Duration::from_secs(10);
/// Pieces in the first range asked of a holder.
pub(crate) const RUN_PIECES_FIRST: u64 = 4;
/// Most pieces in one range: 16 MiB, about 1.3 s of one stream at 100 ms.
pub(crate) const RUN_PIECES_MAX: u64 = 64;
/// A range that took less is followed by a longer one, a range that took more than twice as long by a shorter one.
/// Short ranges at slow holders keep the end of a fetch from waiting for them.
pub(crate) const RUN_TARGET: Duration = Duration::from_millis(1000);

/// Longest pass that a relay looks at, bytes.
pub(crate) const RELAY_PASS_BYTES_MAX: usize = 256;
/// Clients of one relay.
pub(crate) const RELAY_CLIENTS_MAX: usize = 16 * 1024;
/// Connections to a relay that have not yet proven a key.
pub(crate) const RELAY_HANDSHAKES_MAX: usize = 512;
/// Time in which a connection to a relay must have proven a key.
pub(crate) const RELAY_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
