//! CBOR (RFC 8949) with named fields: a peer of another version ignores fields that it does not know.

use crate::{limits::FRAME_BYTES_MAX, rejection::Rejection};
use serde::{Serialize, de::DeserializeOwned};

/// Encodes a value. Fails only where a map key is not a text, which no type of ours has.
///
/// # Panics
/// Never for the types of this crate: their encoding has no error case but running out of memory.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::with_capacity(256), value).expect("values of this crate always encode")
}

/// Decodes a value from at most [`FRAME_BYTES_MAX`] bytes and refuses what is left over.
///
/// # Errors
/// [`Rejection::malformed`] with the cause.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    decode_at_most(bytes, FRAME_BYTES_MAX)
}

/// Decodes a value from at most `bytes_max` bytes and refuses what is left over.
///
/// # Errors
/// [`Rejection::malformed`] with the cause.
pub fn decode_at_most<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, Rejection> {
    if bytes.len() > bytes_max {
        return Err(Rejection::too_large(
            "message",
            bytes.len() as u64,
            bytes_max as u64,
        ));
    }
    let mut reader = std::io::Cursor::new(bytes);
    let value = cbor4ii::serde::from_reader(&mut reader).map_err(|error| {
        Rejection::malformed("message", &format!("not the CBOR that was expected: {error}"))
    })?;
    let read = usize::try_from(reader.position()).unwrap_or(usize::MAX);
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(Rejection::malformed(
            "message",
            &format!("{} bytes after its end", bytes.len() - read),
        ))
    }
}
