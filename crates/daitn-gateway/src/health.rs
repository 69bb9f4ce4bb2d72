//! Is the gateway alive, and can it do its work? For load balancers and supervisors; and what it has counted.

use crate::{
    front::{ClientAddress, is_local},
    gateway::Gateway,
    reply::{self, Outcome},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
};
use daitn_messages::{
    operation::Scope,
    rejection::{Code, Rejection},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `live` or `ready`.
    state: &'static str,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()),
    responses((status = 200, body = reply::Envelope<Health>)))]
pub(crate) async fn live() -> Response {
    reply::ok(Health { state: "live" })
}

/// Whether the gateway can route: it has a snapshot of the network.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses(
    (status = 200, body = reply::Envelope<Health>),
    (status = 503, description = "No snapshot yet", body = reply::ErrorEnvelope)))]
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Outcome {
    check_ready(&gateway)?;
    Ok(reply::ok(Health { state: "ready" }))
}

/// What the gateway has counted, in the Prometheus text format. Open to this machine; else with a key of scope `read`.
#[utoipa::path(get, path = "/metrics", tag = "health", security((), ("key" = [])), responses(
    (status = 200, content_type = "text/plain", body = String), crate::openapi::Failures))]
pub(crate) async fn metrics(
    State(gateway): State<Arc<Gateway>>,
    from: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
) -> Outcome {
    if !is_local(from.as_deref(), &headers) {
        gateway.caller(&headers, Scope::Read)?;
    }
    let text = gateway
        .metrics
        .as_ref()
        .ok_or_else(|| Rejection::not_found("page", "/metrics"))?();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(reply::bytes_response(StatusCode::OK, kind, text))
}

/// Ready is who has been told by the control center which keys are in force and what is served where.
pub(crate) fn check_ready(gateway: &Gateway) -> Result<(), Rejection> {
    if gateway.view.load().version > 0 {
        return Ok(());
    }
    Err(Rejection::new(
        Code::ControlUnavailable,
        "the control center has not yet sent a snapshot of the network",
    ))
}
