//! Signs that a peer is there again: it has dialled in, its address is new, or somebody who knows says so. Whoever waits
//! before asking it once more need not wait longer.

use crate::limits::NEWS_EVERY;
use daitn_messages::ids::NodeId;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

/// Signs since this was made.
#[derive(Debug)]
pub struct News {
    heard: broadcast::Receiver<NodeId>,
    woken_at: Option<Instant>,
    /// A sign was heard that nobody was told of yet.
    is_due: bool,
}

impl News {
    pub(crate) fn new(heard: broadcast::Receiver<NodeId>) -> Self {
        Self {
            heard,
            woken_at: None,
            is_due: false,
        }
    }

    /// Waits for a sign of one of these peers, also one from before this call. Gives way once in [`NEWS_EVERY`] at most,
    /// so that two who turn each other away do not go on at the speed of the line; a sign that comes sooner is kept until
    /// then, also where this is dropped.
    pub async fn of(&mut self, peers: &[NodeId]) {
        while !self.is_due {
            match self.heard.recv().await {
                Ok(node) if !peers.contains(&node) => continue,
                // Some were missed: one of these peers may be among them.
                Ok(_) | Err(RecvError::Lagged(_)) => self.is_due = true,
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
        if let Some(at) = self.woken_at {
            tokio::time::sleep_until(at + NEWS_EVERY).await;
        }
        self.is_due = false;
        self.woken_at = Some(Instant::now());
    }
}
