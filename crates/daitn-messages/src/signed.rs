//! Signed messages: Ed25519 (RFC 8032) over a context, a zero byte and the exact payload bytes.
//!
//! The context says what kind of statement is signed, so that a signature over one kind can never pass for another.
//! The payload is kept as it was signed: a reader of another version verifies the bytes, then reads what it knows.

use crate::{
    encoding,
    ids::NodeId,
    rejection::{Code, Rejection},
};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData};

/// A statement that can be signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// The kind of statement, for instance `daitn/v1/descriptor`. Never reused for another meaning.
    const CONTEXT: &'static str;
}

/// A node's secret key. Its bytes are wiped when dropped and never printed.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }
    /// The 32 secret bytes, to be kept in a file that only its owner reads.
    #[must_use]
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }
    /// The identity that goes with it.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey of {}", self.id().short())
    }
}

/// A statement as its signer encoded it, with the signature.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    /// The exact bytes that were signed (after the context and a zero byte).
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
    signer: NodeId,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
    #[serde(skip)]
    statement: PhantomData<fn() -> T>,
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self {
            payload: self.payload.clone(),
            signer: self.signer,
            signature: self.signature,
            statement: PhantomData,
        }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.payload, self.signer, self.signature) == (&other.payload, other.signer, other.signature)
    }
}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Signed({} bytes by {})",
            self.payload.len(),
            self.signer.short()
        )
    }
}

fn signed_bytes(context: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(context.len() + 1 + payload.len());
    bytes.extend_from_slice(context.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(payload);
    bytes
}

impl<T: Statement> Signed<T> {
    /// Encodes and signs.
    #[must_use]
    pub fn seal(statement: &T, key: &NodeKey) -> Self {
        let payload = encoding::encode(statement);
        let signature = key.0.sign(&signed_bytes(T::CONTEXT, &payload)).to_bytes();
        Self {
            payload,
            signer: key.id(),
            signature,
            statement: PhantomData,
        }
    }

    /// Verifies that `signer` signed it, then reads it.
    ///
    /// # Errors
    /// `E0105` if another key signed it or a byte was changed; `E0101` if it does not read.
    pub fn open(&self, signer: NodeId) -> Result<T, Rejection> {
        if self.signer != signer {
            let message = format!("signed by {} instead of {}", self.signer.short(), signer.short());
            return Err(Rejection::new(Code::BadSignature, message));
        }
        let refused = |_| Rejection::new(Code::BadSignature, format!("signature of {}", signer.short()));
        let key = VerifyingKey::from_bytes(signer.as_bytes()).map_err(refused)?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        key.verify_strict(&signed_bytes(T::CONTEXT, &self.payload), &signature)
            .map_err(refused)?;
        encoding::decode(&self.payload)
    }

    /// Reads it without verifying: only for what this process has verified, or signed itself, and kept where nobody else
    /// writes. A restart that verified a million descriptors again would take a minute.
    ///
    /// # Errors
    /// `E0101` if it does not read.
    pub fn reread(&self) -> Result<T, Rejection> {
        encoding::decode(&self.payload)
    }

    /// Who claims to have signed it. Trust it only after [`Self::open`].
    #[must_use]
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// The hash of the exact payload, by which leaves and plans refer to it.
    #[must_use]
    pub fn hash(&self) -> crate::ids::ArtifactId {
        crate::ids::ArtifactId::of(&self.payload)
    }
}
