//! Begins, replaces and stops the conducting of jobs.

use super::Aggregator;
use crate::{
    conduct::{self, Journal, Running},
    durable::{self, blocking},
    holds::Readers,
    limits::{ANSWERS_KEPT, RESULTS_KEPT},
    orders::Decided,
    shared::{Shared, only},
    terminal::{Attached, Terminal},
};
use daitn_messages::ids::JobId;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

impl Aggregator {
    /// Conducts the job of an accepted order. An earlier epoch of the same job ends first.
    pub(crate) fn begin(attached: &Arc<Attached>, shared: &Arc<Shared>, known: &Arc<Decided>) {
        let Terminal::Aggregator(aggregator) = &attached.terminal else {
            return;
        };
        let Some(job) = known.order.job.clone() else {
            return;
        };
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
            all.insert(job, running)
        };
        let (attached, shared, known) = (attached.clone(), shared.clone(), known.clone());
        let directory = aggregator.directory.clone();
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            if let Some(before) = before {
                before.stop.cancel();
                before.ended.cancelled().await;
            }
            {
                let _ended = ended.drop_guard();
                conduct::conduct(attached.clone(), shared.clone(), known, directory, stop).await;
            }
            if let Terminal::Aggregator(aggregator) = &attached.terminal {
                aggregator.forget_oldest(&shared).await;
            }
        });
    }

    /// Stops a job. Its last state stays for a while: the center stops a conductor also to replace it, by itself even.
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
        self.forget_oldest(shared).await;
    }

    /// Ends the conducting of every job, which can go on from its journal.
    pub(crate) async fn retire(&self) {
        let all: Vec<Running> = self.running().drain().map(|(_, running)| running).collect();
        for running in all {
            running.stop.cancel();
            running.ended.cancelled().await;
        }
    }

    /// What jobs stand on is held before anything is cleared away.
    pub(crate) async fn hold_journals(&self, shared: &Shared) {
        let directory = self.directory.clone();
        let journals = blocking(move || Journal::all(&directory))
            .await
            .unwrap_or_default();
        for (job, _, journal) in journals {
            let scope: Arc<str> = conduct::scope_name(&job, journal.cycles_done).into();
            for artifact in [Some(journal.global), Some(journal.state), journal.control]
                .into_iter()
                .flatten()
            {
                if let Err(rejection) = shared.holds.hold(&scope, artifact.id, &journal_readers(&journal)) {
                    tracing::warn!(%job, "the state of a job is not held: {rejection}");
                }
            }
        }
    }

    /// Lets go the states of jobs that ended long ago.
    async fn forget_oldest(&self, shared: &Arc<Shared>) {
        let directory = self.directory.clone();
        let Ok(mut journals) = blocking(move || Journal::all(&directory)).await else {
            return;
        };
        let runs = |job: &JobId| {
            self.running()
                .get(job)
                .is_some_and(|running| !running.ended.is_cancelled())
        };
        journals.retain(|(job, ..)| !runs(job));
        journals.sort_by_key(|(_, written, _)| *written);
        let surplus = journals.len().saturating_sub(RESULTS_KEPT);
        for (job, _, journal) in journals.into_iter().take(surplus) {
            if let Err(rejection) = shared.orders.end(&journal.order).await {
                tracing::warn!(%job, "the order of an old job does not end: {rejection}");
                continue;
            }
            self.running().remove(&job);
            for cycles_done in journal.cycles_done.saturating_sub(ANSWERS_KEPT)..=journal.cycles_done {
                shared.release_all(&conduct::scope_name(&job, cycles_done));
            }
            let path = Journal::path(&self.directory, &job);
            if let Err(error) = blocking(move || durable::remove(&path)).await {
                tracing::warn!(%job, "the journal of an old job stays: {error}");
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, std::collections::HashMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn journal_readers(journal: &Journal) -> Readers {
    only(journal.readers.iter().copied())
}
