//! Discovery: search, one entity, and a dataset as a Croissant document.

use crate::{
    auth::Caller,
    gateway::Gateway,
    input::named,
    openapi::Failures,
    reply::{self, Envelope, Outcome},
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode},
};
use daitn_messages::{
    croissant::croissant,
    ids::EntityId,
    operation::{Answer, Operation, Scope, SearchAnswer},
    rejection::Rejection,
    request::{Hit, Search},
};
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(get_entity))
        .routes(routes!(get_croissant))
}

/// Finds entities. All given conditions must hold. Scope `read`.
#[utoipa::path(post, path = "/v1/search", tag = "discovery", request_body = Search, responses(
    (status = 200, body = Envelope<SearchAnswer>), Failures))]
async fn search(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let search: Search = gateway.json(&headers, body).await?;
    gateway.answer(&caller, Operation::Search(search)).await
}

/// One entity. Scope `read`.
#[utoipa::path(get, path = "/v1/entities/{id}", tag = "discovery",
    params(("id" = EntityId, Path, description = "As `dataset:st-mary%2Fdigits` or `dataset:st-mary:digits`")),
    responses((status = 200, body = Envelope<Hit>), Failures))]
async fn get_entity(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    Ok(reply::ok(gateway.entity(&caller, entity_id(id)?).await?))
}

/// A dataset as a Croissant 1.1 document. Scope `read`.
#[utoipa::path(get, path = "/v1/entities/{id}/croissant", tag = "discovery",
    params(("id" = EntityId, Path, description = "As `dataset:st-mary%2Fdigits` or `dataset:st-mary:digits`")),
    responses((status = 200, content_type = "application/ld+json", body = serde_json::Value,
        description = "JSON-LD, without an envelope, as tools for Croissant read it"), Failures))]
async fn get_croissant(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let hit = gateway.entity(&caller, entity_id(id)?).await?;
    let Some(document) = croissant(&hit.descriptor) else {
        let message = format!("`{}` is not a dataset", hit.descriptor.entity);
        return Err(Rejection::malformed("entity", &message).into());
    };
    let kind = HeaderValue::from_static("application/ld+json");
    Ok(reply::bytes_response(StatusCode::OK, kind, document.to_string()))
}

impl Gateway {
    async fn entity(&self, caller: &Caller, id: EntityId) -> Result<Hit, Rejection> {
        match self.ask(caller, Operation::GetEntity(id)).await? {
            Answer::Entity(hit) => Ok(*hit),
            other => Err(super::unexpected(&other)),
        }
    }
}

/// An entity's id in a path. The slash may be written as a colon, since much that lies between undoes `%2F`.
fn entity_id(id: Result<Path<String>, PathRejection>) -> Result<EntityId, Rejection> {
    let Path(text) = id.map_err(|_| Rejection::malformed("entity", "it is not readable text"))?;
    let text = match text.split_once(':') {
        Some((kind, rest)) => format!("{kind}:{}", rest.replacen(':', "/", 1)),
        None => text,
    };
    named("entity", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_an_entity() {
        for text in ["dataset:st-mary/digits", "dataset:st-mary:digits"] {
            assert_eq!(
                entity_id(Ok(Path(text.to_owned()))).unwrap().to_string(),
                "dataset:st-mary/digits"
            );
        }
        for text in [
            "",
            "dataset",
            "dataset:st-mary",
            "dataset:a:b:c",
            "dataset:../etc",
            "dataset:a%2fb",
        ] {
            assert!(entity_id(Ok(Path(text.to_owned()))).is_err(), "{text}");
        }
    }
}
