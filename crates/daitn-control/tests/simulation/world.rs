//! The world of a simulation: virtual time, what is on its way, and the chance that things go wrong.

use crate::{
    center::{Center, Death},
    chance::Chance,
    checks::Truth,
    node::{Manner, Node},
    operator::Deed,
    scenario::Scenario,
};
use daitn_control::core::{ConnectionId, Effect, Event, RequestId, Timer};
use daitn_messages::{
    control::{CenterMessage, Hello, JoinToken, NodeMessage, NodeReply},
    ids::{EntityId, JobId, NodeId, OrderId, PlanId},
    operation::{Answer, NewToken, Operation, Principal},
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
    Deed(Deed),
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
    /// What the operator waits to be acknowledged.
    pub(crate) deeds: BTreeMap<RequestId, Deed>,
    pub(crate) admin: Principal,
    pub(crate) truth: Truth,
    /// Requests of nodes that the center has not answered: who, on which connection, which.
    pub(crate) pending: BTreeMap<RequestId, (usize, u64, u64)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    pub(crate) sequence: u64,
    pub(crate) next_connection: u64,
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
            deeds: BTreeMap::new(),
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
            ("compute", scenario.n_facilities),
            ("dataset", scenario.n_sites),
        ];
        let mut facilities = Vec::new();
        for (kind, count) in kinds {
            for n in 0..count {
                let organisation = format!("org-{}", n % 5);
                let entity: EntityId = format!("{kind}:{organisation}/{kind}-{n}").parse().unwrap();
                if kind == "compute" {
                    facilities.push(entity.clone());
                }
                let mut node = Node::new(self.nodes.len() as u64, vec![entity]);
                if kind == "dataset" && n % 2 == 1 {
                    node.facilities.clone_from(&facilities);
                }
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
        self.plan_deeds();
    }

    fn draw_manner(&mut self, kind: &str) -> Manner {
        match (kind, self.chance.between(0, 8)) {
            ("dataset" | "compute", 0) => Manner::Refuses,
            ("dataset" | "verifier" | "compute", 1) => Manner::Silent,
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

    pub(crate) fn at(&mut self, moment: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((moment.max(self.now), self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    pub(crate) fn faulty(&mut self, per_million: u64) -> bool {
        self.now < FAULTS_END && self.chance.happens(per_million)
    }

    pub(crate) fn latency(&mut self) -> u64 {
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
            Happening::Deed(deed) => self.deed(deed),
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
        let n_events = self.center.n_events;
        let absence = self.scenario.absence.filter(|(at, _)| *at == n_events);
        let death = death.or(absence.map(|_| Death::AfterCommit));
        let effects = self.center.take(event, self.now, death);
        self.release(effects);
        if was_up && self.center.core.is_none() {
            let away_ms = match absence {
                Some((_, ms)) => ms,
                None => self.chance.between(100, 20 * SECOND),
            };
            self.center_died(away_ms);
        } else {
            self.check_core();
        }
    }

    fn center_died(&mut self, away_ms: u64) {
        self.n_center_deaths += 1;
        self.center.disk.cut();
        self.center.timers.clear();
        self.center.connections.clear();
        self.pending.clear();
        self.after(away_ms, Happening::CenterStarts);
        for node in 0..self.nodes.len() {
            if self.nodes[node].connection.is_some() {
                self.forget_connection(node);
            }
        }
        self.repeat_deeds();
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
        assert!(
            !matches!(message, CenterMessage::Order(_)) || !self.truth.revoked.contains_key(&node),
            "failure 14: an order to {node}"
        );
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

    /// Whether nothing is left to happen: all faults are over and every process has come to rest.
    fn is_over(&mut self) -> bool {
        // Looking costs something: not at every step.
        self.n_happenings.is_multiple_of(64)
            && self.now > FAULTS_END
            && self.center.core.is_some()
            && self.is_at_rest()
    }
}
