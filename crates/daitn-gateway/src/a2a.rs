//! A2A 1.0 agents under `/a2a/{organisation}/{name}`, over JSON-RPC. The agent's own bytes go through: what a client
//! sends and what the agent answers is not read and written anew, but for the cards, which must name this address. What
//! is no answer of A2A, or is over a bound, does not go through.

mod answer;
mod card;
mod events;
mod extended;
mod push;
mod relay;

use crate::{
    auth::Caller,
    gateway::Gateway,
    input::named,
    reply::{self, Failure},
};
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH, VARY},
    },
    response::{IntoResponse, Response},
};
use daitn_messages::{
    ids::{ArtifactId, OrganisationId, Slug},
    operation::Scope,
    rejection::{Code, Rejection},
    snapshot::RoutedAgent,
};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long a client may use a card without asking again, seconds.
const CARD_AGE_SECONDS: u32 = 60;

pub(crate) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(agent_card))
        .routes(routes!(origin_card))
        .routes(routes!(relay::call))
        .routes(routes!(relay::call_with_slash))
}

/// The path's two names.
type AgentPath = Result<Path<(String, String)>, PathRejection>;

/// The agent's card, rewritten: its interface is this gateway, its credentials are an API key. Scope `query`.
#[utoipa::path(get, path = "/a2a/{organisation}/{name}/.well-known/agent-card.json", tag = "agents",
    params(("organisation" = OrganisationId, Path, description = "Whose agent"), ("name" = Slug, Path, description = "Its name")),
    responses((status = 200, body = Value, headers(("etag" = String, description = "Of the rewritten card"))),
        (status = 304, description = "The client has it"), crate::openapi::Failures))]
async fn agent_card(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    path: AgentPath,
) -> reply::Outcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let agent = gateway.agent(&caller, path)?;
    let url = agent_url(&gateway, &headers, &agent);
    Ok(card_response(&headers, card::rewritten(&agent.card, &url)?))
}

/// The agent's own card, byte for byte, with its signatures. Scope `query`.
#[utoipa::path(get, path = "/a2a/{organisation}/{name}/origin-card.json", tag = "agents",
    params(("organisation" = OrganisationId, Path, description = "Whose agent"), ("name" = Slug, Path, description = "Its name")),
    responses((status = 200, body = Value), (status = 304, description = "The client has it"), crate::openapi::Failures))]
async fn origin_card(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    path: AgentPath,
) -> reply::Outcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    Ok(card_response(
        &headers,
        gateway.agent(&caller, path)?.card.clone().into_bytes(),
    ))
}

impl Gateway {
    /// An agent that the caller may call.
    fn agent(&self, caller: &Caller, path: AgentPath) -> Result<Arc<RoutedAgent>, Rejection> {
        let Path((organisation, name)) =
            path.map_err(|_| Rejection::malformed("agent", "its name is not readable text"))?;
        let (organisation, name) = (
            named("organisation", &organisation)?,
            named::<Slug>("agent", &name)?,
        );
        let agent = self.view.load().agent(&organisation, &name);
        let agent = agent.ok_or_else(|| Rejection::not_found("agent", format!("{organisation}/{name}")))?;
        agent.access.check(caller.principal(), &agent.agent)?;
        Ok(agent)
    }
}

/// The address at which this gateway's clients call an agent.
fn agent_url(gateway: &Gateway, headers: &HeaderMap, agent: &RoutedAgent) -> String {
    let (organisation, name) = (&agent.agent.organisation, &agent.agent.name);
    format!("{}/a2a/{organisation}/{name}", base_url(gateway, headers))
}

/// Where clients reach this gateway: as configured, or as this client did. `Host` was checked before.
fn base_url(gateway: &Gateway, headers: &HeaderMap) -> String {
    if let Some(url) = &gateway.config.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let scheme = if gateway.config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    format!("{scheme}://{host}")
}

fn card_response(headers: &HeaderMap, card: Vec<u8>) -> Response {
    let etag = format!("\"{}\"", ArtifactId::of(&card));
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*")
        });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        reply::bytes_response(StatusCode::OK, HeaderValue::from_static("application/json"), card)
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    if let Ok(age) = HeaderValue::from_str(&format!("private, max-age={CARD_AGE_SECONDS}")) {
        headers.insert(CACHE_CONTROL, age);
    }
    headers.insert(VARY, HeaderValue::from_static("authorization, host"));
    response
}

/// A failure of the gateway as a JSON-RPC error.
pub(crate) fn failure(id: &Value, failure: &Failure) -> Response {
    let Failure { status, rejection } = failure;
    let code = if rejection.code == Code::Internal {
        INTERNAL_ERROR
    } else {
        GATEWAY_ERROR
    };
    let body = error_body(id, code, &rejection.to_string(), rejection.code.as_str());
    let mut response = reply::with_hints(reply::json(*status, &body), rejection.code);
    let decision = rejection
        .decision
        .as_ref()
        .and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    if let Some(decision) = decision {
        response.headers_mut().insert(crate::oip::DECISION, decision);
    }
    response
}

/// JSON-RPC 2.0, section 5.1.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const INTERNAL_ERROR: i32 = -32603;
/// The first of JSON-RPC's codes for servers, which A2A leaves free: the gateway refused or failed.
const GATEWAY_ERROR: i32 = -32000;
/// A2A 1.0, section 5.4.
const PUSH_NOTIFICATION_NOT_SUPPORTED: i32 = -32003;
const UNSUPPORTED_OPERATION: i32 = -32004;
const VERSION_NOT_SUPPORTED: i32 = -32009;

/// An error of the protocol: HTTP says nothing about it, the body does.
fn protocol_error(id: &Value, code: i32, message: &str, reason: &str) -> Response {
    reply::json(StatusCode::OK, &error_body(id, code, message, reason))
}

fn error_body(id: &Value, code: i32, message: &str, reason: &str) -> Value {
    let domain = if (-32009..=-32001).contains(&code) {
        "a2a-protocol.org"
    } else {
        "daitn"
    };
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": {
            "code": code,
            "message": message,
            "data": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain }],
        },
    })
}
