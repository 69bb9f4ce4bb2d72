//! Calls of an agent: the client's bytes to the agent's node, the agent's bytes back.

use super::{
    AgentPath, INVALID_REQUEST, PARSE_ERROR, PUSH_NOTIFICATION_NOT_SUPPORTED, UNSUPPORTED_OPERATION,
    VERSION_NOT_SUPPORTED, agent_url, answer as answers, extended, failure, protocol_error, push,
};
use crate::{
    auth::Caller,
    decisions::{Attempt, Decision},
    gateway::Gateway,
    oip::DECISION,
    reply::Failure,
    sessions::AgentAnswer,
    stats::count,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri},
    response::Response,
};
use bytes::Bytes;
use daitn_messages::{
    ids::{DecisionId, OrganisationId, Slug},
    operation::Scope,
    rejection::{Code, Rejection},
    session::AgentCall,
    snapshot::RoutedAgent,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Headers of the client that the agent gets. Credentials are the gateway's and stay here.
const REQUEST_HEADERS: [&str; 8] = [
    "accept",
    "accept-language",
    "content-type",
    "a2a-version",
    "a2a-extensions",
    "last-event-id",
    "traceparent",
    "tracestate",
];
/// Longest value of a header that is passed on, bytes.
pub(super) const HEADER_VALUE_BYTES_MAX: usize = 4096;
/// Longest id of a JSON-RPC request, bytes: it comes back in errors.
const ID_BYTES_MAX: usize = 256;

/// Calls an agent by JSON-RPC; streams come back as server-sent events. Scope `query`.
#[utoipa::path(post, path = "/a2a/{organisation}/{name}", tag = "agents",
    params(("organisation" = OrganisationId, Path, description = "Whose agent"), ("name" = Slug, Path, description = "Its name"),
        ("A2A-Version" = String, Header, description = "`1.0`")),
    request_body(content = Value, description = "A JSON-RPC 2.0 request of A2A 1.0"),
    responses((status = 200, description = "A JSON-RPC 2.0 response, or server-sent events of them", body = Value),
        (status = "default", description = "A JSON-RPC 2.0 error", body = Value)))]
pub(super) async fn call(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
    path: AgentPath,
    body: Body,
) -> Response {
    match answer(&gateway, &headers, &uri, path, body).await {
        Ok(response) => response,
        Err(refused) => failure(&Value::Null, &refused),
    }
}

/// As without the slash: clients that join paths add one.
#[utoipa::path(post, path = "/a2a/{organisation}/{name}/", tag = "agents", operation_id = "call_with_slash",
    params(("organisation" = OrganisationId, Path, description = "Whose agent"), ("name" = Slug, Path, description = "Its name"),
        ("A2A-Version" = String, Header, description = "`1.0`")),
    request_body(content = Value, description = "A JSON-RPC 2.0 request of A2A 1.0"),
    responses((status = 200, description = "A JSON-RPC 2.0 response, or server-sent events of them", body = Value),
        (status = "default", description = "A JSON-RPC 2.0 error", body = Value)))]
pub(super) async fn call_with_slash(
    state: State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
    path: AgentPath,
    body: Body,
) -> Response {
    call(state, headers, uri, path, body).await
}

async fn answer(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    uri: &Uri,
    path: AgentPath,
    body: Body,
) -> Result<Response, Failure> {
    let caller = gateway.caller(headers, Scope::Query)?;
    let agent = gateway.agent(&caller, path)?;
    let body = gateway
        .body(headers, body, gateway.limits().agent_bytes_max)
        .await?;
    let head = match Head::read(&body.bytes) {
        Ok(head) => head,
        Err((code, why)) => return Ok(protocol_error(&Value::Null, code, &why, "INVALID_REQUEST")),
    };
    if let Some((code, message, reason)) = not_offered(&head, &version(headers, uri), &body.bytes, &agent) {
        return Ok(protocol_error(&head.id, code, &message, reason));
    }
    let slot = gateway.streams.clone().try_acquire_owned().map_err(|_| {
        count(&gateway.stats.overloads_total);
        let max = gateway.limits().streams_max;
        Rejection::new(
            Code::Overloaded,
            format!("{max} streams are open, which is the most"),
        )
    });
    let called = match slot {
        Ok(slot) => {
            // One whose card has to name this address.
            let card_url = (head.method == extended::METHOD).then(|| agent_url(gateway, headers, &agent));
            let answered = exchange(gateway, &caller, &agent, headers, body.bytes).await;
            passed_back(gateway, answered, &head.id, card_url, slot).await
        }
        Err(full) => Err(full),
    };
    Ok(called.unwrap_or_else(|rejection| failure(&head.id, &rejection.into())))
}

/// What the gateway does not offer, as the protocol's error: code, message, reason.
fn not_offered(
    head: &Head,
    version: &str,
    body: &[u8],
    agent: &RoutedAgent,
) -> Option<(i32, String, &'static str)> {
    if version != "1.0" {
        let message = format!(
            "A2A version `{version}` is not offered here, only 1.0; name it in the header A2A-Version"
        );
        return Some((VERSION_NOT_SUPPORTED, message, "VERSION_NOT_SUPPORTED"));
    }
    if push::is_asked_for(&head.method, body) {
        let message = "push notifications are not offered: stream, or ask for the task again";
        let reason = "PUSH_NOTIFICATION_NOT_SUPPORTED";
        return Some((PUSH_NOTIFICATION_NOT_SUPPORTED, message.to_owned(), reason));
    }
    if head.method == extended::METHOD && !extended::is_offered(&agent.card) {
        let message = "the agent's card names no extended card".to_owned();
        return Some((UNSUPPORTED_OPERATION, message, "UNSUPPORTED_OPERATION"));
    }
    None
}

/// The agent's answer as the client's: its own bytes, or with the card in it rewritten.
async fn passed_back(
    gateway: &Arc<Gateway>,
    answered: Result<(AgentAnswer, DecisionId), Rejection>,
    request: &Value,
    card_url: Option<String>,
    slot: OwnedSemaphorePermit,
) -> Result<Response, Rejection> {
    let (answer, id) = answered?;
    let answered = match card_url {
        Some(url) if answer.status == StatusCode::OK.as_u16() => {
            let reply = extended::rewritten(answer, &url).await;
            reply.map(|reply| crate::reply::json(StatusCode::OK, &reply))
        }
        _ => answers::response(gateway, answer, request, (gateway.stats.stream_opened(), slot)).await,
    };
    match answered {
        Ok(response) => Ok(decided(response, &id)),
        Err(rejection) => Err(rejection.with_decision(id)),
    }
}

/// A response that names its decision.
fn decided(mut response: Response, decision: &DecisionId) -> Response {
    if let Ok(decision) = HeaderValue::from_str(decision.as_str()) {
        response.headers_mut().insert(DECISION, decision);
    }
    response
}

/// What the gateway reads of a request: enough to answer an error.
struct Head {
    id: Value,
    method: String,
}

#[derive(Deserialize)]
struct RawHead<'a> {
    #[serde(default)]
    id: Value,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default)]
    #[allow(dead_code)] // Named so that a second one is refused.
    params: IgnoredAny,
}

impl Head {
    fn read(body: &[u8]) -> Result<Self, (i32, String)> {
        let head: RawHead<'_> = serde_json::from_slice(body).map_err(|error| {
            let code = if error.is_data() {
                INVALID_REQUEST
            } else {
                PARSE_ERROR
            };
            (code, format!("not a JSON-RPC 2.0 request: {error}"))
        })?;
        let is_id = match &head.id {
            Value::String(id) => id.len() <= ID_BYTES_MAX,
            Value::Number(_) | Value::Null => true,
            _ => false,
        };
        if head.jsonrpc != "2.0" || !is_id {
            return Err((INVALID_REQUEST, "not a JSON-RPC 2.0 request".to_owned()));
        }
        Ok(Self {
            id: head.id,
            method: head.method.into_owned(),
        })
    }
}

/// The version that the client speaks. None named is 0.3, says the specification.
fn version(headers: &HeaderMap, uri: &Uri) -> String {
    let header = headers
        .get("a2a-version")
        .map(|value| value.to_str().unwrap_or("?").trim().to_owned());
    let query = || {
        let pairs = uri.query().unwrap_or_default().split('&');
        let found = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("a2a-version"));
        found.map(|(_, value)| value.to_owned())
    };
    let named = header
        .filter(|v| !v.is_empty())
        .or_else(query)
        .filter(|v| !v.is_empty());
    named.map_or_else(|| "0.3".to_owned(), |version| version.chars().take(20).collect())
}

/// Sends the client's bytes to the agent, and keeps the record of it.
async fn exchange(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    agent: &RoutedAgent,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<(AgentAnswer, DecisionId), Rejection> {
    let started = Instant::now();
    let at = gateway.clock.wall();
    let id = gateway.decision_id(at);
    let call = AgentCall {
        agent: agent.agent.clone(),
        method: "POST".to_owned(),
        headers: passed_on(headers),
        body_bytes: body.len() as u64,
        decision: id.clone(),
    };
    let limits = gateway.limits();
    let answered = gateway
        .sessions
        .agent(&agent.peer, call, body, limits.agent_timeout, limits.agent_idle)
        .await;
    let outcome = match &answered {
        Ok(answer) => format!("the agent answered with HTTP {}", answer.status),
        Err(failure) => failure.to_string(),
    };
    let view = gateway.view.load();
    gateway.decisions.keep(Decision {
        id: id.clone(),
        at,
        organisation: caller.principal().organisation.clone(),
        kind: "interaction",
        subject: agent.agent.to_string(),
        snapshot_version: view.version,
        snapshot_age_ms: at.since(view.made_at),
        n_candidates: 1,
        attempts: vec![Attempt {
            host: agent.agent.clone(),
            chosen: None,
            other: None,
            beside: None,
            answered: answered.is_ok(),
            outcome: outcome.clone(),
            took: started.elapsed(),
        }],
        outcome,
    });
    match answered {
        Ok(answer) => Ok((answer, id)),
        Err(failure) => Err(failure.rejection(Code::AgentFailed).with_decision(id)),
    }
}

fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let value = |name: &&str| {
        let value = headers
            .get(*name)?
            .to_str()
            .ok()
            .filter(|value| value.len() <= HEADER_VALUE_BYTES_MAX)?;
        Some(((*name).to_owned(), value.to_owned()))
    };
    REQUEST_HEADERS.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn the_head_is_read_and_the_rest_left_alone() {
        let head =
            Head::read(br#"{"jsonrpc":"2.0","method":"SendMessage","id":7,"params":{"deep":[[[]]]},"x":1}"#);
        let head = head.unwrap();
        assert_eq!((head.id, head.method.as_str()), (Value::from(7), "SendMessage"));
        // JSON-RPC 2.0, section 7: what is no JSON, what is no request, and a batch, which A2A does not know.
        for (body, code) in [
            ("", PARSE_ERROR),
            ("{\"jsonrpc\":", PARSE_ERROR),
            (&"[".repeat(100_000), PARSE_ERROR),
            ("[]", INVALID_REQUEST),
            (
                "[{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"id\":1}]",
                INVALID_REQUEST,
            ),
            ("{\"jsonrpc\":\"1.0\",\"method\":\"a\",\"id\":1}", INVALID_REQUEST),
            ("{\"jsonrpc\":\"2.0\",\"id\":1}", INVALID_REQUEST),
            ("{\"jsonrpc\":\"2.0\",\"method\":1,\"id\":1}", INVALID_REQUEST),
            (
                "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"id\":{}}",
                INVALID_REQUEST,
            ),
        ] {
            let shown = &body[..body.len().min(60)];
            assert_eq!(
                Head::read(body.as_bytes()).map(|_| ()).unwrap_err().0,
                code,
                "{shown}"
            );
        }
    }

    fn check_version(header: Option<&'static str>, uri: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.extend(header.map(|v| {
            (
                HeaderName::from_static("a2a-version"),
                HeaderValue::from_static(v),
            )
        }));
        assert_eq!(version(&headers, &uri.parse().unwrap()), expected);
    }

    #[test]
    fn no_version_is_the_old_one() {
        check_version(None, "/a2a/a/b", "0.3");
        check_version(Some(""), "/a2a/a/b", "0.3");
        check_version(Some("1.0"), "/a2a/a/b", "1.0");
        check_version(None, "/a2a/a/b?A2A-Version=1.0", "1.0");
        check_version(Some("2.0"), "/a2a/a/b?A2A-Version=1.0", "2.0");
    }
}
