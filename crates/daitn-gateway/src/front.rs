//! What happens to every request before and after its handler: is it meant for us, is there room, how long did it take,
//! and what if the handler panics.

use crate::{
    a2a,
    config::GatewayConfig,
    error::StartError,
    gateway::Gateway,
    oip,
    reply::Failure,
    stats::{RouteClass, count},
};
use axum::{
    Router,
    body::Body,
    http::{
        HeaderMap, HeaderValue, Request, Response, Uri,
        header::{HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS},
        uri::Authority,
    },
    response::IntoResponse,
};
use daitn_messages::rejection::{Code, Rejection};
use futures_util::FutureExt;
use hyper::body::Incoming;
use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tower_service::Service;

/// Answers the requests of one connection.
pub(crate) struct Front {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) router: Router,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

impl Front {
    /// Answers one request.
    pub(crate) async fn answer(&self, from: SocketAddr, mut request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let class = RouteClass::of(request.uri().path());
        let stats = &self.gateway.stats;
        let _open = stats.request_opened();
        request.extensions_mut().insert(ClientAddress(from));
        let answered = AssertUnwindSafe(self.admitted(class, request))
            .catch_unwind()
            .await;
        let mut response = answered.unwrap_or_else(|_| {
            count(&stats.panics_total);
            tracing::error!(
                class = class.as_str(),
                "a request's handler panicked; the client was told E0901"
            );
            refused(
                class,
                Rejection::new(Code::Internal, "the request could not be handled"),
            )
        });
        response
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        stats.answered(class, response.status().as_u16(), started.elapsed());
        response
    }

    async fn admitted(&self, class: RouteClass, request: Request<Incoming>) -> Response<Body> {
        if let Err(rejection) = self.gateway.hosts.check(request.uri(), request.headers()) {
            return refused(class, rejection);
        }
        // Health is answered also by a gateway that is full: that it is full is not that it is dead.
        let permit = self.gateway.requests.try_acquire();
        if permit.is_err() && class != RouteClass::Health {
            count(&self.gateway.stats.overloads_total);
            let max = self.gateway.limits().requests_max;
            let message = format!("{max} requests are under way, which is the most");
            return refused(class, Rejection::new(Code::Overloaded, message));
        }
        let mut router = self.router.clone();
        let answered = router.call(request.map(Body::new)).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

/// A refusal in the shape of the API that was called.
pub(crate) fn refused(class: RouteClass, failure: impl Into<Failure>) -> Response<Body> {
    let failure = failure.into();
    match class {
        RouteClass::Inference => oip::failure(&failure),
        RouteClass::Agent => a2a::failure(&serde_json::Value::Null, &failure),
        RouteClass::Rest | RouteClass::Health | RouteClass::Other => failure.into_response(),
    }
}

/// Under which names the gateway answers, and to which web pages.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// Lower case, without port. `None`: any.
    names: Option<Vec<String>>,
    /// Lower case.
    origins: Vec<String>,
}

/// Names of this machine for itself.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Hosts {
    pub(crate) fn new(config: &GatewayConfig) -> Result<Self, StartError> {
        let mut names: Vec<String> = config
            .hosts
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let mut origins = Vec::new();
        for text in config.origins.iter().chain(&config.public_url) {
            origins.push(origin(text).ok_or_else(|| StartError::NotAnOrigin { text: text.clone() })?);
        }
        if let Some(url) = &config.public_url {
            names.extend(
                url.parse::<Uri>()
                    .ok()
                    .and_then(|uri| uri.host().map(str::to_ascii_lowercase)),
            );
        }
        let guarded = config.listen.ip().is_loopback() || !names.is_empty();
        names.extend(LOOPBACK_NAMES.map(str::to_owned));
        Ok(Self {
            names: guarded.then_some(names),
            origins,
        })
    }

    /// Refuses requests that were meant for another name (a name that an attacker points here: DNS rebinding) and
    /// those of web pages that have no business here.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
        let host = single(headers, HOST.as_str())?
            .ok_or_else(|| Rejection::malformed("Host", "the request does not say whom it is meant for"))?;
        let authority: Authority = host
            .parse()
            .map_err(|_| Rejection::malformed("Host", "it is not a host name"))?;
        if host.contains('@') {
            return Err(Rejection::malformed("Host", "it is not a host name"));
        }
        if uri.authority().is_some_and(|other| other != &authority) {
            return Err(Rejection::malformed(
                "Host",
                "it is not the one that the request line names",
            ));
        }
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if self.names.as_ref().is_some_and(|names| !names.contains(&name)) {
            return Err(Rejection::new(
                Code::Unauthorised,
                "the gateway does not answer under this host name",
            )
            .with_hint(
                "Use the gateway's own address, or add the name to `gateway.hosts` of its configuration.",
            ));
        }
        self.check_origin(single(headers, ORIGIN.as_str())?, host)
    }

    fn check_origin(&self, origin: Option<&str>, host: &str) -> Result<(), Rejection> {
        let Some(origin) = origin else { return Ok(()) };
        let origin = origin.to_ascii_lowercase();
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
            || self.origins.contains(&origin)
        {
            return Ok(());
        }
        Err(Rejection::new(
            Code::Unauthorised,
            "web pages of this origin may not use the gateway",
        )
        .with_hint("Add the origin to `gateway.origins` of the gateway's configuration."))
    }
}

/// A header that must not be there twice.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejection::malformed(name, "there is more than one"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Rejection::malformed(name, "it is not readable text"))
}

/// `https://name:port` in lower case, if the text is that and no more.
fn origin(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').to_ascii_lowercase();
    let uri: Uri = text.parse().ok()?;
    let plain =
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && uri.query().is_none();
    (plain
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@')))
    .then_some(text)
}

/// Whether a request came from this machine to this machine, not through a proxy on it.
pub(crate) fn is_local(from: Option<&ClientAddress>, headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse::<Authority>().ok());
    let to_loopback = host.is_some_and(|host| LOOPBACK_NAMES.contains(&host.host()));
    let proxied = ["forwarded", "x-forwarded-for", "via"]
        .iter()
        .any(|name| headers.contains_key(*name));
    from.is_some_and(|from| from.0.ip().to_canonical().is_loopback()) && to_loopback && !proxied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &Hosts, uri: &str, headers: &[(&str, &str)]) -> Result<(), Code> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                axum::http::HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        hosts
            .check(&uri.parse().unwrap(), &map)
            .map_err(|rejection| rejection.code)
    }

    #[test]
    fn on_loopback_only_loopback_names_are_answered() {
        let hosts = Hosts::new(&GatewayConfig::default()).unwrap();
        for host in [
            "localhost",
            "LOCALHOST:8470",
            "127.0.0.1:1",
            "[::1]:8470",
            "localhost.",
        ] {
            assert_eq!(check(&hosts, "/v1/status", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8470",
            "10.0.0.1",
        ] {
            assert_eq!(
                check(&hosts, "/", &[("host", host)]),
                Err(Code::Unauthorised),
                "{host}"
            );
        }
        assert_eq!(check(&hosts, "/", &[]), Err(Code::Malformed));
        assert_eq!(
            check(&hosts, "/", &[("host", "localhost"), ("host", "localhost")]),
            Err(Code::Malformed)
        );
        assert_eq!(
            check(&hosts, "/", &[("host", "a@localhost")]),
            Err(Code::Malformed)
        );
        assert_eq!(
            check(&hosts, "http://evil.example/", &[("host", "localhost")]),
            Err(Code::Malformed)
        );
        assert_eq!(
            check(&hosts, "http://localhost/", &[("host", "localhost")]),
            Ok(())
        );
    }

    #[test]
    fn configured_names_are_answered_too() {
        let config = GatewayConfig {
            public_url: Some("https://ai.example.org".to_owned()),
            hosts: vec!["gateway.internal".to_owned()],
            ..GatewayConfig::default()
        };
        let hosts = Hosts::new(&config).unwrap();
        for host in ["ai.example.org", "gateway.internal:443", "localhost"] {
            assert_eq!(check(&hosts, "/", &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(
            check(&hosts, "/", &[("host", "example.org")]),
            Err(Code::Unauthorised)
        );
    }

    #[test]
    fn only_known_web_pages_are_answered() {
        let config = GatewayConfig {
            origins: vec!["https://console.example/".to_owned()],
            ..GatewayConfig::default()
        };
        let hosts = Hosts::new(&config).unwrap();
        let with = |origin| check(&hosts, "/", &[("host", "localhost:8470"), ("origin", origin)]);
        assert_eq!(with("http://localhost:8470"), Ok(()));
        assert_eq!(with("https://console.example"), Ok(()));
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:9",
            "https://console.example.evil",
        ] {
            assert_eq!(with(origin), Err(Code::Unauthorised), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        for text in [
            "console.example",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "https://a?b",
        ] {
            let config = GatewayConfig {
                origins: vec![text.to_owned()],
                ..GatewayConfig::default()
            };
            assert!(
                matches!(Hosts::new(&config), Err(StartError::NotAnOrigin { .. })),
                "{text}"
            );
        }
    }
}
