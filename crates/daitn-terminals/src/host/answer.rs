//! Answers a query: from a gateway that the order names, to a model in memory, in a bounded number at once.

use super::{Host, Replica};
use crate::{
    dataset::{recv_numbers, send_numbers},
    limits::QUERIES_MAX,
    shared::Shared,
    terminal::Attached,
};
use daitn_fabric::Session;
use daitn_messages::{
    ids::NodeId,
    learning::ModelVersion,
    limits::QUERY_BYTES_MAX,
    rejection::{Code, Rejection},
    session::{InferQuery, SessionReply},
};
use std::{sync::Arc, time::Instant};

/// Inputs up to this many numbers are answered where they are read: handing them to a thread would take longer.
const SMALL_NUMBERS: usize = 256;

impl Host {
    /// The replica that answers this gateway's queries to a model: the newest.
    fn replica(&self, model: &ModelVersion, gateway: NodeId) -> Result<Replica, Rejection> {
        let replicas = self.replicas();
        let of_model = replicas.values().filter(|replica| replica.model == *model);
        let newest = of_model.max_by_key(|replica| replica.epoch);
        let newest = newest.ok_or_else(|| {
            let message = format!("{} version {} is not served here", model.name, model.version);
            Rejection::new(Code::ModelUnavailable, message)
        })?;
        if newest.gateways.contains(&gateway) {
            Ok(newest.clone())
        } else {
            let message = format!("{} is no gateway of this deployment", gateway.short());
            Err(Rejection::new(Code::Unauthorised, message))
        }
    }
}

/// Answers one query to its end.
pub(crate) async fn answer(
    attached: &Attached,
    host: &Host,
    shared: &Arc<Shared>,
    remote: NodeId,
    query: &InferQuery,
    session: &mut Session,
) -> Result<(), Rejection> {
    let Some(busy) = attached.load.begin_within(QUERIES_MAX) else {
        return Err(Rejection::new(
            Code::Overloaded,
            format!("{QUERIES_MAX} queries are in flight already"),
        ));
    };
    if attached.load.in_flight() == 1 {
        shared.changed.notify_one();
    }
    let begun = Instant::now();
    let replica = host.replica(&query.model, remote)?;
    let n_numbers = (query.n_rows as usize).saturating_mul(replica.loaded.spec().features.len());
    if n_numbers == 0 || n_numbers > QUERY_BYTES_MAX / 4 {
        return Err(Rejection::out_of_range(
            "rows",
            f64::from(query.n_rows),
            1.0,
            (QUERY_BYTES_MAX / 4) as f64,
        ));
    }
    let inputs = recv_numbers(session, n_numbers).await?;
    let loaded = replica.loaded;
    let outputs = if n_numbers <= SMALL_NUMBERS {
        loaded.infer(&inputs)?
    } else {
        shared.cpu.run(move || loaded.infer(&inputs)).await??
    };
    let took = begun.elapsed();
    attached.load.served(took.as_secs_f64());
    let reply = SessionReply::Inferred {
        n_rows: query.n_rows,
        host_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        // Without this one, which is about to end.
        in_flight: attached.load.in_flight().saturating_sub(1),
    };
    let values = outputs.probabilities.unwrap_or(outputs.values);
    // What breaks off from here on is the gateway's or the way's fault: nobody is left to be told.
    if session.send(&reply).await.is_ok() && send_numbers(session, &values).await.is_ok() {
        let _ = session.sender().finish();
    }
    drop(busy);
    if attached.load.in_flight() == 0 {
        shared.changed.notify_one();
    }
    Ok(())
}
