//! What the center tells nodes: a bounded queue and one task for each connected node. Messages go out in order, each
//! acknowledged before the next, so that an order and its end cannot overtake each other.

use crate::{
    center::input::{Envelope, Input},
    core::ConnectionId,
};
use daitn_fabric::{Connection, Refusal, SessionError};
use daitn_messages::{
    control::{Acknowledged, CenterMessage},
    ids::{NodeId, OrderId},
    operation::Answer,
    signed::Signed,
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Messages that wait for one node. One that is so far behind is cut off; orders are sent again when it is back.
const LINK_QUEUE_MAX: usize = 1_024;
/// A node acknowledges a message within this time, or its connection is given up.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// Longest acknowledgement, bytes.
const ACKNOWLEDGEMENT_BYTES_MAX: usize = 64 * 1024;
/// A message is tried so often on one connection.
const ATTEMPTS_MAX: u32 = 3;

/// Nodes that are connected.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_node: HashMap<NodeId, Link>,
}

#[derive(Debug)]
struct Link {
    queue: mpsc::Sender<CenterMessage>,
    connection: Connection,
    /// Whether the connection is to be closed once the queue is empty.
    cut_off: Arc<AtomicBool>,
}

impl Links {
    /// A node was greeted on this connection.
    pub(crate) fn open(
        &mut self,
        id: ConnectionId,
        connection: Connection,
        center: mpsc::WeakSender<Envelope>,
    ) {
        let (queue, messages) = mpsc::channel(LINK_QUEUE_MAX);
        let node = connection.remote();
        let cut_off = Arc::new(AtomicBool::new(false));
        let telling = tell(connection.clone(), messages, center.clone());
        let (told, cut) = (connection.clone(), cut_off.clone());
        tokio::spawn(async move {
            telling.await;
            if cut.load(Ordering::Relaxed) {
                told.close(Refusal::Denied);
            }
        });
        tokio::spawn(watch_over(id, connection.clone(), center));
        let link = Link {
            queue,
            connection,
            cut_off,
        };
        self.by_node.insert(node, link);
    }

    /// Puts a message into a node's queue, if it is connected.
    pub(crate) fn send(&mut self, node: NodeId, message: CenterMessage) {
        let Some(link) = self.by_node.get(&node) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.queue.try_send(message) {
            tracing::warn!(node = %node.short(), "a node does not take its messages; it is cut off");
            link.connection.close(Refusal::Overloaded);
            self.by_node.remove(&node);
        }
    }

    /// Fills in by which way the nodes in an answer are connected: only the connection knows.
    pub(crate) fn tell_ways(&self, answer: &mut Answer) {
        let nodes = match answer {
            Answer::Node(node) => std::slice::from_mut(node),
            Answer::Nodes(nodes) => nodes.as_mut_slice(),
            _ => return,
        };
        for node in nodes.iter_mut().filter(|node| node.online) {
            node.relayed = self
                .by_node
                .get(&node.node)
                .and_then(|link| link.connection.is_relayed());
        }
    }

    /// Cuts a node off after what is queued has been sent.
    pub(crate) fn close(&mut self, node: NodeId) {
        // Its task ends with the queue, and closes.
        if let Some(link) = self.by_node.remove(&node) {
            link.cut_off.store(true, Ordering::Relaxed);
        }
    }

    /// Cuts everybody off at once: they dial again.
    pub(crate) fn close_all(&mut self) {
        for (_, link) in self.by_node.drain() {
            link.connection.close(Refusal::ShuttingDown);
        }
    }
}

/// Tells the loop when a connection is gone.
async fn watch_over(id: ConnectionId, connection: Connection, center: mpsc::WeakSender<Envelope>) {
    let why = connection.closed().await;
    let node = connection.remote();
    tracing::info!(node = %node.short(), %why, "a node is gone");
    if let Some(center) = center.upgrade() {
        // An error means that the center has stopped.
        let _ = center
            .send(Envelope::silent(Input::Gone { node, connection: id }))
            .await;
    }
}

async fn tell(
    connection: Connection,
    mut messages: mpsc::Receiver<CenterMessage>,
    center: mpsc::WeakSender<Envelope>,
) {
    let node = connection.remote();
    while let Some(message) = messages.recv().await {
        match deliver(&connection, &message).await {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => {
                tracing::warn!(node = %node.short(), %rejection, "a node did not take a message");
                let (CenterMessage::Order(order), Some(center)) = (&message, center.upgrade()) else {
                    continue;
                };
                let Some(order) = order_id(order) else { continue };
                let _ = center
                    .send(Envelope::silent(Input::NotTaken {
                        node,
                        order,
                        rejection,
                    }))
                    .await;
            }
            Err(error) => {
                // A node that greets only to enrol takes no messages. It closes once it has read its answer, which a
                // close from here would overtake.
                if error == SessionError::Refused(Refusal::Unsupported) {
                    let _ = tokio::time::timeout(ACKNOWLEDGE_WITHIN, connection.closed()).await;
                }
                // Whatever it was, the node gets it again on a new connection.
                connection.close(Refusal::TimedOut);
                return;
            }
        }
    }
}

/// The node's acknowledgement.
async fn deliver(connection: &Connection, message: &CenterMessage) -> Result<Acknowledged, SessionError> {
    let mut attempt = 1;
    loop {
        let asked = connection
            .request(message, ACKNOWLEDGEMENT_BYTES_MAX, ACKNOWLEDGE_WITHIN)
            .await;
        match asked {
            Ok(acknowledged) => return Ok(acknowledged),
            Err(error) if attempt < ATTEMPTS_MAX && connection.is_open() && error.is_transient() => {
                tracing::debug!(node = %connection.remote().short(), attempt, %error, "a message is sent again");
                attempt += 1;
            }
            Err(error) => {
                tracing::debug!(node = %connection.remote().short(), %error, "a message was not taken");
                return Err(error);
            }
        }
    }
}

/// The order's id, as this center itself signed it.
fn order_id(order: &Signed<daitn_messages::order::WorkOrder>) -> Option<OrderId> {
    order.reread().ok().map(|order| order.id)
}
