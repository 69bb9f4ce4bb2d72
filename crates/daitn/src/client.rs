//! The REST API as a client sees it: one place that knows paths, the key and what went wrong on the way.

mod endpoint;
mod events;

pub(crate) use endpoint::{Endpoint, segment};

use crate::{
    context::{ApiKey, Context},
    failure::Failure,
};
use daitn_messages::{
    ids::JobId,
    operation::Operation,
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use reqwest::{Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Longest answer that is read, bytes: a list of 100,000 entries fits.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A connection that takes longer is a failure.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one domain.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<ApiKey>,
    timeout: Duration,
}

/// The envelope of an answer.
#[derive(serde::Deserialize)]
struct Envelope<T> {
    data: T,
}

/// The bytes of an answer that was not a refusal.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Headers that matter to a caller.
    pub(crate) decision: Option<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// For this domain; a key in `DAITN_API_KEY` comes before the context's.
    pub(crate) fn new(context: &Context, timeout: Duration) -> Result<Self, Failure> {
        let key = std::env::var("DAITN_API_KEY")
            .ok()
            .filter(|key| !key.is_empty())
            .map(ApiKey::new)
            .or_else(|| context.api_key.clone());
        Self::with_key(context, key, timeout)
    }

    /// For this domain, with this key and no other.
    pub(crate) fn with_key(
        context: &Context,
        key: Option<ApiKey>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let base = context.url.trim_end_matches('/').to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Failure::usage(format!(
                "`{base}` is not an address: expected http://… or https://…"
            )));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("daitn/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if is_loopback(&base) {
            // A proxy of this machine's environment cannot know our loopback.
            builder = builder.no_proxy();
        }
        if let Some(path) = &context.ca_file {
            let pem = crate::files::read_text(path)?;
            let authority = reqwest::Certificate::from_pem(pem.as_bytes())
                .map_err(|error| Failure::file(path, format!("is not a PEM certificate: {error}")))?;
            builder = builder.tls_certs_merge([authority]);
        }
        let http = builder
            .build()
            .map_err(|error| Failure::internal(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            base,
            key,
            timeout,
        })
    }

    /// Asks the control center through the gateway.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, operation: &Operation) -> Result<T, Failure> {
        self.rest(&Endpoint::of(operation)?).await
    }

    /// Calls an address of our own REST API, whose answers come in an envelope.
    pub(crate) async fn rest<T: DeserializeOwned>(&self, endpoint: &Endpoint) -> Result<T, Failure> {
        let envelope: Envelope<T> = read(&self.call(endpoint).await?.body)?;
        Ok(envelope.data)
    }

    /// Calls an address of the gateway.
    pub(crate) async fn call(&self, endpoint: &Endpoint) -> Result<Reply, Failure> {
        let mut request = self
            .request(endpoint.method.clone(), &endpoint.path)
            .timeout(self.timeout);
        for (name, value) in &endpoint.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &endpoint.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        self.reply(response).await
    }

    /// Posts JSON to an address of the gateway and reads JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(Value, Option<String>), Failure> {
        let reply = self
            .call(&Endpoint::new(Method::POST, path).body(body.clone()))
            .await?;
        Ok((read(&reply.body)?, reply.decision))
    }

    /// The server's clock, as its `Date` header tells it in whole seconds.
    pub(crate) async fn date(&self, endpoint: &Endpoint) -> Result<Option<UnixMillis>, Failure> {
        let request = self
            .request(endpoint.method.clone(), &endpoint.path)
            .timeout(self.timeout);
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let date = response
            .headers()
            .get(header::DATE)
            .and_then(|value| value.to_str().ok());
        Ok(date.and_then(|text| {
            let moment = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
            u64::try_from(moment).ok().map(UnixMillis)
        }))
    }

    /// The events of a job: first the whole view, then each change.
    pub(crate) async fn watch(&self, job: &JobId) -> Result<events::Events, Failure> {
        let response = self
            .request(Method::GET, &format!("/v1/jobs/{job}/events"))
            .header(header::ACCEPT, "text/event-stream")
            .send()
            .await
            .map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            Ok(events::Events::new(response))
        } else {
            Err(self
                .reply(response)
                .await
                .err()
                .unwrap_or_else(|| Failure::internal("no events")))
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        request
    }

    async fn reply(&self, response: reqwest::Response) -> Result<Reply, Failure> {
        let status = response.status();
        let decision = response
            .headers()
            .get("x-daitn-decision")
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        let body = bounded(response).await.map_err(|error| match error {
            Broken::Http(error) => self.broken(&error),
            Broken::TooLarge => Failure::new(Code::TooLarge, "the answer is larger than 256 MiB"),
        })?;
        if status.is_success() {
            Ok(Reply { decision, body })
        } else {
            Err(refusal(status, &body))
        }
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        let cause = innermost(error);
        if error.is_timeout() && !error.is_connect() {
            let waited = self.timeout.as_secs();
            return Failure::timed_out(format!("{} gave no answer within {waited} s", self.base))
                .hint("Try again with a longer --timeout.");
        }
        Failure::unreachable(format!("{}: {cause}", self.base))
            .hint("Is it running (`daitn up`)? Is the context right (`daitn context list`)? `daitn doctor` looks closer.")
    }
}

fn is_loopback(base: &str) -> bool {
    let host = reqwest::Url::parse(base)
        .ok()
        .and_then(|url| url.host_str().map(ToOwned::to_owned));
    host.is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// The last cause in the chain: the one that says what happened.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

enum Broken {
    Http(reqwest::Error),
    TooLarge,
}

async fn bounded(mut response: reqwest::Response) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Broken::Http)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Broken::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads a body.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::internal(format!(
            "the gateway's answer is not what this build expects: {error}"
        ))
        .hint("Compare the builds with `daitn status`: command and domain may be of different versions.")
    })
}

/// What a status other than success means: the rejection in the body, or, from something that is not ours, the status.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let told = serde_json::from_slice::<Value>(body).ok();
    let rejection = told.as_ref().and_then(|told| {
        let error = told
            .get("error")
            .filter(|error| error.is_object())
            .unwrap_or(told);
        serde_json::from_value::<Rejection>(error.clone()).ok()
    });
    if let Some(rejection) = rejection {
        return Failure::from(rejection);
    }
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::Unauthorised,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::TOO_MANY_REQUESTS => Code::Overloaded,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlinePassed,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => Code::ControlUnavailable,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Code::Malformed,
        _ => Code::Internal,
    };
    let error = told.as_ref().and_then(|told| told.get("error"));
    let said = error.and_then(|error| {
        error
            .as_str()
            .or_else(|| error.get("message").and_then(Value::as_str))
    });
    match said {
        Some(said) => {
            let (code, said) = coded(said).unwrap_or((code, said));
            Failure::new(code, said)
        }
        None => Failure::new(code, format!("the server answered {status}")),
    }
}

/// The Open Inference Protocol and A2A have no field for our codes: the gateway puts them before the text, `E0501: …`.
fn coded(said: &str) -> Option<(Code, &str)> {
    let (code, text) = said.split_once(": ")?;
    let code = Code::ALL.iter().find(|known| known.as_str() == code)?;
    Some((*code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_from_the_body_or_the_status() {
        let body = br#"{"error":{"code":"E0303","message":"plan is of version 3","hint":"plan again"}}"#;
        let failure = refusal(StatusCode::CONFLICT, body);
        assert_eq!((failure.rejection.code, failure.exit as u8), (Code::StalePlan, 5));
        let foreign = refusal(StatusCode::UNAUTHORIZED, b"<html>");
        assert_eq!(
            (foreign.rejection.code, foreign.exit as u8),
            (Code::Unauthenticated, 3)
        );
        let oip = refusal(StatusCode::BAD_REQUEST, br#"{"error":"input x has 3 values"}"#);
        assert_eq!(oip.rejection.message, "input x has 3 values");
        let oip = refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            br#"{"error":"E0501: no replica of model x"}"#,
        );
        assert_eq!(
            (oip.rejection.code, oip.exit as u8, oip.rejection.message.as_str()),
            (Code::ModelUnavailable, 1, "no replica of model x")
        );
        let a2a = br#"{"error":{"code":-32000,"message":"E0601: the agent broke off"}}"#;
        let a2a = refusal(StatusCode::BAD_GATEWAY, a2a);
        assert_eq!((a2a.rejection.code, a2a.exit as u8), (Code::AgentFailed, 1));
    }
}
