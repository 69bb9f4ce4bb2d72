//! A connection that is kept: dialled again with backoff whenever it is lost.

use crate::{
    backoff::Backoff,
    connection::Connection,
    endpoint::Endpoint,
    limits::{BACKOFF_RESET_AFTER, DIAL_TIMEOUT},
};
use daitn_messages::ids::NodeId;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

/// A kept connection to one peer for one protocol. Dropping it stops the dialling; the connection itself stays.
#[derive(Debug)]
pub struct Link {
    current: watch::Receiver<Option<Connection>>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint, node: NodeId, alpn: &'static [u8]) -> Self {
        let (set, current) = watch::channel(None);
        let task = AbortOnDropHandle::new(tokio::spawn(keep(endpoint, node, alpn, set)));
        Self { current, _task: task }
    }

    /// The connection, if there is one now.
    #[must_use]
    pub fn current(&self) -> Option<Connection> {
        self.current.borrow().clone().filter(Connection::is_open)
    }

    /// Waits for an open connection. `None` where the endpoint has shut down.
    pub async fn connected(&mut self) -> Option<Connection> {
        let open = |connection: &Option<Connection>| connection.as_ref().is_some_and(Connection::is_open);
        self.current
            .wait_for(open)
            .await
            .ok()
            .and_then(|connection| connection.clone())
    }
}

async fn keep(endpoint: Endpoint, node: NodeId, alpn: &'static [u8], set: watch::Sender<Option<Connection>>) {
    let mut backoff = Backoff::new(endpoint.random());
    let stop = endpoint.shared.stop.clone();
    let keeping = async {
        loop {
            match endpoint.connect(node, alpn, DIAL_TIMEOUT).await {
                Ok(connection) => {
                    let since = Instant::now();
                    set.send_replace(Some(connection.clone()));
                    let why = connection.closed().await;
                    set.send_replace(None);
                    tracing::info!(%node, "connection lost, dialling again: {why}");
                    if since.elapsed() >= BACKOFF_RESET_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::debug!(%node, "not connected: {error}"),
            }
            tokio::time::sleep(backoff.after_failure()).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = stop.cancelled() => {}
    }
}
