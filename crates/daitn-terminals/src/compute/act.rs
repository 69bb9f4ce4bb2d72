//! One training step for a dataset's node: parameters and table in, parameters out, nothing kept.

use super::Compute;
use crate::{
    dataset::{OwnWork, recv_numbers, send_numbers},
    orders::Decided,
    shared::Shared,
    terminal::Attached,
};
use daitn_engine::{Table, Targets};
use daitn_fabric::Session;
use daitn_messages::{
    ids::NodeId,
    learning::{ModelSpec, Strategy, Task},
    order::{ComputeOrder, Instruction},
    rejection::{Code, Rejection},
    session::{ComputeStep, SessionReply},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Vectors of the model's length that a step may need at once: parameters, gradient, result, two control variates, and
/// one for the transfer.
pub(super) const VECTORS: u64 = 6;

/// Memory that is taken until it is dropped.
struct Reserved<'a> {
    counter: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Compute {
    fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, Rejection> {
        let max = self.options.memory.0;
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
        let taken = self
            .reserved_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if taken.is_ok() {
            Ok(Reserved {
                counter: &self.reserved_bytes,
                bytes,
            })
        } else if bytes > max {
            Err(Rejection::too_large(
                "step for this facility's memory",
                bytes,
                max,
            ))
        } else {
            Err(Rejection::new(
                Code::Overloaded,
                "the facility's memory is taken by other steps",
            ))
        }
    }
}

/// Answers one step to its end.
pub(crate) async fn answer(
    attached: &Attached,
    compute: &Compute,
    shared: &Arc<Shared>,
    remote: NodeId,
    asked: &ComputeStep,
    session: &mut Session,
) -> Result<(), Rejection> {
    let order = order_of(attached, shared, remote, asked)?;
    let layout = shared.engine.layout(&order.spec)?;
    if asked.n_parameters != layout.n_elements() as u64 {
        let (found, expected) = (asked.n_parameters, layout.n_elements());
        return Err(Rejection::new(
            Code::UpdateRefused,
            format!("{found} parameters, where the model has {expected}"),
        ));
    }
    asked.local.validate()?;
    let n_features = order.spec.features.len() as u64;
    let table_bytes = 4 * u64::from(asked.n_rows).saturating_mul(n_features + 2);
    let _reserved = compute.reserve(table_bytes.saturating_add(4 * VECTORS * asked.n_parameters))?;
    let _busy = attached.load.begin();
    shared.changed.notify_one();
    let work = receive(&order.spec, asked, session).await?;
    let engine = shared.engine.clone();
    // A client that is gone gets no answer; its step ends by itself.
    let made = shared.cpu.run(move || work.run(&*engine, &|| true)).await??;
    let seconds = made.took.as_secs_f64();
    attached
        .load
        .served(seconds * 1e3 / f64::from(asked.n_rows.max(1)));
    let reply = SessionReply::Computed {
        steps: made.outcome.n_steps,
        loss: made.outcome.loss,
        train_ms: seconds * 1e3,
    };
    let sent = async {
        session.send(&reply).await?;
        send_numbers(session, &made.outcome.parameters).await?;
        if let Some(control) = &made.outcome.control {
            send_numbers(session, &control.next).await?;
        }
        session.sender().finish()
    };
    if let Err(error) = sent.await {
        tracing::info!(node = %remote, "the result of a step was not taken: {error}");
    }
    Ok(())
}

/// The accepted order under which this node may ask.
fn order_of(
    attached: &Attached,
    shared: &Shared,
    remote: NodeId,
    asked: &ComputeStep,
) -> Result<ComputeOrder, Rejection> {
    let matching = |known: &Arc<Decided>| match &known.order.instruction {
        Instruction::Compute(order)
            if order.client.node == remote
                && known.order.job == asked.job
                && asked
                    .dataset
                    .as_ref()
                    .is_none_or(|dataset| order.dataset == *dataset) =>
        {
            Some((**order).clone())
        }
        _ => None,
    };
    let accepted = shared.orders.accepted(&attached.entity);
    accepted
        .iter()
        .rev()
        .find_map(matching)
        .ok_or_else(|| Rejection::not_found("accepted order for", remote))
}

async fn receive(spec: &ModelSpec, asked: &ComputeStep, session: &mut Session) -> Result<OwnWork, Rejection> {
    let n_parameters = usize::try_from(asked.n_parameters).unwrap_or(usize::MAX);
    let n_rows = asked.n_rows as usize;
    let parameters = recv_numbers(session, n_parameters).await?;
    let controls = match asked.strategy {
        Strategy::Scaffold => Some((
            recv_numbers(session, n_parameters).await?,
            recv_numbers(session, n_parameters).await?,
        )),
        _ => None,
    };
    let features = recv_numbers(session, n_rows * spec.features.len()).await?;
    let targets = recv_numbers(session, n_rows).await?;
    let targets = match &spec.task {
        Task::Regression => Targets::Values(targets),
        Task::Classification { classes } => Targets::Classes {
            labels: targets.into_iter().map(label).collect::<Result<_, _>>()?,
            n_classes: classes.len(),
        },
    };
    let table = Table::new(spec.features.len(), features, targets)
        .map_err(|error| Rejection::new(Code::DataUnusable, error.to_string()))?;
    Ok(OwnWork {
        spec: spec.clone(),
        local: asked.local,
        strategy: asked.strategy,
        parameters,
        controls,
        table: Arc::new(table),
        seed: asked.local.seed,
    })
}

/// A label travels as a whole number.
fn label(number: f32) -> Result<u32, Rejection> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to come back the same"
    )]
    let label = number as u32;
    if f64::from(label) == f64::from(number) {
        Ok(label)
    } else {
        Err(Rejection::new(
            Code::DataUnusable,
            "a label is not a whole number",
        ))
    }
}
