//! The REST API under `/v1`. Each handler says whose authority it needs, turns the request into an operation, asks, and
//! wraps the answer.

mod access;
mod discovery;
mod events;
mod jobs;
mod models;
mod nodes;
mod oversight;

use crate::{
    auth::Caller,
    gateway::Gateway,
    reply::{self, Outcome},
};
use axum::extract::{Path, rejection::PathRejection};
use daitn_messages::{
    operation::{Answer, Operation},
    rejection::{Code, Rejection},
};
use std::{fmt::Display, str::FromStr, sync::Arc};
use utoipa_axum::router::OpenApiRouter;

pub(crate) fn router() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new()
        .merge(access::router())
        .merge(nodes::router())
        .merge(discovery::router())
        .merge(jobs::router())
        .merge(models::router())
        .merge(oversight::router())
}

impl Gateway {
    /// Asks the control center and wraps its answer as it is.
    async fn answer(&self, caller: &Caller, operation: Operation) -> Outcome {
        Ok(reply::ok(self.ask(caller, operation).await?))
    }
}

/// A path's one name, as a value.
fn name<T: FromStr<Err: Display>>(
    what: &str,
    path: Result<Path<String>, PathRejection>,
) -> Result<T, Rejection> {
    let Path(text) = path.map_err(|_| Rejection::malformed(what, "it is not readable text"))?;
    crate::input::named(what, &text)
}

/// The control center answered something else than was asked.
fn unexpected(answer: &Answer) -> Rejection {
    // Only its kind: what it holds is nobody's business in a log.
    let kind: String = format!("{answer:?}")
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    tracing::error!("the control center answered with `{kind}`, which does not fit the question");
    Rejection::new(
        Code::Internal,
        "the control center's answer does not fit the question",
    )
}
