//! A virtual node: what it would have on disk, what it knows while it runs, and a model of each terminal's behaviour.
//!
//! Like the real one it decides on an order once, answers a repeated one with the same receipt, keeps receipts until the
//! center has acknowledged them, and conducts from a journal.

use crate::described;
use daitn_messages::{
    control::{Enrolment, Hello, JoinToken},
    descriptor::{Body, Descriptor},
    ids::{ArtifactId, EntityId, JobId, NodeId, OrderId},
    learning::Evaluation,
    order::{ConductOrder, Instruction, TrainOrder, WorkOrder},
    receipt::{Outcome, Receipt, VerificationReport},
    rejection::{Code, Rejection},
    session::ArtifactRef,
    signed::{NodeKey, Signed},
    units::UnixMillis,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Refuses every order of this kind of scenario by its own policy.
    Refuses,
    /// Takes orders and then does nothing.
    Silent,
    /// A verification unit that never finds the target reached.
    Strict,
    /// A conductor that counts a site twice.
    Cheats,
}

/// What survives a crash.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) orders: BTreeMap<OrderId, Signed<Receipt>>,
    /// Orders that were accepted and have not ended: what a start goes on with.
    pub(crate) accepted: BTreeMap<OrderId, Arc<WorkOrder>>,
    /// Highest epoch seen of a job at a terminal.
    pub(crate) fences: BTreeMap<(JobId, EntityId), u64>,
    pub(crate) outbox: VecDeque<Signed<Receipt>>,
    pub(crate) artifacts: BTreeSet<ArtifactId>,
    /// Answers to training steps, by job, place, cycle and input.
    pub(crate) answers: BTreeMap<(JobId, u32, u32, ArtifactId), ArtifactId>,
    /// A conductor's journal: cycles done and the weights after them.
    pub(crate) journals: BTreeMap<JobId, Journal>,
}

#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) epoch: u64,
    pub(crate) cycles_done: u32,
    pub(crate) global: ArtifactId,
    pub(crate) done: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) id: NodeId,
    pub(crate) token: Option<JoinToken>,
    pub(crate) entities: Vec<EntityId>,
    pub(crate) manner: Manner,
    /// Facilities that train for its datasets; none: the node itself.
    pub(crate) facilities: Vec<EntityId>,
    pub(crate) clock_offset: i64,
    pub(crate) port: u16,
    pub(crate) disk: Durable,
    pub(crate) up: bool,
    pub(crate) gone_for_good: bool,
    pub(crate) enrolled: bool,
    /// Raised at each start, so that what an earlier life began is not believed.
    pub(crate) life: u64,
    pub(crate) connection: Option<u64>,
    pub(crate) attached: BTreeSet<EntityId>,
    /// Requests that wait for the center's answer.
    pub(crate) asked: BTreeMap<u64, Asked>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Hello,
    Attach(EntityId),
    Report,
}

impl Node {
    pub(crate) fn new(index: u64, entities: Vec<EntityId>) -> Self {
        let mut secret = [7u8; 32];
        secret[..8].copy_from_slice(&(index + 1).to_le_bytes());
        let key = NodeKey::from_bytes(&secret);
        Self {
            id: key.id(),
            key,
            token: None,
            entities,
            manner: Manner::Good,
            facilities: Vec::new(),
            clock_offset: 0,
            port: u16::try_from(10_000 + index % 50_000).unwrap(),
            disk: Durable::default(),
            up: true,
            gone_for_good: false,
            enrolled: false,
            life: 0,
            connection: None,
            attached: BTreeSet::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(crate) fn clock(&self, now: u64) -> UnixMillis {
        UnixMillis(now.saturating_add_signed(self.clock_offset))
    }

    pub(crate) fn hello(&self, now: u64) -> Hello {
        let enrolment = self
            .token
            .as_ref()
            .filter(|_| !self.enrolled)
            .map(|token| Enrolment {
                token: token.token.clone(),
                secret: token.secret.clone(),
                name: format!("node-{}", self.port),
            });
        Hello {
            version_min: 1,
            version_max: 1,
            build: "simulated".to_owned(),
            now: self.clock(now),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], self.port))],
            enrolment,
            asks_only: false,
        }
    }

    pub(crate) fn descriptor(&self, entity: &EntityId, version: u64) -> Signed<Descriptor> {
        let policy = "permit (principal, action, resource);";
        let mut descriptor = described::descriptor(entity, version, self.id, policy);
        if let Body::Dataset(dataset) = &mut descriptor.body
            && !self.facilities.is_empty()
        {
            dataset.compute_rate = 0;
            dataset.compute_allowed.clone_from(&self.facilities);
        }
        Signed::seal(&descriptor, &self.key)
    }

    pub(crate) fn receipt(&self, order: &WorkOrder, now: u64, outcome: Outcome) -> Signed<Receipt> {
        let receipt = Receipt {
            order: order.id.clone(),
            job: order.job.clone(),
            epoch: order.epoch,
            node: self.id,
            terminal: order.terminal.clone(),
            at: self.clock(now),
            outcome,
        };
        Signed::seal(&receipt, &self.key)
    }

    /// Takes an order as the real node does; the error goes back to the center unsigned. True where the order is to be
    /// begun.
    pub(crate) fn take(
        &mut self,
        signed: &Signed<WorkOrder>,
        center: NodeId,
        now: u64,
    ) -> Result<Option<Arc<WorkOrder>>, Rejection> {
        let order = signed.open(center)?;
        assert_eq!(order.node, self.id, "an order of another node");
        if let Some(receipt) = self.disk.orders.get(&order.id) {
            self.disk.outbox.push_back(receipt.clone());
            return Ok(None);
        }
        let fence = order.job.clone().map(|job| (job, order.terminal.clone()));
        if !matches!(order.instruction, Instruction::Serve(_))
            && let Some(fence) = &fence
        {
            let seen = self.disk.fences.get(fence).copied().unwrap_or(0);
            if order.epoch < seen {
                return Err(Rejection::new(
                    Code::StaleEpoch,
                    format!("{} < {seen}", order.epoch),
                ));
            }
        }
        let refusal = match &order.instruction {
            Instruction::Stop { .. } => None,
            _ if !self.entities.contains(&order.terminal) => {
                Some(Rejection::not_found("terminal", &order.terminal))
            }
            Instruction::Train(_) | Instruction::Compute(_) if self.manner == Manner::Refuses => Some(
                Rejection::new(Code::PolicyForbids, "no rule of the owner permits it"),
            ),
            _ => None,
        };
        let outcome = match (&order.instruction, refusal) {
            (Instruction::Stop { order: target }, _) => {
                self.disk.accepted.remove(target);
                Outcome::Stopped
            }
            (_, Some(rejection)) => Outcome::Refused(rejection),
            (_, None) => Outcome::Accepted {
                policies: vec!["policy0".to_owned()],
            },
        };
        let accepted = matches!(outcome, Outcome::Accepted { .. });
        let receipt = self.receipt(&order, now, outcome);
        let order = Arc::new(order);
        self.disk.orders.insert(order.id.clone(), receipt.clone());
        if let (Some(fence), true) = (
            fence,
            accepted && !matches!(order.instruction, Instruction::Serve(_)),
        ) {
            let seen = self.disk.fences.entry(fence).or_default();
            *seen = (*seen).max(order.epoch);
        }
        if accepted && self.manner == Manner::Silent && !matches!(order.instruction, Instruction::Serve(_)) {
            // Takes it, tells nobody, does nothing.
            return Ok(None);
        }
        if accepted {
            self.disk.accepted.insert(order.id.clone(), order.clone());
        }
        self.disk.outbox.push_back(receipt);
        Ok(accepted.then_some(order))
    }

    /// Whether it has signed that it accepts an order.
    pub(crate) fn has_accepted(&self, order: &OrderId) -> bool {
        let receipt = self
            .disk
            .orders
            .get(order)
            .map(|signed| signed.open(self.id).unwrap());
        receipt.is_some_and(|receipt| matches!(receipt.outcome, Outcome::Accepted { .. }))
    }

    /// Whether it trains for a dataset in this job.
    pub(crate) fn computes_for(&self, job: &JobId, dataset: &EntityId) -> bool {
        self.disk.accepted.values().any(|order| match &order.instruction {
            Instruction::Compute(compute) => order.job.as_ref() == Some(job) && compute.dataset == *dataset,
            _ => false,
        })
    }

    /// The newest accepted order to train at a place.
    pub(crate) fn train_order(&self, job: &JobId, position: u32) -> Option<(Arc<WorkOrder>, TrainOrder)> {
        let of_place = self
            .disk
            .accepted
            .values()
            .filter_map(|order| match &order.instruction {
                Instruction::Train(train)
                    if order.job.as_ref() == Some(job) && train.position == position =>
                {
                    Some((order.clone(), train.as_ref().clone()))
                }
                _ => None,
            });
        of_place.max_by_key(|(order, _)| order.epoch)
    }

    /// The newest accepted order to conduct a job.
    pub(crate) fn conduct_order(&self, job: &JobId) -> Option<(Arc<WorkOrder>, ConductOrder)> {
        let of_job = self
            .disk
            .accepted
            .values()
            .filter_map(|order| match &order.instruction {
                Instruction::Conduct(conduct) if order.job.as_ref() == Some(job) => {
                    Some((order.clone(), conduct.as_ref().clone()))
                }
                _ => None,
            });
        of_job.max_by_key(|(order, _)| order.epoch)
    }

    pub(crate) fn verification(&self, order: &WorkOrder, accuracy: f64) -> Outcome {
        let Instruction::Verify(verify) = &order.instruction else {
            panic!("not an order to verify")
        };
        let value = if self.manner == Manner::Strict {
            0.0
        } else {
            accuracy
        };
        Outcome::Verified(Box::new(VerificationReport {
            weights: verify.weights.id,
            evaluation: Evaluation {
                n_examples: 100,
                loss: 0.1,
                metrics: vec![(verify.metric, value)],
                confusion: vec![vec![50, 0], vec![0, 50]],
            },
            metric: verify.metric,
            target: verify.target,
            reached: value >= verify.target,
        }))
    }
}

/// What stands for an artifact: its name, and a size.
pub(crate) fn artifact(id: ArtifactId) -> ArtifactRef {
    ArtifactRef { id, bytes: 10_000 }
}

/// The weights that follow from others and from what was added to them.
pub(crate) fn follow(from: ArtifactId, what: &str, parts: &[ArtifactId]) -> ArtifactId {
    let mut bytes = from.0.to_vec();
    bytes.extend_from_slice(what.as_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(&part.0));
    ArtifactId::of(&bytes)
}
