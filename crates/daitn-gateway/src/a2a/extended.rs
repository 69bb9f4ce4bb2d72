//! The card that an agent shows to who has proven who they are. It comes from the agent, and like the public one it must
//! name this gateway and not addresses that the client cannot reach: it is the one answer that is read and written anew.

use super::card;
use crate::sessions::AgentAnswer;
use bytes::BytesMut;
use daitn_messages::rejection::{Code, Rejection};
use serde_json::Value;

/// The method.
pub(super) const METHOD: &str = "GetExtendedAgentCard";
/// Longest answer with a card, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The answer is taken in pieces of at most this many.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether the agent's public card says that there is an extended one (A2A 1.0, section 4.4.3).
pub(super) fn is_offered(origin_card: &str) -> bool {
    serde_json::from_str::<Value>(origin_card)
        .is_ok_and(|card| card["capabilities"]["extendedAgentCard"] == Value::Bool(true))
}

/// The agent's answer, with the card in it naming `url`; an error of the agent's stays as it is.
pub(super) async fn rewritten(mut answer: AgentAnswer, url: &str) -> Result<Value, Rejection> {
    let broken = |why: &str| Rejection::new(Code::AgentFailed, format!("the agent's extended card: {why}"));
    let mut bytes = BytesMut::new();
    let broke_off = |_| broken("the agent broke off");
    while let Some(piece) = answer.body.recv_bytes(PIECE_BYTES).await.map_err(broke_off)? {
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(broken("it is longer than 1 MiB"));
        }
        bytes.extend_from_slice(&piece);
    }
    let mut reply: Value = serde_json::from_slice(&bytes).map_err(|_| broken("the answer is not JSON"))?;
    if reply.get("error").is_some_and(|error| !error.is_null()) {
        return Ok(reply);
    }
    match reply.get_mut("result") {
        Some(Value::Object(found)) => {
            let named = card::named_here(std::mem::take(found), url)?;
            *found = named;
            Ok(reply)
        }
        _ => Err(broken("the answer holds none")),
    }
}
