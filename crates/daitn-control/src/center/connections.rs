//! What nodes say: each session is one message, put into the queue and answered once what follows from it is durable.

use crate::center::input::{Envelope, Input};
use daitn_fabric::{IncomingSession, Refusal};
use daitn_messages::{
    control::{Hello, NodeMessage, NodeReply},
    rejection::{Code, Rejection},
};
use tokio::sync::{mpsc, oneshot};

/// Longest greeting, bytes: a node that is not known yet gets no room for more.
const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Answers sessions on the control protocol.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    queue: mpsc::Sender<Envelope>,
}

impl Desk {
    pub(crate) fn new(queue: mpsc::Sender<Envelope>) -> Self {
        Self { queue }
    }

    pub(crate) async fn answer(self, mut incoming: IncomingSession) {
        let node = incoming.remote;
        // An enumeration is a map of one entry, so that a greeting fails at its first byte and costs nothing.
        let input = match incoming.header::<NodeMessage>() {
            Ok(message) => Input::Message { node, message },
            Err(not_a_message) => match incoming.header::<Hello>() {
                Ok(hello) if incoming.header.len() <= HELLO_BYTES_MAX => Input::Hello {
                    connection: incoming.connection.clone(),
                    hello: Box::new(hello),
                },
                _ => {
                    let reply: NodeReply = Err(not_a_message.rejection());
                    return send(incoming, &reply).await;
                }
            },
        };
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Envelope::node(input, reply)).await.is_err() {
            return incoming.session.refuse(Refusal::ShuttingDown);
        }
        let stopped = || Rejection::new(Code::ControlUnavailable, "the control center has stopped");
        let reply: NodeReply = answer.await.unwrap_or_else(|_| Err(stopped()));
        incoming.header.clear();
        send(incoming, &reply).await;
    }
}

async fn send(mut incoming: IncomingSession, reply: &NodeReply) {
    if let Err(error) = incoming.session.send_last(reply).await {
        tracing::debug!(node = %incoming.remote.short(), %error, "a node did not take its answer");
    }
}
