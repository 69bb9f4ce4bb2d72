//! Reachability probes: how far away a peer is, how much fits through, and whether a relay is in the path.
//!
//! The round trip is the shortest of three empty exchanges. The throughput is that of one short transfer towards the
//! prober, from its first byte to its last, so that the round trip is not counted again; over a long path it is a
//! lower estimate, since the transfer ends while the sender is still speeding up.

use crate::{
    connection::Connection,
    error::{Refusal, SessionError},
    limits::{PROBE_BYTES_MAX, PROBE_ROUND_TRIPS, PROBES_MAX},
    session::{Session, StreamKind},
};
use bytes::Bytes;
use daitn_messages::limits::SESSION_HEADER_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::{sync::Semaphore, time::Instant};

/// How much a probe may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Bytes to transfer at most; zero measures the round trip only. Bounded by 4 MiB.
    pub bytes_max: u32,
    /// Time to transfer at most.
    pub transfer_max: Duration,
    /// Time for the whole probe, after which it fails.
    pub within: Duration,
}

impl Default for Effort {
    /// 256 KiB or half a second, whatever is less, within five seconds.
    fn default() -> Self {
        Self {
            bytes_max: 256 * 1024,
            transfer_max: Duration::from_millis(500),
            within: Duration::from_secs(5),
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Shortest round trip, microseconds.
    pub rtt_micros: u64,
    /// Bytes a second towards the prober; zero where none was measured.
    pub throughput_bytes_per_s: u64,
    /// Whether a relay is in the path.
    pub relayed: bool,
}

#[derive(Serialize, Deserialize)]
struct Ask {
    bytes: u32,
}

/// How many probes are answered at once.
pub(crate) struct ProbeLimit(Semaphore);

impl Default for ProbeLimit {
    fn default() -> Self {
        Self(Semaphore::new(PROBES_MAX))
    }
}

impl Connection {
    /// Measures the path to the peer.
    ///
    /// # Errors
    /// Where the peer does not answer in time or answers too many probes at once.
    pub async fn probe(&self, effort: Effort) -> Result<Probe, SessionError> {
        let probing = async {
            let mut rtt = Duration::MAX;
            for _ in 0..PROBE_ROUND_TRIPS {
                let begun = Instant::now();
                let mut session = self
                    .open_kind(StreamKind::Probe, &Ask { bytes: 0 }, effort.within)
                    .await?;
                session.sender().finish()?;
                while session.receiver().recv_bytes(1).await?.is_some() {}
                rtt = rtt.min(begun.elapsed());
            }
            let throughput = if effort.bytes_max == 0 {
                0
            } else {
                self.throughput(effort).await?
            };
            Ok(Probe {
                rtt_micros: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
                throughput_bytes_per_s: throughput,
                relayed: self.is_relayed().unwrap_or(false),
            })
        };
        tokio::time::timeout(effort.within, probing)
            .await
            .map_err(|_| SessionError::TimedOut(effort.within))?
    }

    async fn throughput(&self, effort: Effort) -> Result<u64, SessionError> {
        let ask = Ask {
            bytes: effort.bytes_max.min(PROBE_BYTES_MAX),
        };
        let mut session = self.open_kind(StreamKind::Probe, &ask, effort.within).await?;
        session.sender().finish()?;
        let receiver = session.receiver();
        let Some(first) = receiver.recv_bytes(usize::MAX).await? else {
            return Ok(0);
        };
        let (begun, mut n_bytes) = (Instant::now(), 0u64);
        let mut taken = begun;
        let transfer = async {
            while let Some(bytes) = receiver.recv_bytes(usize::MAX).await? {
                n_bytes += bytes.len() as u64;
                taken = Instant::now();
                // A peer that sends more than it was asked for would measure itself well.
                if n_bytes > u64::from(ask.bytes) {
                    return Err(SessionError::TooLarge {
                        found: n_bytes,
                        max: ask.bytes as usize,
                    });
                }
            }
            Ok(())
        };
        // What came until then is measured; dropping the session tells the peer to stop.
        if let Ok(ended) = tokio::time::timeout(effort.transfer_max, transfer).await {
            ended?;
        }
        let micros = u64::try_from((taken - begun).as_micros()).unwrap_or(u64::MAX);
        if n_bytes == 0 {
            // All came at once: the path is faster than this transfer can tell.
            n_bytes = first.len() as u64;
        }
        Ok(n_bytes.saturating_mul(1_000_000) / micros.max(1))
    }
}

pub(crate) async fn answer(limit: &ProbeLimit, mut session: Session) -> Result<(), SessionError> {
    static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    let ask: Ask = session.recv(SESSION_HEADER_BYTES_MAX).await?;
    if ask.bytes > PROBE_BYTES_MAX {
        session.refuse(Refusal::TooLarge);
        return Err(SessionError::Refused(Refusal::TooLarge));
    }
    let Ok(_permit) = limit.0.try_acquire() else {
        session.refuse(Refusal::Overloaded);
        return Err(SessionError::Refused(Refusal::Overloaded));
    };
    let mut missing = ask.bytes as usize;
    while missing > 0 {
        let n_bytes = missing.min(ZEROS.len());
        session
            .sender()
            .send_bytes(Bytes::from_static(&ZEROS[..n_bytes]))
            .await?;
        missing -= n_bytes;
    }
    session.sender().finish()
}
