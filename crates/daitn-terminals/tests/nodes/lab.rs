//! A small network in one process: real endpoints, real nodes, and a control center that does what the test says.

use daitn_engine::{Engine, LocalRule, Table, Work, builtin::Builtin, data, weights};
use daitn_fabric::{
    CONTROL_ALPN, DATA_ALPN, Endpoint, EndpointOptions, Routes,
    artifact::{Durability, Store},
};
use daitn_messages::{
    control::{Accepted, Acknowledged, CenterMessage, Hello, Link, NodeMessage, NodeReply, Welcome},
    descriptor::{Descriptor, Telemetry},
    ids::*,
    learning::*,
    limits::FRAME_BYTES_MAX,
    order::*,
    plan::*,
    policy::UseContext,
    receipt::*,
    rejection::Rejection,
    request::*,
    session::*,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use daitn_terminals::*;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::ControlFlow,
    path::{Path, PathBuf},
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
                            None => Err(Rejection::new(
                                daitn_messages::rejection::Code::NotEnrolled,
                                "who?",
                            )),
                        }
                    } else {
                        match incoming.header::<NodeMessage>().unwrap() {
                            NodeMessage::Attach(signed) => {
                                let descriptor = signed.open(remote).unwrap();
                                told.send_modify(|told| {
                                    told.attached.insert(descriptor.entity.clone(), descriptor);
                                });
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

// ---- data

/// Rows of the real digits: every `of`-th row, from `first`, in a file of its own.
pub(crate) fn digits(directory: &Path, name: &str, first: usize, of: usize, n_max: usize) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.csv");
    let text = std::fs::read_to_string(source).unwrap();
    let mut lines = text.lines();
    let mut out = format!("{}\n", lines.next().unwrap());
    for line in lines.skip(first).step_by(of).take(n_max) {
        out.push_str(line);
        out.push('\n');
    }
    let path = directory.join(name);
    std::fs::write(&path, out).unwrap();
    path
}

pub(crate) fn features() -> Vec<String> {
    (0..64).map(|n| format!("p{n}")).collect()
}

pub(crate) fn classes() -> Vec<String> {
    (0..10).map(|n| n.to_string()).collect()
}

pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Mlp { hidden: vec![32] },
        features: features(),
        target: "label".to_owned(),
        task: Task::Classification { classes: classes() },
        scale: 1.0 / 16.0,
        offset: 0.0,
    }
}

pub(crate) fn local() -> LocalTraining {
    LocalTraining {
        epochs: 2,
        batch_size: 32,
        learning_rate: 0.1,
        seed: 11,
    }
}

pub(crate) fn dataset(name: &str, path: &Path, policy: &str) -> TerminalOptions {
    let mut options = dataset_options(name, path);
    options.policy = Some(policy.to_owned());
    TerminalOptions::Dataset(Box::new(options))
}

pub(crate) fn dataset_options(name: &str, path: &Path) -> DatasetOptions {
    DatasetOptions {
        name: name.parse().unwrap(),
        title: "Digits".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        path: path.to_owned(),
        features: Vec::new(),
        target: "label".to_owned(),
        task: None,
        classes: classes(),
        license: "CC-BY-4.0".to_owned(),
        creator: "UCI".to_owned(),
        date_published: "1998-07-01".to_owned(),
        url: String::new(),
        usage: String::new(),
        policy: None,
        policy_file: None,
        data_version: "1".to_owned(),
        price_micros_per_thousand: 0,
        share_label_distribution: true,
        compute: true,
        compute_allowed: Vec::new(),
    }
}

pub(crate) fn aggregator() -> TerminalOptions {
    TerminalOptions::Aggregator(AggregatorOptions {
        name: "main".parse().unwrap(),
        title: "Aggregator".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        storage: ByteSize(1 << 30),
        price_micros_per_gb: 0,
    })
}

pub(crate) fn verifier(path: &Path) -> TerminalOptions {
    TerminalOptions::Verifier(VerifierOptions {
        name: "unit".parse().unwrap(),
        title: "Unit".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        path: path.to_owned(),
        features: Vec::new(),
        target: "label".to_owned(),
        task: None,
        classes: classes(),
    })
}

pub(crate) fn host() -> TerminalOptions {
    TerminalOptions::ModelHost(HostOptions {
        name: "host".parse().unwrap(),
        title: "Host".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        memory: ByteSize(1 << 20),
        price_micros_per_thousand: 0,
    })
}

pub(crate) fn compute() -> TerminalOptions {
    TerminalOptions::Compute(ComputeOptions {
        name: "pool".parse().unwrap(),
        title: "Pool".to_owned(),
        description: String::new(),
        jurisdiction: "DE".to_owned(),
        memory: ByteSize(64 << 20),
        price_micros_per_hour: 0,
    })
}

// ---- plans and orders

/// A site of a plan: where it is and what it holds.
#[derive(Clone)]
pub(crate) struct SiteAt {
    pub(crate) dataset: EntityId,
    pub(crate) peer: Peer,
    pub(crate) records: u64,
}

pub(crate) struct Job<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) id: JobId,
    pub(crate) sites: Vec<SiteAt>,
    pub(crate) chains: Vec<Vec<u32>>,
    pub(crate) shuffle: bool,
    pub(crate) strategy: Strategy,
    pub(crate) rounds: u32,
    pub(crate) quorum: u32,
    pub(crate) deadline_ms: u64,
    pub(crate) conductor: (EntityId, Peer),
    pub(crate) spares: Vec<(EntityId, Peer)>,
    pub(crate) readers: Vec<NodeId>,
    pub(crate) epoch: u64,
    pub(crate) local: LocalTraining,
    pub(crate) norm_clip: Option<f32>,
}

impl<'a> Job<'a> {
    pub(crate) fn rounds(lab: &'a Lab, sites: Vec<SiteAt>, conductor: &Running, rounds: u32) -> Self {
        let n = u32::try_from(sites.len()).unwrap();
        Self {
            lab,
            id: lab.job(),
            chains: (0..n).map(|site| vec![site]).collect(),
            quorum: n,
            sites,
            shuffle: false,
            strategy: Strategy::FedAvg,
            rounds,
            deadline_ms: 20_000,
            conductor: (conductor.entities[0].clone(), conductor.peer()),
            spares: Vec::new(),
            readers: Vec::new(),
            epoch: 1,
            local: local(),
            norm_clip: None,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let kind = if self.chains.len() == 1 {
            PlanKind::Itinerary
        } else {
            PlanKind::Rounds
        };
        let placement = |(entity, peer): &(EntityId, Peer)| Placement {
            entity: entity.clone(),
            node: peer.node,
        };
        let spec = spec();
        Plan {
            id: PlanId::new(1, [0; 10]),
            decision: DecisionId::new(1, [0; 10]),
            request: TrainingRequest {
                model: "digits".parse().unwrap(),
                organisation: "university".parse().unwrap(),
                jurisdiction: "DE".to_owned(),
                purpose: "research".to_owned(),
                architecture: spec.architecture,
                features: spec.features,
                target: spec.target,
                task: spec.task,
                scale: spec.scale,
                offset: spec.offset,
                data: DataFilter::default(),
                training: TrainingParameters {
                    strategy: Some(self.strategy),
                    kind: Some(kind),
                    rounds: self.rounds,
                    local: self.local,
                    quorum: Some(self.quorum),
                    round_deadline_ms: Some(self.deadline_ms),
                    norm_clip: self.norm_clip,
                },
                protections: Vec::new(),
                sla: Sla::default(),
                verification: Verification {
                    metric: Metric::Accuracy,
                    target: 0.9,
                    required: 1,
                    units: None,
                },
                deployment: None,
            },
            made_at: UnixMillis(0),
            valid_until: now().plus(60_000),
            state_version: 1,
            kind,
            strategy: self.strategy,
            rounds: self.rounds,
            sites: self
                .sites
                .iter()
                .map(|site| Site {
                    dataset: site.dataset.clone(),
                    descriptor_version: 1,
                    node: site.peer.node,
                    organisation: site.dataset.organisation.clone(),
                    compute: None,
                    records: site.records,
                    policies: Vec::new(),
                    train_ms: 1,
                    transfer_ms: 1,
                })
                .collect(),
            chains: self.chains.clone(),
            shuffle: self.shuffle,
            quorum: self.quorum,
            round_deadline_ms: self.deadline_ms,
            aggregator: placement(&self.conductor),
            aggregator_spares: self.spares.iter().map(placement).collect(),
            verifiers: Vec::new(),
            hosts: Vec::new(),
            excluded: Vec::new(),
            prediction: Prediction::default(),
            alternatives: Vec::new(),
            why: String::new(),
        }
    }

    pub(crate) fn context(&self) -> UseContext {
        UseContext {
            purpose: "research".to_owned(),
            algorithm: if self.chains.len() == 1 {
                "itinerary"
            } else {
                self.strategy.as_str()
            }
            .to_owned(),
            protections: Vec::new(),
            cohort: u32::try_from(self.sites.len()).unwrap(),
            jurisdiction: "DE".to_owned(),
            recipients: vec!["aggregators".parse().unwrap()],
        }
    }

    /// The order to a site.
    pub(crate) fn train(&self, position: u32) -> WorkOrder {
        let site = &self.sites[position as usize];
        let train = TrainOrder {
            requester: "university".parse().unwrap(),
            dataset: site.dataset.clone(),
            descriptor_version: 1,
            context: self.context(),
            plan: self.plan().hash(),
            spec: spec(),
            local: self.local,
            strategy: self.strategy,
            cycles: self.rounds,
            position,
            conductor: self.conductor.1.clone(),
            peers: self.sites.iter().map(|site| site.peer.clone()).collect(),
            compute: None,
            compute_entity: None,
        };
        let instruction = Instruction::Train(Box::new(train));
        WorkOrder {
            epoch: self.epoch,
            ..self
                .lab
                .work_order(site.peer.node, &site.dataset, Some(&self.id), instruction)
        }
    }

    /// The order to the conductor.
    pub(crate) fn conduct(&self, accepted: &[u32], resume: Option<Resume>) -> WorkOrder {
        let conduct = ConductOrder {
            plan: self.plan(),
            accepted: accepted.to_vec(),
            peers: self.sites.iter().map(|site| site.peer.clone()).collect(),
            resume,
            spares: self.spares.iter().map(|(_, peer)| peer.clone()).collect(),
            readers: self.readers.clone(),
        };
        let instruction = Instruction::Conduct(Box::new(conduct));
        let (entity, peer) = &self.conductor;
        WorkOrder {
            epoch: self.epoch,
            ..self
                .lab
                .work_order(peer.node, entity, Some(&self.id), instruction)
        }
    }

    /// Orders the sites and then the conductor; the conductor's order.
    pub(crate) async fn begin(&self, positions: &[u32]) -> WorkOrder {
        for position in positions {
            let order = self.train(*position);
            self.lab.order(&order).await;
            assert_eq!(self.lab.accepted(&order.id).await, ["research-only"]);
        }
        let order = self.conduct(
            &(0..u32::try_from(self.sites.len()).unwrap()).collect::<Vec<_>>(),
            None,
        );
        self.lab.order(&order).await;
        order
    }

    pub(crate) async fn run(&self) -> (OrderId, TrainingDone) {
        let positions: Vec<u32> = (0..u32::try_from(self.sites.len()).unwrap()).collect();
        let order = self.begin(&positions).await;
        let done = self.lab.training_done(&order.id).await;
        (order.id, done)
    }
}

// ---- an independent reference: the same training as a plain loop over the engine

/// SplitMix64, written out once more (Steele, Lea, Flood 2014).
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn step_seed(seed: u64, cycle: u32, position: u32) -> u64 {
    let mixed = |seed: u64, word: u32| split_mix(split_mix(seed) ^ u64::from(word));
    mixed(mixed(seed, cycle), position)
}

pub(crate) fn table(path: &Path) -> Table {
    data::read(path, &spec()).unwrap()
}

pub(crate) fn local_step(
    parameters: &[f32],
    table: &Table,
    cycle: u32,
    position: u32,
    rule: LocalRule<'_>,
) -> daitn_engine::TrainOutcome {
    let work = Work {
        training: local(),
        seed: step_seed(local().seed, cycle, position),
        rule,
    };
    Builtin
        .train(&spec(), parameters, table, &work, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap()
}

/// Mean of the parameters weighted by examples, in `f64`, in order.
pub(crate) fn mean(updates: &[(u64, Vec<f32>)]) -> Vec<f32> {
    let total: f64 = updates.iter().map(|(n, _)| *n as f64).sum();
    (0..updates[0].1.len())
        .map(|i| {
            let sum: f64 = updates
                .iter()
                .map(|(n, values)| *n as f64 * f64::from(values[i]))
                .sum();
            (sum / total) as f32
        })
        .collect()
}

pub(crate) fn weights_of(parameters: &[f32]) -> ArtifactRef {
    let file = weights::write(parameters, &Builtin.layout(&spec()).unwrap()).unwrap();
    ArtifactRef {
        id: ArtifactId::of(&file),
        bytes: file.len() as u64,
    }
}

pub(crate) fn initial() -> Vec<f32> {
    Builtin.initial(&spec(), local().seed).unwrap()
}

pub(crate) fn accuracy(parameters: &[f32], table: &Table) -> f64 {
    Builtin
        .evaluate(&spec(), parameters, table)
        .unwrap()
        .metric(Metric::Accuracy)
        .unwrap()
}

/// A party that is no node of ours: an endpoint with a store, which answers as a test says.
pub(crate) struct Stranger {
    pub(crate) key: NodeKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) store: Store,
    _directory: TempDir,
}

impl Stranger {
    pub(crate) async fn new(seed: u8) -> Self {
        let key = NodeKey::from_bytes(&[seed; 32]);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), 1 << 30).unwrap();
        let stranger = Self {
            endpoint: endpoint(&key).await,
            key,
            store,
            _directory: directory,
        };
        // Gives everything to everybody; answers no session.
        stranger
            .endpoint
            .serve(Routes::new().artifacts(stranger.store.clone(), Arc::new(|_, _| true)));
        stranger
    }

    pub(crate) async fn put(&self, bytes: Vec<u8>) -> ArtifactRef {
        let n_bytes = bytes.len() as u64;
        ArtifactRef {
            id: self.store.put_bytes(bytes, Durability::Transient).await.unwrap(),
            bytes: n_bytes,
        }
    }

    pub(crate) async fn put_weights(&self, parameters: &[f32]) -> ArtifactRef {
        self.put(weights::write(parameters, &Builtin.layout(&spec()).unwrap()).unwrap())
            .await
    }

    pub(crate) async fn ask(&self, to: &Peer, request: &SessionRequest) -> SessionReply {
        self.endpoint.set_peer(to.clone()).unwrap();
        let connection = self.endpoint.connect(to.node, DATA_ALPN, PATIENCE).await.unwrap();
        connection
            .request(request, FRAME_BYTES_MAX, PATIENCE)
            .await
            .unwrap()
    }
}

/// The parameters that a node gives to a stranger who may have them.
pub(crate) async fn fetched(
    stranger: &Stranger,
    from: &Peer,
    artifact: ArtifactRef,
) -> Result<Vec<f32>, daitn_fabric::artifact::FetchError> {
    stranger.endpoint.set_peer(from.clone()).unwrap();
    let fetch = daitn_fabric::artifact::Fetch::new(artifact, vec![from.node]);
    stranger.endpoint.fetch(&stranger.store, fetch, |_| {}).await?;
    let bytes = stranger.store.read(artifact.id, 1 << 30).await.unwrap();
    Ok(weights::read(&bytes, &Builtin.layout(&spec()).unwrap()).unwrap())
}

/// Datasets of `n` sites on nodes of their own, and an aggregator.
pub(crate) async fn sites(lab: &Lab, n: usize) -> (Vec<Running>, Vec<SiteAt>, Vec<PathBuf>) {
    let (mut nodes, mut sites, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        // 1,797 rows: the last 297 are for verification.
        let path = digits(lab.directory.path(), &format!("site-{i}.csv"), i, n, 1_500 / n);
        let seed = u8::try_from(i + 1).unwrap();
        let node = lab
            .node(
                seed,
                &format!("site-{i}"),
                vec![dataset("digits", &path, PERMIT_RESEARCH)],
            )
            .await;
        sites.push(SiteAt {
            dataset: node.entities[0].clone(),
            peer: node.peer(),
            records: (1_500 / n) as u64,
        });
        nodes.push(node);
        paths.push(path);
    }
    (nodes, sites, paths)
}
