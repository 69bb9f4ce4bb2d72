//! Nodes.

use super::name;
use crate::{
    gateway::Gateway,
    openapi::Failures,
    reply::{Envelope, Outcome},
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use daitn_messages::{
    ids::NodeId,
    operation::{NodeView, Operation, Scope},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_nodes))
        .routes(routes!(get_node))
        .routes(routes!(revoke_node))
        .routes(routes!(drain_node))
}

/// Whether a node gets new work.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Drain {
    /// True: no new work. False: new work again.
    draining: bool,
}

/// Lists nodes. Scope `read`.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", responses(
    (status = 200, body = Envelope<Vec<NodeView>>), Failures))]
async fn list_nodes(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway.answer(&caller, Operation::ListNodes).await
}

/// One node. Scope `read`.
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes", params(("node" = NodeId, Path, description = "Its key")),
    responses((status = 200, body = Envelope<NodeView>), Failures))]
async fn get_node(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    node: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway
        .answer(&caller, Operation::GetNode(name("node", node)?))
        .await
}

/// Throws a node out; its entities are withdrawn. Scope `admin`.
#[utoipa::path(post, path = "/v1/nodes/{node}/revoke", tag = "nodes",
    params(("node" = NodeId, Path, description = "Its key")),
    responses((status = 200, body = Envelope<NodeView>), Failures))]
async fn revoke_node(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    node: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    gateway
        .answer(&caller, Operation::RevokeNode(name("node", node)?))
        .await
}

/// Gives a node no new work, or new work again. Scope `admin`.
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", tag = "nodes",
    params(("node" = NodeId, Path, description = "Its key")), request_body = Drain,
    responses((status = 200, body = Envelope<NodeView>), Failures))]
async fn drain_node(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    node: Result<Path<String>, PathRejection>,
    body: Body,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    let node = name("node", node)?;
    let drain: Drain = gateway.json(&headers, body).await?;
    gateway
        .answer(&caller, Operation::DrainNode(node, drain.draining))
        .await
}
