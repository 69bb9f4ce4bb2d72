//! The routes, and the OpenAPI 3.1 document that is made from the same list.

mod refine;

use crate::{
    a2a,
    front::refused,
    gateway::Gateway,
    health, oip,
    reply::{self, ErrorEnvelope, Failure},
    rest,
    stats::RouteClass,
};
use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode, Uri},
    response::Response,
};
use bytes::Bytes;
use daitn_messages::rejection::Rejection;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What every operation can answer instead of what was asked for.
#[derive(IntoResponses)]
#[allow(dead_code)] // The document is made from its variants; nothing constructs them.
pub(crate) enum Failures {
    /// The request does not have the form that is documented
    #[response(status = 400)]
    Malformed(#[to_schema] ErrorEnvelope),
    /// No valid API key
    #[response(status = 401)]
    Unauthenticated(#[to_schema] ErrorEnvelope),
    /// The API key does not have the scope, or a policy forbids it
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorEnvelope),
    /// Nothing with this name, or nothing that you may see
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorEnvelope),
    /// The body did not arrive in time
    #[response(status = 408)]
    TooSlow(#[to_schema] ErrorEnvelope),
    /// It exists with other content, or the state has moved
    #[response(status = 409)]
    Conflict(#[to_schema] ErrorEnvelope),
    /// Over a bound, which the error names
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorEnvelope),
    /// The body is not JSON
    #[response(status = 415)]
    Unsupported(#[to_schema] ErrorEnvelope),
    /// It has the right form and still cannot be done
    #[response(status = 422)]
    Refused(#[to_schema] ErrorEnvelope),
    /// A fault of the program or the machine
    #[response(status = 500)]
    Internal(#[to_schema] ErrorEnvelope),
    /// Something behind the gateway did not answer as it should
    #[response(status = 502)]
    BadGateway(#[to_schema] ErrorEnvelope),
    /// Too much at once, or something is away for the moment: see Retry-After
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorEnvelope),
}

/// The frame of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "DA-ITN gateway",
        description = "One address for a Data and Agent Aware Inference and Training Network: its REST API under /v1, \
                       the Open Inference Protocol v2 under /v2, A2A 1.0 agents under /a2a.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("key" = [])),
    modifiers(&Key),
    tags(
        (name = "access", description = "Join tokens and API keys"),
        (name = "nodes", description = "Nodes"),
        (name = "discovery", description = "Search"),
        (name = "jobs", description = "Plans and training jobs"),
        (name = "models", description = "Registered models and their deployments"),
        (name = "oversight", description = "Policy, decisions, the log, the domain's state"),
        (name = "inference", description = "Open Inference Protocol v2"),
        (name = "agents", description = "A2A 1.0"),
        (name = "health", description = "Health and metrics"),
    )
)]
struct Frame;

struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("daitn API key")
            .description(Some("`Authorization: Bearer daitn_…`, from `POST /v1/keys`"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    }
}

fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .merge(rest::router())
        .merge(oip::router())
        .merge(a2a::router())
        .merge(health::router())
        .routes(routes!(served_document))
}

/// The document as served under `/v1/openapi.json`.
#[must_use]
pub fn document() -> Value {
    let mut document = serde_json::to_value(routes().into_openapi()).unwrap_or_default();
    refine::refine(&mut document);
    document
}

/// It never changes while the process runs.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "oversight", security(()), responses((status = 200, body = Value)))]
async fn served_document() -> Response {
    let json = HeaderValue::from_static("application/json");
    reply::bytes_response(StatusCode::OK, json, DOCUMENT.clone())
}

/// All routes.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(gateway)
}

async fn no_such_path(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    refused(RouteClass::of(uri.path()), Rejection::not_found("path", path))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let rejection = Rejection::malformed("method", &format!("{method} is not offered for this path"));
    refused(
        RouteClass::of(uri.path()),
        Failure::with_status(StatusCode::METHOD_NOT_ALLOWED, rejection),
    )
}
