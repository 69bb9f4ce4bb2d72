//! The conductor's ways to others: asks a site for its step, fetches what it made, watches for a lost one.

use super::{
    check::{self, Asked},
    events::{Event, Fault, Input, Step, Ticket},
    learner::Learner,
};
use crate::{durable::blocking, limits::PEER_DIAL_WITHIN, orders::Decided, shared::Shared};
use daitn_fabric::{Backoff, DATA_ALPN, artifact::Durability};
use daitn_messages::{
    ids::{JobId, NodeId},
    limits::SESSION_HEADER_BYTES_MAX,
    order::ConductOrder,
    receipt::Receipt,
    rejection::{Code, Rejection},
    session::{ArtifactRef, Peer, SessionReply, SessionRequest, TrainStep},
    signed::Signed,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What a conductor's tasks share.
pub(super) struct Field {
    /// The node.
    pub shared: Arc<Shared>,
    /// The order, as it was decided on.
    pub known: Arc<Decided>,
    /// The order.
    pub conduct: Arc<ConductOrder>,
    /// The job.
    pub job: JobId,
    /// The model.
    pub learner: Learner,
    /// What is held while a cycle runs.
    pub updates: Arc<str>,
    /// Receipts of this cycle, by site.
    pub receipts: Mutex<HashMap<u32, Signed<Receipt>>>,
    /// Bytes of artifacts that this cycle moved.
    pub bytes_moved: AtomicU64,
    /// A request without an answer for this long has none.
    pub within: Duration,
}

/// What sites begin from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Begin {
    /// The combined weights.
    pub global: ArtifactRef,
    /// SCAFFOLD's control variate.
    pub control: Option<ArtifactRef>,
    /// See [`TrainStep::counted_cycles`].
    pub counted: Option<u32>,
}

impl Field {
    /// Asks a site for its step and says what came of it.
    pub(super) async fn ask(
        self: &Arc<Self>,
        ticket: Ticket,
        site: u32,
        cycle: u32,
        input: Input,
        begin: Begin,
    ) -> Event {
        let (asked, step) = self.question(site, cycle, input, begin);
        let decline = |reason, fault| Event::Declined {
            ticket,
            reason,
            fault,
        };
        let reply = match self.send(asked.node, step).await {
            Ok(reply) => reply,
            Err(reason) => return decline(reason, Fault::Way),
        };
        let receipt = match reply {
            SessionReply::Trained(receipt) => receipt,
            SessionReply::Refused(reason) => {
                let fault = fault_of(&reason);
                return decline(reason, fault);
            }
            _ => {
                return decline(
                    Rejection::malformed("reply", "not one to a training step"),
                    Fault::Site,
                );
            }
        };
        let step = match check::step_of(&receipt, &asked) {
            Ok(step) => step,
            Err(reason) => return decline(reason, Fault::Site),
        };
        if let Some(control) = step.control
            && let Err(reason) = self.take_control(control, asked.node).await
        {
            return decline(reason, Fault::Site);
        }
        let moved = begin.global.bytes + begin.control.map_or(0, |control| control.bytes);
        if asked.node != self.shared.node {
            self.bytes_moved.fetch_add(moved, Ordering::Relaxed);
        }
        self.receipts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(site, receipt);
        Event::Trained { ticket, step }
    }

    /// Fetches what a site made and looks at it.
    pub(super) async fn check(self: &Arc<Self>, ticket: Ticket, step: Step) -> Event {
        let result = self.take(step).await;
        Event::Checked { ticket, result }
    }

    /// Waits until a lost site can be reached again. The first look is after a wait, so that a site that answers
    /// connections and nothing else is not asked without end.
    pub(super) async fn watch(&self, site: u32, backoff: &Mutex<Backoff>) -> Event {
        let node = self.conduct.plan.sites[site as usize].node;
        let backoff = || backoff.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = self.shared.endpoint.news();
        loop {
            let wait = backoff().after_failure();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = news.of(std::slice::from_ref(&node)) => backoff().reset(),
            }
            if node == self.shared.node
                || self
                    .shared
                    .endpoint
                    .connection_to(node, DATA_ALPN, PEER_DIAL_WITHIN)
                    .await
                    .is_ok()
            {
                return Event::Reachable { site };
            }
        }
    }

    fn question(&self, site: u32, cycle: u32, input: Input, begin: Begin) -> (Asked, TrainStep) {
        let planned = &self.conduct.plan.sites[site as usize];
        let way_to = |node| self.shared.way_to(node).into_iter();
        let (weights, holders) = match input {
            Input::Global => (begin.global, way_to(self.shared.node).collect()),
            Input::Of { step, held } => {
                let node = self.conduct.plan.sites[step.site as usize].node;
                let mut holders: Vec<Peer> = way_to(node).collect();
                // The control variate is the conductor's, and so is a copy of what it has looked at.
                if held || begin.control.is_some() {
                    holders.extend(way_to(self.shared.node));
                }
                (step.output, holders)
            }
        };
        let asked = Asked {
            site,
            node: planned.node,
            dataset: planned.dataset.clone(),
            job: self.job.clone(),
            epoch: self.known.order.epoch,
            cycle,
            input: weights.id,
            weights_bytes: self.learner.weights_bytes(),
            control_bytes: self.learner.control_bytes(),
            records: planned.records,
        };
        let step = TrainStep {
            order: self.known.order.id.clone(),
            job: self.job.clone(),
            position: site,
            epoch: self.known.order.epoch,
            cycle,
            input: weights,
            control: begin.control,
            holders,
            counted_cycles: begin.counted,
        };
        (asked, step)
    }

    async fn send(&self, node: NodeId, step: TrainStep) -> Result<SessionReply, Rejection> {
        if node == self.shared.node {
            return Ok(crate::sessions::train(&self.shared, node, &step).await);
        }
        let connection = self
            .shared
            .endpoint
            .connection_to(node, DATA_ALPN, PEER_DIAL_WITHIN)
            .await;
        let connection = connection.map_err(|error| gone(node, &error))?;
        let request = SessionRequest::Train(step);
        let reply = connection
            .request(&request, SESSION_HEADER_BYTES_MAX, self.within)
            .await;
        reply.map_err(|error| gone(node, &error))
    }

    async fn take(self: &Arc<Self>, step: Step) -> Result<(), Rejection> {
        let node = self.conduct.plan.sites[step.site as usize].node;
        self.fetch_while_connected(step.output, node).await?;
        let field = self.clone();
        blocking(move || {
            let reader = field
                .shared
                .store
                .reader(step.output.id)
                .map_err(|error| error.rejection())?;
            field.learner.inspect(reader)
        })
        .await
    }

    async fn take_control(self: &Arc<Self>, control: ArtifactRef, node: NodeId) -> Result<(), Rejection> {
        self.fetch_while_connected(control, node).await?;
        let field = self.clone();
        blocking(move || {
            let reader = field
                .shared
                .store
                .reader(control.id)
                .map_err(|error| error.rejection())?;
            field.learner.inspect_control(reader)
        })
        .await
    }

    /// Fetches from a site for as long as it is there: the round does not wait for one that has gone.
    async fn fetch_while_connected(&self, artifact: ArtifactRef, node: NodeId) -> Result<(), Rejection> {
        if node == self.shared.node || self.shared.store.has(artifact.id) {
            return self.fetch(artifact, node).await;
        }
        let connection = self
            .shared
            .endpoint
            .connection_to(node, DATA_ALPN, PEER_DIAL_WITHIN)
            .await;
        let connection = connection.map_err(|error| gone(node, &error))?;
        tokio::select! {
            fetched = self.fetch(artifact, node) => fetched,
            error = connection.closed() => Err(gone(node, &error)),
        }
    }

    async fn fetch(&self, artifact: ArtifactRef, node: NodeId) -> Result<(), Rejection> {
        let holders: Vec<Peer> = self.shared.way_to(node).into_iter().collect();
        let moved = self
            .shared
            .fetch(&self.updates, artifact, &holders, Durability::Transient)
            .await?;
        self.bytes_moved.fetch_add(moved, Ordering::Relaxed);
        Ok(())
    }
}

/// The site cannot be reached: told with a code of its own, so that it is looked for and not asked until it is found.
fn gone(node: NodeId, error: &dyn std::fmt::Display) -> Rejection {
    Rejection::new(Code::NodeLost, format!("node {}: {error}", node.short()))
}

/// Where a refusal of a site lies: these codes a dataset terminal uses for what it was to begin from, and for nothing
/// else.
fn fault_of(reason: &Rejection) -> Fault {
    match reason.code {
        Code::Unreachable | Code::HashMismatch | Code::UpdateRefused => Fault::Input,
        Code::Overloaded => Fault::Way,
        _ => Fault::Site,
    }
}
