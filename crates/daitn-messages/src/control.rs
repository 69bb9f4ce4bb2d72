//! What nodes and the control center say to each other on `daitn/control/1`.
//!
//! The node dials. Its first stream carries [`Hello`] and gets [`Welcome`]; after that each side opens a stream for each
//! message: the node sends [`NodeMessage`] and reads a [`NodeReply`], the center sends [`CenterMessage`] and reads
//! [`Acknowledged`]. Every reply is sent after what it acknowledges is durable. Weights, updates, data, prompts and
//! answers have no place in these types.

use crate::{
    descriptor::{Descriptor, Telemetry},
    ids::{ArtifactId, EntityKind, NodeId, OrganisationId, TokenId},
    order::WorkOrder,
    receipt::Receipt,
    rejection::Rejection,
    session::Peer,
    signed::Signed,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The node's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version that the node speaks.
    pub version_min: u32,
    /// Newest protocol version that the node speaks.
    pub version_max: u32,
    /// Its build.
    pub build: String,
    /// Its clock.
    pub now: UnixMillis,
    /// Where it listens, as it sees itself.
    pub addresses: Vec<std::net::SocketAddr>,
    /// Present when the node joins for the first time.
    pub enrolment: Option<Enrolment>,
    /// Only asks whether it would be welcome: no token is spent, nothing is written and the connection carries nothing
    /// more. The answer is [`Accepted::Done`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_only: bool,
}

/// A node's first joining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Which token.
    pub token: TokenId,
    /// Its secret half. The center keeps only its hash.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// What the node calls itself.
    pub name: String,
}

/// The center's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this connection.
    pub version: u32,
    /// The center's build.
    pub build: String,
    /// The center's clock.
    pub now: UnixMillis,
    /// The organisation that the node belongs to.
    pub organisation: OrganisationId,
    /// Kinds of terminal that it may attach.
    pub terminals: Vec<EntityKind>,
    /// Relay that nodes without a public address use; none: direct only.
    pub relay: Option<String>,
}

/// What a node tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeMessage {
    /// Attach or renew an entity.
    Attach(Signed<Descriptor>),
    /// Withdraw an entity.
    Detach(crate::ids::EntityId),
    /// What was done about an order.
    Report(Signed<Receipt>),
    /// Dynamic properties.
    Telemetry(Vec<Telemetry>),
    /// What the node found about its ways to others.
    Links(Vec<Link>),
}

/// The center's answer to a [`NodeMessage`] or [`Hello`].
pub type NodeReply = Result<Accepted, Rejection>;

/// The center has taken it, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepted {
    /// To [`Hello`].
    Welcome(Welcome),
    /// To all else, and to a [`Hello`] that only asks.
    Done,
}

/// What one node found about its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// Round-trip time, microseconds.
    pub rtt_micros: u64,
    /// Throughput that was seen, bytes a second.
    pub bytes_per_second: u64,
    /// Whether it goes through a relay.
    pub relayed: bool,
    /// When it was measured.
    pub measured_at: UnixMillis,
}

/// What the center tells a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CenterMessage {
    /// Do this.
    Order(Signed<WorkOrder>),
    /// New ways to reach other nodes.
    Peers(Vec<Peer>),
    /// Measure your ways to these.
    Probe(Vec<Peer>),
    /// Gateways of the domain: a node that hosts models or agents keeps an outward data connection to each, so that
    /// sessions reach it behind NAT.
    Gateways(Vec<Peer>),
    /// The node is no longer part of the domain.
    Revoked,
}

/// The node's answer to a [`CenterMessage`]: it is durable there.
pub type Acknowledged = Result<(), Rejection>;

/// A join token as text: `daitn1-` and base 32 of this, encoded. Shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its public half, by which it is listed and revoked.
    pub token: TokenId,
    /// Its secret half.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// The control center's key: pinned before any secret is sent.
    pub center: Peer,
    /// The organisation that joins.
    pub organisation: OrganisationId,
}

/// What the holder of a join token shows to the domain's relay, which it has to pass before it can join. Made from the
/// hash of the secret, which is all that the control center keeps, and says nothing about either.
#[must_use]
pub fn relay_pass(token: &TokenId, secret_hash: &ArtifactId) -> String {
    let proof = ArtifactId::of(&[b"daitn relay pass 1".as_slice(), &secret_hash.0].concat());
    format!("{token}.{proof}")
}

/// What a join token's text begins with.
pub const JOIN_TOKEN_PREFIX: &str = "daitn1-";

impl JoinToken {
    /// The text that the operator hands over.
    #[must_use]
    pub fn to_text(&self) -> String {
        let body = data_encoding::BASE32_NOPAD
            .encode(&crate::encoding::encode(self))
            .to_ascii_lowercase();
        format!("{JOIN_TOKEN_PREFIX}{body}")
    }

    /// What is shown to the domain's relay: see [`relay_pass`].
    #[must_use]
    pub fn relay_pass(&self) -> String {
        relay_pass(&self.token, &ArtifactId::of(&self.secret))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// `E0202` if it is no token or was cut.
    pub fn from_text(text: &str) -> Result<Self, Rejection> {
        let wrong = |why: &str| {
            Rejection::new(
                crate::rejection::Code::TokenInvalid,
                format!("this is not a join token: {why}"),
            )
            .with_hint("Copy the whole token: it begins with `daitn1-` and has no spaces.")
        };
        let text = text.trim();
        let body = text
            .strip_prefix(JOIN_TOKEN_PREFIX)
            .ok_or_else(|| wrong("it does not begin with `daitn1-`"))?;
        if body.len() > 4096 {
            return Err(wrong("it is too long"));
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| wrong("it has a character that does not belong in it, or was cut"))?;
        crate::encoding::decode(&bytes).map_err(|_| wrong("it was cut or changed"))
    }
}
