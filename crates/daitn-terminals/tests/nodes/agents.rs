//! An agent behind a node: its card told byte for byte, its bytes relayed as they come.

use crate::lab::*;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
};
use daitn_fabric::DATA_ALPN;
use daitn_messages::{
    control::{Acknowledged, CenterMessage},
    descriptor::Body as Descriptor,
    ids::DecisionId,
    limits::{FRAME_BYTES_MAX, SESSION_HEADER_BYTES_MAX},
    rejection::Code,
    session::{AgentCall, SessionReply, SessionRequest},
};
use daitn_terminals::{AgentOptions, TerminalOptions};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// What the origin saw, and what it is told to say.
#[derive(Clone)]
struct Origin {
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    chunks: Arc<tokio::sync::Mutex<mpsc::Receiver<&'static str>>>,
    gone: mpsc::Sender<()>,
}

fn card(url: &str) -> String {
    format!(
        r#"{{ "name" : "digits reader", "description":"reads digits", "version":"1.0.0",
  "capabilities":{{"streaming":true}}, "defaultInputModes":["text/plain"], "defaultOutputModes":["text/plain"],
  "skills":[{{"id":"classify-digit","name":"Classify","description":"d","tags":["digits","vision"]}}],
  "supportedInterfaces":[{{"url":"{url}/rpc","protocolBinding":"JSONRPC","protocolVersion":"1.0"}}] }}"#
    )
}

async fn rpc(State(origin): State<Origin>, headers: HeaderMap, body: Bytes) -> Response {
    origin.seen.lock().unwrap().push((headers, body.clone()));
    Response::builder()
        .status(StatusCode::CREATED)
        .header("content-type", "application/json")
        .header("a2a-version", "1.0")
        .header("set-cookie", "secret=1")
        .body(Body::from(format!("echo:{}", String::from_utf8_lossy(&body))))
        .unwrap()
}

/// Tells when the answer is dropped before its end.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

async fn stream(State(origin): State<Origin>) -> Response {
    let chunks = origin.chunks.clone().lock_owned().await;
    let gone = Gone(origin.gone.clone());
    let body = futures_util::stream::unfold((chunks, gone), |(mut chunks, gone)| async {
        let chunk = chunks.recv().await?;
        Some((
            Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes())),
            (chunks, gone),
        ))
    });
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(body))
        .unwrap()
}

struct Agent {
    url: String,
    card: String,
    origin: Origin,
    chunks: mpsc::Sender<&'static str>,
    gone: mpsc::Receiver<()>,
}

async fn agent(streams: bool) -> Agent {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel(8);
    let (gone_sender, gone) = mpsc::channel(8);
    let origin = Origin {
        seen: Arc::default(),
        chunks: Arc::new(tokio::sync::Mutex::new(receiver)),
        gone: gone_sender,
    };
    let card = card(&url);
    let served = card.clone();
    let rpc = if streams { post(stream) } else { post(rpc) };
    let app = Router::new()
        .route("/.well-known/agent-card.json", get(move || async move { served }))
        .route("/rpc", rpc)
        .with_state(origin.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Agent {
        url,
        card,
        origin,
        chunks: sender,
        gone,
    }
}

fn options(url: &str) -> TerminalOptions {
    TerminalOptions::Agent(AgentOptions {
        name: "reader".parse().unwrap(),
        url: url.to_owned(),
        jurisdiction: "DE".to_owned(),
    })
}

/// Makes a party a gateway of the domain.
async fn tell_gateway(lab: &Lab, node: &Running, gateway: &Stranger) {
    let connection = lab.center.inbound(node.id(), daitn_fabric::CONTROL_ALPN).unwrap();
    let message = CenterMessage::Gateways(vec![gateway.endpoint.peer()]);
    let answer: Acknowledged = connection
        .request(&message, FRAME_BYTES_MAX, PATIENCE)
        .await
        .unwrap();
    answer.unwrap();
}

fn call(node: &Running, body: &[u8]) -> SessionRequest {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    SessionRequest::Agent(AgentCall {
        agent: node.entities[0].clone(),
        method: "POST".to_owned(),
        headers: vec![
            header("content-type", "application/json"),
            header("a2a-version", "1.0"),
            header("authorization", "Bearer of-the-client"),
            header("host", "elsewhere.example"),
        ],
        body_bytes: body.len() as u64,
        decision: DecisionId::new(1, [0; 10]),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_described_by_its_card_and_called_by_gateways_only() {
    let lab = Lab::new().await;
    let agent = agent(false).await;
    let node = lab.node(1, "owner", vec![options(&agent.url)]).await;
    let descriptor = lab.told.borrow().attached[&node.entities[0]].clone();
    assert_eq!(descriptor.title, "digits reader");
    let Descriptor::Agent(body) = descriptor.body else {
        panic!("an agent")
    };
    assert_eq!(body.card, agent.card, "byte for byte");
    assert!(body.streaming && body.skills[0].id == "classify-digit" && body.protocol_version == "1.0");

    let gateway = Stranger::new(70).await;
    let refused = gateway.ask(&node.peer(), &call(&node, b"")).await;
    assert!(matches!(refused, SessionReply::Refused(rejection) if rejection.code == Code::Unauthorised));
    tell_gateway(&lab, &node, &gateway).await;
    // The node has dialled out to the gateway: that is how it is reached behind NAT.
    let connection = loop {
        match gateway.endpoint.inbound(node.id(), DATA_ALPN) {
            Some(connection) => break connection,
            None => tokio::task::yield_now().await,
        }
    };
    let question = br#"{"jsonrpc":"2.0","id":1,"method":"SendMessage"}"#;
    let mut session = connection.open(&call(&node, question), PATIENCE).await.unwrap();
    session
        .sender()
        .send_bytes(Bytes::from_static(question))
        .await
        .unwrap();
    session.sender().finish().unwrap();
    let SessionReply::Agent { status, headers } = session.recv(SESSION_HEADER_BYTES_MAX).await.unwrap()
    else {
        panic!("the agent answers")
    };
    assert_eq!(status, 201);
    let header = |name: &str| {
        headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (header("content-type"), header("a2a-version")),
        (Some("application/json"), Some("1.0"))
    );
    assert_eq!(header("set-cookie"), None);
    let mut answer = Vec::new();
    while let Some(bytes) = session.receiver().recv_bytes(1 << 16).await.unwrap() {
        answer.extend_from_slice(&bytes);
    }
    assert_eq!(answer, [b"echo:", &question[..]].concat());
    let seen = agent.origin.seen.lock().unwrap();
    let (headers, body) = &seen[0];
    assert_eq!(body, &question[..]);
    assert_eq!(headers["a2a-version"], "1.0");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(
        headers["host"].to_str().unwrap(),
        agent.url.strip_prefix("http://").unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_comes_chunk_by_chunk_and_ends_with_its_client() {
    let lab = Lab::new().await;
    let mut agent = agent(true).await;
    let node = lab.node(1, "owner", vec![options(&agent.url)]).await;
    let gateway = Stranger::new(70).await;
    tell_gateway(&lab, &node, &gateway).await;
    gateway.endpoint.set_peer(node.peer()).unwrap();
    let connection = gateway
        .endpoint
        .connect(node.id(), DATA_ALPN, PATIENCE)
        .await
        .unwrap();
    let mut session = connection.open(&call(&node, b"{}"), PATIENCE).await.unwrap();
    session
        .sender()
        .send_bytes(Bytes::from_static(b"{}"))
        .await
        .unwrap();
    session.sender().finish().unwrap();
    let reply: SessionReply = session.recv(SESSION_HEADER_BYTES_MAX).await.unwrap();
    assert!(
        matches!(reply, SessionReply::Agent { status: 200, .. }),
        "{reply:?}"
    );
    // Each event is here before the next is made.
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        agent.chunks.send(event).await.unwrap();
        let mut got = Vec::new();
        while got.len() < event.len() {
            got.extend_from_slice(&session.receiver().recv_bytes(1 << 16).await.unwrap().unwrap());
        }
        assert_eq!(got, event.as_bytes());
    }
    assert!(agent.gone.try_recv().is_err());
    // The client goes away: the origin notices, though it has nothing to say.
    drop(session);
    tokio::time::timeout(PATIENCE, agent.gone.recv())
        .await
        .expect("the origin's answer is dropped")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_not_up_is_a_problem_to_be_seen_and_no_reason_not_to_start() {
    let lab = Lab::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = lab.options(1, "owner", vec![options(&url), host()]);
    let endpoint = endpoint(&options.key).await;
    let handle = daitn_terminals::Node::start(options, endpoint).await.unwrap();
    let status = handle.status();
    let agent = status
        .terminals
        .iter()
        .find(|terminal| terminal.entity == "agent:owner/reader")
        .unwrap();
    assert_eq!(agent.problem.as_ref().unwrap().code, Code::AgentFailed);
    assert!(
        status
            .terminals
            .iter()
            .any(|terminal| terminal.entity == "model-host:owner/host" && terminal.problem.is_none())
    );
    handle.shutdown().await;
}
