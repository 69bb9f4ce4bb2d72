//! The shapes of our own REST API: `{schema_version, status, data}` and `{schema_version, status, error}`, and which
//! HTTP status a rejection has.

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use daitn_messages::{
    ids::DecisionId,
    rejection::{Code, Rejection},
};
use serde::Serialize;
use utoipa::ToSchema;

/// The version of the envelope and of what is in it. Raised when a client could misread it.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Envelope<T> {
    /// Raised when a client could misread the answer.
    pub(crate) schema_version: u32,
    /// `ok`.
    pub(crate) status: &'static str,
    /// What was asked for.
    pub(crate) data: T,
}

/// A refusal or failure.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorEnvelope {
    /// Raised when a client could misread the answer.
    schema_version: u32,
    /// `error`.
    status: &'static str,
    /// What happened.
    error: ErrorBody,
}

/// What happened, why, and what to do next.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// The stable code.
    code: Code,
    /// What happened and why.
    message: String,
    /// What to do next.
    hint: String,
    /// The decision record that explains it.
    decision: Option<DecisionId>,
    /// Ids of the policies that determined it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    policies: Vec<String>,
    /// The command that prints the code's page.
    docs: String,
}

/// Nothing to show.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nothing {}

/// What a handler of the REST API gives.
pub(crate) type Outcome = Result<Response, Failure>;

/// A rejection on its way out, with the HTTP status that it has.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) rejection: Rejection,
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self {
            status: status(rejection.code),
            rejection,
        }
    }
}

impl Failure {
    /// A rejection whose status says more than its code.
    pub(crate) fn with_status(status: StatusCode, rejection: Rejection) -> Self {
        Self { status, rejection }
    }
}

/// The refusal's envelope.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, rejection } = self;
        let code = rejection.code;
        let body = ErrorEnvelope {
            schema_version: SCHEMA_VERSION,
            status: "error",
            error: ErrorBody {
                code,
                hint: rejection.hint_or_page().to_owned(),
                message: rejection.message,
                decision: rejection.decision,
                policies: rejection.policies,
                docs: format!("daitn help {}", code.as_str()),
            },
        };
        with_hints(json(status, &body), code)
    }
}

/// The answer's envelope.
pub(crate) fn ok<T: Serialize>(data: T) -> Response {
    json(
        StatusCode::OK,
        &Envelope {
            schema_version: SCHEMA_VERSION,
            status: "ok",
            data,
        },
    )
}

/// Headers that go with a status, in every API's shape.
pub(crate) fn with_hints(mut response: Response, code: Code) -> Response {
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after_seconds(code) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == Code::Unauthenticated {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"daitn\""),
        );
    }
    response
}

/// A JSON response.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => bytes_response(status, HeaderValue::from_static("application/json"), bytes),
        Err(error) => {
            // Only a map with a key that is no text fails, which no type of ours has.
            tracing::error!("an answer does not encode as JSON: {error}");
            let body = r#"{"schema_version":1,"status":"error","error":{"code":"E0901","message":"the answer does not encode","hint":"","decision":null,"docs":"daitn help E0901"}}"#;
            bytes_response(
                StatusCode::INTERNAL_SERVER_ERROR,
                HeaderValue::from_static("application/json"),
                body,
            )
        }
    }
}

pub(crate) fn bytes_response(status: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Which HTTP status a rejection has.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed | Code::BadSignature | Code::VersionMismatch | Code::BadTensor => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unauthorised | Code::PolicyForbids | Code::TerminalNotAllowed | Code::NotEnrolled => {
            StatusCode::FORBIDDEN
        }
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict | Code::StalePlan | Code::StaleEpoch | Code::Stopped => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::OutOfRange
        | Code::Infeasible
        | Code::PolicyInvalid
        | Code::TokenInvalid
        | Code::ClockSkew
        | Code::QuorumMissed
        | Code::UpdateRefused
        | Code::DataUnusable
        | Code::Diverged
        | Code::NotVerified
        | Code::DeadlinePassed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::HashMismatch | Code::AgentFailed => StatusCode::BAD_GATEWAY,
        Code::Overloaded
        | Code::Unreachable
        | Code::NodeLost
        | Code::ModelUnavailable
        | Code::ControlUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Storage => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn retry_after_seconds(code: Code) -> Option<u16> {
    match code {
        Code::Overloaded => Some(1),
        Code::Unreachable | Code::NodeLost | Code::ModelUnavailable | Code::ControlUnavailable => Some(2),
        _ => None,
    }
}
