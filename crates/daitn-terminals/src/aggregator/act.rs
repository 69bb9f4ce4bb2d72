//! Begins, replaces and stops the conducting of jobs.

use super::Aggregator;
use crate::{
    conduct::{self, Journal, Running},
    durable::{self, blocking},
    orders::Decided,
    shared::Shared,
    terminal::{Attached, Terminal},
};
use daitn_messages::ids::JobId;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

impl Aggregator {
    /// Conducts the job of an accepted order. An earlier epoch of the same job ends first.
    pub(crate) async fn begin(attached: &Arc<Attached>, shared: &Arc<Shared>, known: &Arc<Decided>) {
        let Terminal::Aggregator(aggregator) = &attached.terminal else {
            return;
        };
        let Some(job) = known.order.job.clone() else {
            return;
        };
        aggregator.hold_journal(shared, &job).await;
        let running = Running {
            epoch: known.order.epoch,
            stop: shared.stop.child_token(),
            ended: CancellationToken::new(),
        };
        let (stop, ended) = (running.stop.clone(), running.ended.clone());
        let before = {
            let mut all = aggregator.running();
            if all.get(&job).is_some_and(|other| other.epoch >= running.epoch) {
                return;
            }
            all.insert(job.clone(), running)
        };
        let (attached, shared, known) = (attached.clone(), shared.clone(), known.clone());
        let directory = aggregator.directory.clone();
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            if let Some(before) = before {
                before.stop.cancel();
                before.ended.cancelled().await;
            }
            let _ended = ended.drop_guard();
            conduct::conduct(attached, shared, known, directory, stop).await;
        });
    }

    /// Stops a job and forgets its state.
    pub(crate) async fn halt(&self, shared: &Arc<Shared>, known: &Arc<Decided>) {
        let Some(job) = known.order.job.clone() else {
            return;
        };
        let running = {
            let mut all = self.running();
            match all.get(&job) {
                // A later epoch runs: this order has ended already.
                Some(running) if running.epoch > known.order.epoch => return,
                _ => all.remove(&job),
            }
        };
        if let Some(running) = running {
            running.stop.cancel();
            running.ended.cancelled().await;
        }
        self.forget(shared, &job).await;
    }

    /// Ends the conducting of every job, which can go on from its journal.
    pub(crate) async fn retire(&self) {
        let all: Vec<Running> = self.running().drain().map(|(_, running)| running).collect();
        for running in all {
            running.stop.cancel();
            running.ended.cancelled().await;
        }
    }

    /// What a job stands on is held before anything is cleared away.
    async fn hold_journal(&self, shared: &Shared, job: &JobId) {
        let path = Journal::path(&self.directory, job);
        let Ok(Some(journal)) = blocking(move || Journal::read(&path)).await else {
            return;
        };
        let scope: Arc<str> = conduct::scope_name(job, journal.cycles_done).into();
        for artifact in [Some(journal.global), Some(journal.state), journal.control]
            .into_iter()
            .flatten()
        {
            if let Err(rejection) = shared.holds.hold(&scope, artifact.id, &crate::shared::nobody()) {
                tracing::warn!(%job, "the state of a job is not held: {rejection}");
            }
        }
    }

    async fn forget(&self, shared: &Arc<Shared>, job: &JobId) {
        let path = Journal::path(&self.directory, job);
        let read = path.clone();
        let journal = blocking(move || Journal::read(&read)).await;
        let last = journal.ok().flatten().map_or(0, |journal| journal.cycles_done);
        for cycles_done in last.saturating_sub(crate::limits::ANSWERS_KEPT)..=last {
            shared.release_all(&conduct::scope_name(job, cycles_done));
        }
        if let Err(error) = blocking(move || durable::remove(&path)).await {
            tracing::warn!(%job, "the journal of a stopped job stays: {error}");
        }
    }

    fn running(&self) -> MutexGuard<'_, std::collections::HashMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
