//! Whose authority a request acts with. It is a value that is passed on, not a state of the request.

use crate::{gateway::Gateway, stats::count, view::Client};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use daitn_messages::{
    operation::{Principal, Scope},
    rejection::{Code, Rejection},
};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Longest API key that is looked up, bytes.
const SECRET_BYTES_MAX: usize = 256;

/// Who asks, proven by an API key that was in force when the request began. Holds one of the key's slots.
#[derive(Debug)]
pub(crate) struct Caller {
    client: Arc<Client>,
    _slot: OwnedSemaphorePermit,
}

impl Caller {
    pub(crate) fn principal(&self) -> &Principal {
        &self.client.principal
    }

    /// Refuses a caller without this scope.
    pub(crate) fn demand(&self, scope: Scope) -> Result<(), Rejection> {
        if self.principal().scopes.contains(&scope) {
            return Ok(());
        }
        let message = format!(
            "the API key {} does not have the scope `{}`",
            self.principal().key,
            scope.as_str()
        );
        Err(Rejection::new(Code::Unauthorised, message).with_hint(format!(
            "Ask the operator for a key with the scope `{}`.",
            scope.as_str()
        )))
    }
}

impl Gateway {
    /// Who asks, if the key has this scope. No hop to the control center: the newest snapshot says which keys are in
    /// force.
    pub(crate) fn caller(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Rejection> {
        let client = bearer(headers).and_then(|secret| {
            self.view
                .load()
                .client(secret)
                .ok_or("the API key is not known, or was revoked")
        });
        let client = client.map_err(|why| {
            count(&self.stats.unauthenticated_total);
            Rejection::new(Code::Unauthenticated, why)
        })?;
        let slot = client.slots.clone().try_acquire_owned().map_err(|_| {
            count(&self.stats.overloads_total);
            let max = self.limits().requests_per_key_max;
            Rejection::new(
                Code::Overloaded,
                format!("{max} requests with this API key are under way, which is the most"),
            )
        })?;
        let caller = Caller { client, _slot: slot };
        caller.demand(scope)?;
        Ok(caller)
    }
}

/// The text after `Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or("the request carries no API key")?;
    if values.next().is_some() {
        return Err("the request carries more than one Authorization header");
    }
    let value = value
        .to_str()
        .map_err(|_| "the Authorization header is not readable text")?;
    let (scheme, secret) = value
        .split_once(' ')
        .ok_or("the Authorization header is not `Bearer KEY`")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("the Authorization header is not `Bearer KEY`");
    }
    let secret = secret.trim_matches(' ');
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
        return Err("the API key is empty or too long to be one");
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn check(values: &[&str], expected: Result<&str, ()>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(bearer(&headers).map_err(|_| ()), expected, "{values:?}");
    }

    #[test]
    fn one_bearer_and_nothing_else() {
        check(&["Bearer daitn_x"], Ok("daitn_x"));
        check(&["bearer  daitn_x "], Ok("daitn_x"));
        check(&[], Err(()));
        check(&["daitn_x"], Err(()));
        check(&["Basic daitn_x"], Err(()));
        check(&["Bearer "], Err(()));
        check(&["Bearer a", "Bearer b"], Err(()));
        check(
            &[&format!("Bearer {}", "x".repeat(SECRET_BYTES_MAX + 1))],
            Err(()),
        );
    }
}
