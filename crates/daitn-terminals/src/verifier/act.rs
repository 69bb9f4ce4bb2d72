//! Judges a model: fetch, evaluate, report.

use super::Verifier;
use crate::{
    limits::RESULTS_KEPT,
    orders::{Decided, OrderState},
    shared::{Shared, only},
    terminal::{Attached, Terminal},
};
use daitn_messages::{
    ids::OrderId,
    order::{Instruction, VerifyOrder},
    receipt::{Outcome, VerificationReport},
    rejection::{Code, Rejection},
};
use std::sync::Arc;

impl Verifier {
    /// Judges the model of an accepted order, after those before it.
    pub(crate) fn begin(attached: &Arc<Attached>, shared: &Arc<Shared>, known: &Arc<Decided>) {
        let (Terminal::Verifier(verifier), Instruction::Verify(_)) =
            (&attached.terminal, &known.order.instruction)
        else {
            return;
        };
        verifier.judging.begin(attached, shared, known, judge);
    }

    /// Offers again the weights of models that were judged before a restart.
    pub(crate) fn hold_judged(attached: &Attached, shared: &Shared) {
        for known in shared.orders.in_state(&attached.entity, OrderState::Done) {
            let Instruction::Verify(verify) = &known.order.instruction else {
                continue;
            };
            let (scope, readers) = (
                scope_of(&known.order.id).into(),
                only(verify.readers.iter().copied()),
            );
            if let Err(rejection) = shared.holds.hold(&scope, verify.weights.id, &readers) {
                tracing::warn!(order = %known.order.id, "the weights of a judged model are not offered any more: {rejection}");
            }
        }
    }

    /// Stops judging and lets the weights go.
    pub(crate) fn halt(&self, shared: &Arc<Shared>, known: &Decided) {
        self.judging.stop(&known.order.id);
        shared.release_all(&scope_of(&known.order.id));
    }

    async fn evaluate(
        &self,
        shared: &Arc<Shared>,
        id: &OrderId,
        verify: &VerifyOrder,
    ) -> Result<VerificationReport, Rejection> {
        let scope: Arc<str> = scope_of(id).into();
        let readers = only(verify.readers.iter().copied());
        let parameters = shared
            .weights(&scope, &verify.spec, verify.weights, &verify.holders, &readers)
            .await?;
        let table = self.file.table(&verify.spec).await?;
        let (engine, spec) = (shared.engine.clone(), verify.spec.clone());
        let evaluation = shared
            .cpu
            .run(move || engine.evaluate(&spec, &parameters, &table))
            .await??;
        let found = evaluation.metric(verify.metric);
        let found = found.ok_or_else(|| Rejection::malformed("metric", "the evaluation does not have it"))?;
        let reached = if verify.metric.more_is_better() {
            found >= verify.target
        } else {
            found <= verify.target
        };
        Ok(VerificationReport {
            weights: verify.weights.id,
            evaluation,
            metric: verify.metric,
            target: verify.target,
            reached,
        })
    }
}

async fn judge(attached: Arc<Attached>, shared: Arc<Shared>, known: Arc<Decided>) {
    let (Terminal::Verifier(verifier), Instruction::Verify(verify)) =
        (&attached.terminal, &known.order.instruction)
    else {
        return;
    };
    let waiting = attached.load.wait();
    let _turn = verifier.turn.lock().await;
    drop(waiting);
    let _busy = attached.load.begin();
    let begun = std::time::Instant::now();
    let outcome = match verifier.evaluate(&shared, &known.order.id, verify).await {
        Ok(report) => {
            attached.load.served(begun.elapsed().as_secs_f64());
            Outcome::Verified(Box::new(report))
        }
        Err(rejection) => Outcome::Refused(Rejection::new(
            // A way that failed may be there tomorrow; all else is told as it is.
            if rejection.code == Code::Unreachable {
                Code::NodeLost
            } else {
                rejection.code
            },
            format!("the model could not be judged: {}", rejection.message),
        )),
    };
    let settled = async {
        let judged = matches!(outcome, Outcome::Verified(_));
        // Reported first: a crash between the two judges again, which gives the same report.
        shared.report(&known.order, outcome).await?;
        if judged {
            // The weights stay, for hosts to come.
            shared.orders.done(&known.order.id).await?;
            forget_oldest(&attached, &shared).await
        } else {
            shared.release_all(&scope_of(&known.order.id));
            shared.orders.end(&known.order.id).await
        }
    };
    if let Err(rejection) = settled.await {
        tracing::error!(order = %known.order.id, "a verification report could not be kept: {rejection}");
    }
}

/// Lets go the weights of models that were judged long ago.
async fn forget_oldest(attached: &Attached, shared: &Arc<Shared>) -> Result<(), Rejection> {
    let mut done = shared.orders.in_state(&attached.entity, OrderState::Done);
    done.sort_by_key(|known| known.order.issued_at);
    let surplus = done.len().saturating_sub(RESULTS_KEPT);
    for known in done.into_iter().take(surplus) {
        shared.orders.end(&known.order.id).await?;
        shared.release_all(&scope_of(&known.order.id));
    }
    Ok(())
}

fn scope_of(id: &OrderId) -> String {
    format!("verify/{id}")
}
