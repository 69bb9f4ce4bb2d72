//! Which address of the REST API answers which operation. The gateway holds the other half of this table; the
//! end-to-end tests hold them together.

use crate::failure::Failure;
use daitn_messages::operation::Operation;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    /// How.
    pub(crate) method: Method,
    /// Where.
    pub(crate) path: String,
    /// What.
    pub(crate) body: Option<Value>,
    /// Headers beside the key.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Endpoint {
    /// Without a body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            headers: Vec::new(),
        }
    }
    /// Adds a body.
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The address of an operation.
    pub(crate) fn of(operation: &Operation) -> Result<Self, Failure> {
        let get = |path: String| Self::new(Method::GET, path);
        let post = |path: String| Self::new(Method::POST, path);
        Ok(match operation {
            Operation::CreateToken(token) => post("/v1/tokens".into()).body(json(token)?),
            Operation::ListTokens => get("/v1/tokens".into()),
            Operation::RevokeToken(token) => post(format!("/v1/tokens/{token}/revoke")),
            Operation::CreateKey(key) => post("/v1/keys".into()).body(json(key)?),
            Operation::ListKeys => get("/v1/keys".into()),
            Operation::RevokeKey(key) => post(format!("/v1/keys/{key}/revoke")),
            Operation::ListNodes => get("/v1/nodes".into()),
            Operation::GetNode(node) => get(format!("/v1/nodes/{node}")),
            Operation::RevokeNode(node) => post(format!("/v1/nodes/{node}/revoke")),
            Operation::DrainNode(node, draining) => {
                post(format!("/v1/nodes/{node}/drain")).body(json!({ "draining": draining }))
            }
            Operation::Search(search) => post("/v1/search".into()).body(json(search)?),
            Operation::GetEntity(entity) => get(format!("/v1/entities/{}", segment(&entity.to_string()))),
            Operation::Plan(request) => post("/v1/plans".into()).body(json(request)?),
            Operation::Apply {
                plan,
                idempotency_key,
            } => {
                let call = post("/v1/jobs".into()).body(json!({ "plan": plan }));
                match idempotency_key {
                    Some(key) => call.header("idempotency-key", key),
                    None => call,
                }
            }
            Operation::ListJobs => get("/v1/jobs".into()),
            Operation::GetJob(job) => get(format!("/v1/jobs/{job}")),
            Operation::StopJob(job) => post(format!("/v1/jobs/{job}/stop")),
            Operation::GetModel(model) => {
                get(format!("/v1/models/{}/versions/{}", model.name, model.version))
            }
            Operation::ListDeployments => get("/v1/deployments".into()),
            Operation::Deploy {
                model,
                version,
                replicas,
            } => post("/v1/deployments".into())
                .body(json!({ "model": model, "version": version, "replicas": replicas })),
            Operation::StopDeployment(deployment) => post(format!("/v1/deployments/{deployment}/stop")),
            Operation::RollBack(model) => post(format!("/v1/models/{model}/rollback")),
            Operation::Can(question) => post("/v1/policy/can".into()).body(json(question)?),
            Operation::GetPolicy => get("/v1/policy".into()),
            Operation::SetPolicy(policy) => {
                Self::new(Method::PUT, "/v1/policy").body(json!({ "policy": policy }))
            }
            Operation::Explain(decision) => get(format!("/v1/decisions/{decision}")),
            Operation::Leaves { from, limit } => get(format!("/v1/log/leaves?from={from}&limit={limit}")),
            Operation::Status => get("/v1/status".into()),
        })
    }
}

fn json<T: Serialize>(value: &T) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::internal(format!("a request cannot be written: {error}")))
}

/// A text as one segment of a path (RFC 3986, section 3.3): everything but unreserved characters and `:` is encoded.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_no_slash() {
        assert_eq!(segment("dataset:st-mary/digits"), "dataset:st-mary%2Fdigits");
        assert_eq!(segment("a b?c#d"), "a%20b%3Fc%23d");
    }
}
