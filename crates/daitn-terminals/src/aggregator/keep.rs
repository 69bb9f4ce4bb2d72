//! The states of jobs that others conduct, kept for the case that their conductor is lost.

use super::Aggregator;
use crate::{
    durable::{self, blocking},
    limits::KEPT_STATES_MAX,
    shared::{Shared, only},
};
use daitn_fabric::artifact::Durability;
use daitn_messages::{
    ids::{JobId, NodeId},
    order::{Instruction, WorkOrder},
    rejection::{Code, Rejection},
    session::{ArtifactRef, KeepState},
    signed::Signed,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// States that are kept of one job.
const STATES_KEPT: usize = 4;

/// What is kept of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    job: JobId,
    epoch: u64,
    /// Who may replace the state.
    conductor: NodeId,
    /// Who may fetch it.
    readers: Vec<NodeId>,
    /// The newest last. What the center has heard of may be a few cycles older than what the conductor sent here.
    states: Vec<ArtifactRef>,
    kept_at: UnixMillis,
}

/// What is kept of all jobs.
#[derive(Debug)]
pub(super) struct Kept {
    directory: PathBuf,
    records: Mutex<HashMap<JobId, Record>>,
}

impl Kept {
    pub(super) fn open(directory: &Path) -> Result<Self, Rejection> {
        let read = || {
            durable::make_directory(directory)?;
            let mut records = HashMap::new();
            for path in durable::list(directory, "rec")? {
                if let Some(record) = durable::read::<Record>(&path)? {
                    records.insert(record.job.clone(), record);
                }
            }
            Ok(records)
        };
        let records = read().map_err(|error: durable::DurableError| {
            tracing::error!("the states kept for others cannot be read: {error}");
            error.rejection()
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            records: Mutex::new(records),
        })
    }

    fn records(&self) -> MutexGuard<'_, HashMap<JobId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scope_of(job: &JobId, state: ArtifactRef) -> Arc<str> {
    format!("kept/{job}/{}", state.id).into()
}

impl Aggregator {
    /// Offers again what was kept before the node was restarted.
    pub(crate) fn hold_kept(&self, shared: &Shared) {
        for record in self.kept.records().values() {
            let readers = only(record.readers.iter().copied());
            for state in &record.states {
                let held = shared
                    .holds
                    .hold(&scope_of(&record.job, *state), state.id, &readers);
                if let Err(error) = held {
                    tracing::warn!(job = %record.job, "a kept state is not offered any more: {error}");
                }
            }
        }
    }

    /// Fetches a state and keeps it, durably; the oldest goes.
    ///
    /// # Errors
    /// [`Code::NotFound`] where the spare has to see the conductor's order first.
    pub(crate) async fn keep(
        &self,
        shared: &Arc<Shared>,
        remote: NodeId,
        asked: &KeepState,
        proof: Option<&Signed<WorkOrder>>,
    ) -> Result<(), Rejection> {
        let before = self.kept.records().get(&asked.job).cloned();
        let readers = match (proof, &before) {
            (Some(proof), _) => proven(shared, remote, asked, proof)?,
            (None, Some(before)) if before.conductor == remote => before.readers.clone(),
            (None, _) => return Err(Rejection::not_found("kept state of", &asked.job)),
        };
        if before.as_ref().is_some_and(|before| asked.epoch < before.epoch) {
            return Err(Rejection::new(
                Code::StaleEpoch,
                "a later conductor's state is kept",
            ));
        }
        let scope = scope_of(&asked.job, asked.state);
        shared
            .fetch(&scope, asked.state, &asked.holders, Durability::Durable)
            .await?;
        shared
            .holds
            .hold(&scope, asked.state.id, &only(readers.iter().copied()))?;
        let mut states = before.map_or_else(Vec::new, |before| before.states);
        states.retain(|state| *state != asked.state);
        states.push(asked.state);
        let surplus = states.len().saturating_sub(STATES_KEPT);
        let replaced: Vec<ArtifactRef> = states.drain(..surplus).collect();
        let record = Record {
            job: asked.job.clone(),
            epoch: asked.epoch,
            conductor: remote,
            readers,
            states,
            kept_at: shared.clock.now(),
        };
        let (path, written) = (self.path_of_kept(&asked.job), record.clone());
        blocking(move || durable::write(&path, &written))
            .await
            .map_err(|error| error.rejection())?;
        self.kept.records().insert(asked.job.clone(), record);
        for state in replaced {
            shared.release_all(&scope_of(&asked.job, state));
        }
        self.forget_oldest_kept(shared).await;
        Ok(())
    }

    async fn forget_oldest_kept(&self, shared: &Arc<Shared>) {
        let oldest = {
            let mut records = self.kept.records();
            if records.len() <= KEPT_STATES_MAX {
                return;
            }
            let oldest = records
                .values()
                .min_by_key(|record| record.kept_at)
                .map(|record| record.job.clone());
            oldest.and_then(|job| records.remove(&job))
        };
        let Some(record) = oldest else { return };
        for state in &record.states {
            shared.release_all(&scope_of(&record.job, *state));
        }
        let path = self.path_of_kept(&record.job);
        if let Err(error) = blocking(move || durable::remove(&path)).await {
            tracing::warn!(job = %record.job, "an old kept state stays on disk: {error}");
        }
    }

    fn path_of_kept(&self, job: &JobId) -> PathBuf {
        self.kept.directory.join(format!("{job}.rec"))
    }
}

/// Who may fetch the state, by an order that makes `remote` the conductor and this node its spare.
fn proven(
    shared: &Shared,
    remote: NodeId,
    asked: &KeepState,
    proof: &Signed<WorkOrder>,
) -> Result<Vec<NodeId>, Rejection> {
    let order = proof.open(shared.center)?;
    let Instruction::Conduct(conduct) = &order.instruction else {
        return Err(Rejection::malformed("order", "not one to conduct"));
    };
    let is_spare = conduct.spares.iter().any(|peer| peer.node == shared.node);
    if order.node != remote
        || order.job.as_ref() != Some(&asked.job)
        || order.epoch != asked.epoch
        || !is_spare
    {
        let message = "the order does not make the sender the conductor of this job and this node its spare";
        return Err(Rejection::new(Code::Unauthorised, message));
    }
    Ok(conduct
        .spares
        .iter()
        .map(|peer| peer.node)
        .chain([remote])
        .collect())
}
