//! A training step on a compute facility that the owner named: parameters and table go there over one session, new
//! parameters come back.

use super::act::Made;
use crate::{limits::PEER_DIAL_WITHIN, shared::Shared};
use bytes::{BufMut, Bytes, BytesMut};
use daitn_engine::{Table, Targets, TrainOutcome};
use daitn_fabric::{DATA_ALPN, Heard, Session};
use daitn_learning::local::SiteControl;
use daitn_messages::{
    learning::LocalTraining,
    limits::SESSION_HEADER_BYTES_MAX,
    order::TrainOrder,
    rejection::{Code, Rejection},
    session::{ComputeStep, Peer, SessionReply, SessionRequest, TrainStep},
};
use std::{sync::Arc, time::Duration};

/// The facility says nothing while it trains.
const TRAINING_MAX: Duration = Duration::from_secs(60 * 60);
/// Numbers that are sent at a time.
const CHUNK_NUMBERS: usize = 64 * 1024;

/// What is sent.
pub(super) struct Work<'a> {
    pub(super) train: &'a TrainOrder,
    pub(super) asked: &'a TrainStep,
    pub(super) parameters: &'a [f32],
    pub(super) controls: Option<&'a (Vec<f32>, Vec<f32>)>,
    pub(super) table: &'a Arc<Table>,
    pub(super) seed: u64,
}

/// Lets a facility train.
pub(super) async fn train(shared: &Shared, facility: &Peer, work: &Work<'_>) -> Result<Made, Rejection> {
    shared.learn(std::slice::from_ref(facility), Heard::Earlier);
    let failed = |error: daitn_fabric::SessionError| {
        // Not `Unreachable`: that would say that the weights could not be had.
        Rejection::new(Code::NodeLost, format!("the compute facility: {error}"))
    };
    let connection = shared
        .endpoint
        .connection_to(facility.node, DATA_ALPN, PEER_DIAL_WITHIN)
        .await
        .map_err(|error| Rejection::new(Code::NodeLost, format!("the compute facility: {error}")))?;
    let n_rows = u32::try_from(work.table.n_rows())
        .map_err(|_| Rejection::too_large("table", work.table.n_rows() as u64, u64::from(u32::MAX)))?;
    let header = SessionRequest::Compute(Box::new(ComputeStep {
        order: work.asked.order.clone(),
        job: Some(work.asked.job.clone()),
        dataset: Some(work.train.dataset.clone()),
        n_rows,
        local: LocalTraining {
            seed: work.seed,
            ..work.train.local
        },
        strategy: work.train.strategy,
        n_parameters: work.parameters.len() as u64,
    }));
    let mut session = connection.open(&header, TRAINING_MAX).await.map_err(failed)?;
    let reply = exchange(&mut session, work).await.map_err(failed)?;
    let (n_steps, loss, train_ms) = match reply {
        SessionReply::Computed {
            steps,
            loss,
            train_ms,
        } => (steps, loss, train_ms),
        SessionReply::Refused(rejection) => {
            return Err(Rejection::new(
                Code::NodeLost,
                format!("the compute facility refused: {rejection}"),
            ));
        }
        _ => {
            return Err(Rejection::new(
                Code::NodeLost,
                "the compute facility answered something else",
            ));
        }
    };
    let n_parameters = work.parameters.len();
    let parameters = recv_numbers(&mut session, n_parameters).await?;
    let control = match work.controls {
        Some((_, c_k)) => {
            let next = recv_numbers(&mut session, n_parameters).await?;
            let delta = next.iter().zip(c_k).map(|(next, before)| next - before).collect();
            Some(SiteControl { next, delta })
        }
        None => None,
    };
    let finite = |numbers: &[f32]| numbers.iter().all(|number| number.is_finite());
    if !loss.is_finite()
        || !finite(&parameters)
        || control.as_ref().is_some_and(|control| !finite(&control.delta))
    {
        return Err(Rejection::new(
            Code::DataUnusable,
            "the compute facility answered numbers that are not finite",
        ));
    }
    let took = Duration::try_from_secs_f64(train_ms / 1e3).unwrap_or_default();
    let outcome = TrainOutcome {
        parameters,
        n_examples: u64::from(n_rows),
        n_steps,
        loss,
        control,
    };
    Ok(Made { outcome, took })
}

async fn exchange(
    session: &mut Session,
    work: &Work<'_>,
) -> Result<SessionReply, daitn_fabric::SessionError> {
    let sent = send_work(session, work).await;
    let reply = session.recv(SESSION_HEADER_BYTES_MAX).await;
    // A facility that refuses stops reading: its reason is in the reply, if there is one.
    reply.map_err(|error| sent.err().unwrap_or(error))
}

async fn send_work(session: &mut Session, work: &Work<'_>) -> Result<(), daitn_fabric::SessionError> {
    send_numbers(session, work.parameters).await?;
    if let Some((c, c_k)) = work.controls {
        send_numbers(session, c).await?;
        send_numbers(session, c_k).await?;
    }
    send_numbers(session, work.table.features()).await?;
    match work.table.targets() {
        Targets::Values(values) => send_numbers(session, values).await?,
        Targets::Classes { labels, .. } => {
            // Classes are few enough for an f32 to hold each exactly.
            #[expect(clippy::cast_precision_loss, reason = "at most 4096 classes")]
            let labels: Vec<f32> = labels.iter().map(|label| *label as f32).collect();
            send_numbers(session, &labels).await?;
        }
    }
    session.sender().finish()
}

/// Sends numbers as little-endian bytes, a bounded part at a time.
pub(crate) async fn send_numbers(
    session: &mut Session,
    numbers: &[f32],
) -> Result<(), daitn_fabric::SessionError> {
    for part in numbers.chunks(CHUNK_NUMBERS) {
        let mut bytes = BytesMut::with_capacity(4 * part.len());
        part.iter().for_each(|number| bytes.put_f32_le(*number));
        session.sender().send_bytes(bytes.freeze()).await?;
    }
    Ok(())
}

/// Receives exactly so many numbers. Memory is taken as they come.
pub(crate) async fn recv_numbers(session: &mut Session, n_numbers: usize) -> Result<Vec<f32>, Rejection> {
    let mut numbers = Vec::new();
    let mut buffer = BytesMut::new();
    while numbers.len() < n_numbers {
        let n = CHUNK_NUMBERS.min(n_numbers - numbers.len());
        session
            .receiver()
            .append(&mut buffer, 4 * n)
            .await
            .map_err(|error| error.rejection())?;
        let bytes: Bytes = buffer.split().freeze();
        numbers.extend(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes)),
        );
    }
    Ok(numbers)
}
