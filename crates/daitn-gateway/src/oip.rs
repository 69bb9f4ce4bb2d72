//! The Open Inference Protocol v2 (KServe) under `/v2`, with its binary tensor extension, for unchanged clients.
//!
//! A model takes one input, `input`, FP32, rows × features, and gives `probabilities` (FP32, rows × classes) and
//! `label` (BYTES, rows), or for a regression `value` (FP32, rows).

mod infer;
mod numbers;
mod tensor;

use crate::{
    auth::Caller,
    gateway::Gateway,
    health::check_ready,
    input::named,
    queries,
    reply::{self, Failure},
    view::{Served, View},
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use daitn_messages::{BUILD, ids::Slug, learning::Task, operation::Scope, rejection::Rejection};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The decision that explains where a query went.
pub(crate) const DECISION: HeaderName = HeaderName::from_static("x-daitn-decision");
/// The name of a model's input.
const INPUT: &str = "input";

pub(crate) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(server_live))
        .routes(routes!(server_ready))
        .routes(routes!(server_metadata))
        .routes(routes!(repository_index))
        .routes(routes!(model_metadata))
        .routes(routes!(version_metadata))
        .routes(routes!(model_ready))
        .routes(routes!(version_ready))
        .routes(routes!(infer::infer))
        .routes(routes!(infer::infer_version))
}

/// The protocol's error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipError {
    /// What happened and why, beginning with the stable code.
    error: String,
}

/// What every operation can answer instead of what was asked for.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code)] // The document is made from its variants; nothing constructs them.
enum Failures {
    /// The tensor or the request does not fit the model
    #[response(status = 400)]
    BadTensor(#[to_schema] OipError),
    /// No valid API key
    #[response(status = 401)]
    Unauthenticated(#[to_schema] OipError),
    /// The API key does not have the scope `query`, or no policy permits its organisation to query the model
    #[response(status = 403)]
    Forbidden(#[to_schema] OipError),
    /// No such model or version
    #[response(status = 404)]
    NotFound(#[to_schema] OipError),
    /// The body did not arrive in time
    #[response(status = 408)]
    TooSlow(#[to_schema] OipError),
    /// Over a bound
    #[response(status = 413)]
    TooLarge(#[to_schema] OipError),
    /// The body is compressed
    #[response(status = 415)]
    Unsupported(#[to_schema] OipError),
    /// A number is out of its range
    #[response(status = 422)]
    OutOfRange(#[to_schema] OipError),
    /// A fault of the program or the machine
    #[response(status = 500)]
    Internal(#[to_schema] OipError),
    /// No replica is ready, or all are full: see Retry-After
    #[response(status = 503)]
    Unavailable(#[to_schema] OipError),
}

/// A refusal in the protocol's shape.
pub(crate) fn failure(failure: &Failure) -> Response {
    let rejection = &failure.rejection;
    let response = reply::json(
        failure.status,
        &OipError {
            error: rejection.to_string(),
        },
    );
    let mut response = reply::with_hints(response, rejection.code);
    let decision = rejection
        .decision
        .as_ref()
        .and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    if let Some(decision) = decision {
        response.headers_mut().insert(DECISION, decision);
    }
    response
}

/// A failure on its way out in the protocol's shape.
struct OipFailure(Failure);

impl<T: Into<Failure>> From<T> for OipFailure {
    fn from(failure: T) -> Self {
        Self(failure.into())
    }
}

impl axum::response::IntoResponse for OipFailure {
    fn into_response(self) -> Response {
        failure(&self.0)
    }
}

type OipOutcome = Result<Response, OipFailure>;

/// Whether the server lives.
#[derive(Debug, Serialize, ToSchema)]
struct Live {
    /// Always true.
    live: bool,
}

/// Whether the server or model is ready.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// Which model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    name: Option<Slug>,
    /// Always true: what is not ready is answered by 503.
    ready: bool,
}

/// What the server is.
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    /// `daitn`.
    name: &'static str,
    /// Its build.
    version: &'static str,
    /// Extensions of the protocol.
    extensions: Vec<&'static str>,
}

/// What a model takes and gives.
#[derive(Debug, Serialize, ToSchema)]
struct ModelMetadata {
    /// Its name.
    name: Slug,
    /// The versions that are served.
    versions: Vec<String>,
    /// `daitn`.
    platform: &'static str,
    /// One: rows × features.
    inputs: Vec<TensorMetadata>,
    /// Probabilities and labels, or values.
    outputs: Vec<TensorMetadata>,
}

/// A tensor.
#[derive(Debug, Serialize, ToSchema)]
struct TensorMetadata {
    /// Its name.
    name: &'static str,
    /// `FP32` or `BYTES`.
    datatype: &'static str,
    /// −1: any number of rows.
    shape: Vec<i64>,
    /// What the protocol has no field for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    parameters: Option<TensorParameters>,
}

/// What the protocol has no field for, where it lets servers add to it.
#[derive(Debug, Serialize, ToSchema)]
struct TensorParameters {
    /// Names of the columns, in their order: what a file has to hold.
    columns: Vec<String>,
}

/// A line of the repository's index.
#[derive(Debug, Serialize, ToSchema)]
struct IndexEntry {
    /// The model's name.
    name: Slug,
    /// The version.
    version: String,
    /// `READY` or `UNAVAILABLE`.
    state: &'static str,
    /// Why it is unavailable.
    reason: String,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/v2/health/live", tag = "inference", security(()),
    responses((status = 200, body = Live)))]
async fn server_live() -> Response {
    reply::json(StatusCode::OK, &Live { live: true })
}

/// Whether the gateway can route: it has a snapshot of the network.
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference", security(()),
    responses((status = 200, body = Ready), (status = 503, description = "No snapshot yet", body = OipError)))]
async fn server_ready(State(gateway): State<Arc<Gateway>>) -> OipOutcome {
    check_ready(&gateway)?;
    Ok(reply::json(
        StatusCode::OK,
        &Ready {
            name: None,
            ready: true,
        },
    ))
}

/// What the server is. Scope `query`.
#[utoipa::path(get, path = "/v2", tag = "inference", responses((status = 200, body = ServerMetadata), Failures))]
async fn server_metadata(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> OipOutcome {
    gateway.caller(&headers, Scope::Query)?;
    let extensions = vec!["binary_tensor_data", "model_repository"];
    Ok(reply::json(
        StatusCode::OK,
        &ServerMetadata {
            name: "daitn",
            version: BUILD,
            extensions,
        },
    ))
}

/// Lists the models that are served and that the caller may query. Scope `query`.
#[utoipa::path(post, path = "/v2/repository/index", tag = "inference",
    responses((status = 200, body = Vec<IndexEntry>), Failures))]
async fn repository_index(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let body = gateway.body(&headers, body, INDEX_BYTES_MAX).await?;
    let only_ready = index_request(&body.bytes)?.ready;
    let view = gateway.view.load();
    let served = view
        .models
        .iter()
        .flat_map(|(name, model)| model.versions.iter().map(move |v| (name, v)));
    let entries = served
        .filter(|(_, (_, served))| !only_ready || !served.replicas.is_empty())
        // What the caller may not query is of no use to it.
        .filter(|(_, (_, served))| {
            served
                .model
                .access
                .check(caller.principal(), &served.entity())
                .is_ok()
        })
        .map(|(name, (version, served))| IndexEntry {
            name: name.clone(),
            version: version.to_string(),
            state: if served.replicas.is_empty() {
                "UNAVAILABLE"
            } else {
                "READY"
            },
            reason: if served.replicas.is_empty() {
                "no ready replica".to_owned()
            } else {
                String::new()
            },
        });
    let unserved = view.unserved(caller.principal()).filter(|_| !only_ready);
    let unserved = unserved.map(|unserved| IndexEntry {
        name: unserved.model.name.clone(),
        version: unserved.model.version.to_string(),
        state: "UNAVAILABLE",
        reason: unserved.why.clone(),
    });
    let entries: Vec<IndexEntry> = entries.chain(unserved).collect();
    Ok(reply::json(StatusCode::OK, &entries))
}

/// Longest body of a question for the index, bytes.
const INDEX_BYTES_MAX: usize = 4096;

/// What the index is asked.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct IndexRequest {
    ready: bool,
}

fn index_request(bytes: &[u8]) -> Result<IndexRequest, Rejection> {
    if bytes.is_empty() {
        return Ok(IndexRequest::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Rejection::malformed("body", &error.to_string()))
}

/// What a model takes and gives. Scope `query`.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "inference",
    params(("model" = Slug, Path, description = "Its name")),
    responses((status = 200, body = ModelMetadata), Failures))]
async fn model_metadata(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<String>, PathRejection>,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let view = gateway.view.load();
    metadata(&view, &*served(&view, &caller, model)?)
}

/// What a version of a model takes and gives. Scope `query`.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "inference",
    params(("model" = Slug, Path, description = "Its name"), ("version" = u32, Path, description = "Its version")),
    responses((status = 200, body = ModelMetadata), Failures))]
async fn version_metadata(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let view = gateway.view.load();
    metadata(&view, &*served_version(&view, &caller, path)?)
}

/// Whether a model has a ready replica. Scope `query`.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "inference",
    params(("model" = Slug, Path, description = "Its name")), responses((status = 200, body = Ready), Failures))]
async fn model_ready(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<String>, PathRejection>,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    ready(&*served(&gateway.view.load(), &caller, model)?)
}

/// Whether a version of a model has a ready replica. Scope `query`.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "inference",
    params(("model" = Slug, Path, description = "Its name"), ("version" = u32, Path, description = "Its version")),
    responses((status = 200, body = Ready), Failures))]
async fn version_ready(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    ready(&*served_version(&gateway.view.load(), &caller, path)?)
}

fn served(
    view: &View,
    caller: &Caller,
    model: Result<Path<String>, PathRejection>,
) -> Result<Arc<Served>, Rejection> {
    let Path(model) = model.map_err(|_| Rejection::malformed("model", "its name is not readable text"))?;
    named::<Slug>("model", &model)?;
    queries::served(view, caller.principal(), &model, None)
}

fn served_version(
    view: &View,
    caller: &Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Arc<Served>, Rejection> {
    let Path((model, version)) =
        path.map_err(|_| Rejection::malformed("model", "its name is not readable text"))?;
    named::<Slug>("model", &model)?;
    named::<u32>("version", &version)?;
    queries::served(view, caller.principal(), &model, Some(&version))
}

fn ready(served: &Served) -> OipOutcome {
    let model = &served.model.model;
    if served.replicas.is_empty() {
        let message = format!(
            "model `{}` version {} has no ready replica",
            model.name, model.version
        );
        return Err(Rejection::new(daitn_messages::rejection::Code::ModelUnavailable, message).into());
    }
    Ok(reply::json(
        StatusCode::OK,
        &Ready {
            name: Some(model.name.clone()),
            ready: true,
        },
    ))
}

fn metadata(view: &View, served: &Served) -> OipOutcome {
    let spec = &served.model.spec;
    let name = served.model.model.name.clone();
    let versions = view
        .models
        .get(&name)
        .map(|model| model.versions.keys().map(ToString::to_string).collect());
    let width = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let fp32 = |name, shape| TensorMetadata {
        name,
        datatype: "FP32",
        shape,
        parameters: None,
    };
    let input = TensorMetadata {
        parameters: Some(TensorParameters {
            columns: spec.features.clone(),
        }),
        ..fp32(INPUT, vec![-1, width(spec.features.len())])
    };
    let outputs = match &spec.task {
        Task::Classification { classes } => vec![
            fp32("probabilities", vec![-1, width(classes.len())]),
            TensorMetadata {
                name: "label",
                datatype: "BYTES",
                shape: vec![-1],
                parameters: None,
            },
        ],
        Task::Regression => vec![fp32("value", vec![-1])],
    };
    let metadata = ModelMetadata {
        name,
        versions: versions.unwrap_or_default(),
        platform: "daitn",
        inputs: vec![input],
        outputs,
    };
    Ok(reply::json(StatusCode::OK, &metadata))
}
