//! The OpenAPI document says what the gateway does.

use crate::{access, lab::Lab};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    daitn_gateway::document()
}

fn documented() -> BTreeSet<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().clone();
    paths
        .into_iter()
        .flat_map(|(path, operations)| {
            let methods: Vec<String> = operations.as_object().unwrap().keys().cloned().collect();
            methods
                .into_iter()
                .map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}

#[test]
fn every_operation_is_in_the_document_and_none_else() {
    let mut expected: BTreeSet<(String, String)> = access::routes()
        .iter()
        .map(|route| (route.method.to_string(), route.template.to_owned()))
        .collect();
    for (method, path) in [
        ("GET", "/v1/jobs/{job}/events"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/models/{model}"),
        ("GET", "/v2/models/{model}/ready"),
        ("POST", "/v2/models/{model}/infer"),
        ("GET", "/v2/models/{model}/versions/{version}"),
        ("GET", "/v2/models/{model}/versions/{version}/ready"),
        ("POST", "/v2/models/{model}/versions/{version}/infer"),
        ("GET", "/a2a/{organisation}/{name}/.well-known/agent-card.json"),
        ("GET", "/a2a/{organisation}/{name}/origin-card.json"),
        ("POST", "/a2a/{organisation}/{name}"),
        ("POST", "/a2a/{organisation}/{name}/"),
    ] {
        expected.insert((method.to_owned(), path.to_owned()));
    }
    assert_eq!(documented(), expected);
}

#[tokio::test]
async fn every_documented_operation_is_offered_and_other_methods_are_not() {
    let lab = Lab::start().await;
    let documented = documented();
    for (method, path) in &documented {
        let concrete = path.replace(['{', '}'], "x");
        let send = async |method: &str| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let response = lab.http.request(method, lab.url(&concrete)).send().await.unwrap();
            assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
            response
        };
        let status = send(method).await.status().as_u16();
        assert!(
            matches!(status, 200 | 401 | 404) && (status != 404 || path == "/metrics"),
            "{method} {path}: {status}"
        );
        let response = send("DELETE").await;
        assert_eq!(response.status(), 405, "DELETE {path}");
        let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
        assert!(allowed.split(',').any(|m| m == method), "{path} allows {allowed}");
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_made() {
    let lab = Lab::start().await;
    let served: Value = lab
        .http
        .get(lab.url("/v1/openapi.json"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(served, document());
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["components"]["securitySchemes"]["key"]["scheme"], "bearer");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 40, "only {} schemas are referred to", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let document = document();
    let mut seen = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(seen.insert(id.clone()), "{id} is the name of two operations");
            assert!(
                operation["summary"].is_string(),
                "{method} {path} says nothing of itself"
            );
        }
    }
}
