//! The world of a simulation: virtual time, what is on its way, and the chance that things go wrong.

use crate::{
    center::{Center, Death},
    chance::Chance,
    checks::Truth,
    node::{Asked, Manner, Node},
};
use daitn_control::core::{ConnectionId, Effect, Event, RequestId, Timer};
use daitn_messages::{
    control::{Accepted, CenterMessage, Hello, JoinToken, NodeMessage, NodeReply},
    ids::{EntityId, JobId, NodeId, OrderId, PlanId},
    learning::{Architecture, LocalTraining, Metric, Strategy, Task},
    operation::{Answer, NewToken, Operation, Principal},
    plan::Verdict,
    rejection::{Code, Rejection},
    request::{Deployment, PlanKind, Sla, TrainingParameters, TrainingRequest, Verification},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// One second of virtual time.
pub(crate) const SECOND: u64 = 1_000;
/// Where virtual time begins: some day in 2026.
const BEGIN: u64 = 1_790_000_000_000;
/// No fault begins after this time.
const FAULTS_END: u64 = BEGIN + 240 * SECOND;
/// Everything must have come to its end here.
const HORIZON: u64 = BEGIN + 3 * 3_600 * SECOND;
/// Happenings of one run, per node.
const HAPPENINGS_PER_NODE_MAX: u64 = 40_000;

/// How often things go wrong, in a million.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) message_lost: u64,
    pub(crate) message_twice: u64,
    pub(crate) center_dies: u64,
    pub(crate) node_dies: u64,
    pub(crate) node_dies_for_good: u64,
    pub(crate) latency_max: u64,
    pub(crate) odd_manners: bool,
    pub(crate) skewed_clocks: bool,
    pub(crate) client_stops: bool,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        message_lost: 0,
        message_twice: 0,
        center_dies: 0,
        node_dies: 0,
        node_dies_for_good: 0,
        latency_max: 20,
        odd_manners: false,
        skewed_clocks: false,
        client_stops: false,
    };
}

/// Who is there and what is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) faults: Faults,
    pub(crate) n_sites: u64,
    pub(crate) n_aggregators: u64,
    pub(crate) n_verifiers: u64,
    pub(crate) n_hosts: u64,
    pub(crate) n_jobs: u64,
    pub(crate) rounds: u32,
    pub(crate) required: u32,
    pub(crate) replicas: u32,
    pub(crate) kind: Option<PlanKind>,
}

impl Scenario {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5ce0_a110);
        let n_verifiers = chance.between(1, 4);
        let n_hosts = chance.between(1, 5);
        let violence = chance.between(0, 4);
        Self {
            faults: Faults {
                message_lost: violence * chance.between(0, 30_000),
                message_twice: violence * chance.between(0, 60_000),
                center_dies: violence * chance.between(0, 6_000),
                node_dies: violence * chance.between(0, 2_000),
                node_dies_for_good: violence * chance.between(0, 60_000),
                latency_max: chance.between(2, 2_000),
                odd_manners: chance.happens(400_000),
                skewed_clocks: chance.happens(300_000),
                client_stops: chance.happens(100_000),
            },
            n_sites: chance.between(2, 7),
            n_aggregators: chance.between(1, 4),
            n_verifiers,
            n_hosts,
            n_jobs: chance.between(1, 3),
            rounds: u32::try_from(chance.between(1, 5)).unwrap(),
            required: u32::try_from(chance.between(1, n_verifiers + 1)).unwrap(),
            replicas: u32::try_from(chance.between(0, n_hosts + 1)).unwrap(),
            kind: [
                None,
                Some(PlanKind::Rounds),
                Some(PlanKind::Itinerary),
                Some(PlanKind::Hybrid),
            ][usize::try_from(chance.between(0, 4)).unwrap()],
        }
    }

    pub(crate) fn large(n_nodes: u64) -> Self {
        Self {
            faults: Faults::NONE,
            n_sites: n_nodes - 6,
            n_aggregators: 2,
            n_verifiers: 2,
            n_hosts: 2,
            n_jobs: 1,
            rounds: 2,
            required: 2,
            replicas: 2,
            kind: Some(PlanKind::Rounds),
        }
    }
}

/// What happens at a moment.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Connect {
        node: usize,
        life: u64,
    },
    Lost {
        node: NodeId,
        connection: ConnectionId,
    },
    ToCenter {
        node: usize,
        connection: u64,
        id: u64,
        wire: Box<Wire>,
    },
    ToNode {
        node: usize,
        connection: u64,
        message: Box<CenterMessage>,
    },
    Answer {
        node: usize,
        connection: u64,
        id: u64,
        reply: Box<NodeReply>,
    },
    GiveUp {
        node: usize,
        connection: u64,
        id: u64,
    },
    Conduct {
        node: usize,
        life: u64,
        job: JobId,
        tries: u32,
    },
    Verify {
        node: usize,
        life: u64,
        order: OrderId,
        tries: u32,
    },
    Serve {
        node: usize,
        life: u64,
        order: OrderId,
        tries: u32,
    },
    NodeStarts(usize),
    CenterStarts,
    Timer(Timer, u64),
    Client {
        job: usize,
    },
    ClientStops {
        job: usize,
    },
}

/// What a node says.
#[derive(Debug, Clone)]
pub(crate) enum Wire {
    Hello(Hello),
    Message(NodeMessage),
}

/// What the client of one job is at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    pub(crate) plan: Option<PlanId>,
    pub(crate) job: Option<JobId>,
    /// Waits for an answer to this.
    pub(crate) asked: Option<RequestId>,
    pub(crate) tries: u32,
    pub(crate) gave_up: bool,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) center: Center,
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: BTreeMap<NodeId, usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) admin: Principal,
    pub(crate) truth: Truth,
    /// Requests of nodes that the center has not answered: who, on which connection, which.
    pending: BTreeMap<RequestId, (usize, u64, u64)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    sequence: u64,
    next_connection: u64,
    pub(crate) trace: blake3::Hasher,
    pub(crate) n_happenings: u64,
    pub(crate) n_center_deaths: u64,
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario) -> Self {
        let mut center = Center::new(seed);
        center.start(BEGIN);
        let admin = center.bootstrap(BEGIN);
        let mut world = Self {
            now: BEGIN,
            chance: Chance::new(seed),
            center,
            nodes: Vec::new(),
            index: BTreeMap::new(),
            clients: vec![Client::default(); usize::try_from(scenario.n_jobs).unwrap()],
            scenario,
            admin,
            truth: Truth::default(),
            pending: BTreeMap::new(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            sequence: 0,
            next_connection: 0,
            trace: blake3::Hasher::new(),
            n_happenings: 0,
            n_center_deaths: 0,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let scenario = self.scenario.clone();
        let kinds = [
            ("aggregator", scenario.n_aggregators),
            ("verifier", scenario.n_verifiers),
            ("model-host", scenario.n_hosts),
            ("dataset", scenario.n_sites),
        ];
        for (kind, count) in kinds {
            for n in 0..count {
                let organisation = format!("org-{}", n % 5);
                let entity: EntityId = format!("{kind}:{organisation}/{kind}-{n}").parse().unwrap();
                let mut node = Node::new(self.nodes.len() as u64, vec![entity]);
                node.token = Some(self.make_token(&organisation));
                if scenario.faults.odd_manners {
                    node.manner = self.draw_manner(kind);
                }
                if scenario.faults.skewed_clocks {
                    let minutes = i64::try_from(self.chance.between(0, 11)).unwrap() - 5;
                    // Five minutes are allowed; a second more is not.
                    node.clock_offset = minutes * 60_000
                        + minutes.signum() * if self.chance.happens(100_000) { 1_000 } else { 0 };
                    node.clock_offset = node.clock_offset.clamp(-301_000, 301_000);
                }
                self.index.insert(node.id, self.nodes.len());
                self.nodes.push(node);
            }
        }
        for node in 0..self.nodes.len() {
            let wait = self.chance.between(0, 2 * SECOND);
            self.after(wait, Happening::Connect { node, life: 0 });
        }
        for job in 0..self.clients.len() {
            let wait = self.chance.between(5 * SECOND, 30 * SECOND);
            self.after(wait, Happening::Client { job });
            if self.scenario.faults.client_stops {
                let wait = self.chance.between(20 * SECOND, 90 * SECOND);
                self.after(wait, Happening::ClientStops { job });
            }
        }
    }

    fn draw_manner(&mut self, kind: &str) -> Manner {
        match (kind, self.chance.between(0, 8)) {
            ("dataset", 0) => Manner::Refuses,
            ("dataset" | "verifier", 1) => Manner::Silent,
            ("verifier", 2) => Manner::Strict,
            ("aggregator", 0) => Manner::Cheats,
            ("aggregator", 1) => Manner::Silent,
            _ => Manner::Good,
        }
    }

    fn make_token(&mut self, organisation: &str) -> JoinToken {
        let new = NewToken {
            organisation: organisation.parse().unwrap(),
            terminals: Vec::new(),
            uses: 1,
            valid_ms: 24 * 3_600 * SECOND,
        };
        let answer = self
            .center
            .ask(&self.admin, Operation::CreateToken(new), self.now)
            .unwrap();
        let Answer::Token(token) = answer else {
            panic!("a token was asked for")
        };
        self.truth.tokens.insert(token.token.clone());
        JoinToken::from_text(&token.text).unwrap()
    }

    pub(crate) fn after(&mut self, wait: u64, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn at(&mut self, moment: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((moment.max(self.now), self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    pub(crate) fn faulty(&mut self, per_million: u64) -> bool {
        self.now < FAULTS_END && self.chance.happens(per_million)
    }

    fn latency(&mut self) -> u64 {
        self.chance.between(1, self.scenario.faults.latency_max + 2)
    }

    /// Runs to the horizon, or until nothing but housekeeping is left.
    pub(crate) fn run(&mut self) {
        let bound = HAPPENINGS_PER_NODE_MAX * self.nodes.len() as u64;
        while let Some(Reverse((moment, sequence))) = self.queue.pop() {
            if moment > HORIZON {
                break;
            }
            let happening = self.happenings.remove(&sequence).unwrap();
            self.now = moment;
            self.n_happenings += 1;
            assert!(
                self.n_happenings < bound,
                "failure 12: {bound} happenings and no end: {happening:?}"
            );
            self.trace.update(&moment.to_le_bytes());
            self.trace.update(format!("{happening:?}").as_bytes());
            self.happen(happening);
            if self.nodes.len() < 1_000 && (self.chance.happens(2_000) || self.n_happenings == 500) {
                self.compare_with_records();
            }
            if self.is_over() {
                break;
            }
        }
        if self.center.core.is_none() {
            self.happen(Happening::CenterStarts);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect { node, life } => self.connect(node, life),
            Happening::Lost { node, connection } => {
                self.center
                    .connections
                    .retain(|n, c| *n != node || *c != connection);
                self.tell_core(Event::Gone { node, connection });
            }
            Happening::ToCenter {
                node,
                connection,
                id,
                wire,
            } => self.arrive(node, connection, id, *wire),
            Happening::ToNode {
                node,
                connection,
                message,
            } => self.deliver(node, connection, *message),
            Happening::Answer {
                node,
                connection,
                id,
                reply,
            } => self.answered(node, connection, id, *reply),
            Happening::GiveUp { node, connection, id } => {
                if self.nodes[node].connection == Some(connection) && self.nodes[node].asked.contains_key(&id)
                {
                    self.break_off(node);
                }
            }
            Happening::Conduct {
                node,
                life,
                job,
                tries,
            } => self.conduct(node, life, &job, tries),
            Happening::Verify {
                node,
                life,
                order,
                tries,
            } => self.verify(node, life, &order, tries),
            Happening::Serve {
                node,
                life,
                order,
                tries,
            } => self.serve(node, life, &order, tries),
            Happening::NodeStarts(node) => self.node_starts(node),
            Happening::CenterStarts => {
                if self.center.core.is_none() {
                    let effects = self.center.start(self.now);
                    self.release(effects);
                }
            }
            Happening::Timer(timer, at) => {
                if self.center.core.is_some() && self.center.timers.get(&timer) == Some(&at) {
                    self.center.timers.remove(&timer);
                    self.tell_core(Event::Timer(timer));
                }
            }
            Happening::Client { job } => self.client(job),
            Happening::ClientStops { job } => self.client_stops(job),
        }
    }

    /// Gives the core an event, which it may not survive.
    pub(crate) fn tell_core(&mut self, event: Event) {
        let rate = self.scenario.faults.center_dies;
        let death = self.faulty(rate).then(|| match self.chance.between(0, 4) {
            0 => Death::BeforeCommit,
            1 => Death::AfterCommit,
            n => Death::AfterEffects(usize::try_from(self.chance.between(0, 3 * n)).unwrap()),
        });
        let was_up = self.center.core.is_some();
        let effects = self.center.take(event, self.now, death);
        self.release(effects);
        if was_up && self.center.core.is_none() {
            self.center_died();
        } else {
            self.check_core();
        }
    }

    fn center_died(&mut self) {
        self.n_center_deaths += 1;
        self.center.timers.clear();
        self.center.connections.clear();
        self.pending.clear();
        let wait = self.chance.between(100, 20 * SECOND);
        self.after(wait, Happening::CenterStarts);
        for node in 0..self.nodes.len() {
            if self.nodes[node].connection.is_some() {
                self.forget_connection(node);
            }
        }
        for job in 0..self.clients.len() {
            if self.clients[job].asked.take().is_some() {
                let wait = self.chance.between(SECOND, 10 * SECOND);
                self.after(wait, Happening::Client { job });
            }
        }
    }

    /// Lets effects out.
    fn release(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.trace.update(format!("{effect:?}").as_bytes());
            match effect {
                Effect::ReplyNode { request, reply } => self.reply_to_node(request, reply),
                Effect::Reply { request, result } => self.reply_to_client(request, result),
                Effect::Send { node, message } => self.send(node, *message),
                Effect::Disconnect { node } => {
                    if let Some(index) = self.index.get(&node).copied() {
                        self.break_off(index);
                    }
                }
                Effect::Arm { timer, at } => {
                    let due = self.center.arm(timer, at);
                    self.at(at.0, due);
                }
                Effect::JobEvent { job, event } => self.truth.saw_event(&job, &event),
                _ => {}
            }
        }
    }

    fn reply_to_node(&mut self, request: RequestId, reply: NodeReply) {
        let Some((node, connection, id)) = self.pending.remove(&request) else {
            return;
        };
        if self.nodes[node].connection != Some(connection) {
            return;
        }
        let rate = self.scenario.faults.message_lost;
        if self.faulty(rate) {
            // Nobody knows whether it was taken: the connection ends.
            self.break_off(node);
            return;
        }
        let wait = self.latency();
        self.after(
            wait,
            Happening::Answer {
                node,
                connection,
                id,
                reply: Box::new(reply),
            },
        );
    }

    fn send(&mut self, node: NodeId, message: CenterMessage) {
        let Some(index) = self.index.get(&node).copied() else {
            return;
        };
        let Some(connection) = self.nodes[index].connection else {
            return;
        };
        if self.center.connections.get(&node) != Some(&ConnectionId(connection)) {
            return;
        }
        let rate = self.scenario.faults.message_lost;
        if self.faulty(rate) {
            self.break_off(index);
            return;
        }
        let rate = self.scenario.faults.message_twice;
        if self.faulty(rate) {
            let wait = self.latency();
            let message = Box::new(message.clone());
            self.after(
                wait,
                Happening::ToNode {
                    node: index,
                    connection,
                    message,
                },
            );
        }
        let wait = self.latency();
        self.after(
            wait,
            Happening::ToNode {
                node: index,
                connection,
                message: Box::new(message),
            },
        );
    }

    // ---- Connections ----

    fn connect(&mut self, index: usize, life: u64) {
        let node = &self.nodes[index];
        if !node.up || node.life != life || node.connection.is_some() {
            return;
        }
        if self.center.core.is_none() {
            self.after(SECOND, Happening::Connect { node: index, life });
            return;
        }
        self.next_connection += 1;
        let connection = self.next_connection;
        let hello = self.nodes[index].hello(self.now);
        let node = &mut self.nodes[index];
        node.connection = Some(connection);
        node.asked.clear();
        node.attached.clear();
        self.ask_center(index, Asked::Hello, Wire::Hello(hello));
    }

    /// A connection ends: the node dials again, the center notices later.
    pub(crate) fn break_off(&mut self, index: usize) {
        let Some(connection) = self.nodes[index].connection else {
            return;
        };
        let node = self.nodes[index].id;
        self.forget_connection(index);
        let wait = self.chance.between(1, 5 * SECOND);
        self.after(
            wait,
            Happening::Lost {
                node,
                connection: ConnectionId(connection),
            },
        );
    }

    fn forget_connection(&mut self, index: usize) {
        let wait = self.chance.between(50, 4 * SECOND);
        let node = &mut self.nodes[index];
        node.connection = None;
        node.asked.clear();
        let life = node.life;
        if node.up {
            self.after(wait, Happening::Connect { node: index, life });
        }
    }

    fn ask_center(&mut self, index: usize, asked: Asked, wire: Wire) {
        let Some(connection) = self.nodes[index].connection else {
            return;
        };
        self.sequence += 1;
        let id = self.sequence;
        self.nodes[index].asked.insert(id, asked);
        let (lost, twice) = (
            self.scenario.faults.message_lost,
            self.scenario.faults.message_twice,
        );
        if !self.faulty(lost) {
            if self.faulty(twice) {
                let wait = self.latency() * 2;
                let wire = Box::new(wire.clone());
                self.after(
                    wait,
                    Happening::ToCenter {
                        node: index,
                        connection,
                        id,
                        wire,
                    },
                );
            }
            let wait = self.latency();
            self.after(
                wait,
                Happening::ToCenter {
                    node: index,
                    connection,
                    id,
                    wire: Box::new(wire),
                },
            );
        }
        self.after(
            30 * SECOND,
            Happening::GiveUp {
                node: index,
                connection,
                id,
            },
        );
    }

    fn arrive(&mut self, index: usize, connection: u64, id: u64, wire: Wire) {
        // What was on its way when the connection broke may still arrive; only its answer finds nobody.
        if self.center.core.is_none() {
            return;
        }
        let request = self.center.request();
        let node = self.nodes[index].id;
        self.pending.insert(request, (index, connection, id));
        match wire {
            Wire::Hello(hello) => {
                if self.nodes[index].connection != Some(connection) {
                    return;
                }
                self.center.connections.insert(node, ConnectionId(connection));
                let connection = ConnectionId(connection);
                self.tell_core(Event::Hello {
                    request,
                    node,
                    connection,
                    hello: Box::new(hello),
                });
            }
            Wire::Message(message) => self.tell_core(Event::Message {
                request,
                node,
                message,
            }),
        }
    }

    fn answered(&mut self, index: usize, connection: u64, id: u64, reply: NodeReply) {
        if self.nodes[index].connection != Some(connection) || !self.nodes[index].up {
            return;
        }
        let Some(asked) = self.nodes[index].asked.remove(&id) else {
            return;
        };
        match (asked, reply) {
            (Asked::Hello, Ok(Accepted::Welcome(_))) => {
                let node = &mut self.nodes[index];
                node.enrolled = true;
                self.truth.enrolled.insert(node.id);
                for entity in node.entities.clone() {
                    let message = NodeMessage::Attach(self.nodes[index].descriptor(&entity, 1));
                    self.ask_center(index, Asked::Attach(entity), Wire::Message(message));
                }
                self.pump(index);
            }
            (Asked::Hello, Err(rejection)) => {
                if rejection.code == Code::ClockSkew {
                    assert!(
                        self.nodes[index].clock_offset.unsigned_abs() > 299_000,
                        "{rejection}"
                    );
                    // Somebody sets the clock.
                    self.nodes[index].clock_offset = 0;
                } else {
                    panic!("a node was not welcome: {rejection}");
                }
                self.break_off(index);
            }
            (Asked::Attach(entity), Ok(_)) => {
                self.truth.attached.insert(entity.clone());
                self.nodes[index].attached.insert(entity);
            }
            (Asked::Attach(_), Err(rejection)) => panic!("a descriptor was refused: {rejection}"),
            (Asked::Report, reply) => {
                if let Err(rejection) = reply {
                    let expected = matches!(rejection.code, Code::StaleEpoch)
                        || (rejection.code == Code::Malformed && self.nodes[index].manner == Manner::Cheats);
                    assert!(expected, "a receipt was refused: {rejection}");
                }
                self.nodes[index].disk.outbox.pop_front();
                self.pump(index);
            }
            (Asked::Hello, Ok(Accepted::Done)) => panic!("a greeting is answered by a welcome"),
        }
    }

    /// Sends what is oldest in the outbox, one at a time.
    pub(crate) fn pump(&mut self, index: usize) {
        let node = &self.nodes[index];
        let is_greeted =
            node.connection.is_some() && !node.asked.values().any(|asked| *asked == Asked::Hello);
        let is_busy = node.asked.values().any(|asked| *asked == Asked::Report);
        if !node.up || !is_greeted || is_busy || !node.enrolled {
            return;
        }
        assert!(node.disk.outbox.len() < 1_000, "failure 12: an outbox grows");
        if let Some(receipt) = node.disk.outbox.front().cloned() {
            self.ask_center(index, Asked::Report, Wire::Message(NodeMessage::Report(receipt)));
        }
    }

    // ---- Deaths and starts ----

    pub(crate) fn maybe_die(&mut self, index: usize) {
        let (rate, for_good) = (
            self.scenario.faults.node_dies,
            self.scenario.faults.node_dies_for_good,
        );
        if !self.nodes[index].up || !self.faulty(rate) {
            return;
        }
        let stays_dead = self.chance.happens(for_good);
        if self.nodes[index].connection.is_some() {
            self.break_off(index);
        }
        let node = &mut self.nodes[index];
        node.up = false;
        node.gone_for_good = stays_dead;
        node.life += 1;
        if !stays_dead {
            let wait = self.chance.between(100, 60 * SECOND);
            self.after(wait, Happening::NodeStarts(index));
        }
    }

    fn node_starts(&mut self, index: usize) {
        self.nodes[index].up = true;
        let life = self.nodes[index].life;
        self.after(10, Happening::Connect { node: index, life });
        let orders: Vec<_> = self.nodes[index].disk.accepted.values().cloned().collect();
        for order in orders {
            self.begin(index, &order);
        }
    }

    // ---- Clients ----

    fn client(&mut self, job: usize) {
        let client = &self.clients[job];
        if client.job.is_some() || client.asked.is_some() || client.gave_up {
            return;
        }
        if self.center.core.is_none() {
            self.after(5 * SECOND, Happening::Client { job });
            return;
        }
        if client.tries > 200 {
            self.clients[job].gave_up = true;
            return;
        }
        let operation = match &client.plan {
            None => Operation::Plan(Box::new(self.request(job))),
            Some(plan) => Operation::Apply {
                plan: plan.clone(),
                idempotency_key: Some(format!("job-{job}")),
            },
        };
        let request = self.center.request();
        self.clients[job].asked = Some(request);
        self.clients[job].tries += 1;
        let principal = self.admin.clone();
        self.tell_core(Event::Operation {
            request,
            principal,
            operation: Box::new(operation),
        });
    }

    fn reply_to_client(&mut self, request: RequestId, result: Result<Answer, Rejection>) {
        let Some(job) = self
            .clients
            .iter()
            .position(|client| client.asked == Some(request))
        else {
            return;
        };
        self.clients[job].asked = None;
        match result {
            Ok(Answer::Verdict(verdict)) => match *verdict {
                Verdict::Feasible { plan } => {
                    self.truth.planned(&plan);
                    self.clients[job].plan = Some(plan.id.clone());
                    let wait = self.chance.between(1, 10 * SECOND);
                    self.after(wait, Happening::Client { job });
                }
                Verdict::Infeasible { .. } => self.after(20 * SECOND, Happening::Client { job }),
            },
            Ok(Answer::Job(view)) => {
                self.truth.accepted(job, &view);
                self.clients[job].job = Some(view.id.clone());
            }
            Ok(other) => panic!("another answer was asked for: {other:?}"),
            Err(rejection) => {
                assert!(
                    matches!(rejection.code, Code::StalePlan | Code::NotFound | Code::Conflict),
                    "a client was refused: {rejection}"
                );
                self.clients[job].plan = None;
                self.after(5 * SECOND, Happening::Client { job });
            }
        }
    }

    fn client_stops(&mut self, job: usize) {
        let Some(id) = self.clients[job].job.clone() else {
            return;
        };
        if self.center.core.is_none() {
            self.after(5 * SECOND, Happening::ClientStops { job });
            return;
        }
        let request = self.center.request();
        let principal = self.admin.clone();
        self.tell_core(Event::Operation {
            request,
            principal,
            operation: Box::new(Operation::StopJob(id)),
        });
    }

    fn request(&self, job: usize) -> TrainingRequest {
        TrainingRequest {
            model: format!("model-{job}").parse().unwrap(),
            organisation: "operator".parse().unwrap(),
            jurisdiction: "DE".to_owned(),
            purpose: "research".to_owned(),
            architecture: Architecture::Linear,
            features: vec!["x".to_owned(), "y".to_owned()],
            target: "label".to_owned(),
            task: Task::Classification {
                classes: vec!["no".to_owned(), "yes".to_owned()],
            },
            scale: 1.0,
            offset: 0.0,
            data: daitn_messages::request::DataFilter::default(),
            training: TrainingParameters {
                strategy: Some(Strategy::FedAvg),
                kind: self.scenario.kind,
                rounds: self.scenario.rounds,
                local: LocalTraining {
                    epochs: 1,
                    batch_size: 32,
                    learning_rate: 0.1,
                    seed: 7,
                },
                quorum: None,
                round_deadline_ms: Some(20 * SECOND),
                norm_clip: None,
            },
            protections: Vec::new(),
            sla: Sla::default(),
            verification: Verification {
                metric: Metric::Accuracy,
                target: 0.9,
                required: self.scenario.required,
                units: None,
            },
            deployment: (self.scenario.replicas > 0).then_some(Deployment {
                replicas: self.scenario.replicas,
            }),
        }
    }

    /// Whether nothing is left to happen: all faults are over and every process has come to rest.
    fn is_over(&mut self) -> bool {
        // Looking costs something: not at every step.
        self.n_happenings.is_multiple_of(64)
            && self.now > FAULTS_END
            && self.center.core.is_some()
            && self.is_at_rest()
    }
}
