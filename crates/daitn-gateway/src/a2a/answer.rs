//! An agent's answer on its way to the client: JSON, which is read whole first, so that one that is too long or breaks off
//! is an error and not half an answer; or server-sent events, which go through one by one as they come. Nothing else does:
//! an agent is not trusted more than its owner, and a page of its making would run under the gateway's own name.

use super::{
    GATEWAY_ERROR, error_body,
    events::{Fed, Splitter},
    relay::HEADER_VALUE_BYTES_MAX,
};
use crate::{
    gateway::Gateway,
    input::{essence, is_json},
    sessions::AgentAnswer,
    stats::Open,
};
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use bytes::{Bytes, BytesMut};
use daitn_fabric::SessionReceiver;
use daitn_messages::rejection::{Code, Rejection};
use futures_util::stream;
use serde_json::Value;
use std::{io, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// Headers of the agent that the client gets. No cookies, no redirects, nothing of the connection.
const RESPONSE_HEADERS: [&str; 7] = [
    "content-type",
    "content-language",
    "cache-control",
    "retry-after",
    "a2a-version",
    "a2a-extensions",
    "traceparent",
];
/// The agent's bytes are taken, and a whole answer is given, in pieces of at most this many.
const PIECE_BYTES: usize = 64 * 1024;
/// A comment of server-sent events: nobody reads it.
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// What is counted and held as long as an answer is on its way.
type Held = (Open, OwnedSemaphorePermit);

/// The agent's answer to the request with this id.
pub(super) async fn response(
    gateway: &Arc<Gateway>,
    answer: AgentAnswer,
    request: &Value,
    held: Held,
) -> Result<Response, Rejection> {
    let status = StatusCode::from_u16(answer.status).ok();
    // A redirect would send the client, with its credentials, somewhere else.
    let status = status
        .filter(|s| s.is_success() || s.is_client_error() || s.is_server_error())
        .ok_or_else(|| failed(format!("the agent answered with HTTP {}", answer.status)))?;
    let mut headers = passed_on(&answer.headers);
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let body = match kind {
        Some(kind) if essence(kind) == "text/event-stream" => {
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            let events = Events::new(gateway.clone(), answer.body, request.clone(), held);
            Body::from_stream(stream::unfold(Some(events), Events::next))
        }
        Some(kind) if !is_json(kind) => {
            let shown: String = kind.chars().take(100).collect();
            return Err(failed(format!(
                "the agent answered HTTP {} with `{shown}`, which is neither JSON nor an event stream",
                status.as_u16()
            )));
        }
        named => {
            let (bytes, memory) = whole(gateway, answer.body).await?;
            if bytes.is_empty() {
                Body::empty()
            } else if named.is_none() {
                return Err(failed(format!(
                    "the agent answered HTTP {} and does not say with what: Content-Type is missing",
                    status.as_u16()
                )));
            } else {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                Body::from_stream(stream::unfold((bytes, memory, held), piece))
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn failed(message: String) -> Rejection {
    Rejection::new(Code::AgentFailed, message)
        .with_hint("Tell the agent's owner: what it sends is not what A2A 1.0 says.")
}

fn passed_on(given: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given.iter().filter(|(_, v)| v.len() <= HEADER_VALUE_BYTES_MAX) {
        if !RESPONSE_HEADERS.contains(&name.as_str()) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A whole answer, and the memory that is set aside for it.
async fn whole(
    gateway: &Gateway,
    mut receiver: SessionReceiver,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Rejection> {
    let limits = gateway.limits();
    let max = limits.agent_reply_bytes_max;
    let read = async {
        let mut memory = None;
        let mut bytes = BytesMut::new();
        let broke_off = |error| {
            failed(format!(
                "the agent broke off in the middle of its answer: {error}"
            ))
        };
        while let Some(piece) = receiver.recv_bytes(PIECE_BYTES).await.map_err(broke_off)? {
            if bytes.len() + piece.len() > max {
                return Err(failed(format!(
                    "the agent's answer is longer than {max} bytes, which is the most"
                )));
            }
            gateway.set_aside(&mut memory, bytes.len() + piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes.freeze(), memory))
    };
    let within = limits.agent_timeout;
    tokio::time::timeout(within, read).await.unwrap_or_else(|_| {
        Err(failed(format!(
            "the agent began to answer and did not end within {within:?}"
        )))
    })
}

/// The next piece of a whole answer. Its memory is held until the connection has taken all of it.
async fn piece<T>(
    (mut bytes, memory, held): (Bytes, T, Held),
) -> Option<(io::Result<Bytes>, (Bytes, T, Held))> {
    if bytes.is_empty() {
        return None;
    }
    let piece = bytes.split_to(PIECE_BYTES.min(bytes.len()));
    Some((Ok(piece), (bytes, memory, held)))
}

/// The agent's events as they come, each whole. Dropped with the client's connection, it tells the node to stop.
struct Events {
    gateway: Arc<Gateway>,
    receiver: SessionReceiver,
    request: Value,
    splitter: Splitter,
    /// The beginning of an event of which the end has not come.
    begun: BytesMut,
    memory: Option<OwnedSemaphorePermit>,
    _held: Held,
}

/// What goes out next, and whether more can come after it.
type Next = Option<(io::Result<Bytes>, Option<Events>)>;

impl Events {
    fn new(gateway: Arc<Gateway>, receiver: SessionReceiver, request: Value, held: Held) -> Self {
        let splitter = Splitter::new(gateway.limits().agent_event_bytes_max);
        Self {
            gateway,
            receiver,
            request,
            splitter,
            begun: BytesMut::new(),
            memory: None,
            _held: held,
        }
    }

    async fn next(events: Option<Self>) -> Next {
        let mut events = events?;
        let stop = events.gateway.stop.clone();
        let mut silence = std::pin::pin!(tokio::time::sleep(events.gateway.limits().heartbeat));
        loop {
            let received = tokio::select! {
                received = events.receiver.recv_bytes(PIECE_BYTES) => received,
                // What has gone out are whole events: a comment may stand here.
                () = &mut silence => return Some((Ok(HEARTBEAT), Some(events))),
                () = stop.cancelled() => return None,
            };
            match received {
                Ok(Some(bytes)) => match events.take(bytes) {
                    Ok(None) => {}
                    Ok(Some(whole)) => return Some((Ok(whole), Some(events))),
                    Err(last) => return Some((Ok(last), None)),
                },
                // What no blank line has ended is no event, and the client is left to say so.
                Ok(None) if events.begun.is_empty() => return None,
                Ok(None) => return Some((Ok(events.begun.split().freeze()), None)),
                // The client must not take half a stream for a whole one: its connection breaks off too.
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            }
        }
    }

    /// The events that are whole with these bytes. An error is the last that goes out: whole events, and one that says why.
    fn take(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Bytes> {
        let Fed { whole, too_long } = self.splitter.feed(&bytes);
        if too_long {
            let max = self.gateway.limits().agent_event_bytes_max;
            let why = failed(format!(
                "an event of the agent is longer than {max} bytes, which is the most"
            ));
            return Err(self.cut(&bytes[..whole], &why));
        }
        if whole == bytes.len() && self.begun.is_empty() {
            return Ok(Some(bytes));
        }
        if let Err(full) = self
            .gateway
            .set_aside(&mut self.memory, self.begun.len() + bytes.len())
        {
            return Err(self.cut(&bytes[..whole], &full));
        }
        self.begun.extend_from_slice(&bytes[..whole]);
        let out = (whole > 0).then(|| self.begun.split().freeze());
        self.begun.extend_from_slice(&bytes[whole..]);
        if self.begun.is_empty() {
            self.memory = None;
        }
        Ok(out)
    }

    /// What was whole, and the event that ends the stream.
    fn cut(&mut self, whole: &[u8], why: &Rejection) -> Bytes {
        tracing::debug!("an agent's stream is cut: {why}");
        let mut out = BytesMut::new();
        if !whole.is_empty() {
            out.extend_from_slice(&self.begun);
            out.extend_from_slice(whole);
        }
        let error = error_body(&self.request, GATEWAY_ERROR, &why.to_string(), why.code.as_str());
        out.extend_from_slice(format!("data: {error}\n\n").as_bytes());
        out.freeze()
    }
}
