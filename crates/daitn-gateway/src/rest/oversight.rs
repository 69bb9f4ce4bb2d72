//! Policy, decisions, the log and the domain's state.

use super::name;
use crate::{
    gateway::Gateway,
    openapi::Failures,
    reply::{self, Envelope, Nothing, Outcome},
};
use axum::{
    body::Body,
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
    http::HeaderMap,
};
use daitn_messages::{
    ids::DecisionId,
    job::DecisionRecord,
    operation::{LeafAt, Operation, Scope, StatusView},
    policy::{PolicyAnswer, PolicyQuestion},
    rejection::Rejection,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most leaves in one answer.
const LEAVES_MAX: u32 = 1000;

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(get_policy, set_policy))
        .routes(routes!(can))
        .routes(routes!(get_decision))
        .routes(routes!(list_leaves))
        .routes(routes!(get_status))
}

/// The domain's policy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    /// In Cedar.
    policy: String,
}

/// Which leaves.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Leaves {
    /// From which index, from 0.
    #[serde(default)]
    from: u64,
    /// How many at most.
    #[serde(default = "leaves_max")]
    #[param(minimum = 1, maximum = 1000, default = 1000)]
    limit: u32,
}

fn leaves_max() -> u32 {
    LEAVES_MAX
}

/// The domain's policy. Scope `read`.
#[utoipa::path(get, path = "/v1/policy", tag = "oversight", responses(
    (status = 200, body = Envelope<PolicyText>), Failures))]
async fn get_policy(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway.answer(&caller, Operation::GetPolicy).await
}

/// Replaces the domain's policy. Scope `admin`.
#[utoipa::path(put, path = "/v1/policy", tag = "oversight", request_body = PolicyText, responses(
    (status = 200, body = Envelope<Nothing>), Failures))]
async fn set_policy(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    let text: PolicyText = gateway.json(&headers, body).await?;
    gateway.answer(&caller, Operation::SetPolicy(text.policy)).await
}

/// May somebody do something? Scope `read`.
#[utoipa::path(post, path = "/v1/policy/can", tag = "oversight", request_body = PolicyQuestion, responses(
    (status = 200, body = Envelope<PolicyAnswer>), Failures))]
async fn can(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let question: PolicyQuestion = gateway.json(&headers, body).await?;
    gateway.answer(&caller, Operation::Can(question)).await
}

/// A decision record. Those of queries and agent calls are kept by the gateway for a while, all others by the control
/// center. Scope `read`.
#[utoipa::path(get, path = "/v1/decisions/{decision}", tag = "oversight",
    params(("decision" = DecisionId, Path, description = "From an answer, an error or the header `x-daitn-decision`")),
    responses((status = 200, body = Envelope<DecisionRecord>), Failures))]
async fn get_decision(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    decision: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let decision: DecisionId = name("decision", decision)?;
    if let Some(record) = gateway.decisions.get(&decision, caller.principal()) {
        return Ok(reply::ok(record));
    }
    gateway.answer(&caller, Operation::Explain(decision)).await
}

/// Leaves of the transparency log. Scope `admin`.
#[utoipa::path(get, path = "/v1/log/leaves", tag = "oversight", params(Leaves), responses(
    (status = 200, body = Envelope<Vec<LeafAt>>), Failures))]
async fn list_leaves(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    query: Result<Query<Leaves>, QueryRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    let Query(Leaves { from, limit }) =
        query.map_err(|error| Rejection::malformed("query", &error.body_text()))?;
    if !(1..=LEAVES_MAX).contains(&limit) {
        let max = f64::from(LEAVES_MAX);
        return Err(Rejection::out_of_range("limit", f64::from(limit), 1.0, max).into());
    }
    gateway.answer(&caller, Operation::Leaves { from, limit }).await
}

/// The state of the domain in numbers. Scope `read`.
#[utoipa::path(get, path = "/v1/status", tag = "oversight", responses(
    (status = 200, body = Envelope<StatusView>), Failures))]
async fn get_status(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway.answer(&caller, Operation::Status).await
}
