//! A control center on a real endpoint with a real store, and nodes that speak the real protocol on loopback. Their
//! terminals do no arithmetic: they answer orders as a terminal would, at once.

use crate::described;
use daitn_control::{Center, CenterConfig, CenterHandle, OnRevoked, StartError, Timing};
use daitn_fabric::{CONTROL_ALPN, Connection, Endpoint, EndpointOptions, IncomingSession, Routes};
use daitn_messages::{
    control::{Accepted, Acknowledged, CenterMessage, Enrolment, Hello, JoinToken, NodeMessage, NodeReply},
    descriptor::Descriptor,
    ids::{ArtifactId, EntityId, NodeId},
    learning::{Evaluation, Metric},
    limits::FRAME_BYTES_MAX,
    operation::{Answer, NewToken, Operation, Principal},
    order::{Instruction, WorkOrder},
    receipt::{CycleReport, Outcome, Receipt, Trained, TrainingDone, VerificationReport},
    rejection::{Code, Rejection},
    request::TrainingRequest,
    session::ArtifactRef,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use daitn_store::{Store, StoreOptions};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

const WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn now() -> UnixMillis {
    UnixMillis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

pub(crate) async fn endpoint(key: &NodeKey) -> Endpoint {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Endpoint::bind(EndpointOptions::new(*key.to_bytes()).bound_to(loopback))
        .await
        .unwrap()
}

fn key(number: u8) -> NodeKey {
    NodeKey::from_bytes(&[number; 32])
}

pub(crate) struct Lab {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) center: CenterHandle,
    pub(crate) admin: Principal,
    /// Every node's key: a conductor of the lab signs for the sites that it would ask.
    keys: Arc<Mutex<HashMap<NodeId, NodeKey>>>,
    next_key: u8,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let center = start(directory.path().join("center.db"), None).await.unwrap();
        center.bootstrap_key("operator".parse().unwrap()).await.unwrap();
        let admin = center.snapshot().borrow().keys[0].principal.clone();
        Self {
            directory,
            center,
            admin,
            keys: Arc::default(),
            next_key: 100,
        }
    }

    /// Stops the center and starts it again from its store, on another port.
    pub(crate) async fn restart_center(&mut self) {
        self.center.shutdown().await;
        self.center = self.try_start().await.unwrap();
    }

    /// Starts it from its store, which may be damaged.
    pub(crate) async fn try_start(&self) -> Result<CenterHandle, StartError> {
        start(self.directory.path().join("center.db"), None).await
    }

    /// The same on a disk that has room for so many bytes in all.
    pub(crate) async fn restart_center_within(&mut self, bytes_max: u64) {
        self.center.shutdown().await;
        let path = self.directory.path().join("center.db");
        self.center = start(path, Some(bytes_max)).await.unwrap();
    }

    pub(crate) async fn call(&self, operation: Operation) -> Result<Answer, Rejection> {
        self.center.call(self.admin.clone(), operation).await
    }

    pub(crate) async fn token(&self, organisation: &str) -> JoinToken {
        let new = NewToken {
            organisation: organisation.parse().unwrap(),
            terminals: Vec::new(),
            uses: 1,
            valid_ms: 60_000,
        };
        match self.call(Operation::CreateToken(new)).await.unwrap() {
            Answer::Token(token) => JoinToken::from_text(&token.text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// A node that has joined and attached these entities.
    pub(crate) async fn node(&mut self, organisation: &str, entities: &[&str]) -> Node {
        let token = self.token(organisation).await;
        self.next_key += 1;
        let key = key(self.next_key);
        self.keys.lock().unwrap().insert(key.id(), key.clone());
        let mut node = Node::connect(&key, &token, self.keys.clone()).await;
        node.hello(Some(&token)).await.unwrap();
        for entity in entities {
            node.tell(NodeMessage::Attach(node.describe(entity, 1)))
                .await
                .unwrap();
        }
        node
    }
}

async fn start(path: PathBuf, bytes_max: Option<u64>) -> Result<CenterHandle, StartError> {
    let key = key(42);
    let store = Store::open_with(StoreOptions { path, bytes_max }).await.unwrap();
    let config = CenterConfig {
        domain: "lab".to_owned(),
        operator: "operator".parse().unwrap(),
        key: key.clone(),
        peer: None,
        relay: None,
        on_revoked: OnRevoked::default(),
        gateways: Vec::new(),
        timing: Timing::default(),
    };
    Center::start(config, store, endpoint(&key).await).await
}

/// A node with its connection to the center.
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    /// Messages of the center, as they arrive.
    pub(crate) heard: mpsc::Receiver<CenterMessage>,
}

impl Node {
    pub(crate) async fn connect(
        key: &NodeKey,
        token: &JoinToken,
        keys: Arc<Mutex<HashMap<NodeId, NodeKey>>>,
    ) -> Self {
        let endpoint = endpoint(key).await;
        let (told, heard) = mpsc::channel(1_000);
        let own = key.clone();
        endpoint.serve(Routes::new().on(CONTROL_ALPN, FRAME_BYTES_MAX, move |incoming| {
            answer(incoming, own.clone(), keys.clone(), told.clone())
        }));
        endpoint.set_peer(token.center.clone()).unwrap();
        let connection = endpoint
            .connect(token.center.node, CONTROL_ALPN, WITHIN)
            .await
            .unwrap();
        Self {
            key: key.clone(),
            endpoint,
            connection,
            heard,
        }
    }

    pub(crate) fn greeting(&self, token: Option<&JoinToken>) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            build: "lab".to_owned(),
            now: now(),
            addresses: self.endpoint.peer().addresses,
            enrolment: token.map(|token| Enrolment {
                token: token.token.clone(),
                secret: token.secret.clone(),
                name: "lab node".to_owned(),
            }),
            asks_only: false,
        }
    }

    pub(crate) async fn hello(&mut self, token: Option<&JoinToken>) -> NodeReply {
        self.say(&self.greeting(token)).await
    }

    pub(crate) async fn say(&self, hello: &Hello) -> NodeReply {
        self.connection
            .request(hello, FRAME_BYTES_MAX, WITHIN)
            .await
            .unwrap()
    }

    pub(crate) async fn tell(&self, message: NodeMessage) -> NodeReply {
        self.connection
            .request(&message, FRAME_BYTES_MAX, WITHIN)
            .await
            .unwrap()
    }

    pub(crate) fn describe(&self, entity: &str, version: u64) -> Signed<Descriptor> {
        let descriptor = descriptor(entity, version, self.key.id());
        Signed::seal(&descriptor, &self.key)
    }
}

pub(crate) fn descriptor(entity: &str, version: u64, node: NodeId) -> Descriptor {
    let entity: EntityId = entity.parse().unwrap();
    let policy =
        r#"@id("research") permit (principal, action, resource) when { context.purpose != "commercial" };"#;
    Descriptor {
        title: format!("The {} of the lab", entity.name),
        description: "images of handwritten digits".to_owned(),
        issued_at: now(),
        ..described::descriptor(&entity, version, node, policy)
    }
}

/// Answers the center as a terminal would, and reports what follows from an order.
async fn answer(
    mut incoming: IncomingSession,
    key: NodeKey,
    keys: Arc<Mutex<HashMap<NodeId, NodeKey>>>,
    told: mpsc::Sender<CenterMessage>,
) {
    let message: CenterMessage = incoming.header().unwrap();
    told.send(message.clone()).await.unwrap();
    let acknowledged: Acknowledged = Ok(());
    incoming.session.send_last(&acknowledged).await.unwrap();
    let CenterMessage::Order(signed) = message else {
        return;
    };
    let order = signed.open(incoming.remote).unwrap();
    let receipts = {
        let keys = keys.lock().unwrap();
        outcomes(&order, &keys)
            .into_iter()
            .map(|outcome| sign(&order, &key, outcome))
            .collect::<Vec<_>>()
    };
    for receipt in receipts {
        let report = NodeMessage::Report(receipt);
        let reply: Result<NodeReply, _> = incoming
            .connection
            .request(&report, FRAME_BYTES_MAX, WITHIN)
            .await;
        // A connection that the test has cut off is no failure here.
        if let Ok(reply) = reply {
            reply.unwrap();
        }
    }
}

fn sign(order: &WorkOrder, key: &NodeKey, outcome: Outcome) -> Signed<Receipt> {
    let receipt = Receipt {
        order: order.id.clone(),
        job: order.job.clone(),
        epoch: order.epoch,
        node: key.id(),
        terminal: order.terminal.clone(),
        at: now(),
        outcome,
    };
    Signed::seal(&receipt, key)
}

fn artifact(text: &str) -> ArtifactRef {
    ArtifactRef {
        id: ArtifactId::of(text.as_bytes()),
        bytes: 100,
    }
}

fn outcomes(order: &WorkOrder, keys: &HashMap<NodeId, NodeKey>) -> Vec<Outcome> {
    let accepted = Outcome::Accepted {
        policies: vec!["research".to_owned()],
    };
    match &order.instruction {
        Instruction::Train(_) | Instruction::Compute(_) => vec![accepted],
        Instruction::Stop { .. } => vec![Outcome::Stopped],
        Instruction::Serve(_) => vec![accepted, Outcome::Serving],
        Instruction::Verify(verify) => {
            let report = VerificationReport {
                weights: verify.weights.id,
                evaluation: Evaluation {
                    n_examples: 100,
                    loss: 0.1,
                    metrics: vec![(Metric::Accuracy, 0.95)],
                    confusion: Vec::new(),
                },
                metric: verify.metric,
                target: verify.target,
                reached: verify.target <= 0.95,
            };
            vec![accepted, Outcome::Verified(Box::new(report))]
        }
        Instruction::Conduct(conduct) => {
            let cycle = |cycle: u32| {
                let contributions = conduct.accepted.iter().map(|position| {
                    let site = &conduct.plan.sites[*position as usize];
                    let trained = Trained {
                        cycle,
                        input: artifact("input").id,
                        output: artifact("output"),
                        control: None,
                        examples: site.records,
                        steps: 10,
                        loss: 0.5,
                        train_ms: 1.0,
                        policies: vec!["research".to_owned()],
                    };
                    let receipt = Receipt {
                        order: order.id.clone(),
                        job: order.job.clone(),
                        epoch: order.epoch,
                        node: site.node,
                        terminal: site.dataset.clone(),
                        at: now(),
                        outcome: Outcome::Trained(trained),
                    };
                    Signed::seal(&receipt, &keys[&site.node])
                });
                Outcome::Cycle(Box::new(CycleReport {
                    cycle,
                    contributions: contributions.collect(),
                    left_out: Vec::new(),
                    global: artifact(&format!("global {cycle}")),
                    state: artifact(&format!("state {cycle}")),
                    holders: vec![order.node],
                    loss: 1.0 / f64::from(cycle + 1),
                    cycle_ms: 5.0,
                    train_ms: 1.0,
                    bytes: 1_000,
                }))
            };
            let rounds = conduct.plan.rounds;
            let done = TrainingDone {
                cycles: rounds,
                weights: artifact(&format!("global {}", rounds - 1)),
            };
            std::iter::once(accepted)
                .chain((0..rounds).map(cycle))
                .chain([Outcome::TrainingDone(done)])
                .collect()
        }
    }
}

pub(crate) fn request(replicas: u32, purpose: &str) -> TrainingRequest {
    let text = format!(
        r#"{{
            "model": "digits", "organisation": "operator", "jurisdiction": "DE", "purpose": "{purpose}",
            "architecture": {{"kind": "linear"}}, "features": ["x", "y"], "target": "label",
            "task": {{"kind": "classification", "classes": ["no", "yes"]}},
            "training": {{"rounds": 3, "kind": "rounds",
                "local": {{"epochs": 1, "batch_size": 32, "learning_rate": 0.1, "seed": 7}}}},
            "verification": {{"metric": "accuracy", "target": 0.9, "required": 2}},
            "deployment": {{"replicas": {replicas}}}
        }}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// The rejection's code, of whatever was refused.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Rejection>) -> Code {
    result.expect_err("it should have been refused").code
}

pub(crate) fn is_welcome(reply: &NodeReply) -> bool {
    matches!(reply, Ok(Accepted::Welcome(_)))
}
