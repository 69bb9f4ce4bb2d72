//! What the center tells the node: each message is acted on and acknowledged once what follows from it is durable.

use crate::{
    contact::Uplink,
    durable::blocking,
    gateways::Gateways,
    limits::{PROBES_AT_ONCE, PROBES_MAX},
    orders::{Decided, Examined, OrderState},
    shared::Shared,
    terminal::Attached,
};
use daitn_fabric::{DATA_ALPN, Effort, Heard, IncomingSession, Refusal};
use daitn_messages::{
    control::{Acknowledged, CenterMessage, Link},
    ids::OrderId,
    order::{Instruction, WorkOrder},
    receipt::Outcome,
    rejection::{Code, Rejection},
    session::Peer,
    signed::Signed,
};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// What answers the center.
pub(crate) struct Desk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) uplink: Arc<Uplink>,
    /// One order at a time: the same one may come twice at once.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Desk {
    /// Answers one message.
    pub(crate) async fn answer(&self, mut incoming: IncomingSession) {
        // Only what comes over the connection that this node has made to its pinned center.
        if incoming.remote != self.shared.center {
            return incoming.session.refuse(Refusal::Denied);
        }
        let message = match incoming.header::<CenterMessage>() {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!("a message of the control center cannot be read: {error}");
                let answer: Acknowledged = Err(error.rejection());
                let _ = incoming.session.send_last(&answer).await;
                return;
            }
        };
        let answer: Acknowledged = self.take(message).await;
        if let Err(error) = incoming.session.send_last(&answer).await {
            tracing::debug!("the control center did not take an answer: {error}");
        }
    }

    async fn take(&self, message: CenterMessage) -> Acknowledged {
        match message {
            CenterMessage::Order(signed) => self.order(signed).await,
            CenterMessage::Peers(peers) => {
                self.shared.learn(&peers, Heard::Now);
                // The center tells of who has moved or come back.
                for peer in &peers {
                    self.shared.endpoint.is_there(peer.node);
                }
                Ok(())
            }
            CenterMessage::Probe(peers) => {
                self.probe(peers);
                Ok(())
            }
            CenterMessage::Gateways(peers) => {
                let (shared, gateways) = (self.shared.clone(), self.gateways.clone());
                let runtime = tokio::runtime::Handle::current();
                blocking(move || {
                    let _entered = runtime.enter();
                    gateways.replace(&shared, &peers)
                })
                .await
                .map_err(|error| error.rejection())
            }
            CenterMessage::Revoked => {
                self.revoked().await;
                Ok(())
            }
        }
    }

    async fn order(&self, signed: Signed<WorkOrder>) -> Acknowledged {
        let _turn = self.turn.lock().await;
        let examined = self.shared.orders.examine(&signed, self.shared.clock.now());
        let examined = examined.inspect_err(|rejection| tracing::warn!("an order is not taken: {rejection}"));
        match examined? {
            // Told again: the first receipt may have been lost with a center.
            Examined::Known(known) => self.shared.outbox.put(known.receipt.clone()).await,
            Examined::New(order) => match order.instruction.clone() {
                Instruction::Stop { order: target } => self.halt(*order, signed, &target).await,
                _ => self.decide(*order, signed).await,
            },
        }
    }

    async fn decide(&self, order: WorkOrder, signed: Signed<WorkOrder>) -> Acknowledged {
        let shared = &self.shared;
        let attached = shared.terminals.get(&order.terminal);
        let admitted = match &attached {
            Some(attached) => attached.admit(shared, &order).await,
            None => Err(Rejection::not_found("terminal", &order.terminal)),
        };
        let (state, outcome) = match admitted {
            Ok(policies) => (OrderState::Accepted, Outcome::Accepted { policies }),
            Err(rejection) => {
                tracing::info!(order = %order.id, job = ?order.job, "an order is refused: {rejection}");
                (OrderState::Refused, Outcome::Refused(rejection))
            }
        };
        let receipt = shared.receipt(&order, outcome);
        let known = shared
            .orders
            .keep(Decided {
                order,
                signed,
                state,
                receipt: receipt.clone(),
            })
            .await?;
        shared.outbox.put(receipt).await?;
        if let (Some(attached), OrderState::Accepted) = (attached, state) {
            self.supersede(&attached, &known.order).await?;
            attached.begin(shared, &known).await;
        }
        Ok(())
    }

    /// Earlier epochs of the same work end where a later one begins.
    async fn supersede(&self, attached: &Attached, order: &WorkOrder) -> Result<(), Rejection> {
        for earlier in self.shared.orders.accepted(&attached.entity) {
            let same = match (&earlier.order.instruction, &order.instruction) {
                (Instruction::Train(a), Instruction::Train(b)) => a.position == b.position,
                (Instruction::Conduct(_), Instruction::Conduct(_)) => true,
                (Instruction::Compute(a), Instruction::Compute(b)) => a.dataset == b.dataset,
                _ => false,
            };
            let same_job = earlier.order.job.is_some() && earlier.order.job == order.job;
            if (same && same_job && earlier.order.epoch < order.epoch)
                || replaced_replica(&earlier.order, order)
            {
                self.shared.orders.end(&earlier.order.id).await?;
            }
        }
        Ok(())
    }

    async fn halt(&self, order: WorkOrder, signed: Signed<WorkOrder>, target: &OrderId) -> Acknowledged {
        self.halt_order(target).await?;
        let receipt = self.shared.receipt(&order, Outcome::Stopped);
        let decided = Decided {
            order,
            signed,
            state: OrderState::Ended,
            receipt: receipt.clone(),
        };
        self.shared.orders.keep(decided).await?;
        self.shared.outbox.put(receipt).await
    }

    async fn halt_order(&self, target: &OrderId) -> Result<(), Rejection> {
        let Some(known) = self.shared.orders.get(target) else {
            return Ok(());
        };
        // Refused or already ended: a finished job still has files to let go.
        self.shared.orders.end(target).await?;
        if let Some(attached) = self.shared.terminals.get(&known.order.terminal) {
            attached.halt(&self.shared, &known).await;
        }
        Ok(())
    }

    async fn revoked(&self) {
        let _turn = self.turn.lock().await;
        tracing::error!("the control center has revoked this node: everything is stopped");
        self.uplink.revoked();
        for attached in self.shared.terminals.all() {
            for known in self.shared.orders.accepted(&attached.entity) {
                if let Err(rejection) = self.halt_order(&known.order.id).await {
                    tracing::error!(order = %known.order.id, "an order was not stopped: {rejection}");
                }
            }
        }
    }

    /// Measures the ways to these peers and leaves what was found to the uplink.
    fn probe(&self, mut peers: Vec<Peer>) {
        peers.truncate(PROBES_MAX);
        self.shared.learn(&peers, Heard::Now);
        let (shared, uplink) = (self.shared.clone(), self.uplink.clone());
        self.shared.tasks.spawn(async move {
            let probes = stream::iter(peers)
                .map(|peer| probe(&shared, peer))
                .buffer_unordered(PROBES_AT_ONCE);
            let found = probes.filter_map(std::future::ready).collect();
            let found: Vec<Link> = tokio::select! {
                found = found => found,
                () = shared.stop.cancelled() => return,
            };
            uplink.found(found);
        });
    }
}

fn replaced_replica(earlier: &WorkOrder, order: &WorkOrder) -> bool {
    match (&earlier.instruction, &order.instruction) {
        (Instruction::Serve(a), Instruction::Serve(b)) => {
            a.deployment == b.deployment && earlier.epoch < order.epoch
        }
        _ => false,
    }
}

async fn probe(shared: &Shared, peer: Peer) -> Option<Link> {
    let effort = Effort::default();
    let probed = async {
        let connection = shared
            .endpoint
            .connection_to(peer.node, DATA_ALPN, effort.within)
            .await;
        let connection = connection.map_err(|error| Rejection::new(Code::Unreachable, error.to_string()))?;
        connection.probe(effort).await.map_err(|error| error.rejection())
    };
    match probed.await {
        Ok(probe) => Some(Link {
            from: shared.node,
            to: peer.node,
            rtt_micros: probe.rtt_micros,
            bytes_per_second: probe.throughput_bytes_per_s,
            relayed: probe.relayed,
            measured_at: shared.clock.now(),
        }),
        Err(rejection) => {
            tracing::info!(node = %peer.node, "a peer could not be probed: {rejection}");
            None
        }
    }
}
