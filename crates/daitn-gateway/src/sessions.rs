//! Sessions with nodes: the only file here that uses the transport.

use bytes::{Bytes, BytesMut};
use daitn_fabric::{
    ConnectError, Connection, DATA_ALPN, Endpoint, Refusal, Session, SessionError, SessionReceiver,
};
use daitn_messages::{
    limits::SESSION_HEADER_BYTES_MAX,
    rejection::{Code, Rejection},
    session::{AgentCall, InferQuery, Peer, SessionReply, SessionRequest},
};
use std::time::Duration;

/// A node that does not take a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a session gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionFailure {
    /// No connection could be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke off.
    #[error(transparent)]
    Broken(#[from] SessionError),
    /// The node said no.
    #[error(transparent)]
    Refused(Rejection),
    /// The node's answer does not fit the question.
    #[error("the node's answer does not fit the question: {0}")]
    Unfitting(&'static str),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Whose failure it is, which decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The query itself is wrong: every replica would say so.
    Query,
    /// The host is full: another may not be.
    Full,
    /// The host will not, for a reason of its own, which is no fault.
    Host,
    /// The host or the way to it is broken.
    Broken,
}

impl SessionFailure {
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Refused(rejection) => match rejection.code {
                Code::Malformed | Code::TooLarge | Code::OutOfRange | Code::BadTensor => Blame::Query,
                Code::Overloaded => Blame::Full,
                Code::PolicyForbids | Code::NotEnrolled | Code::Unauthenticated | Code::Unauthorised => {
                    Blame::Host
                }
                _ => Blame::Broken,
            },
            Self::Broken(SessionError::Refused(Refusal::Overloaded)) => Blame::Full,
            Self::Broken(SessionError::Refused(Refusal::Denied)) => Blame::Host,
            _ => Blame::Broken,
        }
    }

    /// As told to the client.
    pub(crate) fn rejection(&self, code: Code) -> Rejection {
        match self {
            Self::Refused(rejection) => rejection.clone(),
            _ => Rejection::new(code, self.to_string()),
        }
    }
}

/// What a model host answered.
#[derive(Debug, Clone)]
pub(crate) struct Inferred {
    /// `n_rows` × number of outputs, little-endian f32.
    pub(crate) output: Bytes,
    pub(crate) host_micros: u64,
    /// Queries at the host, this one among them.
    pub(crate) in_flight: u32,
    /// The way to the host and back, where the transport knows it.
    pub(crate) rtt: Option<Duration>,
}

/// An agent's answer, of which the head is here and the body follows.
pub(crate) struct AgentAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: SessionReceiver,
}

/// Opens sessions with nodes.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    endpoint: Endpoint,
}

impl Sessions {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Takes what the snapshot says of how nodes are reached.
    pub(crate) fn learn<'a>(&self, peers: impl Iterator<Item = &'a Peer>) {
        for peer in peers {
            if let Err(error) = self.endpoint.set_peer(peer.clone()) {
                tracing::warn!(node = %peer.node, "the snapshot names a node that cannot be dialled: {error}");
            }
        }
    }

    async fn connection(&self, peer: &Peer) -> Result<Connection, ConnectError> {
        self.endpoint
            .connection_to(peer.node, DATA_ALPN, CONNECT_TIMEOUT)
            .await
    }

    /// Asks a model host. The answer is `output_bytes` long, or there is none.
    pub(crate) async fn infer(
        &self,
        peer: &Peer,
        query: InferQuery,
        input: Bytes,
        output_bytes: usize,
        within: Duration,
    ) -> Result<Inferred, SessionFailure> {
        let n_rows = query.n_rows;
        let exchange = async {
            let connection = self.connection(peer).await?;
            let session = connection.open(&SessionRequest::Infer(query), within).await?;
            let (reply, mut receiver) = ask(session, input).await?;
            let SessionReply::Inferred {
                n_rows: answered,
                host_micros,
                in_flight,
            } = reply
            else {
                return Err(unfitting(reply));
            };
            if answered != n_rows {
                return Err(SessionFailure::Unfitting("another number of rows"));
            }
            let mut output = BytesMut::with_capacity(output_bytes);
            receiver.append(&mut output, output_bytes).await?;
            if receiver.recv_bytes(1).await?.is_some() {
                return Err(SessionFailure::Unfitting("more outputs than the model has"));
            }
            Ok(Inferred {
                output: output.freeze(),
                host_micros,
                in_flight,
                rtt: connection.rtt(),
            })
        };
        tokio::time::timeout(within, exchange)
            .await
            .map_err(|_| SessionFailure::TimedOut(within))?
    }

    /// Relays a request to an agent. Its answer must begin within `within`, and is given up after `idle` without a byte.
    pub(crate) async fn agent(
        &self,
        peer: &Peer,
        call: AgentCall,
        body: Bytes,
        within: Duration,
        idle: Duration,
    ) -> Result<AgentAnswer, SessionFailure> {
        let exchange = async {
            let connection = self.connection(peer).await?;
            let mut session = connection.open(&SessionRequest::Agent(call), within).await?;
            session.set_timeout(idle.max(within));
            match ask(session, body).await? {
                (SessionReply::Agent { status, headers }, body) => Ok(AgentAnswer {
                    status,
                    headers,
                    body,
                }),
                (reply, _) => Err(unfitting(reply)),
            }
        };
        tokio::time::timeout(within, exchange)
            .await
            .map_err(|_| SessionFailure::TimedOut(within))?
    }
}

/// Sends what follows the request and reads the reply frame, which may come before everything is sent: then the rest is
/// not wanted.
async fn ask(session: Session, input: Bytes) -> Result<(SessionReply, SessionReceiver), SessionFailure> {
    let (mut sender, mut receiver) = session.split();
    let reply = {
        let mut reply = std::pin::pin!(receiver.recv::<SessionReply>(SESSION_HEADER_BYTES_MAX));
        let send = async {
            sender.send_bytes(input).await?;
            sender.finish()
        };
        tokio::select! {
            biased;
            reply = &mut reply => reply,
            sent = send => match sent {
                Ok(()) => reply.await,
                // A node that refuses stops reading: its reason is in the reply, if there is one.
                Err(error) => reply.await.map_err(|_| error),
            },
        }
    }?;
    Ok((reply, receiver))
}

fn unfitting(reply: SessionReply) -> SessionFailure {
    match reply {
        SessionReply::Refused(rejection) => SessionFailure::Refused(rejection),
        _ => SessionFailure::Unfitting("another kind of reply"),
    }
}
