//! The laboratory: a gateway, and nodes that behave as a test wants.

use crate::samples;
use bytes::{Bytes, BytesMut};
use daitn_fabric::{DATA_ALPN, Endpoint, EndpointOptions, IncomingSession, Refusal, Routes};
use daitn_gateway::{Control, Gateway, GatewayConfig, GatewayHandle, GatewayLimits, JobFeed};
use daitn_messages::{
    ids::{ArtifactId, JobId, OrganisationId},
    job::{JobEvent, JobView},
    learning::{ModelSpec, ModelVersion},
    limits::SESSION_HEADER_BYTES_MAX,
    operation::{Answer, Operation, Principal, Scope},
    rejection::{Code, Rejection},
    session::{AgentCall, SessionReply, SessionRequest},
    snapshot::{Access, KeyEntry, Replica, RoutedAgent, ServedModel, Snapshot, UnservedModel},
    units::UnixMillis,
};
use futures_util::future::BoxFuture;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{Notify, Semaphore, broadcast, watch};

/// What the control center says to an operation.
type Answering = fn(&Operation) -> Result<Answer, Rejection>;

/// In place of the control center: it answers from samples and remembers what it was asked.
pub(crate) struct FakeControl {
    pub(crate) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) calls: Mutex<Vec<(Principal, Operation)>>,
    pub(crate) job: Mutex<JobView>,
    pub(crate) events: broadcast::Sender<JobEvent>,
    pub(crate) answer: Mutex<Answering>,
    /// Models that the next snapshots tell of as not served.
    pub(crate) unserved: Mutex<Vec<UnservedModel>>,
}

impl Control for FakeControl {
    fn call(&self, principal: Principal, operation: Operation) -> BoxFuture<'_, Result<Answer, Rejection>> {
        let answer = *self.answer.lock().unwrap();
        self.calls.lock().unwrap().push((principal, operation.clone()));
        Box::pin(async move { answer(&operation) })
    }

    fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    fn watch_job(&self, _: Principal, job: JobId) -> BoxFuture<'_, Result<JobFeed, Rejection>> {
        let events = self.events.subscribe();
        let known = self.job.lock().unwrap().clone();
        let result = if known.id == job {
            Ok((known, events))
        } else {
            Err(Rejection::not_found("job", job))
        };
        Box::pin(async move { result })
    }
}

/// The secret of a key with every scope.
pub(crate) const ALL_SCOPES: &str = "daitn_all";

/// The secret of a key with one scope.
pub(crate) fn secret(scope: Scope) -> String {
    format!("daitn_{}", scope.as_str())
}

/// A gateway with a key for each scope.
pub(crate) struct Lab {
    pub(crate) gateway: GatewayHandle,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) endpoint: Endpoint,
    pub(crate) http: reqwest::Client,
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A configuration on a free port of loopback.
pub(crate) fn config() -> GatewayConfig {
    GatewayConfig {
        listen: loopback(0),
        ..GatewayConfig::default()
    }
}

async fn endpoint(seed: u8) -> Endpoint {
    Endpoint::bind(EndpointOptions::new([seed; 32]).bound_to(loopback(0)))
        .await
        .unwrap()
}

fn keys() -> Vec<KeyEntry> {
    let key = |(n, scope): (u8, Scope)| KeyEntry {
        hash: ArtifactId::of(secret(scope).as_bytes()),
        principal: Principal {
            key: samples::key_id(n),
            organisation: "acme".parse().unwrap(),
            scopes: vec![scope],
        },
    };
    let mut keys: Vec<KeyEntry> = (1..).zip(Scope::ALL).map(key).collect();
    keys.push(KeyEntry {
        hash: ArtifactId::of(ALL_SCOPES.as_bytes()),
        principal: Principal {
            scopes: Scope::ALL.to_vec(),
            ..keys[0].principal.clone()
        },
    });
    keys
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    /// A gateway with other bounds.
    pub(crate) async fn start_within(limits: GatewayLimits) -> Self {
        Self::start_with(GatewayConfig { limits, ..config() }).await
    }

    pub(crate) async fn start_with(config: GatewayConfig) -> Self {
        // The HTTP client has no provider of its own; a second call in one process changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let snapshot = Snapshot {
            version: 1,
            made_at: UnixMillis(1),
            keys: keys(),
            ..Snapshot::default()
        };
        let control = Arc::new(FakeControl {
            snapshots: watch::Sender::new(Arc::new(snapshot)),
            calls: Mutex::default(),
            job: Mutex::new(samples::job(daitn_messages::job::JobPhase::Training, 1)),
            events: broadcast::Sender::new(16),
            answer: Mutex::new(samples::answer),
            unserved: Mutex::default(),
        });
        let endpoint = endpoint(200).await;
        let gateway = Gateway::start(config, control.clone(), endpoint.clone())
            .await
            .unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            gateway,
            control,
            endpoint,
            http,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.gateway.url())
    }

    pub(crate) fn get(&self, path: &str, scope: Scope) -> reqwest::RequestBuilder {
        self.http.get(self.url(path)).bearer_auth(secret(scope))
    }

    pub(crate) fn post(&self, path: &str, scope: Scope) -> reqwest::RequestBuilder {
        self.http.post(self.url(path)).bearer_auth(secret(scope))
    }

    /// Publishes a snapshot with these models and agents, and waits until the gateway has taken it in.
    pub(crate) async fn publish(&self, models: Vec<ServedModel>, agents: Vec<RoutedAgent>) {
        let version = self.control.snapshots.borrow().version + 1;
        // A key that only this snapshot knows tells when it is in force.
        let sign = format!("daitn_version_{version}");
        let mut keys = keys();
        keys.push(KeyEntry {
            hash: ArtifactId::of(sign.as_bytes()),
            principal: keys[1].principal.clone(),
        });
        let snapshot = Snapshot {
            version,
            made_at: UnixMillis(1),
            models,
            unserved: self.control.unserved.lock().unwrap().clone(),
            agents,
            keys,
            hosts: Vec::new(),
        };
        self.control.snapshots.send_replace(Arc::new(snapshot));
        loop {
            let asked = self
                .http
                .get(self.url("/v1/status"))
                .bearer_auth(&sign)
                .send()
                .await
                .unwrap();
            if asked.status() == 200 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What a model host does with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Conduct {
    Answer,
    /// Refuses as full, before it has read the input.
    Full,
    /// Refuses as malformed.
    Blame,
    /// Fails with an internal error.
    Fail,
    /// Never answers.
    Stall,
    /// Answers when it is released.
    Hold,
    /// Answers with another number of rows.
    Lie,
    /// Answers with too many bytes.
    Chatter,
    /// Breaks off in the middle of the output.
    Break,
}

const CONDUCTS: [Conduct; 9] = [
    Conduct::Answer,
    Conduct::Full,
    Conduct::Blame,
    Conduct::Fail,
    Conduct::Stall,
    Conduct::Hold,
    Conduct::Lie,
    Conduct::Chatter,
    Conduct::Break,
];

/// A model host on a node of its own.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) replica: Replica,
    conduct: Arc<AtomicU8>,
    pub(crate) n_queries: Arc<AtomicUsize>,
    /// Lets one query go that is held.
    pub(crate) release: Arc<Notify>,
}

/// What the host of a model with these numbers of features and outputs answers for one row: class `c` gets the share
/// of feature `c` in the sum of the first features.
pub(crate) fn expected(row: &[f32], n_outputs: usize) -> Vec<f32> {
    let sum: f32 = row[..n_outputs].iter().sum();
    row[..n_outputs].iter().map(|x| x / sum).collect()
}

impl Host {
    pub(crate) async fn start(seed: u8, n_features: usize, n_outputs: usize) -> Self {
        let endpoint = endpoint(seed).await;
        let conduct = Arc::new(AtomicU8::new(0));
        let n_queries = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(Notify::new());
        let (shared, counter, held) = (conduct.clone(), n_queries.clone(), release.clone());
        endpoint.serve(
            Routes::new().on(DATA_ALPN, SESSION_HEADER_BYTES_MAX, move |incoming| {
                let conduct = CONDUCTS[usize::from(shared.load(SeqCst))];
                counter.fetch_add(1, SeqCst);
                answer_query(incoming, conduct, n_features, n_outputs, held.clone())
            }),
        );
        let replica = Replica {
            deployment: samples::deployment_id(),
            host: format!("model-host:acme/host-{seed}").parse().unwrap(),
            peer: endpoint.peer(),
            telemetry: None,
        };
        Self {
            endpoint,
            replica,
            conduct,
            n_queries,
            release,
        }
    }

    pub(crate) fn behave(&self, conduct: Conduct) {
        self.conduct.store(conduct as u8, SeqCst);
    }
}

async fn answer_query(
    mut incoming: IncomingSession,
    conduct: Conduct,
    n_features: usize,
    n_outputs: usize,
    held: Arc<Notify>,
) {
    let SessionRequest::Infer(query) = incoming.header().unwrap() else {
        panic!("not a query")
    };
    let session = &mut incoming.session;
    let refusal = match conduct {
        Conduct::Full => Some(Rejection::new(Code::Overloaded, "the queue is full")),
        Conduct::Blame => Some(Rejection::new(Code::BadTensor, "I do not like it")),
        Conduct::Fail => Some(Rejection::new(Code::Internal, "the disk is broken")),
        _ => None,
    };
    if let Some(rejection) = refusal {
        let _ = session.send_last(&SessionReply::Refused(rejection)).await;
        return;
    }
    let mut input = BytesMut::new();
    let n_bytes = query.n_rows as usize * n_features * 4;
    if session.receiver().append(&mut input, n_bytes).await.is_err() {
        return;
    }
    if conduct == Conduct::Stall {
        std::future::pending::<()>().await;
    }
    if conduct == Conduct::Hold {
        held.notified().await;
    }
    let values: Vec<f32> = input
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let output: Vec<u8> = values
        .chunks_exact(n_features)
        .flat_map(|row| expected(row, n_outputs))
        .flat_map(f32::to_le_bytes)
        .collect();
    let n_rows = if conduct == Conduct::Lie {
        query.n_rows + 1
    } else {
        query.n_rows
    };
    let reply = SessionReply::Inferred {
        n_rows,
        host_micros: 10,
        in_flight: 1,
    };
    let _ = session.send(&reply).await;
    let output = Bytes::from(output);
    if conduct == Conduct::Break {
        let _ = session
            .sender()
            .send_bytes(output.slice(..output.len() / 2))
            .await;
        session.sender().cancel(Refusal::Cancelled);
        return;
    }
    let _ = session.sender().send_bytes(output).await;
    if conduct == Conduct::Chatter {
        let _ = session.sender().send_bytes(Bytes::from_static(b"and more")).await;
    }
    let _ = session.sender().finish();
    // The session must not be dropped before the other side has read it.
    session.sender().abandoned().await;
}

/// A model that is served by these hosts.
pub(crate) fn served(version: u32, spec: ModelSpec, hosts: &[&Host]) -> ServedModel {
    ServedModel {
        model: ModelVersion {
            name: "digits".parse().unwrap(),
            version,
        },
        default_version: version == 1,
        newest: 0,
        organisation: "acme".parse::<OrganisationId>().unwrap(),
        spec,
        weights: ArtifactId([2; 32]),
        access: Access::open(),
        replicas: hosts.iter().map(|host| host.replica.clone()).collect(),
    }
}

/// What an agent's node was asked.
pub(crate) struct Called {
    pub(crate) call: AgentCall,
    pub(crate) body: Bytes,
}

/// An agent behind a node: answers what a test says, piece by piece.
pub(crate) struct AgentNode {
    pub(crate) endpoint: Endpoint,
    pub(crate) agent: RoutedAgent,
    pub(crate) called: Arc<Mutex<Vec<Called>>>,
    pub(crate) script: Arc<Mutex<Script>>,
    /// One permit lets one more piece go.
    steps: Arc<Semaphore>,
    /// Told when the gateway wants no more.
    pub(crate) given_up: Arc<Notify>,
}

/// What the agent answers.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) pieces: Vec<&'static str>,
    /// Wait for [`AgentNode::let_go`] before each piece.
    pub(crate) stepwise: bool,
    /// End in the middle.
    pub(crate) break_off: bool,
}

pub(crate) fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Default for Script {
    fn default() -> Self {
        let headers = vec![header("content-type", "application/json")];
        let pieces = vec!["{\"jsonrpc\":\"2.0\",", "\"id\":1,\"result\":{\"x\":  1}}"];
        Self {
            status: 200,
            headers,
            pieces,
            stepwise: false,
            break_off: false,
        }
    }
}

impl AgentNode {
    pub(crate) async fn start(seed: u8, card: &str) -> Self {
        let endpoint = endpoint(seed).await;
        let node = Self {
            agent: RoutedAgent {
                agent: "agent:acme/helper".parse().unwrap(),
                peer: endpoint.peer(),
                card: card.to_owned(),
                streaming: true,
                node: endpoint.node(),
                access: Access::open(),
            },
            endpoint: endpoint.clone(),
            called: Arc::default(),
            script: Arc::default(),
            steps: Arc::new(Semaphore::new(0)),
            given_up: Arc::default(),
        };
        let (called, script) = (node.called.clone(), node.script.clone());
        let (steps, given_up) = (node.steps.clone(), node.given_up.clone());
        endpoint.serve(
            Routes::new().on(DATA_ALPN, SESSION_HEADER_BYTES_MAX, move |incoming| {
                let script = script.lock().unwrap().clone();
                answer_call(incoming, script, called.clone(), steps.clone(), given_up.clone())
            }),
        );
        node
    }
}

/// The call that a session begins with, and its body.
async fn call(incoming: &mut IncomingSession) -> (AgentCall, Bytes) {
    let SessionRequest::Agent(call) = incoming.header().unwrap() else {
        panic!("not a call")
    };
    let n_bytes = usize::try_from(call.body_bytes).unwrap();
    let mut body = BytesMut::new();
    let read = incoming.session.receiver().append(&mut body, n_bytes);
    read.await.unwrap();
    (call, body.freeze())
}

async fn answer_call(
    mut incoming: IncomingSession,
    script: Script,
    called: Arc<Mutex<Vec<Called>>>,
    steps: Arc<Semaphore>,
    given_up: Arc<Notify>,
) {
    let (call, body) = call(&mut incoming).await;
    let session = &mut incoming.session;
    called.lock().unwrap().push(Called { call, body });
    let reply = SessionReply::Agent {
        status: script.status,
        headers: script.headers,
    };
    session.send(&reply).await.unwrap();
    for piece in script.pieces {
        if script.stepwise {
            tokio::select! {
                step = steps.acquire() => step.unwrap().forget(),
                () = session.sender().abandoned() => {
                    given_up.notify_one();
                    return;
                }
            }
        }
        let _ = session
            .sender()
            .send_bytes(Bytes::from_static(piece.as_bytes()))
            .await;
    }
    if script.break_off {
        session.sender().cancel(Refusal::Cancelled);
    } else {
        let _ = session.sender().finish();
        session.sender().abandoned().await;
    }
}

/// Time in which anything that is waited for must have happened; a bound against hanging, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl AgentNode {
    /// Lets so many more pieces go.
    pub(crate) fn let_go(&self, n_pieces: usize) {
        self.steps.add_permits(n_pieces);
    }

    /// A node that relays to an agent by HTTP, as a node of the network does.
    pub(crate) async fn start_in_front_of(seed: u8, card: &str, origin: String) -> Self {
        let node = Self::start(seed, card).await;
        let called = node.called.clone();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        node.endpoint.serve(
            Routes::new().on(DATA_ALPN, SESSION_HEADER_BYTES_MAX, move |incoming| {
                relay(incoming, http.clone(), origin.clone(), called.clone())
            }),
        );
        node
    }
}

async fn relay(
    mut incoming: IncomingSession,
    http: reqwest::Client,
    origin: String,
    called: Arc<Mutex<Vec<Called>>>,
) {
    let (call, body) = call(&mut incoming).await;
    let session = &mut incoming.session;
    let mut request = http.post(origin).body(body.clone());
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    called.lock().unwrap().push(Called { call, body });
    let mut response = request.send().await.unwrap();
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| header(name.as_str(), value.to_str().unwrap()))
        .collect();
    let reply = SessionReply::Agent {
        status: response.status().as_u16(),
        headers,
    };
    session.send(&reply).await.unwrap();
    while let Some(piece) = response.chunk().await.unwrap() {
        session.sender().send_bytes(piece).await.unwrap();
    }
    session.sender().finish().unwrap();
    session.sender().abandoned().await;
}

/// A value as a client reads it: an f32 in its shortest form.
pub(crate) fn read_back(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}
