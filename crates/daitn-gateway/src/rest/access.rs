//! Join tokens and API keys.

use super::name;
use crate::{
    gateway::Gateway,
    openapi::Failures,
    reply::{Envelope, Nothing, Outcome},
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use daitn_messages::operation::{
    CreatedKey, CreatedToken, KeyView, NewKey, NewToken, Operation, Scope, TokenView,
};
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
}

/// Lists join tokens. Scope `admin`.
#[utoipa::path(get, path = "/v1/tokens", tag = "access", responses(
    (status = 200, body = Envelope<Vec<TokenView>>), Failures))]
async fn list_tokens(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    gateway.answer(&caller, Operation::ListTokens).await
}

/// Makes a join token. Its text is in the answer and nowhere else. Scope `admin`.
#[utoipa::path(post, path = "/v1/tokens", tag = "access", request_body = NewToken, responses(
    (status = 200, body = Envelope<CreatedToken>), Failures))]
async fn create_token(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    let token = gateway.json(&headers, body).await?;
    gateway.answer(&caller, Operation::CreateToken(token)).await
}

/// Revokes a join token. Scope `admin`.
#[utoipa::path(post, path = "/v1/tokens/{token}/revoke", tag = "access",
    params(("token" = daitn_messages::ids::TokenId, Path, description = "Its public half")),
    responses((status = 200, body = Envelope<Nothing>), Failures))]
async fn revoke_token(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    token: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    gateway
        .answer(&caller, Operation::RevokeToken(name("token", token)?))
        .await
}

/// Lists API keys. Scope `admin`.
#[utoipa::path(get, path = "/v1/keys", tag = "access", responses(
    (status = 200, body = Envelope<Vec<KeyView>>), Failures))]
async fn list_keys(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    gateway.answer(&caller, Operation::ListKeys).await
}

/// Makes an API key. Its secret is in the answer and nowhere else. Scope `admin`.
#[utoipa::path(post, path = "/v1/keys", tag = "access", request_body = NewKey, responses(
    (status = 200, body = Envelope<CreatedKey>), Failures))]
async fn create_key(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    let key = gateway.json(&headers, body).await?;
    gateway.answer(&caller, Operation::CreateKey(key)).await
}

/// Revokes an API key. Scope `admin`.
#[utoipa::path(post, path = "/v1/keys/{key}/revoke", tag = "access",
    params(("key" = daitn_messages::ids::ApiKeyId, Path, description = "Its public half")),
    responses((status = 200, body = Envelope<Nothing>), Failures))]
async fn revoke_key(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    key: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Admin)?;
    gateway
        .answer(&caller, Operation::RevokeKey(name("key", key)?))
        .await
}
