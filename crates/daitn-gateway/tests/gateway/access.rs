//! Who may do what: every operation against every scope, by a table written by hand.

use crate::{
    lab::{Lab, secret},
    samples,
};
use daitn_messages::operation::Scope;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// One operation of the REST API that goes to the control center.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// As in the OpenAPI document.
    pub(crate) template: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) scope: Scope,
}

fn route(method: Method, template: &'static str, scope: Scope, body: Option<Value>) -> Route {
    let path = template
        .replace("{token}", samples::token_id().as_str())
        .replace("{key}", samples::key_id(0).as_str())
        .replace("{node}", &samples::NODE.to_string())
        .replace("{id}", "dataset:acme%2Fdigits")
        .replace("{job}", samples::job_id().as_str())
        .replace("{model}", "digits")
        .replace("{version}", "2")
        .replace("{deployment}", samples::deployment_id().as_str())
        .replace("{decision}", samples::decision_id().as_str());
    Route {
        method,
        template,
        path,
        body,
        scope,
    }
}

/// Every operation of the REST API, with the scope that it needs.
pub(crate) fn routes() -> Vec<Route> {
    use Scope::{Admin, Deploy, Read, Train};
    let get = |template, scope| route(Method::GET, template, scope, None);
    let post = |template, scope, body| route(Method::POST, template, scope, Some(body));
    let act = |template, scope| route(Method::POST, template, scope, None);
    let context = json!({ "purpose": "research", "algorithm": "fed-avg", "protections": [], "cohort": 3,
        "jurisdiction": "DE", "recipients": [] });
    vec![
        get("/v1/tokens", Admin),
        post("/v1/tokens", Admin, json!({ "organisation": "acme" })),
        act("/v1/tokens/{token}/revoke", Admin),
        get("/v1/keys", Admin),
        post(
            "/v1/keys",
            Admin,
            json!({ "organisation": "acme", "scopes": ["read"] }),
        ),
        act("/v1/keys/{key}/revoke", Admin),
        get("/v1/nodes", Read),
        get("/v1/nodes/{node}", Read),
        act("/v1/nodes/{node}/revoke", Admin),
        post("/v1/nodes/{node}/drain", Admin, json!({ "draining": true })),
        post("/v1/search", Read, json!({ "text": "digits" })),
        get("/v1/entities/{id}", Read),
        get("/v1/entities/{id}/croissant", Read),
        post(
            "/v1/plans",
            Train,
            serde_json::to_value(samples::request()).unwrap(),
        ),
        get("/v1/jobs", Read),
        post("/v1/jobs", Train, json!({ "plan": samples::plan_id() })),
        get("/v1/jobs/{job}", Read),
        act("/v1/jobs/{job}/stop", Train),
        get("/v1/models", Read),
        get("/v1/models/{model}", Read),
        get("/v1/models/{model}/versions/{version}", Read),
        act("/v1/models/{model}/rollback", Deploy),
        get("/v1/deployments", Read),
        post("/v1/deployments", Deploy, json!({ "model": "digits" })),
        act("/v1/deployments/{deployment}/stop", Deploy),
        get("/v1/policy", Read),
        route(
            Method::PUT,
            "/v1/policy",
            Admin,
            Some(json!({ "policy": "permit(principal, action, resource);" })),
        ),
        post(
            "/v1/policy/can",
            Read,
            json!({ "who": "acme", "verb": "train", "what": "dataset:acme/digits", "context": context }),
        ),
        get("/v1/decisions/{decision}", Read),
        get("/v1/log/leaves", Admin),
        get("/v1/status", Read),
    ]
}

async fn ask(lab: &Lab, route: &Route, bearer: Option<&str>) -> (StatusCode, Value) {
    let mut request = lab.http.request(route.method.clone(), lab.url(&route.path));
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    if let Some(body) = &route.body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn each_operation_needs_its_scope_and_no_other_does() {
    let lab = Lab::start().await;
    for route in routes() {
        for scope in Scope::ALL {
            lab.control.calls.lock().unwrap().clear();
            let (status, body) = ask(&lab, &route, Some(&secret(scope))).await;
            let calls = std::mem::take(&mut *lab.control.calls.lock().unwrap());
            let what = format!("{} {} with {}: {body}", route.method, route.path, scope.as_str());
            if scope == route.scope {
                assert_eq!(status, 200, "{what}");
                assert!(!calls.is_empty(), "{what}");
                for (principal, operation) in calls {
                    assert_eq!(principal.scopes, [scope], "{what}");
                    assert_eq!(operation.scope(), route.scope, "{what}");
                }
            } else {
                assert_eq!(
                    (status, &body["error"]["code"]),
                    (StatusCode::FORBIDDEN, &json!("E0702")),
                    "{what}"
                );
                assert_eq!(calls, [], "{what}");
            }
        }
        for bearer in [None, Some("daitn_unknown"), Some("")] {
            let (status, body) = ask(&lab, &route, bearer).await;
            assert_eq!(
                (status, &body["error"]["code"]),
                (StatusCode::UNAUTHORIZED, &json!("E0701")),
                "{bearer:?}"
            );
        }
    }
    let stats = lab.gateway.stats().snapshot();
    assert_eq!(stats.unauthenticated_total, 3 * routes().len() as u64);
    assert_eq!(stats.requests_open, 0);
}

#[tokio::test]
async fn queries_and_agents_need_the_scope_query() {
    let lab = Lab::start().await;
    for (method, path) in [
        (Method::GET, "/v2"),
        (Method::POST, "/v2/repository/index"),
        (Method::GET, "/v2/models/digits"),
        (Method::GET, "/v2/models/digits/ready"),
        (Method::GET, "/v2/models/digits/versions/1"),
        (Method::GET, "/v2/models/digits/versions/1/ready"),
        (Method::POST, "/v2/models/digits/infer"),
        (Method::POST, "/v2/models/digits/versions/1/infer"),
        (Method::GET, "/a2a/acme/helper/.well-known/agent-card.json"),
        (Method::GET, "/a2a/acme/helper/origin-card.json"),
        (Method::POST, "/a2a/acme/helper"),
        (Method::POST, "/a2a/acme/helper/"),
    ] {
        let send = async |bearer: &str| {
            let request = lab
                .http
                .request(method.clone(), lab.url(path))
                .bearer_auth(bearer);
            request.send().await.unwrap().status().as_u16()
        };
        for scope in Scope::ALL {
            let status = send(&secret(scope)).await;
            // Nothing is served here: who may ask is told so.
            let fitting = if scope == Scope::Query {
                matches!(status, 200 | 404)
            } else {
                status == 403
            };
            assert!(fitting, "{path} with {}: {status}", scope.as_str());
        }
        assert_eq!(send("daitn_unknown").await, 401, "{path}");
    }
}

#[tokio::test]
async fn health_and_the_document_are_open() {
    let lab = Lab::start().await;
    for path in [
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/v1/openapi.json",
    ] {
        assert_eq!(
            lab.http.get(lab.url(path)).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_as_soon_as_the_snapshot_says_so() {
    let lab = Lab::start().await;
    assert_eq!(
        lab.get("/v1/status", Scope::Read).send().await.unwrap().status(),
        200
    );
    let mut snapshot = lab.control.snapshots.borrow().as_ref().clone();
    snapshot.version += 1;
    snapshot.keys.clear();
    lab.control.snapshots.send_replace(std::sync::Arc::new(snapshot));
    while lab.get("/v1/status", Scope::Read).send().await.unwrap().status() == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        lab.get("/v1/status", Scope::Read).send().await.unwrap().status(),
        401
    );
}

#[tokio::test]
async fn what_is_asked_arrives_and_what_is_answered_comes_back() {
    use daitn_messages::operation::{NewToken, Operation};
    let lab = Lab::start().await;
    let sent = lab
        .post("/v1/tokens", Scope::Admin)
        .json(&json!({ "organisation": "acme", "uses": 3 }))
        .send();
    let body: Value = sent.await.unwrap().json().await.unwrap();
    assert_eq!(
        body,
        json!({ "schema_version": 1, "status": "ok",
            "data": { "token": samples::token_id(), "text": "daitn1-sample", "expires_at": 5 } })
    );
    let (principal, operation) = lab.control.calls.lock().unwrap().pop().unwrap();
    assert_eq!(principal.organisation.as_str(), "acme");
    let expected = NewToken {
        organisation: "acme".parse().unwrap(),
        terminals: vec![],
        uses: 3,
        valid_ms: 86_400_000,
    };
    assert_eq!(operation, Operation::CreateToken(expected));
}

#[tokio::test]
async fn an_idempotency_key_comes_from_the_header_or_the_body() {
    use daitn_messages::operation::Operation;
    let lab = Lab::start().await;
    let plan = samples::plan_id();
    for (header, body, expected) in [
        (None, json!({ "plan": plan }), Ok(None)),
        (Some("k-1"), json!({ "plan": plan }), Ok(Some("k-1"))),
        (
            None,
            json!({ "plan": plan, "idempotency_key": "k-2" }),
            Ok(Some("k-2")),
        ),
        (
            Some("k-3"),
            json!({ "plan": plan, "idempotency_key": "k-3" }),
            Ok(Some("k-3")),
        ),
        (
            Some("k-3"),
            json!({ "plan": plan, "idempotency_key": "k-4" }),
            Err(422),
        ),
        (Some(""), json!({ "plan": plan }), Err(400)),
        (Some("two words"), json!({ "plan": plan }), Err(400)),
        (
            None,
            json!({ "plan": plan, "idempotency_key": "x".repeat(201) }),
            Err(422),
        ),
    ] {
        let mut request = lab.post("/v1/jobs", Scope::Train).json(&body);
        if let Some(header) = header {
            request = request.header("idempotency-key", header);
        }
        let status = request.send().await.unwrap().status();
        match expected {
            Ok(key) => {
                assert_eq!(status, 200, "{header:?} {body}");
                let (_, operation) = lab.control.calls.lock().unwrap().pop().unwrap();
                let idempotency_key = key.map(str::to_owned);
                assert_eq!(
                    operation,
                    Operation::Apply {
                        plan: plan.clone(),
                        idempotency_key
                    }
                );
            }
            Err(code) => assert_eq!(status, code, "{header:?} {body}"),
        }
    }
}

#[tokio::test]
async fn refusals_of_the_control_center_keep_code_hint_and_policies() {
    use daitn_messages::rejection::{Code, Rejection};
    let lab = Lab::start().await;
    *lab.control.answer.lock().unwrap() = |_| {
        let mut rejection = Rejection::new(Code::PolicyForbids, "no").with_decision(samples::decision_id());
        rejection.policies.push("p7".to_owned());
        Err(rejection)
    };
    let response = lab.get("/v1/status", Scope::Read).send().await.unwrap();
    assert_eq!(response.status(), 403);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body,
        json!({ "schema_version": 1, "status": "error", "error": { "code": "E0301", "message": "no",
            "hint": Code::PolicyForbids.page(), "decision": samples::decision_id(), "policies": ["p7"],
            "docs": "daitn help E0301" } })
    );
    *lab.control.answer.lock().unwrap() = |_| Err(Rejection::new(Code::ControlUnavailable, "away"));
    let response = lab.get("/v1/status", Scope::Read).send().await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "2")
    );
}
