//! What comes in: bodies within their bounds of size, time and memory, and JSON without anything in it that was not
//! understood.

use crate::{gateway::Gateway, reply::Failure, stats::count};
use axum::{
    body::Body,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use bytes::{Bytes, BytesMut};
use daitn_messages::{
    rejection::{Code, Rejection},
    written,
};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{str::FromStr, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// Memory for bodies is counted in pieces of this many bytes.
pub(crate) const BODY_UNIT_BYTES: usize = 64 * 1024;
/// Longest `Idempotency-Key`, bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// A whole body, and the memory that is set aside for it as long as this lives.
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    memory: Option<OwnedSemaphorePermit>,
}

impl Whole {
    /// The bytes, with what must live as long as they do.
    pub(crate) fn into_parts(self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        (self.bytes, self.memory)
    }
}

impl Gateway {
    /// Reads a body of at most `max` bytes. Call it when the caller is known to be allowed: nobody else's bytes are
    /// waited for.
    pub(crate) async fn body(&self, headers: &HeaderMap, body: Body, max: usize) -> Result<Whole, Failure> {
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity")
        {
            return Err(unsupported("the body is compressed; send it as it is"));
        }
        let announced: Option<usize> = headers
            .get(CONTENT_LENGTH)
            .and_then(|text| text.to_str().ok())
            .and_then(|text| text.parse().ok());
        if announced.is_some_and(|bytes| bytes > max) {
            return Err(
                Rejection::too_large("body", announced.unwrap_or_default() as u64, max as u64).into(),
            );
        }
        let limits = self.limits();
        let slowest =
            Duration::from_secs((announced.unwrap_or(max) / limits.body_bytes_per_second_min) as u64);
        let within = limits.body_timeout + slowest;
        let read = self.read(body, announced.unwrap_or(0), max);
        tokio::time::timeout(within, read)
            .await
            .unwrap_or_else(|_| Err(too_slow(within)))
    }

    async fn read(&self, mut body: Body, announced: usize, max: usize) -> Result<Whole, Failure> {
        let stall = self.limits().body_stall;
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(stall, body.frame())
                .await
                .map_err(|_| too_slow(stall))?;
            let Some(frame) = frame else { break };
            let frame = frame
                .map_err(|_| Rejection::malformed("body", "it broke off or is not framed as HTTP says"))?;
            // Trailers are of no use here.
            let Ok(data) = frame.into_data() else { continue };
            let length = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
            if length > max {
                return Err(Rejection::too_large("body", length as u64, max as u64).into());
            }
            self.set_aside(&mut memory, length.max(announced))?;
            match &first {
                None => first = Some(data),
                Some(head) => {
                    if rest.is_empty() {
                        rest.reserve(announced.max(head.len() + data.len()));
                        rest.extend_from_slice(head);
                        first = Some(Bytes::new());
                    }
                    rest.extend_from_slice(&data);
                }
            }
        }
        // A body that came in one piece is not copied.
        let bytes = if rest.is_empty() {
            first.unwrap_or_default()
        } else {
            rest.freeze()
        };
        Ok(Whole { bytes, memory })
    }

    /// Counts `length` bytes against the memory for bodies.
    pub(crate) fn set_aside(
        &self,
        memory: &mut Option<OwnedSemaphorePermit>,
        length: usize,
    ) -> Result<(), Rejection> {
        let held = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = length.div_ceil(BODY_UNIT_BYTES).saturating_sub(held);
        let Ok(needed) = u32::try_from(needed) else {
            return Err(Rejection::too_large("body", length as u64, u64::MAX));
        };
        if needed == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.bodies)
            .try_acquire_many_owned(needed)
            .map_err(|_| {
                count(&self.stats.overloads_total);
                Rejection::new(Code::Overloaded, "the memory for bodies is in use")
            })?;
        match memory {
            Some(memory) => memory.merge(more),
            None => *memory = Some(more),
        }
        Ok(())
    }

    /// Reads a JSON body of the REST API.
    pub(crate) async fn json<T: DeserializeOwned + Serialize>(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<T, Failure> {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if !is_json(kind) {
            return Err(unsupported(
                "send the body as JSON, with `Content-Type: application/json`",
            ));
        }
        let whole = self.body(headers, body, self.limits().json_bytes_max).await?;
        Ok(strict(&whole.bytes)?)
    }
}

fn unsupported(why: &str) -> Failure {
    Failure::with_status(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Rejection::malformed("media type", why),
    )
}

fn too_slow(within: Duration) -> Failure {
    let rejection = Rejection::malformed("body", &format!("it has not arrived within {within:?}"));
    Failure::with_status(StatusCode::REQUEST_TIMEOUT, rejection)
}

pub(crate) fn is_json(kind: &str) -> bool {
    let essence = essence(kind);
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A media type without its parameters, in lower case.
pub(crate) fn essence(kind: &str) -> String {
    let essence = kind.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Reads JSON and refuses every field that was not understood. Depth is bounded by the parser, at 128.
pub(crate) fn strict<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, Rejection> {
    let given: Value =
        serde_json::from_slice(bytes).map_err(|error| Rejection::malformed("body", &error.to_string()))?;
    written::read(&mut serde_json::Deserializer::from_slice(bytes), &given).map_err(|misread| {
        let what = if misread.path.is_empty() {
            "body".to_owned()
        } else {
            format!("body, field `{}`", misread.path)
        };
        Rejection::malformed(&what, &misread.why)
    })
}

/// A name in a path, as a value.
pub(crate) fn named<T: FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Rejection> {
    text.parse()
        .map_err(|error: T::Err| Rejection::malformed(what, &error.to_string()))
}

/// The `Idempotency-Key` of a submit, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejection::malformed("Idempotency-Key", "there is more than one"));
    }
    let text = value
        .to_str()
        .map_err(|_| Rejection::malformed("Idempotency-Key", "it is not readable text"))?;
    check_idempotency_key(text)?;
    Ok(Some(text.to_owned()))
}

/// Checks an idempotency key's bounds.
pub(crate) fn check_idempotency_key(text: &str) -> Result<(), Rejection> {
    if text.is_empty()
        || text.len() > IDEMPOTENCY_KEY_BYTES_MAX
        || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        let why = format!("use 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        return Err(Rejection::malformed("idempotency key", &why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::{operation::NewToken, policy::PolicyQuestion, request::TrainingRequest};

    fn refused<T: DeserializeOwned + Serialize + std::fmt::Debug>(text: &str, expected: &str) {
        let rejection = strict::<T>(text.as_bytes()).unwrap_err();
        assert_eq!(rejection.code, Code::Malformed);
        assert!(
            rejection.message.contains(expected),
            "{} has not `{expected}`",
            rejection.message
        );
    }

    const REQUEST: &str = r#"{"model":"digits","organisation":"acme","jurisdiction":"DE","purpose":"research",
        "architecture":{"kind":"mlp","hidden":[8]},"features":["a"],"target":"y","task":{"kind":"regression"},
        "training":{"rounds":1,"local":{"epochs":1,"batch_size":8,"learning_rate":0.1,"seed":1}},
        "verification":{"metric":"rmse","target":1,"required":1}}"#;

    #[test]
    fn a_request_reads() {
        let request: TrainingRequest = strict(REQUEST.as_bytes()).unwrap();
        assert_eq!(request.training.local.epochs, 1);
    }

    #[test]
    fn fields_that_do_not_exist_are_named_wherever_they_stand() {
        refused::<NewToken>(r#"{"organisation":"acme","use":3}"#, "unknown field `use`");
        // Inside an internally tagged enum and inside a struct that others may extend, serde itself is silent.
        refused::<TrainingRequest>(
            &REQUEST.replace("\"hidden\"", "\"extra\":1,\"hidden\""),
            "`architecture.extra`",
        );
        refused::<TrainingRequest>(
            &REQUEST.replace("\"epochs\"", "\"epoch\":2,\"epochs\""),
            "`training.local.epoch`",
        );
        refused::<TrainingRequest>(
            &REQUEST.replace("\"metric\"", "\"metirc\""),
            "body, field `verification`: missing field `metric`",
        );
        refused::<TrainingRequest>(
            &REQUEST.replace("\"metric\"", "\"metirc\""),
            "is `verification.metirc` meant to be it?",
        );
        refused::<PolicyQuestion>(
            r#"{"who":"a","verb":"train","what":"dataset:a/b","why":1,"context":{"purpose":"","algorithm":"",
                "protections":[],"cohort":1,"jurisdiction":"DE","recipients":[]}}"#,
            "`why`",
        );
    }

    #[test]
    fn numbers_names_and_depth_are_bounded() {
        refused::<NewToken>(r#"{"organisation":"acme","uses":-1}"#, "uses");
        refused::<NewToken>(r#"{"organisation":"acme","uses":4294967296}"#, "uses");
        refused::<NewToken>(r#"{"organisation":"acme","uses":1e99}"#, "uses");
        refused::<NewToken>(r#"{"organisation":"acme","organisation":"b"}"#, "duplicate field");
        refused::<NewToken>(r#"{"organisation":"../etc"}"#, "is not a name");
        refused::<NewToken>(r#"{"organisation":"acme"} x"#, "trailing characters");
        refused::<NewToken>(r#"{"organisation":"acme","uses":1.5}"#, "uses");
        refused::<NewToken>("", "EOF");
        refused::<Value>(&"[".repeat(100_000), "recursion limit");
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let token: NewToken = strict(br#"{"organisation":"acme","uses":3.0,"valid_ms":1e3}"#).unwrap();
        assert_eq!((token.uses, token.valid_ms), (3, 1000));
    }

    #[test]
    fn only_json_is_json() {
        assert!(is_json("application/json"));
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(is_json("application/a2a+json"));
        for other in [
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            assert!(!is_json(other), "{other}");
        }
    }
}
