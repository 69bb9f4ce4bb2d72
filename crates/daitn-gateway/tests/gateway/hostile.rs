//! Requests that mean no good: each gets a typed refusal or loses its connection, and the gateway goes on.

use crate::{
    lab::{Host, Lab, PATIENCE, secret, served},
    samples,
};
use daitn_gateway::GatewayLimits;
use daitn_messages::operation::Scope;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends bytes on a connection of their own and gives all that comes back until the gateway closes or is silent after
/// an answer.
async fn raw(lab: &Lab, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(lab.gateway.local_addr()).await.unwrap();
    // The gateway may close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect()
}

async fn alive(lab: &Lab) {
    assert_eq!(
        lab.get("/v1/status", Scope::Read).send().await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn smuggled_requests_are_not_answered() {
    let lab = Lab::start().await;
    let auth = format!(
        "Host: localhost\r\nAuthorization: Bearer {}\r\n",
        secret(Scope::Read)
    );
    let smuggled = "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for framing in [
        // RFC 9112, section 6.1 and 6.3: both framings, two lengths, lengths that are no number, an unknown coding.
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: +5\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n",
        " Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let request = format!("POST /v1/search HTTP/1.1\r\n{auth}{framing}{smuggled}");
        let answer = raw(&lab, request.as_bytes()).await;
        assert_eq!(statuses(&answer), ["400"], "{framing}: {answer}");
    }
    // With both framings the body is chunked and the connection is not used again.
    let both = format!(
        "POST /v1/search HTTP/1.1\r\n{auth}Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}"
    );
    let answer = raw(&lab, both.as_bytes()).await;
    let found = statuses(&answer);
    assert!(found == ["400"] || found == ["200"], "{answer}");
    alive(&lab).await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let lab = Lab::start().await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(64 * 1024));
    for (head, expected) in [(many, "431"), (long, "431")] {
        let answer = raw(
            &lab,
            format!("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").as_bytes(),
        )
        .await;
        assert_eq!(statuses(&answer), [expected], "{answer}");
    }
    let path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000));
    let answer = raw(&lab, path.as_bytes()).await;
    assert!(matches!(statuses(&answer)[..], ["414" | "431"]), "{answer}");
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".as_slice(),
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        assert!(matches!(statuses(&raw(&lab, garbage).await)[..], [] | ["400"]));
    }
    alive(&lab).await;
}

#[tokio::test]
async fn other_hosts_and_other_pages_are_refused() {
    let lab = Lab::start().await;
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let response = lab
            .get("/v1/status", Scope::Read)
            .header(name, value)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 403, "{name}: {value}");
        let inference = lab
            .get("/v2/health/live", Scope::Query)
            .header(name, value)
            .send()
            .await
            .unwrap();
        assert_eq!(inference.status(), 403);
        assert!(inference.json::<Value>().await.unwrap()["status"] == "error");
    }
    let answer = raw(
        &lab,
        b"GET http://evil.example/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(statuses(&answer), ["400"]);
    let answer = raw(&lab, b"GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert_eq!(statuses(&answer), ["400"]);
    assert_eq!(lab.control.calls.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_client_that_trickles_its_head_loses_its_connection() {
    let limits = GatewayLimits {
        head_timeout: Duration::from_millis(200),
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    // Never ends its head. Idle ones are closed the same way.
    for begin in [
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nx",
        "",
        "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        raw(&lab, begin.as_bytes()).await;
    }
    alive(&lab).await;
}

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// The head of a search, and the first of the hundred bytes that it announces.
fn search_begun() -> String {
    format!(
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        secret(Scope::Read)
    )
}

#[tokio::test]
async fn a_client_that_stops_in_its_body_loses_its_connection() {
    let limits = GatewayLimits {
        body_stall: Duration::from_millis(100),
        body_timeout: NEVER,
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let answer = raw(&lab, search_begun().as_bytes()).await;
    assert_eq!(statuses(&answer), ["408"], "{answer}");
    alive(&lab).await;
}

#[tokio::test]
async fn a_client_that_trickles_its_body_loses_its_connection() {
    let limits = GatewayLimits {
        head_timeout: Duration::from_millis(200),
        body_stall: NEVER,
        body_timeout: Duration::from_secs(1),
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let mut stream = TcpStream::connect(lab.gateway.local_addr()).await.unwrap();
    stream.write_all(search_begun().as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    // A byte whenever the gateway has closed another connection as idle: its own clock sets the pace. Were the time
    // counted from the last byte, all hundred would arrive and the answer would be another.
    let trickle = async {
        loop {
            raw(&lab, b"").await;
            if write.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = trickle => {}
        read = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)) => {
            // That it ended by a reset is well enough: what was answered came before.
            let _ = read.expect("the connection stays open");
        }
    }
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), ["408"]);
    alive(&lab).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection() {
    let limits = GatewayLimits {
        write_stall: Duration::from_millis(200),
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(lab.gateway.local_addr()).await.unwrap();
    let one = "GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Far more is asked for than the buffers between hold, and nothing is read.
    let _ = stream.write_all(one.repeat(400).as_bytes()).await;
    let stats = lab.gateway.stats();
    let gone = async {
        while stats.snapshot().connections_open > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn bodies_are_bounded_announced_or_not() {
    let limits = GatewayLimits {
        json_bytes_max: 1000,
        query_bytes_max: 1000,
        agent_bytes_max: 1000,
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let host = Host::start(50, 3, 2).await;
    lab.publish(
        vec![served(1, samples::spec(3, &["a", "b"]), &[&host])],
        Vec::new(),
    )
    .await;
    for (path, scope) in [
        ("/v1/search", Scope::Read),
        ("/v2/models/digits/infer", Scope::Query),
    ] {
        let big = vec![b' '; 1001];
        let request = || lab.post(path, scope).header("content-type", "application/json");
        assert_eq!(
            request().body(big.clone()).send().await.unwrap().status(),
            413,
            "{path}"
        );
        let chunks = futures_util::stream::iter(
            big.chunks(100)
                .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
                .collect::<Vec<_>>(),
        );
        let chunked = request()
            .body(reqwest::Body::wrap_stream(chunks))
            .send()
            .await
            .unwrap();
        assert_eq!(chunked.status(), 413, "{path}");
    }
    // A body that is announced too large is not waited for.
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n",
        secret(Scope::Read)
    );
    assert_eq!(statuses(&raw(&lab, head.as_bytes()).await), ["413"]);
    // Nor is one of somebody who has no key.
    let head = head.replace("daitn_read", "daitn_nobody");
    assert_eq!(statuses(&raw(&lab, head.as_bytes()).await), ["401"]);
    alive(&lab).await;
}

#[tokio::test]
async fn the_memory_for_bodies_is_bounded_over_all_requests() {
    let limits = GatewayLimits {
        bodies_bytes_max: 256 * 1024,
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(300 * 1024));
    let send = async || {
        let request = lab
            .post("/v1/search", Scope::Read)
            .header("content-type", "application/json");
        request.body(body.clone()).send().await.unwrap().status()
    };
    assert_eq!(send().await, 503);
    // What was set aside is given back.
    for _ in 0..10 {
        alive(&lab).await;
        let small = lab
            .post("/v1/search", Scope::Read)
            .json(&json!({ "text": "x".repeat(200 * 1024) }));
        assert_eq!(small.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn bad_names_bodies_and_numbers_get_typed_refusals() {
    let lab = Lab::start().await;
    for (path, scope, status) in [
        ("/v1/jobs/%252e%252e%252fetc", Scope::Read, 400),
        ("/v1/jobs/..%2f..%2fetc", Scope::Read, 400),
        ("/v1/jobs/%00", Scope::Read, 400),
        ("/v1/jobs/%ff%fe", Scope::Read, 400),
        ("/v1/jobs/job-1", Scope::Read, 400),
        ("/v1/entities/dataset:acme%252Fdigits", Scope::Read, 400),
        ("/v1/entities/thing:acme%2Fdigits", Scope::Read, 400),
        ("/v1/entities/agent:acme%2Fnobody", Scope::Read, 404),
        ("/v1/entities/model:acme%2Fdigits/croissant", Scope::Read, 400),
        ("/v1/nodes/zz", Scope::Read, 400),
        ("/v1/models/letters", Scope::Read, 404),
        ("/v1/models/..", Scope::Read, 404),
        ("/v1/log/leaves?from=-1", Scope::Admin, 400),
        ("/v1/log/leaves?limit=0", Scope::Admin, 422),
        ("/v1/log/leaves?limit=1001", Scope::Admin, 422),
        ("/v1/log/leaves?limit=99999999999999999999", Scope::Admin, 400),
        ("/v1/log/leaves?other=1", Scope::Admin, 400),
        ("/v1/nothing", Scope::Read, 404),
        ("/", Scope::Read, 404),
    ] {
        let response = lab.get(path, scope).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["status"], "error", "{path}: {body}");
        assert!(
            body["error"]["code"].as_str().unwrap().starts_with("E0"),
            "{path}: {body}"
        );
        assert!(!body["error"]["hint"].as_str().unwrap().is_empty());
    }
    for (kind, body, status) in [
        ("application/json", "{\"text\": 1}", 400),
        ("application/json", "{\"txt\": \"\"}", 400),
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("application/json", "null", 400),
        ("application/json", "{\"limit\": -1}", 400),
        ("application/json", "{\"limit\": 1e400}", 400),
        ("application/json", "\u{feff}{}", 400),
        ("text/plain", "{}", 415),
        ("application/x-www-form-urlencoded", "text=1", 415),
    ] {
        let request = lab
            .post("/v1/search", Scope::Read)
            .header("content-type", kind)
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{kind}: {body}");
        assert_eq!(
            response.json::<Value>().await.unwrap()["error"]["code"],
            "E0101",
            "{kind}: {body}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let response = lab
        .post("/v1/search", Scope::Read)
        .header("content-type", "application/json")
        .body(deep);
    assert_eq!(response.send().await.unwrap().status(), 400);
    let zipped = lab
        .post("/v1/search", Scope::Read)
        .header("content-encoding", "gzip")
        .json(&json!({}));
    assert_eq!(zipped.send().await.unwrap().status(), 415);
    alive(&lab).await;
}

#[tokio::test]
async fn a_gateway_that_is_full_says_so_and_still_says_that_it_lives() {
    let limits = GatewayLimits {
        requests_max: 1,
        ..GatewayLimits::default()
    };
    let lab = Lab::start_within(limits).await;
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
        secret(Scope::Read)
    );
    let mut stream = TcpStream::connect(lab.gateway.local_addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    while lab.gateway.stats().snapshot().requests_open == 0 {
        tokio::task::yield_now().await;
    }
    let refused = lab.get("/v1/status", Scope::Read).send().await.unwrap();
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "1")
    );
    assert_eq!(
        lab.get("/health/live", Scope::Read)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    drop(stream);
    while lab.get("/v1/status", Scope::Read).send().await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
}
