//! A small network in one process: real endpoints, real nodes, and a control center that does what the test says.

mod data;

mod jobs;

mod reference;

mod stranger;

pub(crate) use self::{data::*, jobs::*, reference::*, stranger::*};

use daitn_fabric::{CONTROL_ALPN, Endpoint, EndpointOptions, Routes};
use daitn_messages::{
    control::{Accepted, Acknowledged, CenterMessage, Hello, Link, NodeMessage, NodeReply, Welcome},
    descriptor::{Descriptor, Telemetry},
    ids::*,
    limits::FRAME_BYTES_MAX,
    order::*,
    receipt::*,
    rejection::{Code, Rejection},
    session::Peer,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use daitn_terminals::*;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// A test that waits for something that never comes ends with a message instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PERMIT_RESEARCH: &str = r#"
@id("research-only")
permit (principal, action == Action::"train", resource) when { context.purpose == "research" };
"#;

/// What nodes have told the center.
#[derive(Default, Clone)]
pub(crate) struct Told {
    pub(crate) attached: BTreeMap<EntityId, Descriptor>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) hellos: usize,
    pub(crate) links: Vec<Link>,
    pub(crate) telemetry: BTreeMap<EntityId, Telemetry>,
}

pub(crate) struct Lab {
    pub(crate) key: NodeKey,
    pub(crate) center: Endpoint,
    pub(crate) told: watch::Receiver<Told>,
    told_sender: Arc<watch::Sender<Told>>,
    organisations: Arc<Mutex<BTreeMap<NodeId, OrganisationId>>>,
    pub(crate) directory: TempDir,
    n_ids: AtomicU64,
}

pub(crate) async fn endpoint(key: &NodeKey) -> Endpoint {
    endpoint_at(key, "127.0.0.1:0".parse().unwrap()).await
}

/// An endpoint at an address, once whoever had it before has let go of it.
async fn endpoint_at(key: &NodeKey, address: SocketAddr) -> Endpoint {
    let binding = async {
        loop {
            match Endpoint::bind(EndpointOptions::new(*key.to_bytes()).bound_to(address)).await {
                Ok(endpoint) => return endpoint,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, binding)
        .await
        .expect("the address is free again")
}

pub(crate) fn now() -> UnixMillis {
    Clock::system().now()
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let key = NodeKey::from_bytes(&[200; 32]);
        let (told_sender, told) = watch::channel(Told::default());
        let lab = Self {
            center: endpoint(&key).await,
            key,
            told,
            told_sender: Arc::new(told_sender),
            organisations: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            n_ids: AtomicU64::new(0),
        };
        lab.serve();
        lab
    }

    fn serve(&self) {
        let (told, organisations) = (self.told_sender.clone(), self.organisations.clone());
        self.center.serve(
            Routes::new().on(CONTROL_ALPN, FRAME_BYTES_MAX, move |mut incoming| {
                let (told, organisations) = (told.clone(), organisations.clone());
                async move {
                    let remote = incoming.remote;
                    let reply: NodeReply = if incoming.header::<Hello>().is_ok() {
                        told.send_modify(|told| told.hellos += 1);
                        let organisation = organisations.lock().unwrap().get(&remote).cloned();
                        match organisation {
                            Some(organisation) => Ok(Accepted::Welcome(Welcome {
                                version: 1,
                                build: "lab".to_owned(),
                                now: now(),
                                organisation,
                                terminals: EntityKind::ALL.to_vec(),
                                relay: None,
                            })),
                            None => Err(Rejection::new(Code::NotEnrolled, "who?")),
                        }
                    } else {
                        match incoming.header::<NodeMessage>().unwrap() {
                            NodeMessage::Attach(signed) => {
                                let descriptor = signed.open(remote).unwrap();
                                let mut is_old = false;
                                told.send_modify(|told| {
                                    let known = told.attached.get(&descriptor.entity);
                                    is_old = known.is_some_and(|known| known.version > descriptor.version);
                                    if !is_old {
                                        told.attached.insert(descriptor.entity.clone(), descriptor);
                                    }
                                });
                                if is_old {
                                    let reply: NodeReply =
                                        Err(Rejection::new(Code::Conflict, "a later version is known"));
                                    let _ = incoming.session.send_last(&reply).await;
                                    return;
                                }
                            }
                            NodeMessage::Detach(entity) => told.send_modify(|told| {
                                told.attached.remove(&entity);
                            }),
                            NodeMessage::Report(signed) => {
                                let receipt = signed.open(remote).unwrap();
                                told.send_modify(|told| told.receipts.push(receipt));
                            }
                            NodeMessage::Links(links) => told.send_modify(|told| told.links.extend(links)),
                            NodeMessage::Telemetry(all) => told.send_modify(|told| {
                                let each = all
                                    .into_iter()
                                    .map(|telemetry| (telemetry.entity.clone(), telemetry));
                                told.telemetry.extend(each);
                            }),
                        }
                        Ok(Accepted::Done)
                    };
                    let _ = incoming.session.send_last(&reply).await;
                }
            }),
        );
    }

    /// Waits until what nodes have told contains something.
    pub(crate) async fn wait<T>(&self, what: &str, mut find: impl FnMut(&Told) -> Option<T>) -> T {
        let mut told = self.told.clone();
        let waiting = async {
            loop {
                if let Some(found) = find(&told.borrow_and_update()) {
                    return found;
                }
                told.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{what} did not come; receipts: {:#?}",
                self.told.borrow().receipts
            ),
        }
    }

    /// The outcome of an order that `find` picks.
    pub(crate) async fn outcome<T>(
        &self,
        order: &OrderId,
        what: &str,
        mut find: impl FnMut(&Outcome) -> Option<T>,
    ) -> T {
        self.wait(what, |told| {
            told.receipts
                .iter()
                .filter(|receipt| receipt.order == *order)
                .find_map(|receipt| find(&receipt.outcome))
        })
        .await
    }

    pub(crate) async fn accepted(&self, order: &OrderId) -> Vec<String> {
        self.outcome(order, "acceptance", |outcome| match outcome {
            Outcome::Accepted { policies } => Some(policies.clone()),
            Outcome::Refused(rejection) => panic!("{rejection}"),
            _ => None,
        })
        .await
    }

    pub(crate) async fn refused(&self, order: &OrderId) -> Rejection {
        self.outcome(order, "refusal", |outcome| match outcome {
            Outcome::Refused(rejection) => Some(rejection.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn training_done(&self, order: &OrderId) -> TrainingDone {
        self.outcome(order, "end of the training", |outcome| match outcome {
            Outcome::TrainingDone(done) => Some(done.clone()),
            Outcome::Refused(rejection) => panic!("{rejection}"),
            _ => None,
        })
        .await
    }

    /// The reports of closed cycles, each once, in order.
    pub(crate) fn cycles(&self, order: &OrderId) -> Vec<CycleReport> {
        let told = self.told.borrow();
        let mut cycles: Vec<CycleReport> = Vec::new();
        for receipt in told.receipts.iter().filter(|receipt| receipt.order == *order) {
            if let Outcome::Cycle(report) = &receipt.outcome
                && !cycles.iter().any(|known| known.cycle == report.cycle)
            {
                cycles.push((**report).clone());
            }
        }
        cycles
    }

    /// The center does not know this node any more.
    pub(crate) fn forget(&self, node: NodeId) {
        self.organisations.lock().unwrap().remove(&node);
    }

    pub(crate) fn peer(&self) -> Peer {
        self.center.peer()
    }

    pub(crate) fn options(
        &self,
        seed: u8,
        organisation: &str,
        terminals: Vec<TerminalOptions>,
    ) -> NodeOptions {
        let key = NodeKey::from_bytes(&[seed; 32]);
        let organisation: OrganisationId = organisation.parse().unwrap();
        self.organisations
            .lock()
            .unwrap()
            .insert(key.id(), organisation.clone());
        let state = self.directory.path().join(format!("node-{seed}"));
        let mut options = NodeOptions::new(&format!("node {seed}"), state, key, self.peer(), organisation);
        options.terminals = terminals;
        options.threads = 2;
        options
    }

    /// Starts a node and waits until all its terminals are attached.
    pub(crate) async fn node(
        &self,
        seed: u8,
        organisation: &str,
        terminals: Vec<TerminalOptions>,
    ) -> Running {
        self.start(self.options(seed, organisation, terminals)).await
    }

    pub(crate) async fn start(&self, options: NodeOptions) -> Running {
        self.start_at(options, "127.0.0.1:0".parse().unwrap()).await
    }

    /// The center, gone, comes back at its address.
    pub(crate) async fn restart_center(&mut self, address: SocketAddr) {
        // Another one in its place, so that the old one lets go of its socket.
        drop(std::mem::replace(
            &mut self.center,
            endpoint(&NodeKey::from_bytes(&[201; 32])).await,
        ));
        self.center = endpoint_at(&self.key, address).await;
        self.serve();
    }

    pub(crate) async fn start_at(&self, options: NodeOptions, address: SocketAddr) -> Running {
        let entities: Vec<EntityId> = options
            .terminals
            .iter()
            .map(|terminal| EntityId {
                kind: terminal.kind(),
                organisation: options.organisation.clone(),
                name: terminal.name().clone(),
            })
            .collect();
        let endpoint = endpoint_at(&options.key, address).await;
        let handle = Node::start(options.clone(), endpoint.clone()).await.unwrap();
        let mut contact = handle.contact();
        let connected = contact.wait_for(|contact| matches!(contact, Contact::Connected { .. }));
        tokio::time::timeout(PATIENCE, connected)
            .await
            .expect("the node connects")
            .unwrap();
        self.wait("attachment", |told| {
            entities
                .iter()
                .all(|entity| told.attached.contains_key(entity))
                .then_some(())
        })
        .await;
        Running {
            handle,
            endpoint,
            options,
            entities,
        }
    }

    pub(crate) fn random(&self) -> [u8; 10] {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.n_ids.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        random
    }

    pub(crate) fn job(&self) -> JobId {
        JobId::new(1, self.random())
    }

    pub(crate) fn work_order(
        &self,
        to: NodeId,
        terminal: &EntityId,
        job: Option<&JobId>,
        instruction: Instruction,
    ) -> WorkOrder {
        WorkOrder {
            id: OrderId::new(1, self.random()),
            job: job.cloned(),
            epoch: 1,
            node: to,
            terminal: terminal.clone(),
            issued_at: now(),
            expires_at: now().plus(60_000),
            instruction,
        }
    }

    /// Sends an order signed with a key; the node's answer.
    pub(crate) async fn send(&self, order: &WorkOrder, key: &NodeKey) -> Acknowledged {
        let connection = self
            .center
            .inbound(order.node, CONTROL_ALPN)
            .expect("the node is connected");
        let message = CenterMessage::Order(Signed::seal(order, key));
        connection
            .request(&message, FRAME_BYTES_MAX, PATIENCE)
            .await
            .unwrap()
    }

    pub(crate) async fn order(&self, order: &WorkOrder) {
        self.send(order, &self.key).await.unwrap();
    }
}

pub(crate) struct Running {
    pub(crate) handle: NodeHandle,
    pub(crate) endpoint: Endpoint,
    pub(crate) options: NodeOptions,
    pub(crate) entities: Vec<EntityId>,
}

impl Running {
    pub(crate) fn id(&self) -> NodeId {
        self.endpoint.node()
    }
    pub(crate) fn peer(&self) -> Peer {
        self.endpoint.peer()
    }
    /// Waits until the node sees itself like this.
    pub(crate) async fn when(&self, mut is: impl FnMut(&NodeStatus) -> bool) {
        let waiting = async {
            while !is(&self.handle.status()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the node comes to that");
    }
    pub(crate) async fn stop(self) -> NodeOptions {
        self.handle.shutdown().await;
        self.options
    }
}
