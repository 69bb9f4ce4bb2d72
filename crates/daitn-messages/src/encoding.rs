//! CBOR (RFC 8949) with named fields: a peer of another version ignores fields that it does not know.

use crate::{limits::FRAME_BYTES_MAX, rejection::Rejection};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

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

/// The path of the first field in `given` that is not in `understood`, the same value after it was read and written
/// again: what a lenient reader has ignored. For what people write, who must be told of a misspelt name.
#[must_use]
pub fn field_not_understood(given: &Value, understood: &Value) -> Option<String> {
    lost(given, understood, "")
}

/// Longest path that is shown, characters.
const PATH_CHARS_MAX: usize = 200;

fn lost(given: &Value, understood: &Value, path: &str) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(name, value)| {
            let here = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match understood.get(name) {
                Some(understood) => lost(value, understood, &here),
                None => Some(here.chars().take(PATH_CHARS_MAX).collect()),
            }
        }),
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(i, (given, understood))| lost(given, understood, &format!("{path}[{i}]"))),
        _ => None,
    }
}
