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
async fn a_stream_comes_piece_by_piece() {
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
    for expected in ["data: 1\n\n", "data: 2\n", "\n"] {
        // Nothing is held back: a piece is here before the agent is let go on.
        node.go_on.notify_one();
        let piece = tokio::time::timeout(PATIENCE, response.chunk())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(piece, expected);
    }
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn silence_is_filled_only_between_events() {
    let limits = daitn_gateway::GatewayLimits {
        heartbeat: std::time::Duration::from_millis(20),
        ..Default::default()
    };
    let lab = Lab::start_with(daitn_gateway::GatewayConfig {
        limits,
        ..crate::lab::config()
    })
    .await;
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
    // Comments come before the first event and after it, …
    for until in [":\n\n", "data: 1\n\n", "data: 1\n\n:\n\n", "data: "] {
        if until.starts_with("data: ") && !until.ends_with(":\n\n") {
            node.go_on.notify_one();
        }
        while !text.ends_with(until) {
            read(&mut response, &mut text).await;
        }
    }
    // … but none inside the second one.
    node.go_on.notify_one();
    while !text.ends_with("2\n\n") {
        read(&mut response, &mut text).await;
    }
    assert!(text.ends_with("data: 2\n\n"), "{text}");
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
    node.go_on.notify_one();
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
        stepwise: true,
        break_off: true,
        ..Script::default()
    };
    let mut response = call(&lab, SEND).send().await.unwrap();
    node.go_on.notify_one();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "{\"jsonrpc\":\"2.0\",");
    node.go_on.notify_one();
    let rest = async {
        loop {
            // The second piece may be lost with the break.
            if let Some(_second) = response.chunk().await? {
                continue;
            }
            return Ok::<(), reqwest::Error>(());
        }
    };
    assert!(tokio::time::timeout(PATIENCE, rest).await.unwrap().is_err());
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
