//! Connections between nodes and the center, what is asked over them, and the deaths and starts of nodes.

use crate::{
    node::{Asked, Manner},
    world::{Happening, SECOND, Wire, World},
};
use daitn_control::core::{ConnectionId, Event};
use daitn_messages::{
    control::{Accepted, NodeMessage, NodeReply},
    rejection::Code,
};

impl World {
    pub(crate) fn connect(&mut self, index: usize, life: u64) {
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

    pub(crate) fn forget_connection(&mut self, index: usize) {
        let wait = self.chance.between(50, 4 * SECOND);
        let node = &mut self.nodes[index];
        node.connection = None;
        node.asked.clear();
        let life = node.life;
        if node.up {
            self.after(wait, Happening::Connect { node: index, life });
        }
    }

    pub(crate) fn ask_center(&mut self, index: usize, asked: Asked, wire: Wire) {
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

    pub(crate) fn arrive(&mut self, index: usize, connection: u64, id: u64, wire: Wire) {
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

    pub(crate) fn answered(&mut self, index: usize, connection: u64, id: u64, reply: NodeReply) {
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
                    self.truth.clocks_refused += 1;
                    // Somebody sets the clock.
                    self.nodes[index].clock_offset = 0;
                    self.break_off(index);
                } else if rejection.code == Code::NotEnrolled {
                    self.thrown_out(index);
                } else {
                    panic!("a node was not welcome: {rejection}");
                }
            }
            (Asked::Attach(entity), Ok(_)) => {
                self.truth.attached.insert(entity.clone());
                self.nodes[index].attached.insert(entity);
            }
            (_, Err(rejection)) if rejection.code == Code::NotEnrolled => self.thrown_out(index),
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

    pub(crate) fn node_starts(&mut self, index: usize) {
        self.nodes[index].up = true;
        let life = self.nodes[index].life;
        self.after(10, Happening::Connect { node: index, life });
        let orders: Vec<_> = self.nodes[index].disk.accepted.values().cloned().collect();
        for order in orders {
            self.begin(index, &order);
        }
    }
}
