//! Plans and jobs.

use super::{events, name};
use crate::{
    gateway::Gateway,
    input::{check_idempotency_key, idempotency_key},
    openapi::Failures,
    reply::{Envelope, Failure, Outcome},
};
use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use daitn_messages::{
    ids::{JobId, PlanId},
    job::{JobEvent, JobSummary, JobView},
    operation::{Operation, Scope},
    plan::Verdict,
    rejection::Rejection,
    request::TrainingRequest,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .routes(routes!(create_plan))
        .routes(routes!(list_jobs, create_job))
        .routes(routes!(get_job))
        .routes(routes!(stop_job))
        .routes(routes!(job_events))
}

/// Begin the job of a feasible plan.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Apply {
    /// The plan, from `POST /v1/plans`.
    plan: PlanId,
    /// As the header `Idempotency-Key`: a repeated key gives the job that the first one began.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    idempotency_key: Option<String>,
}

/// Plans a training request: a feasible plan, or what stands against it. Nothing is done yet. Scope `train`.
#[utoipa::path(post, path = "/v1/plans", tag = "jobs", request_body = TrainingRequest, responses(
    (status = 200, body = Envelope<Verdict>, description = "A verdict, feasible or not"), Failures))]
async fn create_plan(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Train)?;
    let request: Box<TrainingRequest> = gateway.json(&headers, body).await?;
    request.validate().map_err(unprocessable)?;
    gateway.answer(&caller, Operation::Plan(request)).await
}

/// The request reads, and still says something that cannot be.
fn unprocessable(rejection: Rejection) -> Failure {
    Failure::with_status(StatusCode::UNPROCESSABLE_ENTITY, rejection)
}

/// Lists jobs. Scope `read`.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", responses(
    (status = 200, body = Envelope<Vec<JobSummary>>), Failures))]
async fn list_jobs(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway.answer(&caller, Operation::ListJobs).await
}

/// Begins the job of a feasible plan. Scope `train`.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", request_body = Apply,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 200, pattern = "^[!-~]+$",
        description = "A repeated key gives the job that the first one began")),
    responses((status = 200, body = Envelope<JobView>), Failures))]
async fn create_job(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Train)?;
    let in_header = idempotency_key(&headers)?;
    let apply: Apply = gateway.json(&headers, body).await?;
    if let Some(key) = &apply.idempotency_key {
        check_idempotency_key(key).map_err(unprocessable)?;
        if in_header.as_ref().is_some_and(|other| other != key) {
            let why = "header and body name different ones";
            return Err(unprocessable(Rejection::malformed("idempotency key", why)));
        }
    }
    let idempotency_key = apply.idempotency_key.or(in_header);
    gateway
        .answer(
            &caller,
            Operation::Apply {
                plan: apply.plan,
                idempotency_key,
            },
        )
        .await
}

/// One job. Scope `read`.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = JobId, Path, description = "Which")),
    responses((status = 200, body = Envelope<JobView>), Failures))]
async fn get_job(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    job: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    gateway
        .answer(&caller, Operation::GetJob(name("job", job)?))
        .await
}

/// Stops a job. Scope `train`.
#[utoipa::path(post, path = "/v1/jobs/{job}/stop", tag = "jobs", params(("job" = JobId, Path, description = "Which")),
    responses((status = 200, body = Envelope<JobView>), Failures))]
async fn stop_job(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    job: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Train)?;
    gateway
        .answer(&caller, Operation::StopJob(name("job", job)?))
        .await
}

/// What happens to a job, as server-sent events. The first is the job as it is; after a break the client sends
/// `Last-Event-ID` and gets what it has missed. The last one has `"terminal": true`. Scope `read`.
#[utoipa::path(get, path = "/v1/jobs/{job}/events", tag = "jobs",
    params(("job" = JobId, Path, description = "Which"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was received")),
    responses((status = 200, content_type = "text/event-stream", body = JobEvent),
        (status = 204, description = "The job has ended and the client has seen its end"), Failures))]
async fn job_events(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    job: Result<Path<String>, PathRejection>,
) -> Outcome {
    let caller = gateway.caller(&headers, Scope::Read)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    Ok(events::stream(&gateway, &caller, name("job", job)?, last).await?)
}
