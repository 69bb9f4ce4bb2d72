//! What can go wrong in the transport, one enum for each operation.

use daitn_messages::{
    ids::NodeId,
    rejection::{Code, Rejection},
};
use iroh::endpoint::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use std::{net::SocketAddr, time::Duration};

/// Why one side ended a stream or a connection; travels as a QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The other side dropped the session before its end.
    #[error("given up by the other side")]
    Cancelled,
    /// Nobody there answers this kind of session.
    #[error("not offered by the other side")]
    Unsupported,
    /// A bound on concurrent work is reached.
    #[error("the other side is overloaded")]
    Overloaded,
    /// A frame is over its bound.
    #[error("a frame is over the other side's bound")]
    TooLarge,
    /// The other side waited too long.
    #[error("the other side waited too long")]
    TimedOut,
    /// The other side does not admit this node.
    #[error("not admitted by the other side")]
    Denied,
    /// A frame could not be read.
    #[error("the other side could not read a frame")]
    Malformed,
    /// The other side is shutting down.
    #[error("the other side is shutting down")]
    ShuttingDown,
    /// A code that this build does not know.
    #[error("refused with code {0}")]
    Other(u64),
}

impl Refusal {
    const KNOWN: [Self; 8] = [
        Self::Cancelled,
        Self::Unsupported,
        Self::Overloaded,
        Self::TooLarge,
        Self::TimedOut,
        Self::Denied,
        Self::Malformed,
        Self::ShuttingDown,
    ];

    /// The number on the wire. Zero is what QUIC sends for a dropped stream.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Cancelled => 0,
            Self::Unsupported => 1,
            Self::Overloaded => 2,
            Self::TooLarge => 3,
            Self::TimedOut => 4,
            Self::Denied => 5,
            Self::Malformed => 6,
            Self::ShuttingDown => 7,
            Self::Other(code) => code,
        }
    }

    /// From the number on the wire.
    #[must_use]
    pub fn from_code(code: u64) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|refusal| refusal.code() == code)
            .unwrap_or(Self::Other(code))
    }

    pub(crate) fn var(self) -> VarInt {
        VarInt::from_u64(self.code()).unwrap_or(VarInt::MAX)
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot bind {addresses:?}: {cause}. Is another process using the port?")]
    Address {
        /// What was asked for; empty for any.
        addresses: Vec<SocketAddr>,
        /// The transport's reason.
        cause: String,
    },
    /// A relay's address is not a URL.
    #[error("`{url}` is not the URL of a relay, for instance `https://relay.example.org`")]
    RelayUrl {
        /// The offending text.
        url: String,
    },
}

/// Why a peer was not taken into the address book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The bytes are not a public key.
    #[error("{0} is not an Ed25519 public key")]
    NotAKey(NodeId),
    /// The relay's address is not a URL.
    #[error("`{url}` is not the URL of a relay")]
    RelayUrl {
        /// The offending text.
        url: String,
    },
    /// The address book is full.
    #[error("the address book holds its most of {max} peers")]
    Full {
        /// The bound.
        max: usize,
    },
}

/// Why a connection could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Neither address nor connection of this node is known.
    #[error("no address of node {0} is known")]
    UnknownPeer(NodeId),
    /// A node cannot dial itself.
    #[error("node {0} is this node itself")]
    ToSelf(NodeId),
    /// No answer in time.
    #[error("node {node} did not answer within {within:?}")]
    TimedOut {
        /// Whom.
        node: NodeId,
        /// How long was waited.
        within: Duration,
    },
    /// The peer, or something between, said no.
    #[error("node {node} cannot be reached: {cause}")]
    Failed {
        /// Whom.
        node: NodeId,
        /// The transport's reason.
        cause: String,
    },
    /// The bound on connections is reached and none of them is idle.
    #[error("all {max} connections are in use")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// This endpoint is shutting down.
    #[error("this endpoint is shutting down")]
    ShuttingDown,
}

/// Why a session broke off.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(String),
    /// The other side ended the session.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// No progress in time.
    #[error("no progress within {0:?}")]
    TimedOut(Duration),
    /// A frame is over the bound of this side.
    #[error("frame of {found} bytes is over the bound of {max}")]
    TooLarge {
        /// Its length, as announced.
        found: u64,
        /// The bound.
        max: usize,
    },
    /// The stream ended inside a frame, or before one that had to come.
    #[error("the session ended early")]
    EndedEarly,
    /// A frame that does not decode.
    #[error("{0}")]
    Malformed(Rejection),
    /// This side ended its direction already.
    #[error("this side of the session has ended")]
    Ended,
}

impl SessionError {
    /// Whether asking again, or asking another holder, may help: what failed was the way, not the request.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLost(_)
                | Self::TimedOut(_)
                | Self::EndedEarly
                | Self::Refused(
                    Refusal::Cancelled | Refusal::Overloaded | Refusal::ShuttingDown | Refusal::TimedOut
                )
        )
    }

    /// As told to users and peers.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        let code = match self {
            Self::Malformed(rejection) => return rejection.clone(),
            Self::TooLarge { .. } | Self::Refused(Refusal::TooLarge) => Code::TooLarge,
            Self::Refused(Refusal::Malformed) => Code::Malformed,
            Self::Refused(Refusal::Overloaded) => Code::Overloaded,
            Self::Refused(Refusal::Denied) => Code::NotEnrolled,
            _ => Code::Unreachable,
        };
        Rejection::new(code, self.to_string())
    }
}

impl From<ConnectionError> for SessionError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::Refused(Refusal::from_code(close.error_code.into_inner()))
            }
            other => Self::ConnectionLost(other.to_string()),
        }
    }
}

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Refused(Refusal::from_code(code.into_inner())),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream => Self::Ended,
            other @ ReadError::ZeroRttRejected => Self::ConnectionLost(other.to_string()),
        }
    }
}

impl From<WriteError> for SessionError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Refused(Refusal::from_code(code.into_inner())),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => Self::Ended,
            other @ WriteError::ZeroRttRejected => Self::ConnectionLost(other.to_string()),
        }
    }
}

impl From<StoppedError> for SessionError {
    fn from(error: StoppedError) -> Self {
        match error {
            StoppedError::ConnectionLost(error) => error.into(),
            other @ StoppedError::ZeroRttRejected => Self::ConnectionLost(other.to_string()),
        }
    }
}

impl From<SessionError> for std::io::Error {
    fn from(error: SessionError) -> Self {
        Self::new(std::io::ErrorKind::ConnectionAborted, error)
    }
}

/// Why a relay could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address cannot be bound.
    #[error("cannot bind the relay to {address}: {cause}")]
    Address {
        /// What was asked for.
        address: SocketAddr,
        /// The system's reason.
        cause: String,
    },
    /// Its certificate or key cannot be used.
    #[error("the relay's certificate: {cause}")]
    Certificate {
        /// What is wrong.
        cause: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_number() {
        for (code, refusal) in (0..).zip(Refusal::KNOWN) {
            assert_eq!(refusal.code(), code);
            assert_eq!(Refusal::from_code(code), refusal);
        }
        assert_eq!(Refusal::from_code(99), Refusal::Other(99));
    }
}
