//! Registered models and their deployments.

use super::{name, unexpected};
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
    http::HeaderMap,
};
use daitn_messages::{
    descriptor::Body as Card,
    ids::{DeploymentId, EntityKind, Slug},
    job::DeploymentView,
    learning::ModelVersion,
    operation::{Answer, ModelView, Operation, Scope},
    rejection::Rejection,
    request::Search,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Models on one page of the list.
const MODELS_PER_PAGE: u32 = 1000;

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(list_models))
        .routes(routes!(get_model))
        .routes(routes!(get_model_version))
        .routes(routes!(roll_back))
        .routes(routes!(list_deployments, create_deployment))
        .routes(routes!(stop_deployment))
}

/// Serve a registered model.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Deploy {
    /// Which model.
    model: Slug,
    /// Which version; none: the newest.
    #[serde(default)]
    #[schema(minimum = 1)]
    version: Option<u32>,
    /// On how many hosts.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1000)]
    replicas: u32,
}

fn one() -> u32 {
    1
}

/// Most replicas of one deployment, as in a training request.
const REPLICAS_MAX: u32 = 1000;

/// Lists registered models with their deployments. Scope `read`.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, body = Envelope<Vec<ModelView>>), Failures))]
async fn list_models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    Ok(reply::ok(gateway.models(&caller).await?))
}

/// A registered model with its deployments. Scope `read`.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models", params(("model" = Slug, Path, description = "Its name")),
    responses((status = 200, body = Envelope<ModelView>), Failures))]
async fn get_model(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let model: Slug = name("model", model)?;
    let newest = gateway
        .models(&caller)
        .await?
        .into_iter()
        .filter(|view| view.model.name == model);
    let newest = newest.max_by_key(|view| view.model.version);
    Ok(reply::ok(
        newest.ok_or_else(|| Rejection::not_found("model", &model))?,
    ))
}

/// One version of a registered model with the model's deployments. Scope `read`.
#[utoipa::path(get, path = "/v1/models/{model}/versions/{version}", tag = "models",
    params(("model" = Slug, Path, description = "Its name"), ("version" = u32, Path, description = "Which version")),
    responses((status = 200, body = Envelope<ModelView>), Failures))]
async fn get_model_version(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<(String, String)>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let Path((name, version)) =
        model.map_err(|_| Rejection::malformed("model", "it is not readable text"))?;
    let model = ModelVersion {
        name: named("model", &name)?,
        version: named("version", &version)?,
    };
    let descriptor = match gateway.ask(&caller, Operation::GetModel(model)).await? {
        Answer::Entity(hit) => hit.descriptor,
        other => return Err(unexpected(&other).into()),
    };
    let deployments = gateway.deployments(&caller).await?;
    Ok(reply::ok(
        view(descriptor, &deployments).ok_or_else(|| Rejection::not_found("model", &name))?,
    ))
}

/// Deploys the version before the one that is served. Scope `deploy`.
#[utoipa::path(post, path = "/v1/models/{model}/rollback", tag = "models",
    params(("model" = Slug, Path, description = "Its name")),
    responses((status = 200, body = Envelope<DeploymentView>), Failures))]
async fn roll_back(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Deploy)?;
    gateway
        .answer(&caller, Operation::RollBack(name("model", model)?))
        .await
}

/// Lists deployments. Scope `read`.
#[utoipa::path(get, path = "/v1/deployments", tag = "models", responses(
    (status = 200, body = Envelope<Vec<DeploymentView>>), Failures))]
async fn list_deployments(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway.answer(&caller, Operation::ListDeployments).await
}

/// Deploys a registered model. Scope `deploy`.
#[utoipa::path(post, path = "/v1/deployments", tag = "models", request_body = Deploy, responses(
    (status = 200, body = Envelope<DeploymentView>), Failures))]
async fn create_deployment(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Deploy)?;
    let Deploy {
        model,
        version,
        replicas,
    } = gateway.json(&headers, body).await?;
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        let max = f64::from(REPLICAS_MAX);
        return Err(Rejection::out_of_range("replicas", f64::from(replicas), 1.0, max).into());
    }
    if version == Some(0) {
        return Err(Rejection::out_of_range("version", 0.0, 1.0, f64::from(u32::MAX)).into());
    }
    gateway
        .answer(
            &caller,
            Operation::Deploy {
                model,
                version,
                replicas,
            },
        )
        .await
}

/// Stops a deployment. Scope `deploy`.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/stop", tag = "models",
    params(("deployment" = DeploymentId, Path, description = "Which")),
    responses((status = 200, body = Envelope<DeploymentView>), Failures))]
async fn stop_deployment(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    deployment: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Deploy)?;
    gateway
        .answer(
            &caller,
            Operation::StopDeployment(name("deployment", deployment)?),
        )
        .await
}

impl Gateway {
    async fn deployments(&self, caller: &Caller) -> Result<Vec<DeploymentView>, Rejection> {
        match self.ask(caller, Operation::ListDeployments).await? {
            Answer::Deployments(deployments) => Ok(deployments),
            other => Err(unexpected(&other)),
        }
    }

    /// Every registered model that the caller may see, page by page, with its deployments.
    async fn models(&self, caller: &Caller) -> Result<Vec<ModelView>, Rejection> {
        let deployments = self.deployments(caller).await?;
        let mut views = Vec::new();
        let mut offset = 0;
        loop {
            let search = Search {
                kind: Some(EntityKind::Model),
                limit: MODELS_PER_PAGE,
                offset,
                ..Search::default()
            };
            let page = match self.ask(caller, Operation::Search(search)).await? {
                Answer::Hits(page) => page,
                other => return Err(unexpected(&other)),
            };
            let n_hits = u32::try_from(page.hits.len()).unwrap_or(u32::MAX);
            views.extend(
                page.hits
                    .into_iter()
                    .filter_map(|hit| view(hit.descriptor, &deployments)),
            );
            offset = offset.saturating_add(n_hits);
            if n_hits == 0 || u64::from(offset) >= page.total {
                return Ok(views);
            }
        }
    }
}

fn view(
    descriptor: daitn_messages::descriptor::Descriptor,
    deployments: &[DeploymentView],
) -> Option<ModelView> {
    let Card::Model(card) = &descriptor.body else {
        return None;
    };
    let model = ModelVersion {
        name: descriptor.entity.name.clone(),
        version: card.model_version,
    };
    let of_name = deployments
        .iter()
        .filter(|deployment| deployment.model.name == model.name);
    // A version that becomes ready takes the others' place, so that of several with replicas the newest deployment's
    // answers: ids sort by the time at which they were made.
    let serves = |deployment: &&DeploymentView| deployment.hosts.iter().any(|(_, _, ready)| *ready);
    let served = of_name.clone().filter(serves).max_by(|a, b| a.id.cmp(&b.id));
    Some(ModelView {
        served: served.map(|deployment| deployment.model.version),
        deployments: of_name.cloned().collect(),
        model,
        descriptor,
    })
}
