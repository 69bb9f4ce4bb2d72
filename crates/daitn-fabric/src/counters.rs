//! What the transport counts.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of what an endpoint has done since it was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FabricMetrics {
    /// Connections that are open now, dialled by this side.
    pub connections_dialled_open: u64,
    /// Connections that are open now, accepted by this side.
    pub connections_accepted_open: u64,
    /// Connections made since the start, both directions.
    pub connections_total: u64,
    /// Inbound connections refused: over a bound, not admitted, or failed in the handshake.
    pub connections_refused_total: u64,
    /// Streams opened by this side.
    pub streams_opened_total: u64,
    /// Streams accepted from peers.
    pub streams_accepted_total: u64,
    /// Streams of peers refused: over a bound, malformed or of a kind that is not offered.
    pub streams_refused_total: u64,
    /// Streams of peers that are being handled now.
    pub streams_handled_open: u64,
    /// Session handlers that panicked.
    pub handler_panics_total: u64,
    /// Bytes written to sessions.
    pub bytes_sent_total: u64,
    /// Bytes read from sessions.
    pub bytes_received_total: u64,
    /// Bytes of artifacts served to peers.
    pub artifact_bytes_sent_total: u64,
    /// Verified bytes of artifacts fetched from peers.
    pub artifact_bytes_received_total: u64,
    /// Pieces of artifacts that did not match their hash.
    pub artifact_pieces_corrupt_total: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }
        impl Counters {
            pub(crate) fn snapshot(&self) -> FabricMetrics {
                FabricMetrics { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    connections_dialled_open,
    connections_accepted_open,
    connections_total,
    connections_refused_total,
    streams_opened_total,
    streams_accepted_total,
    streams_refused_total,
    streams_handled_open,
    handler_panics_total,
    bytes_sent_total,
    bytes_received_total,
    artifact_bytes_sent_total,
    artifact_bytes_received_total,
    artifact_pieces_corrupt_total,
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Counts one up now and down again when dropped, also by a panic.
pub(crate) struct Open<F: Fn(&Counters) -> &AtomicU64> {
    counters: std::sync::Arc<Counters>,
    which: F,
}

impl<F: Fn(&Counters) -> &AtomicU64> Open<F> {
    pub(crate) fn new(counters: std::sync::Arc<Counters>, which: F) -> Self {
        which(&counters).fetch_add(1, Ordering::Relaxed);
        Self { counters, which }
    }
}

impl<F: Fn(&Counters) -> &AtomicU64> Drop for Open<F> {
    fn drop(&mut self) {
        (self.which)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}
