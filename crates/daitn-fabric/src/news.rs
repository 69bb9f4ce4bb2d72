//! Signs that a peer is there again: it has dialled in, its address is new, or somebody who knows says so. Whoever waits
//! before asking it once more need not wait longer.

use crate::limits::NEWS_EVERY;
use daitn_messages::ids::NodeId;
use std::time::Instant;
use tokio::sync::broadcast::{self, error::RecvError};

/// Signs since this was made.
#[derive(Debug)]
pub struct News {
    heard: broadcast::Receiver<NodeId>,
    woken_at: Option<Instant>,
}

impl News {
    pub(crate) fn new(heard: broadcast::Receiver<NodeId>) -> Self {
        Self {
            heard,
            woken_at: None,
        }
    }

    /// Waits for a sign of one of these peers, also one from before this call. Gives way once in [`NEWS_EVERY`] at most,
    /// so that two who turn each other away do not go on at the speed of the line. Nothing is lost where it is dropped.
    pub async fn of(&mut self, peers: &[NodeId]) {
        loop {
            match self.heard.recv().await {
                Ok(node) if !peers.contains(&node) => continue,
                // Some were missed: one of these peers may be among them.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
            if self.woken_at.is_none_or(|at| at.elapsed() >= NEWS_EVERY) {
                self.woken_at = Some(Instant::now());
                return;
            }
        }
    }
}
