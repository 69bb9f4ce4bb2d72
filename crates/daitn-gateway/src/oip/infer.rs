//! Inference queries.

use super::{
    DECISION, Failures, OipOutcome, served, served_version,
    tensor::{self, Form, InferRequest, InferResponse, Tensor, Written},
};
use crate::{
    auth::Caller,
    gateway::Gateway,
    queries::{self, Query},
    reply,
    view::Served,
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
};
use bytes::Bytes;
use daitn_messages::{
    ids::{DecisionId, Slug},
    operation::Scope,
    rejection::{Code, Rejection},
};
use std::sync::Arc;

/// Length of the JSON part of a body with binary tensors.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// A body up to this length is read where it is: about half a millisecond of JSON. A longer one is read by a thread that
/// may block.
const INLINE_BYTES_MAX: usize = 128 * 1024;

/// Queries a model. Scope `query`. Tensors may follow the JSON header as bytes (`Inference-Header-Content-Length`).
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "inference",
    params(("model" = Slug, Path, description = "Its name")), request_body = InferRequest,
    responses((status = 200, body = InferResponse<'static>,
        headers(("x-daitn-decision" = DecisionId, description = "Explains where the query went"))), Failures))]
pub(super) async fn infer(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    model: Result<Path<String>, PathRejection>,
    body: Body,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let served = served(&gateway.view.load(), &caller, model)?;
    answer(&gateway, &caller, served, &headers, body).await
}

/// Queries a version of a model. Scope `query`.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "inference",
    params(("model" = Slug, Path, description = "Its name"), ("version" = u32, Path, description = "Its version")),
    request_body = InferRequest,
    responses((status = 200, body = InferResponse<'static>,
        headers(("x-daitn-decision" = DecisionId, description = "Explains where the query went"))), Failures))]
pub(super) async fn infer_version(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Body,
) -> OipOutcome {
    let caller = gateway.caller(&headers, Scope::Query)?;
    let served = served_version(&gateway.view.load(), &caller, path)?;
    answer(&gateway, &caller, served, &headers, body).await
}

async fn answer(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    served: Arc<Served>,
    headers: &HeaderMap,
    body: Body,
) -> OipOutcome {
    let header_bytes = header_length(headers)?;
    let whole = gateway
        .body(headers, body, gateway.limits().query_bytes_max)
        .await?;
    let (bytes, _memory) = whole.into_parts();
    let Tensor { n_rows, input, form } = read(bytes, header_bytes, &served).await?;
    let view = gateway.view.load_full();
    let query = Query {
        view: &view,
        served: &served,
        principal: caller.principal(),
        n_rows,
        input,
    };
    let answered = queries::answer(gateway, &query).await;
    let output = answered.result?.output;
    let decision = answered.decision;
    let written = write(form, served, output, decision.clone()).await?;
    let kind = if written.header_bytes.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let mut response = reply::bytes_response(StatusCode::OK, HeaderValue::from_static(kind), written.body);
    if let Some(length) = written.header_bytes {
        response
            .headers_mut()
            .insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    if let Ok(decision) = HeaderValue::from_str(decision.as_str()) {
        response.headers_mut().insert(DECISION, decision);
    }
    Ok(response)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Rejection> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let length = value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|_| values.next().is_none());
    let length = length
        .ok_or_else(|| Rejection::malformed("Inference-Header-Content-Length", "it is not one number"))?;
    Ok(Some(length))
}

async fn read(body: Bytes, header_bytes: Option<usize>, served: &Arc<Served>) -> Result<Tensor, Rejection> {
    if body.len() <= INLINE_BYTES_MAX {
        return tensor::read(&body, header_bytes, &served.model.spec);
    }
    let served = served.clone();
    blocking(move || tensor::read(&body, header_bytes, &served.model.spec)).await
}

async fn write(
    form: Form,
    served: Arc<Served>,
    output: Bytes,
    decision: DecisionId,
) -> Result<Written, Rejection> {
    let n_bytes = output.len();
    let write = move |served: &Served| {
        tensor::write(
            &form,
            &served.model.model,
            &served.model.spec.task,
            &output,
            &decision,
        )
    };
    if n_bytes <= INLINE_BYTES_MAX {
        return write(&served);
    }
    blocking(move || write(&served)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!("reading or writing a tensor panicked: {error}");
        Err(Rejection::new(Code::Internal, "the tensor could not be handled"))
    })
}
