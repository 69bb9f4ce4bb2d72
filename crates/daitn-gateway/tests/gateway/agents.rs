//! Agents through the gateway: cards, calls, streams.

use crate::lab::{AgentNode, Lab, PATIENCE, Script, header, secret};
use daitn_messages::{ids::ArtifactId, operation::Scope};
use serde_json::{Value, json};

const PATH: &str = "/a2a/acme/helper";

pub(crate) fn card() -> String {
    // Odd spacing on purpose: the origin's card must come back byte for byte.
    let card = json!({
        "name": "Helper", "description": "Helps", "version": "1",
        "supportedInterfaces": [{ "url": "http://10.0.0.7:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
        "capabilities": { "streaming": true }, "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "skills": [], "signatures": [{ "protected": "a", "signature": "b" }],
    });
    format!("  {card} ")
}

async fn lab(seed: u8) -> (Lab, AgentNode) {
    let (lab, node) = (Lab::start().await, AgentNode::start(seed, &card()).await);
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    (lab, node)
}

fn call(lab: &Lab, body: &'static str) -> reqwest::RequestBuilder {
    let request = lab.post(PATH, Scope::Query).header("a2a-version", "1.0");
    request.header("content-type", "application/json").body(body)
}

const SEND: &str = r#"{"jsonrpc":"2.0",  "id":1, "method":"SendMessage","params":{"x": [1,2 ]}}"#;

#[tokio::test]
async fn a_call_goes_through_byte_for_byte() {
    let (lab, node) = lab(101).await;
    let request = call(&lab, SEND)
        .header("a2a-extensions", "urn:x")
        .header("cookie", "secret=1");
    let response = request.header("x-other", "y").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("x-daitn-decision"));
    let decision = response.headers()["x-daitn-decision"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        response.text().await.unwrap(),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"x\":  1}}"
    );
    let called = node.called.lock().unwrap().pop().unwrap();
    assert_eq!(called.body, SEND);
    let mut names: Vec<&str> = called
        .call
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    // The client's credentials and cookies stay with the gateway.
    assert_eq!(names, ["a2a-extensions", "a2a-version", "accept", "content-type"]);
    assert_eq!(called.call.decision.as_str(), decision);
    let record = lab
        .get(&format!("/v1/decisions/{decision}"), Scope::Read)
        .send()
        .await
        .unwrap();
    let record: Value = record.json().await.unwrap();
    assert_eq!(record["data"]["subject"], "agent:acme/helper");
    // With a slash at the end, as some clients write it, it is the same.
    let slash = lab
        .post(&format!("{PATH}/"), Scope::Query)
        .header("a2a-version", "1.0")
        .body(SEND);
    assert_eq!(slash.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_comes_event_by_event() {
    let (lab, node) = lab(102).await;
    *node.script.lock().unwrap() = Script {
        headers: vec![
            header("content-type", "text/event-stream"),
            header("set-cookie", "a=b"),
            header("location", "/x"),
        ],
        pieces: vec!["data: 1\n\n", "data: 2\n", "\n"],
        stepwise: true,
        ..Script::default()
    };
    let mut response = call(&lab, SEND).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("set-cookie") && !response.headers().contains_key("location"));
    // Nothing is held back but half an event: each is here before the agent is let go on.
    for (n_pieces, expected) in [(1, "data: 1\n\n"), (2, "data: 2\n\n")] {
        node.let_go(n_pieces);
        let event = tokio::time::timeout(PATIENCE, response.chunk())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(event, expected);
    }
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn silence_is_filled_only_between_events() {
    let limits = daitn_gateway::GatewayLimits {
        heartbeat: std::time::Duration::from_millis(20),
        ..Default::default()
    };
    let lab = Lab::start_within(limits).await;
    let node = AgentNode::start(103, &card()).await;
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    *node.script.lock().unwrap() = Script {
        headers: vec![header("content-type", "text/event-stream")],
        pieces: vec!["data: 1\n\n", "data: ", "2\n\n"],
        stepwise: true,
        ..Script::default()
    };
    let mut response = call(&lab, SEND).send().await.unwrap();
    let mut text = String::new();
    let read = async |response: &mut reqwest::Response, text: &mut String| {
        let piece = tokio::time::timeout(PATIENCE, response.chunk())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    };
    // Comments come before the first event, after it, and while half of another is there, …
    for (n_pieces, until) in [
        (0, ":\n\n"),
        (1, "data: 1\n\n"),
        (0, "data: 1\n\n:\n\n"),
        (1, ":\n\n:\n\n:\n\n"),
    ] {
        node.let_go(n_pieces);
        while !text.ends_with(until) {
            read(&mut response, &mut text).await;
        }
    }
    // … which none has come into.
    node.let_go(1);
    while !text.ends_with("2\n\n") {
        read(&mut response, &mut text).await;
    }
    assert!(text.ends_with(":\n\ndata: 2\n\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_agent() {
    let (lab, node) = lab(104).await;
    *node.script.lock().unwrap() = Script {
        headers: vec![header("content-type", "text/event-stream")],
        pieces: vec!["data: 1\n\n"; 1000],
        stepwise: true,
        ..Script::default()
    };
    let mut response = call(&lab, SEND).send().await.unwrap();
    node.let_go(1);
    response.chunk().await.unwrap().unwrap();
    assert_eq!(lab.gateway.stats().snapshot().streams_open, 1);
    drop(response);
    tokio::time::timeout(PATIENCE, node.given_up.notified())
        .await
        .unwrap();
    while lab.gateway.stats().snapshot().streams_open > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn half_an_answer_is_not_taken_for_a_whole_one() {
    let (lab, node) = lab(105).await;
    *node.script.lock().unwrap() = Script {
        break_off: true,
        ..Script::default()
    };
    refused_as(call(&lab, SEND), "given up by the other side").await;
    // Of a stream the client has the first event already: its connection breaks off.
    *node.script.lock().unwrap() = Script {
        headers: vec![header("content-type", "text/event-stream")],
        pieces: vec!["data: 1\n\n", "data: "],
        stepwise: true,
        break_off: true,
        ..Script::default()
    };
    let mut response = call(&lab, SEND).send().await.unwrap();
    node.let_go(1);
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    node.let_go(1);
    let rest = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap();
    assert!(rest.is_err(), "{rest:?}");
}

/// The gateway answers in the agent's place, as the protocol says: 502, the request's id, its own code.
async fn refused_as(request: reqwest::RequestBuilder, why: &str) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 502, "{why}");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["id"], &body["error"]["data"][0]["reason"]),
        (&json!(1), &json!("E0601")),
        "{body}"
    );
    assert!(body["error"]["message"].as_str().unwrap().contains(why), "{body}");
}

/// A gateway with small bounds for what agents answer.
async fn bounded_lab(seed: u8) -> (Lab, AgentNode) {
    let limits = daitn_gateway::GatewayLimits {
        agent_reply_bytes_max: 100,
        agent_event_bytes_max: 50,
        ..Default::default()
    };
    let (lab, node) = (
        Lab::start_within(limits).await,
        AgentNode::start(seed, &card()).await,
    );
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    (lab, node)
}

#[tokio::test]
async fn an_answer_without_end_is_refused_before_its_first_byte() {
    let (lab, node) = bounded_lab(113).await;
    let part: &'static str = "1234567890".repeat(5).leak();
    for (pieces, fits) in [
        (vec![part, part], true),
        (vec![part, part, "1"], false),
        (vec![part; 100_000], false),
    ] {
        *node.script.lock().unwrap() = Script {
            pieces,
            ..Script::default()
        };
        if fits {
            let response = call(&lab, SEND).send().await.unwrap();
            assert_eq!(response.headers()["content-length"], "100");
            assert_eq!(response.text().await.unwrap(), part.repeat(2));
        } else {
            refused_as(call(&lab, SEND), "longer than 100 bytes").await;
        }
    }
    while lab.gateway.stats().snapshot().streams_open > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_event_without_end_ends_the_stream_with_an_error() {
    let (lab, node) = bounded_lab(114).await;
    let long: &'static str = format!("data: {}", "x".repeat(45)).leak();
    for pieces in [
        vec!["data: 1\n\n", long, "\n\n", "data: 2\n\n"],
        vec![
            "data: 1\n\ndata: ",
            "xxxxxxxxxxxxxxxxxxxx",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "xxxx",
        ],
    ] {
        *node.script.lock().unwrap() = Script {
            headers: vec![header("content-type", "text/event-stream; charset=utf-8")],
            pieces,
            ..Script::default()
        };
        let response = call(&lab, SEND).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let last = text.strip_prefix("data: 1\n\n").unwrap();
        let last = last.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        let error: Value = serde_json::from_str(last).unwrap();
        assert_eq!(
            (&error["id"], &error["error"]["data"][0]["reason"]),
            (&json!(1), &json!("E0601")),
            "{text}"
        );
        assert!(
            error["error"]["message"]
                .as_str()
                .unwrap()
                .contains("longer than 50 bytes")
        );
    }
    // What is within the bound goes through, also without an end.
    *node.script.lock().unwrap() = Script {
        headers: vec![header("content-type", "text/event-stream")],
        pieces: vec!["data: 1\r\n\r\n", "da", "ta: 2"],
        ..Script::default()
    };
    let text = call(&lab, SEND).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "data: 1\r\n\r\ndata: 2");
}

#[tokio::test]
async fn only_what_a2a_sends_goes_through() {
    let (lab, node) = lab(115).await;
    let answer = |status: u16, kind: Option<&str>, pieces: Vec<&'static str>| {
        *node.script.lock().unwrap() = Script {
            status,
            headers: kind
                .map(|kind| header("content-type", kind))
                .into_iter()
                .collect(),
            pieces,
            ..Script::default()
        };
    };
    let page = || vec!["<script>fetch('/v1/keys')</script>"];
    for kind in [
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "text/html;a=application/json",
        "image/svg+xml",
        "application/javascript",
        "application/xhtml+xml",
        "text/plain",
        "application/octet-stream",
        "multipart/form-data",
        "",
    ] {
        for status in [200, 404, 500] {
            answer(status, Some(kind), page());
            refused_as(call(&lab, SEND), "neither JSON nor an event stream").await;
        }
    }
    answer(200, None, page());
    refused_as(call(&lab, SEND), "Content-Type is missing").await;
    for kind in [
        "application/json",
        "application/a2a+json",
        "Application/JSON; charset=utf-8",
    ] {
        answer(200, Some(kind), vec!["{}"]);
        let response = call(&lab, SEND).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &kind.parse().unwrap())
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    // Nothing needs no name.
    answer(204, None, Vec::new());
    assert_eq!(call(&lab, SEND).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn redirects_and_nonsense_do_not_reach_the_client() {
    let (lab, node) = lab(106).await;
    for status in [302, 307, 101, 0, 999] {
        *node.script.lock().unwrap() = Script {
            status,
            headers: vec![header("location", "http://evil.example")],
            ..Script::default()
        };
        let response = call(&lab, SEND).send().await.unwrap();
        assert_eq!(response.status(), 502, "{status}");
        assert!(!response.headers().contains_key("location"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["id"], &body["error"]["code"]),
            (&json!(1), &json!(-32000)),
            "{status}"
        );
    }
    // What the agent itself refuses goes through.
    *node.script.lock().unwrap() = Script {
        status: 429,
        ..Script::default()
    };
    assert_eq!(call(&lab, SEND).send().await.unwrap().status(), 429);
}

#[tokio::test]
async fn the_protocols_version_is_enforced() {
    let (lab, node) = lab(107).await;
    for version in [None, Some(""), Some("0.3"), Some("2.0")] {
        let mut request = lab.post(PATH, Scope::Query).body(SEND);
        if let Some(version) = version {
            request = request.header("a2a-version", version);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["id"], &body["error"]["code"]),
            (&json!(1), &json!(-32009)),
            "{version:?}"
        );
        assert_eq!(body["error"]["data"][0]["domain"], "a2a-protocol.org");
    }
    assert_eq!(node.called.lock().unwrap().len(), 0);
    let by_query = lab
        .post(&format!("{PATH}?A2A-Version=1.0"), Scope::Query)
        .body(SEND);
    assert_eq!(
        by_query.send().await.unwrap().json::<Value>().await.unwrap()["result"]["x"],
        json!(1)
    );
}

#[tokio::test]
async fn garbage_gets_the_protocols_own_error() {
    let (lab, node) = lab(108).await;
    for (body, code) in [
        ("", -32700),
        ("not json", -32700),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"SendMessage"}]"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"SendMessage"}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"GetExtendedAgentCard"}"#,
            -32004,
        ),
    ] {
        let body: Value = call(&lab, body).send().await.unwrap().json().await.unwrap();
        assert_eq!(body["error"]["code"], json!(code), "{body}");
        assert_eq!(body["jsonrpc"], "2.0");
    }
    assert_eq!(node.called.lock().unwrap().len(), 0);
    let unknown = lab
        .post("/a2a/acme/nobody", Scope::Query)
        .header("a2a-version", "1.0")
        .body(SEND)
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(
        unknown.json::<Value>().await.unwrap()["error"]["data"][0]["reason"],
        "E0104"
    );
}

#[tokio::test]
async fn an_agent_that_is_away_is_told_as_such() {
    let (lab, node) = lab(109).await;
    node.endpoint.shutdown(std::time::Duration::ZERO).await;
    let response = call(&lab, SEND).send().await.unwrap();
    assert_eq!(response.status(), 502);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["id"], &body["error"]["data"][0]["reason"]),
        (&json!(1), &json!("E0601"))
    );
}

#[tokio::test]
async fn the_card_names_the_gateway_and_keeps_its_origin() {
    let (lab, _node) = lab(110).await;
    let path = format!("{PATH}/.well-known/agent-card.json");
    let response = lab.get(&path, Scope::Query).send().await.unwrap();
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let bytes = response.bytes().await.unwrap();
    assert_eq!(etag, format!("\"{}\"", ArtifactId::of(&bytes)));
    let rewritten: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(rewritten["supportedInterfaces"][0]["url"], json!(lab.url(PATH)));
    let origin = lab
        .get(&format!("{PATH}/origin-card.json"), Scope::Query)
        .send()
        .await
        .unwrap();
    assert_eq!(origin.text().await.unwrap(), card());
    let params = &rewritten["capabilities"]["extensions"][0]["params"];
    assert_eq!(
        params["blake3"],
        json!(ArtifactId::of(card().as_bytes()).to_string())
    );
    assert_eq!(params["url"], json!(lab.url(&format!("{PATH}/origin-card.json"))));
    // Who has the card is not sent it again.
    let again = lab
        .get(&path, Scope::Query)
        .header("if-none-match", &etag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    let other = lab
        .get(&path, Scope::Query)
        .header("if-none-match", "\"x\"")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    // A client by another name is told that name.
    let named = lab
        .http
        .get(lab.url(&path))
        .header("host", "localhost:1")
        .bearer_auth(secret(Scope::Query));
    let named: Value = named.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        named["supportedInterfaces"][0]["url"],
        json!(format!("http://localhost:1{PATH}"))
    );
}

fn card_with(capabilities: &Value) -> String {
    let mut card: Value = serde_json::from_str(&card()).unwrap();
    card["capabilities"] = capabilities.clone();
    card.to_string()
}

const EXTENDED: &str = r#"{"jsonrpc":"2.0","id":7,"method":"GetExtendedAgentCard"}"#;

#[tokio::test]
async fn the_extended_card_comes_from_the_agent_and_names_the_gateway() {
    let lab = Lab::start().await;
    let offered = card_with(&json!({ "extendedAgentCard": true, "pushNotifications": true }));
    let node = AgentNode::start(111, &offered).await;
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    // What the agent answers: its public card and a skill that only the network's users are told of.
    let mut extended: Value = serde_json::from_str(&offered).unwrap();
    extended["skills"] = json!([{ "id": "inner", "name": "Inner", "tags": [] }]);
    let answer = json!({ "jsonrpc": "2.0", "id": 7, "result": extended }).to_string();
    *node.script.lock().unwrap() = Script {
        pieces: vec![answer.leak()],
        ..Script::default()
    };
    let response = call(&lab, EXTENDED).send().await.unwrap();
    assert!(response.headers().contains_key("x-daitn-decision"));
    let told: Value = response.json().await.unwrap();
    assert_eq!(node.called.lock().unwrap().pop().unwrap().body, EXTENDED);
    let card = &told["result"];
    assert_eq!(
        (&told["id"], &card["skills"][0]["id"]),
        (&json!(7), &json!("inner"))
    );
    assert_eq!(card["supportedInterfaces"][0]["url"], json!(lab.url(PATH)));
    assert!(
        card.get("signatures").is_none() && !told.to_string().contains("10.0.0.7"),
        "{told}"
    );
    // An error of the agent's is the client's.
    *node.script.lock().unwrap() = Script {
        pieces: vec![r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32007,"message":"none"}}"#],
        ..Script::default()
    };
    let told: Value = call(&lab, EXTENDED).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["error"]["code"], json!(-32007));
    // What is no card is not passed on for one.
    for nonsense in ["{}", "[]", "no json", r#"{"result":{}}"#, r#"{"result":7}"#] {
        *node.script.lock().unwrap() = Script {
            pieces: vec![nonsense],
            ..Script::default()
        };
        let told: Value = call(&lab, EXTENDED).send().await.unwrap().json().await.unwrap();
        assert_eq!(told["error"]["data"][0]["reason"], "E0601", "{nonsense}: {told}");
    }
    // The public card says that there is one, to those who ask for it.
    let public = lab.get(&format!("{PATH}/.well-known/agent-card.json"), Scope::Query);
    let public: Value = public.send().await.unwrap().json().await.unwrap();
    assert_eq!(public["capabilities"]["extendedAgentCard"], json!(true));
    assert_eq!(public["capabilities"]["pushNotifications"], json!(false));
}

#[tokio::test]
async fn an_agent_is_not_made_to_call_addresses_of_the_clients() {
    let lab = Lab::start().await;
    let node = AgentNode::start(112, &card_with(&json!({ "pushNotifications": true }))).await;
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{},"configuration":{"taskPushNotificationConfig":{"url":"http://127.0.0.1:22/"}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"configuration":{"task_push_notification_config":{"url":"http://[::1]/"}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"CreateTaskPushNotificationConfig","params":{"taskId":"t","url":"https://example.org/hook"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ListTaskPushNotificationConfigs","params":{"taskId":"t"}}"#,
    ] {
        let told: Value = call(&lab, body).send().await.unwrap().json().await.unwrap();
        // A2A 1.0, section 5.4: PushNotificationNotSupportedError.
        assert_eq!(
            (&told["id"], &told["error"]["code"]),
            (&json!(1), &json!(-32003)),
            "{body}"
        );
        assert_eq!(told["error"]["data"][0]["domain"], "a2a-protocol.org");
    }
    assert_eq!(
        node.called.lock().unwrap().len(),
        0,
        "nothing of it reached the agent"
    );
}
