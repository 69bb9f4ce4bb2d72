//! Leaves of the transparency log: each decision, receipt, enrolment and policy change as a canonical record of hashes
//! and metadata. Written in the same transaction as what they witness; tiles and proofs are built over their bytes.

use crate::{
    ids::{ArtifactId, OrganisationId},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// What a leaf witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LeafKind {
    /// A node joined.
    Enrolment,
    /// A node was thrown out.
    Revocation,
    /// A descriptor version.
    Descriptor,
    /// A policy changed.
    Policy,
    /// A verdict was given.
    Verdict,
    /// A plan was accepted.
    Plan,
    /// A work order was signed.
    WorkOrder,
    /// A receipt came in.
    Receipt,
    /// A verification report came in.
    Report,
    /// A model was registered.
    Registration,
    /// A deployment changed its phase.
    Deployment,
    /// A join token or API key was made or revoked.
    Key,
    /// A job ended.
    JobEnd,
}

/// One entry of the log. Its canonical bytes are [`Leaf::to_bytes`]; never a payload, never free text of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leaf {
    /// Format of the leaf: 1.
    pub format: u32,
    /// What it witnesses.
    pub kind: LeafKind,
    /// When the control center decided.
    pub at: UnixMillis,
    /// Id of what it is about.
    pub subject: String,
    /// BLAKE3 of what is witnessed, as it was signed or encoded.
    pub hash: ArtifactId,
    /// Organisations that may read the leaf in clear. Sorted.
    pub concerns: Vec<OrganisationId>,
}

impl Leaf {
    /// A leaf of the newest format.
    #[must_use]
    pub fn new(kind: LeafKind, at: UnixMillis, subject: String, hash: ArtifactId) -> Self {
        Self {
            format: 1,
            kind,
            at,
            subject,
            hash,
            concerns: Vec::new(),
        }
    }

    /// Adds organisations that it concerns.
    #[must_use]
    pub fn concerning<'a>(mut self, organisations: impl IntoIterator<Item = &'a OrganisationId>) -> Self {
        self.concerns.extend(organisations.into_iter().cloned());
        self.concerns.sort_unstable();
        self.concerns.dedup();
        self
    }

    /// The canonical bytes: CBOR with the fields in the order declared here and shortest-form numbers
    /// (RFC 8949, section 4.2.1, but for the order of keys, which the format number fixes).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::encoding::encode(self)
    }
}
