//! Work orders: signed, sent until they are answered, and known by their id as long as their process lives.

use crate::{
    core::{Core, event::RequestId, turn::Turn},
    limits::ORDER_VALID_MS,
};
use daitn_messages::{
    control::CenterMessage,
    ids::{ArtifactId, DeploymentId, EntityId, JobId, NodeId, OrderId, OrganisationId},
    leaf::LeafKind,
    order::{Instruction, WorkOrder},
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    signed::Signed,
    units::UnixMillis,
};
use daitn_store::Family;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Whose order it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Process {
    Job(JobId),
    Deployment(DeploymentId),
}

/// What an order is for its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OrderKind {
    /// To the site at this place of the plan.
    Train(u32),
    /// To the compute facility of the site at this place.
    Compute(u32),
    /// To the conductor.
    Conduct,
    /// To the verification unit at this place of the plan.
    Verify(u32),
    /// To a host.
    Serve,
    /// Ends another order.
    Stop,
}

/// An order before it is signed.
#[derive(Debug, Clone)]
pub(crate) struct OrderDraft {
    pub(crate) id: OrderId,
    pub(crate) kind: OrderKind,
    pub(crate) epoch: u64,
    pub(crate) node: NodeId,
    pub(crate) terminal: EntityId,
    pub(crate) valid_ms: u64,
    pub(crate) instruction: Instruction,
}

/// An order as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    pub(crate) id: OrderId,
    pub(crate) owner: Process,
    pub(crate) kind: OrderKind,
    pub(crate) epoch: u64,
    pub(crate) node: NodeId,
    pub(crate) terminal: EntityId,
    pub(crate) expires_at: UnixMillis,
    /// What is sent; none once it was answered.
    pub(crate) signed: Option<Signed<WorkOrder>>,
}

/// All orders of living processes, and those of ended ones that are not yet answered.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) by_id: BTreeMap<OrderId, OrderRecord>,
    pub(crate) by_owner: BTreeMap<Process, BTreeSet<OrderId>>,
}

impl Orders {
    pub(crate) fn insert(&mut self, record: OrderRecord) {
        self.by_owner
            .entry(record.owner.clone())
            .or_default()
            .insert(record.id.clone());
        self.by_id.insert(record.id.clone(), record);
    }

    /// The orders of a process.
    fn of(&self, owner: &Process) -> Vec<OrderId> {
        self.by_owner.get(owner).into_iter().flatten().cloned().collect()
    }

    fn remove(&mut self, id: &OrderId) -> Option<OrderRecord> {
        let record = self.by_id.remove(id)?;
        if let Some(of_owner) = self.by_owner.get_mut(&record.owner) {
            of_owner.remove(id);
            if of_owner.is_empty() {
                self.by_owner.remove(&record.owner);
            }
        }
        Some(record)
    }
}

impl Core {
    /// Signs an order, keeps it, sends it.
    pub(super) fn issue(
        &mut self,
        turn: &mut Turn<'_>,
        owner: Process,
        draft: OrderDraft,
        concerns: &[OrganisationId],
    ) {
        let job = match &owner {
            Process::Job(job) => Some(job.clone()),
            Process::Deployment(deployment) => self.deployments.job_of(deployment),
        };
        let expires_at = turn.now.plus(draft.valid_ms);
        let order = WorkOrder {
            id: draft.id.clone(),
            job,
            epoch: draft.epoch,
            node: draft.node,
            terminal: draft.terminal.clone(),
            issued_at: turn.now,
            expires_at,
            instruction: draft.instruction,
        };
        let signed = Signed::seal(&order, &self.config.key);
        turn.leaf(LeafKind::WorkOrder, &draft.id, signed.hash(), concerns);
        let record = OrderRecord {
            id: draft.id.clone(),
            owner,
            kind: draft.kind,
            epoch: draft.epoch,
            node: draft.node,
            terminal: draft.terminal,
            expires_at,
            signed: Some(signed.clone()),
        };
        turn.batch.put(Family::Orders, draft.id.as_str(), &record);
        if let Some(node) = self.nodes.get_mut(draft.node) {
            node.orders.insert(draft.id);
            // One that was thrown out is cut off in this moment.
            if node.is_online() && !node.record.revoked {
                turn.send(draft.node, CenterMessage::Order(signed));
            }
        }
        self.orders.insert(record);
    }

    /// Ends an order at its terminal, where it may have begun.
    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, id: &OrderId, concerns: &[OrganisationId]) {
        let Some(record) = self.orders.by_id.get(id).cloned() else {
            return;
        };
        if record.kind == OrderKind::Stop {
            return;
        }
        self.settle(turn, id);
        let draft = OrderDraft {
            id: OrderId::new(turn.now.0, turn.entropy.bytes()),
            kind: OrderKind::Stop,
            epoch: record.epoch,
            node: record.node,
            terminal: record.terminal,
            valid_ms: ORDER_VALID_MS,
            instruction: Instruction::Stop { order: id.clone() },
        };
        self.issue(turn, record.owner, draft, concerns);
    }

    /// Ends all orders of a process that cannot say any more which it has.
    pub(super) fn cancel_all(&mut self, turn: &mut Turn<'_>, owner: &Process) {
        for order in self.orders.of(owner) {
            self.cancel(turn, &order, &[]);
        }
    }

    /// An order needs not to be sent again.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, id: &OrderId) {
        let Some(record) = self.orders.by_id.get_mut(id) else {
            return;
        };
        if record.signed.take().is_some() {
            if let Some(node) = self.nodes.get_mut(record.node) {
                node.orders.remove(id);
            }
            turn.batch.put(Family::Orders, id.as_str(), record);
        }
    }

    /// Forgets an order.
    fn drop_order(&mut self, turn: &mut Turn<'_>, id: &OrderId) {
        if let Some(record) = self.orders.remove(id) {
            if let Some(node) = self.nodes.get_mut(record.node) {
                node.orders.remove(id);
            }
            turn.batch.delete(Family::Orders, id.as_str());
        }
    }

    /// A process has ended: its orders are forgotten but for those that end others and were not answered yet.
    pub(super) fn drop_orders_of(&mut self, turn: &mut Turn<'_>, owner: &Process) {
        for id in self.orders.of(owner) {
            let is_waiting_stop = self
                .orders
                .by_id
                .get(&id)
                .is_some_and(|record| record.kind == OrderKind::Stop && record.signed.is_some());
            if !is_waiting_stop {
                self.drop_order(turn, &id);
            }
        }
    }

    /// Forgets orders that nobody will answer any more.
    pub(super) fn forget_orders(&mut self, turn: &mut Turn<'_>) {
        let expired: Vec<OrderId> = self
            .orders
            .by_id
            .values()
            .filter(|record| record.kind == OrderKind::Stop && record.expires_at <= turn.now)
            .map(|record| record.id.clone())
            .collect();
        for id in expired {
            self.drop_order(turn, &id);
        }
    }

    /// Sends a node what it has not answered. It knows a repeated order by its id.
    pub(super) fn resend(&self, turn: &mut Turn<'_>, node: NodeId) {
        let Some(known) = self.nodes.get(node) else { return };
        for id in &known.orders {
            let record = self
                .orders
                .by_id
                .get(id)
                .filter(|record| record.expires_at > turn.now);
            if let Some(signed) = record.and_then(|record| record.signed.clone()) {
                turn.send(node, CenterMessage::Order(signed));
            }
        }
    }

    /// A node says what it did.
    pub(super) fn report(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        node: NodeId,
        signed: &Signed<Receipt>,
    ) {
        let receipt = match signed.open(node) {
            Ok(receipt) => receipt,
            Err(rejection) => {
                turn.reply_node(request, Err(rejection));
                return;
            }
        };
        let Some(record) = self.orders.by_id.get(&receipt.order).cloned() else {
            // Of a process that has ended: nothing depends on it any more.
            turn.done(request);
            return;
        };
        if receipt.node != node || record.node != node || receipt.terminal != record.terminal {
            let message = format!("order {} was given to another terminal", record.id);
            turn.reply_node(request, Err(Rejection::new(Code::Malformed, message)));
            return;
        }
        let hash = signed.hash();
        if let Process::Job(job) = &record.owner
            && self.jobs.has_receipt(job, hash)
        {
            // Said before, by a node that did not hear the answer.
            turn.done(request);
            return;
        }
        if record.kind == OrderKind::Stop {
            self.drop_order(turn, &record.id);
            turn.done(request);
            return;
        }
        let taken = match record.owner.clone() {
            Process::Job(job) => self.job_receipt(turn, &job, &record, &receipt, hash),
            Process::Deployment(deployment) => {
                self.deployment_receipt(turn, &deployment, &record, &receipt, hash)
            }
        };
        match taken {
            Ok(()) => turn.done(request),
            Err(rejection) => turn.reply_node(request, Err(rejection)),
        }
    }

    /// A node did not even take an order.
    pub(super) fn not_taken(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        id: &OrderId,
        rejection: Rejection,
    ) {
        let Some(record) = self
            .orders
            .by_id
            .get(id)
            .filter(|record| record.node == node)
            .cloned()
        else {
            return;
        };
        if record.signed.is_none() {
            return;
        }
        if record.kind == OrderKind::Stop {
            self.drop_order(turn, id);
            return;
        }
        let receipt = Receipt {
            order: id.clone(),
            job: None,
            epoch: record.epoch,
            node,
            terminal: record.terminal.clone(),
            at: turn.now,
            outcome: Outcome::Refused(rejection),
        };
        let hash = ArtifactId::of(&daitn_messages::encoding::encode(&receipt));
        // What a node did not sign is no receipt: it gets no leaf, but its process must know.
        let ignored = match record.owner.clone() {
            Process::Job(job) => self.job_receipt(turn, &job, &record, &receipt, hash),
            Process::Deployment(deployment) => {
                self.deployment_receipt(turn, &deployment, &record, &receipt, hash)
            }
        };
        if let Err(rejection) = ignored {
            tracing::debug!(order = %id, %rejection, "an order that was not taken is no longer of interest");
        }
    }
}
