//! Tells of closed cycles, in order: first the state goes to the spares, then the report, which names who has the state,
//! goes to the outbox. The next cycle does not wait for it.

use super::ask::Field;
use crate::limits::{KEEP_WITHIN, PEER_DIAL_WITHIN};
use daitn_fabric::DATA_ALPN;
use daitn_messages::{
    ids::NodeId,
    limits::SESSION_HEADER_BYTES_MAX,
    receipt::{CycleReport, Outcome},
    rejection::{Code, Rejection},
    session::{KeepState, Peer, SessionReply, SessionRequest},
};
use futures_util::future::join_all;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// Cycles that may run ahead of their reports.
pub(super) const AHEAD_MAX: usize = 8;
/// A spare that did not keep a state is left alone for as many cycles, and twice as many each time again: one that
/// hangs costs the time of a dial whenever it is asked.
const CYCLES_SPARED: u32 = 8;
/// Longest time that a spare is left alone, in cycles.
const CYCLES_SPARED_MAX: u32 = 1_024;

/// Reports that are not in the outbox; shared with the journal.
pub(super) type Unreported = Arc<Mutex<VecDeque<CycleReport>>>;

/// Reports closed cycles until no more come. Ends early where the outbox does not take one: the job then fails with
/// that cause.
pub(super) async fn report(
    field: Arc<Field>,
    mut closed: mpsc::Receiver<CycleReport>,
    unreported: Unreported,
) -> Result<(), Rejection> {
    let mut spares = Spares {
        proven: HashMap::new(),
        spared: HashMap::new(),
    };
    while let Some(mut report) = closed.recv().await {
        report.holders.extend(spares.keep(&field, &report).await);
        let order = &field.known.order;
        field
            .shared
            .report(order, Outcome::Cycle(Box::new(report)))
            .await?;
        unreported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
    }
    Ok(())
}

struct Spares {
    /// Spares that have seen the order.
    proven: HashMap<NodeId, bool>,
    /// For how many cycles it was left alone last, and up to which.
    spared: HashMap<NodeId, (u32, u32)>,
}

impl Spares {
    /// A spare did not keep the state of this cycle.
    fn leave_alone(&mut self, node: NodeId, cycle: u32) {
        let (cycles, until) = self.spared.entry(node).or_default();
        *cycles = (*cycles * 2).clamp(CYCLES_SPARED, CYCLES_SPARED_MAX);
        *until = cycle.saturating_add(*cycles);
    }

    fn is_left_alone(&self, node: NodeId, cycle: u32) -> bool {
        self.spared.get(&node).is_some_and(|(_, until)| cycle < *until)
    }

    /// Gives the state to every spare; who has it then.
    async fn keep(&mut self, field: &Field, report: &CycleReport) -> Vec<NodeId> {
        let asked =
            |peer: &&Peer| peer.node != field.shared.node && !self.is_left_alone(peer.node, report.cycle);
        let spares: Vec<&Peer> = field.conduct.spares.iter().filter(asked).collect();
        let kept = spares.iter().map(|peer| {
            let proven = self.proven.contains_key(&peer.node);
            async move {
                let kept = keep(field, peer, report, proven).await;
                match kept {
                    // A spare that lost its memory has to see the order again.
                    Err(reason) if proven && reason.code == Code::NotFound => {
                        keep(field, peer, report, false).await
                    }
                    kept => kept,
                }
            }
        });
        let mut holders = Vec::new();
        for (peer, kept) in spares.iter().zip(join_all(kept).await) {
            match kept {
                Ok(()) => {
                    self.proven.insert(peer.node, true);
                    self.spared.remove(&peer.node);
                    holders.push(peer.node);
                }
                Err(reason) => {
                    tracing::warn!(job = %field.job, node = %peer.node, round = report.cycle, "a spare does not keep the state: {reason}");
                    self.leave_alone(peer.node, report.cycle);
                }
            }
        }
        holders
    }
}

async fn keep(field: &Field, peer: &Peer, report: &CycleReport, proven: bool) -> Result<(), Rejection> {
    let keeping = async {
        let connection = field
            .shared
            .endpoint
            .connection_to(peer.node, DATA_ALPN, PEER_DIAL_WITHIN)
            .await;
        let connection = connection.map_err(|error| Rejection::new(Code::NodeLost, error.to_string()))?;
        let request = SessionRequest::Keep(KeepState {
            job: field.job.clone(),
            epoch: field.known.order.epoch,
            state: report.state,
            holders: vec![field.shared.endpoint.peer()],
        });
        let proof = (!proven).then(|| field.known.signed.clone());
        let exchange = async {
            let mut session = connection.open(&request, KEEP_WITHIN).await?;
            session.send_last(&proof).await?;
            session.recv::<SessionReply>(SESSION_HEADER_BYTES_MAX).await
        };
        match exchange.await.map_err(|error| error.rejection())? {
            SessionReply::Kept => Ok(()),
            SessionReply::Refused(reason) => Err(reason),
            _ => Err(Rejection::malformed("reply", "not one to a state")),
        }
    };
    let late = |_| Rejection::new(Code::NodeLost, format!("no answer within {KEEP_WITHIN:?}"));
    tokio::time::timeout(KEEP_WITHIN, keeping).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_that_hangs_is_asked_more_and_more_seldom() {
        let mut spares = Spares {
            proven: HashMap::new(),
            spared: HashMap::new(),
        };
        let node = daitn_messages::signed::NodeKey::from_bytes(&[1; 32]).id();
        let mut asked = Vec::new();
        for cycle in 0..5_000 {
            if !spares.is_left_alone(node, cycle) {
                asked.push(cycle);
                spares.leave_alone(node, cycle);
            }
        }
        // 8, 16, … 1,024 cycles apart, then every 1,024.
        assert_eq!(asked, [0, 8, 24, 56, 120, 248, 504, 1_016, 2_040, 3_064, 4_088]);
    }
}
