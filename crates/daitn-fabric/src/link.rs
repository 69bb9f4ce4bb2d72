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
        let backoff = Backoff::new(endpoint.random());
        Self::with_backoff(endpoint, node, alpn, backoff)
    }

    fn with_backoff(endpoint: Endpoint, node: NodeId, alpn: &'static [u8], backoff: Backoff) -> Self {
        let (set, current) = watch::channel(None);
        let task = AbortOnDropHandle::new(tokio::spawn(keep(endpoint, node, alpn, backoff, set)));
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

async fn keep(
    endpoint: Endpoint,
    node: NodeId,
    alpn: &'static [u8],
    mut backoff: Backoff,
    set: watch::Sender<Option<Connection>>,
) {
    let stop = endpoint.shared.stop.clone();
    let mut news = endpoint.news();
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
            tokio::select! {
                () = tokio::time::sleep(backoff.after_failure()) => {}
                () = news.of(std::slice::from_ref(&node)) => backoff.reset(),
            }
        }
    };
    tokio::select! {
        () = keeping => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CONTROL_ALPN, EndpointOptions, Routes, limits::NEWS_EVERY};
    use std::{
        net::Ipv4Addr,
        time::{Duration, Instant},
    };

    /// Longer than anything here takes, and far shorter than the link would wait by itself.
    const PLENTY: Duration = Duration::from_secs(60);
    const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

    async fn server(key: u8) -> Endpoint {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(EndpointOptions::new([key; 32]).bound_to(address))
            .await
            .unwrap();
        endpoint.serve(Routes::new().on(CONTROL_ALPN, 10, |_| async {}));
        endpoint
    }

    /// A link whose peer is lost, and which would not dial again today.
    async fn lost() -> (Endpoint, Link) {
        let (here, there) = (server(1).await, server(2).await);
        here.set_peer(there.peer()).unwrap();
        let backoff = Backoff::between(1, FOR_EVER, FOR_EVER);
        let mut link = Link::with_backoff(here.clone(), there.node(), CONTROL_ALPN, backoff);
        link.connected().await.unwrap();
        there.shutdown(PLENTY).await;
        let lost = link.current.wait_for(Option::is_none);
        tokio::time::timeout(PLENTY, lost).await.unwrap().unwrap();
        (here, link)
    }

    async fn is_back(link: &mut Link) {
        tokio::time::timeout(PLENTY, link.connected())
            .await
            .expect("the link does not wait")
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_link_dials_at_once_when_its_peer_is_told_to_be_elsewhere() {
        let (here, mut link) = lost().await;
        here.set_peer(server(2).await.peer()).unwrap();
        is_back(&mut link).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_link_dials_at_once_when_its_peer_has_dialled_in() {
        let (here, mut link) = lost().await;
        let there = server(2).await;
        // The address book is right, but nobody has said so.
        here.shared.set_peer_silently(there.peer());
        there.set_peer(here.peer()).unwrap();
        there.connect(here.node(), CONTROL_ALPN, PLENTY).await.unwrap();
        is_back(&mut link).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_who_turn_each_other_away_are_not_woken_at_the_speed_of_the_line() {
        let here = server(1).await;
        let mut news = here.news();
        let begun = Instant::now();
        let node = NodeId([7; 32]);
        here.is_there(node);
        tokio::time::timeout(PLENTY, news.of(std::slice::from_ref(&node)))
            .await
            .unwrap();
        here.is_there(node);
        here.is_there(NodeId([8; 32]));
        tokio::time::timeout(PLENTY, news.of(std::slice::from_ref(&node)))
            .await
            .expect("a sign that comes too soon is told later");
        assert!(begun.elapsed() >= NEWS_EVERY, "woken twice within a moment");
    }
}
