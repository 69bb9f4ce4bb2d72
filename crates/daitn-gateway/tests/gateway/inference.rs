//! Queries by the Open Inference Protocol: forms, versions, failover.

use crate::{
    lab::{Conduct, Host, Lab, PATIENCE, expected, read_back, secret, served},
    samples::spec,
};
use bytes::Bytes;
use daitn_gateway::GatewayLimits;
use daitn_messages::{
    descriptor::Telemetry,
    learning::Task,
    operation::Scope,
    policy::PolicyAnswer,
    snapshot::{Access, UnservedModel},
    units::UnixMillis,
};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

const CLASSES: [&str; 2] = ["no", "yes"];

/// Rows of three features that are all different.
fn rows(n: usize) -> Vec<[f32; 3]> {
    (0..n).map(|i| [1.0 + i as f32, 2.5, -4.0]).collect()
}

fn query(rows: &[[f32; 3]]) -> Value {
    json!({ "inputs": [{ "name": "input", "shape": [rows.len(), 3], "datatype": "FP32", "data": rows }] })
}

async fn infer(lab: &Lab, body: &Value) -> reqwest::Response {
    lab.post("/v2/models/digits/infer", Scope::Query)
        .json(body)
        .send()
        .await
        .unwrap()
}

async fn served_by(hosts: &[&Host]) -> Lab {
    let lab = Lab::start().await;
    lab.publish(vec![served(1, spec(3, &CLASSES), hosts)], Vec::new())
        .await;
    lab
}

#[tokio::test]
async fn a_json_query_comes_back_as_json() {
    let host = Host::start(1, 3, 2).await;
    let lab = served_by(&[&host]).await;
    let rows = rows(3);
    let response = infer(&lab, &query(&rows)).await;
    assert_eq!(response.status(), 200);
    let decision = response.headers()["x-daitn-decision"]
        .to_str()
        .unwrap()
        .to_owned();
    let answer: Value = response.json().await.unwrap();
    let probabilities: Vec<f32> = rows.iter().flat_map(|row| expected(row, 2)).collect();
    assert_eq!(answer["model_name"], "digits");
    assert_eq!(answer["parameters"]["daitn_decision"], json!(decision));
    assert_eq!(
        answer["outputs"],
        json!([
            { "name": "probabilities", "datatype": "FP32", "shape": [3, 2], "data": read_back(&probabilities) },
            { "name": "label", "datatype": "BYTES", "shape": [3], "data": ["yes", "yes", "no"] },
        ])
    );
}

#[tokio::test]
async fn a_binary_query_comes_back_as_bytes() {
    let host = Host::start(2, 3, 2).await;
    let lab = served_by(&[&host]).await;
    // Larger than what is read where it is, so that the other way is walked too.
    let rows = rows(20_000);
    let tensor: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let header =
        json!({ "id": "q", "parameters": { "binary_data_output": true }, "inputs": [{ "name": "input",
        "shape": [rows.len(), 3], "datatype": "FP32", "parameters": { "binary_data_size": tensor.len() } }] })
        .to_string();
    let length = header.len();
    let body = [header.into_bytes(), tensor].concat();
    let request = lab
        .post("/v2/models/digits/versions/1/infer", Scope::Query)
        .body(body);
    let response = request
        .header("inference-header-content-length", length)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let length: usize = response.headers()["inference-header-content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let body: Bytes = response.bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&body[..length]).unwrap();
    assert_eq!(answer["id"], "q");
    assert_eq!(
        answer["outputs"][0]["parameters"]["binary_data_size"],
        json!(rows.len() * 8)
    );
    let probabilities: Vec<u8> = rows
        .iter()
        .flat_map(|row| expected(row, 2))
        .flat_map(f32::to_le_bytes)
        .collect();
    assert_eq!(body.slice(length..length + probabilities.len()), probabilities);
    let labels = body.slice(length + probabilities.len()..);
    assert_eq!(labels[..7], *b"\x03\0\0\0yes");
    assert_eq!(
        labels.len(),
        rows.iter()
            .map(|row| if row[0] >= 2.5 { 6 } else { 7 })
            .sum::<usize>()
    );
}

#[tokio::test]
async fn a_regression_gives_values() {
    let host = Host::start(3, 3, 1).await;
    let lab = Lab::start().await;
    let mut model = served(1, spec(3, &CLASSES), &[&host]);
    model.spec.task = Task::Regression;
    lab.publish(vec![model], Vec::new()).await;
    let answer: Value = infer(&lab, &query(&rows(2))).await.json().await.unwrap();
    assert_eq!(
        answer["outputs"],
        json!([{ "name": "value", "datatype": "FP32", "shape": [2], "data": [1.0, 1.0] }])
    );
}

#[tokio::test]
async fn models_say_what_they_take_and_which_versions_there_are() {
    let host = Host::start(4, 3, 2).await;
    let lab = Lab::start().await;
    let models = vec![
        served(1, spec(3, &CLASSES), &[&host]),
        served(2, spec(3, &["a", "b"]), &[&host]),
        served(7, spec(3, &CLASSES), &[]),
    ];
    lab.publish(models, Vec::new()).await;
    let get = async |path: &str| {
        let response = lab.get(path, Scope::Query).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let (status, metadata) = get("/v2/models/digits").await;
    assert_eq!(status, 200);
    assert_eq!(
        metadata,
        json!({ "name": "digits", "versions": ["1", "2", "7"], "platform": "daitn",
            "inputs": [{ "name": "input", "datatype": "FP32", "shape": [-1, 3],
                         "parameters": { "columns": ["x0", "x1", "x2"] } }],
            "outputs": [{ "name": "probabilities", "datatype": "FP32", "shape": [-1, 2] },
                        { "name": "label", "datatype": "BYTES", "shape": [-1] }] })
    );
    assert_eq!(get("/v2/models/digits/ready").await.0, 200);
    assert_eq!(get("/v2/models/digits/versions/2/ready").await.0, 200);
    assert_eq!(get("/v2/models/digits/versions/7/ready").await.0, 503);
    for path in [
        "/v2/models/letters",
        "/v2/models/digits/versions/3",
        "/v2/models/letters/ready",
    ] {
        let (status, body) = get(path).await;
        assert_eq!(status, 404, "{path}");
        assert!(body["error"].as_str().unwrap().starts_with("E0104"), "{body}");
    }
    // The marked version answers, and each version by its own classes.
    let label = async |path: &str| {
        let answer: Value = lab
            .post(path, Scope::Query)
            .json(&query(&rows(1)))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        (
            answer["model_version"].clone(),
            answer["outputs"][1]["data"][0].clone(),
        )
    };
    assert_eq!(label("/v2/models/digits/infer").await, (json!("1"), json!("yes")));
    assert_eq!(
        label("/v2/models/digits/versions/2/infer").await,
        (json!("2"), json!("b"))
    );
    let index: Value = lab
        .post("/v2/repository/index", Scope::Query)
        .json(&json!({ "ready": true }))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(index.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn no_query_is_lost_when_a_replica_dies() {
    let (one, two) = (Host::start(5, 3, 2).await, Host::start(6, 3, 2).await);
    let lab = served_by(&[&one, &two]).await;
    let (lab, victim) = (&lab, &one);
    let ask = async |n: usize| {
        if n == 60 {
            // As a killed process: no goodbye to those who ask.
            victim.behave(Conduct::Stall);
            victim.endpoint.shutdown(Duration::ZERO).await;
        }
        let rows = rows(n % 7 + 1);
        let response = infer(lab, &query(&rows)).await;
        assert_eq!(response.status(), 200, "query {n}");
        let answer: Value = response.json().await.unwrap();
        let probabilities: Vec<f32> = rows.iter().flat_map(|row| expected(row, 2)).collect();
        assert_eq!(
            answer["outputs"][0]["data"],
            read_back(&probabilities),
            "query {n}"
        );
    };
    let queries = futures_util::stream::iter((0..200).map(ask));
    futures_util::StreamExt::for_each(
        futures_util::StreamExt::buffer_unordered(queries, 8),
        async |()| {},
    )
    .await;
    assert!(one.n_queries.load(SeqCst) > 0 && two.n_queries.load(SeqCst) > 100);
    let stats = lab.gateway.stats().snapshot();
    assert!(stats.failovers_total + stats.hedges_total > 0, "{stats:?}");
    assert_eq!(stats.requests_open, 0);
}

/// So many answers tell the gateway how long one takes.
const N_ANSWERS_TO_KNOW: usize = 32;

/// Two hosts of which the first is always the better choice, and has answered often enough to be known.
async fn preferred_and_other(seed: u8) -> (Lab, Host, Host) {
    let (preferred, mut other) = (Host::start(seed, 3, 2).await, Host::start(seed + 1, 3, 2).await);
    other.replica.telemetry = Some(Telemetry {
        entity: other.replica.host.clone(),
        measured_at: UnixMillis(1),
        load: 0.0,
        queued: 0,
        in_flight: 0,
        free_memory_bytes: 0,
        service_seconds: 100.0,
    });
    let lab = served_by(&[&preferred, &other]).await;
    for _ in 0..N_ANSWERS_TO_KNOW {
        assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    }
    assert_eq!(preferred.n_queries.load(SeqCst), N_ANSWERS_TO_KNOW);
    (lab, preferred, other)
}

#[tokio::test]
async fn one_that_never_answers_is_not_waited_for_where_another_can_be_asked() {
    let (lab, silent, other) = preferred_and_other(18).await;
    silent.behave(Conduct::Stall);
    let rows = rows(1);
    let response = infer(&lab, &query(&rows)).await;
    assert_eq!(response.status(), 200);
    let decision = response.headers()["x-daitn-decision"]
        .to_str()
        .unwrap()
        .to_owned();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["outputs"][0]["data"], read_back(&expected(&rows[0], 2)));
    assert_eq!(other.n_queries.load(SeqCst), 1);
    let stats = || lab.gateway.stats().snapshot();
    assert_eq!((stats().hedges_total, stats().failovers_total), (1, 0));
    // The record tells of both, and whose answer it was.
    let record = lab.get(&format!("/v1/decisions/{decision}"), Scope::Read);
    let record: Value = record.send().await.unwrap().json().await.unwrap();
    let reasons = &record["data"]["reasons"];
    assert!(
        reasons[1].as_str().unwrap().contains("host-18 after") && reasons[2].to_string().contains("beside"),
        "{reasons}"
    );
    assert!(
        reasons[1].as_str().unwrap().ends_with("had not answered"),
        "{reasons}"
    );
    let candidates = record["data"]["candidates"].as_array().unwrap();
    let chosen: Vec<&Value> = candidates.iter().filter(|c| c["chosen"] == true).collect();
    assert_eq!(chosen[0]["name"], "model-host:acme/host-19");
    // It is not asked for ever: with the third query in a row that it leaves without an answer it is out.
    while stats().ejections_total == 0 {
        assert!(stats().hedges_total <= 3, "{:?}", stats());
        assert_eq!(infer(&lab, &query(&rows)).await.status(), 200);
    }
    assert_eq!(stats().hedges_total, 3);
    // Whoever was given up is not waited for.
    assert_eq!(stats().requests_open, 0);
}

#[tokio::test]
async fn a_second_one_that_has_no_room_costs_the_query_nothing() {
    let (lab, slow, full) = preferred_and_other(20).await;
    slow.behave(Conduct::Hold);
    full.behave(Conduct::Full);
    let body = query(&rows(1));
    let asked = infer(&lab, &body);
    let release = async {
        while full.n_queries.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        slow.release.notify_one();
    };
    let (response, ()) = tokio::join!(asked, release);
    assert_eq!(response.status(), 200);
    let stats = lab.gateway.stats().snapshot();
    assert_eq!((stats.hedges_total, stats.ejections_total), (1, 0));
}

#[tokio::test]
async fn where_nobody_was_fit_to_be_asked_it_is_looked_at_again() {
    let (lab, silent, other) = preferred_and_other(22).await;
    silent.behave(Conduct::Stall);
    other.behave(Conduct::Full);
    let url = lab.url("/v2/models/digits/infer");
    let request = lab.http.post(&url).bearer_auth(secret(Scope::Query));
    let first = tokio::spawn(request.json(&query(&rows(1))).send());
    while other.n_queries.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // It said that it has no room, and is left alone for a second; the silent one is not waited for so long.
    other.behave(Conduct::Answer);
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    let stats = lab.gateway.stats().snapshot();
    assert_eq!((stats.hedges_total, stats.failovers_total), (2, 0));
    first.abort();
}

#[tokio::test]
async fn whatever_a_replica_does_wrong_another_answers_and_the_record_says_why() {
    let (bad, good) = (Host::start(7, 3, 2).await, Host::start(8, 3, 2).await);
    let lab = Lab::start().await;
    for (conduct, why) in [
        (Conduct::Full, "E0504"),
        (Conduct::Fail, "E0901"),
        (Conduct::Lie, "another number of rows"),
        (Conduct::Chatter, "more outputs"),
        (Conduct::Break, "given up"),
        (Conduct::Stall, "within 1s"),
    ] {
        bad.behave(conduct);
        // A new version each time: what was learnt of the last is forgotten with it.
        let version = conduct as u32 + 1;
        let mut model = served(version, spec(3, &CLASSES), &[&bad, &good]);
        model.default_version = true;
        lab.publish(vec![model], Vec::new()).await;
        // The first of two equal replicas is drawn; it is soon the bad one.
        let (record, reasons) = loop {
            let before = bad.n_queries.load(SeqCst);
            let response = infer(&lab, &query(&rows(1))).await;
            assert_eq!(response.status(), 200, "{conduct:?}");
            if bad.n_queries.load(SeqCst) == before {
                continue;
            }
            let decision = response.headers()["x-daitn-decision"].to_str().unwrap();
            let record = lab.get(&format!("/v1/decisions/{decision}"), Scope::Read);
            let record: Value = record.send().await.unwrap().json().await.unwrap();
            let reasons = record["data"]["reasons"].to_string();
            // On a machine that pauses it may also have been asked beside the good one.
            if reasons.contains("attempt 1: model-host:acme/host-7") {
                break (record, reasons);
            }
        };
        assert!(reasons.contains(why), "{conduct:?}: {reasons}");
        assert_eq!(record["data"]["subject"], json!(format!("digits/{version}")));
        let candidates = record["data"]["candidates"].as_array().unwrap();
        let chosen: Vec<&Value> = candidates
            .iter()
            .filter(|c| c["chosen"] == true)
            .map(|c| &c["name"])
            .collect();
        assert_eq!(chosen, ["model-host:acme/host-8"], "{conduct:?}");
    }
}

#[tokio::test]
async fn a_bad_query_blames_nobody() {
    let (one, two) = (Host::start(9, 3, 2).await, Host::start(10, 3, 2).await);
    one.behave(Conduct::Blame);
    two.behave(Conduct::Blame);
    let lab = served_by(&[&one, &two]).await;
    for _ in 0..100 {
        let response = infer(&lab, &query(&rows(1))).await;
        assert_eq!(response.status(), 400);
        assert!(
            response.json::<Value>().await.unwrap()["error"]
                .as_str()
                .unwrap()
                .starts_with("E0502")
        );
        // What does not fit never leaves the gateway.
        assert_eq!(infer(&lab, &json!({ "inputs": [] })).await.status(), 400);
    }
    assert_eq!(
        one.n_queries.load(SeqCst) + two.n_queries.load(SeqCst),
        100,
        "a refused query went on to another"
    );
    one.behave(Conduct::Answer);
    two.behave(Conduct::Answer);
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    let stats = lab.gateway.stats().snapshot();
    assert_eq!((stats.ejections_total, stats.failovers_total), (0, 0));
}

#[tokio::test]
async fn when_all_are_full_the_client_is_told_when_to_come_again() {
    let (one, two) = (Host::start(11, 3, 2).await, Host::start(12, 3, 2).await);
    one.behave(Conduct::Full);
    two.behave(Conduct::Full);
    let lab = served_by(&[&one, &two]).await;
    let response = infer(&lab, &query(&rows(1))).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(response.headers().contains_key("x-daitn-decision"));
    assert!(
        response.json::<Value>().await.unwrap()["error"]
            .as_str()
            .unwrap()
            .starts_with("E0504")
    );
    // They have room again: no long memory of it.
    one.behave(Conduct::Answer);
    two.behave(Conduct::Answer);
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
}

#[tokio::test]
async fn a_replica_that_fails_repeatedly_is_left_out() {
    let (bad, good) = (Host::start(13, 3, 2).await, Host::start(14, 3, 2).await);
    bad.behave(Conduct::Fail);
    let lab = served_by(&[&bad, &good]).await;
    good.behave(Conduct::Full);
    // The other says that it is full, so that the bad one is asked until it is out for long.
    while bad.n_queries.load(SeqCst) < 12 {
        assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 503);
    }
    assert_eq!(lab.gateway.stats().snapshot().ejections_total, 1);
    good.behave(Conduct::Answer);
    // What was learnt outlives the snapshot.
    lab.publish(vec![served(1, spec(3, &CLASSES), &[&bad, &good])], Vec::new())
        .await;
    let before = bad.n_queries.load(SeqCst);
    for _ in 0..50 {
        assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    }
    assert_eq!(bad.n_queries.load(SeqCst), before);
}

#[tokio::test]
async fn queries_go_on_when_the_control_center_is_gone() {
    let host = Host::start(15, 3, 2).await;
    let lab = served_by(&[&host]).await;
    lab.control.calls.lock().unwrap().clear();
    *lab.control.answer.lock().unwrap() = |_| panic!("the control center is gone");
    for _ in 0..10 {
        assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    }
    assert_eq!(
        lab.control.calls.lock().unwrap().len(),
        0,
        "a query asked the control center"
    );
    // A panic behind a request is that request's failure and nothing else's.
    let response = lab.get("/v1/status", Scope::Read).send().await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "E0901");
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    assert_eq!(lab.gateway.stats().snapshot().panics_total, 1);
}

#[tokio::test]
async fn a_host_behind_nat_is_reached_on_the_connection_that_it_dialled() {
    let host = Host::start(16, 3, 2).await;
    let lab = Lab::start().await;
    // The gateway knows no address of the host; the host knows the gateway's and dials it.
    lab.endpoint
        .serve(daitn_fabric::Routes::new().on(daitn_fabric::DATA_ALPN, 1024, async |_| {}));
    host.endpoint.set_peer(lab.endpoint.peer()).unwrap();
    host.endpoint
        .connect(lab.endpoint.node(), daitn_fabric::DATA_ALPN, PATIENCE)
        .await
        .unwrap();
    let mut model = served(1, spec(3, &CLASSES), &[&host]);
    model.replicas[0].peer.addresses.clear();
    lab.publish(vec![model], Vec::new()).await;
    let inbound = || {
        lab.endpoint
            .inbound(host.endpoint.node(), daitn_fabric::DATA_ALPN)
            .is_some()
    };
    while !inbound() {
        tokio::task::yield_now().await;
    }
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 200);
    assert_eq!(host.n_queries.load(SeqCst), 1);
}

#[tokio::test]
async fn a_key_has_its_own_share_of_the_gateway() {
    let host = Host::start(17, 3, 2).await;
    host.behave(Conduct::Stall);
    let limits = GatewayLimits {
        requests_per_key_max: 2,
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    lab.publish(vec![served(1, spec(3, &CLASSES), &[&host])], Vec::new())
        .await;
    let url = lab.url("/v2/models/digits/infer");
    let held: Vec<_> = (0..2)
        .map(|_| {
            let request = lab
                .http
                .post(&url)
                .bearer_auth(secret(Scope::Query))
                .json(&query(&rows(1)));
            tokio::spawn(request.send())
        })
        .collect();
    while host.n_queries.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(infer(&lab, &query(&rows(1))).await.status(), 503);
    assert_eq!(
        lab.get("/v1/status", Scope::Read).send().await.unwrap().status(),
        200,
        "another key has room"
    );
    // Clients that go away free their slots.
    held.iter().for_each(tokio::task::JoinHandle::abort);
    host.behave(Conduct::Answer);
    while infer(&lab, &query(&rows(1))).await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_organisation_that_policy_does_not_permit_is_refused_and_told_by_which() {
    let host = Host::start(1, 3, 2).await;
    let lab = Lab::start().await;
    let answer = |allowed: bool| PolicyAnswer {
        allowed,
        determining: vec!["domain:rule".to_owned()],
        errors: Vec::new(),
    };
    let acme = || "acme".parse().unwrap();
    let other = || "other".parse().unwrap();
    for (others, named, status) in [
        (false, vec![(acme(), answer(true)), (other(), answer(false))], 200),
        (true, vec![(acme(), answer(false)), (other(), answer(true))], 403),
        (false, vec![(other(), answer(true))], 403),
    ] {
        let mut model = served(1, spec(3, &CLASSES), &[&host]);
        let determined = named
            .iter()
            .any(|(who, answer)| *who == acme() && !answer.allowed);
        model.access = Access { others, named };
        lab.publish(vec![model], Vec::new()).await;
        let response = infer(&lab, &query(&rows(1))).await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        if status == 403 {
            let error = body["error"].as_str().unwrap();
            assert!(error.starts_with("E0301"), "{error}");
            assert_eq!(error.contains("domain:rule"), determined, "{error}");
        }
        let index = lab
            .post("/v2/repository/index", Scope::Query)
            .send()
            .await
            .unwrap();
        let index: Value = index.json().await.unwrap();
        assert_eq!(index.as_array().unwrap().len(), usize::from(status == 200));
    }
}

/// A version that is registered beside the one that is served is there: to ask for it says what to do.
#[tokio::test]
async fn a_version_beside_the_served_one_is_told_from_one_that_is_not_there() {
    let lab = Lab::start().await;
    let publish = async |access: Access| {
        let mut model = served(2, spec(3, &CLASSES), &[]);
        model.newest = 3;
        model.access = access;
        lab.publish(vec![model], Vec::new()).await;
    };
    let told = async |version: u32| {
        let path = format!("/v2/models/digits/versions/{version}");
        let response = lab.get(&path, Scope::Query).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"].as_str().unwrap_or_default().to_owned())
    };
    publish(Access::open()).await;
    for version in [1, 3] {
        let expected =
            format!("E0501: version {version} of `digits` is registered but not served; served: 2");
        assert_eq!(told(version).await, (503, expected));
    }
    for version in [0, 4] {
        let expected = format!("E0104: `digits` has no version {version}; served: 2");
        assert_eq!(told(version).await, (404, expected));
    }
    // Whom policy keeps from the model hears nothing of its versions.
    publish(Access {
        others: false,
        named: Vec::new(),
    })
    .await;
    for version in [1, 4] {
        let (status, error) = told(version).await;
        assert_eq!(status, 403, "{error}");
        assert!(error.starts_with("E0301"), "{error}");
    }
}

/// A model that is there, but not ready, is not said to be missing; whom policy hides it from hears that it is.
#[tokio::test]
async fn a_model_that_is_not_served_now_says_what_it_waits_for() {
    let lab = Lab::start().await;
    for (others, status, code) in [(true, 503, "E0501"), (false, 404, "E0104")] {
        *lab.control.unserved.lock().unwrap() = vec![UnservedModel {
            model: served(2, spec(3, &CLASSES), &[]).model,
            organisation: "acme".parse().unwrap(),
            access: Access {
                others,
                named: Vec::new(),
            },
            why: "model-host:acme/one is not connected".to_owned(),
        }];
        lab.publish(Vec::new(), Vec::new()).await;
        let response = infer(&lab, &query(&rows(1))).await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(error.starts_with(code), "{error}");
        assert_eq!(
            error.contains("model-host:acme/one is not connected"),
            others,
            "{error}"
        );
        for path in [
            "/v2/models/digits",
            "/v2/models/digits/ready",
            "/v2/models/digits/versions/2",
        ] {
            let asked = lab.get(path, Scope::Query).send().await.unwrap();
            assert_eq!(asked.status(), status, "{path}");
        }
        let index = lab
            .post("/v2/repository/index", Scope::Query)
            .send()
            .await
            .unwrap();
        let index: Value = index.json().await.unwrap();
        let expected = json!([{ "name": "digits", "version": "2", "state": "UNAVAILABLE",
            "reason": "model-host:acme/one is not connected" }]);
        assert_eq!(index, if others { expected } else { json!([]) });
        let ready = lab
            .post("/v2/repository/index", Scope::Query)
            .json(&json!({ "ready": true }));
        let ready: Value = ready.send().await.unwrap().json().await.unwrap();
        assert_eq!(ready, json!([]));
    }
}
