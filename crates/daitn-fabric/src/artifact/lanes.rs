//! The lanes of one fetch: four at once, or eight where a holder is far, each asking one holder for one run of pieces after the other.

use super::{
    disk::{StoreError, blocking},
    fetch::{Fetch, FetchError, FetchReport, HolderFailure, Progress},
    partial::Partial,
    schedule::{Claim, Next, Schedule},
    serve::Ask,
    tree::PIECE_LEN,
};
use crate::{
    backoff::Backoff,
    counters::add,
    endpoint::{Endpoint, lock},
    error::SessionError,
    limits::{FETCH_LANES, FETCH_LANES_NEAR, RUN_PIECES_FIRST},
    news::News,
    session::Session,
};
use bytes::BytesMut;
use daitn_messages::{ids::NodeId, session::ArtifactRef};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{sync::Notify, task::JoinSet};

/// One fetch of an artifact of several pieces, shared by its lanes.
pub(super) struct Job {
    endpoint: Endpoint,
    fetch: Fetch,
    holders: Vec<NodeId>,
    partial: Arc<Partial>,
    state: Mutex<State>,
    /// Something in the state has changed.
    news: Notify,
    /// A holder is far.
    far: Notify,
    progress: Box<dyn Fn(Progress) + Send + Sync>,
}

struct State {
    schedule: Schedule,
    delivered: Vec<u64>,
    failures: Vec<Option<HolderFailure>>,
    backoffs: Vec<Backoff>,
    bytes_here: u64,
    bytes_resumed: u64,
    last_piece_at: Instant,
    fatal: Option<StoreError>,
}

/// Why a run ended before its end.
enum RunFailure {
    Holder(HolderFailure),
    Store(StoreError),
}

impl<E: Into<HolderFailure>> From<E> for RunFailure {
    fn from(error: E) -> Self {
        Self::Holder(error.into())
    }
}

impl Job {
    pub(super) fn new(
        endpoint: Endpoint,
        fetch: Fetch,
        holders: Vec<NodeId>,
        partial: Partial,
        here: &[u64],
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Self {
        let tree = partial.tree();
        let bytes_here = here.iter().map(|piece| tree.piece_len(*piece) as u64).sum();
        let state = State {
            schedule: Schedule::new(tree.n_pieces(), holders.len(), here),
            delivered: vec![0; holders.len()],
            failures: vec![None; holders.len()],
            backoffs: holders.iter().map(|_| Backoff::new(endpoint.random())).collect(),
            bytes_here,
            bytes_resumed: bytes_here,
            last_piece_at: Instant::now(),
            fatal: None,
        };
        let state = Mutex::new(state);
        Self {
            endpoint,
            fetch,
            holders,
            partial: Arc::new(partial),
            state,
            news: Notify::new(),
            far: Notify::new(),
            progress,
        }
    }

    pub(super) async fn run(
        self: Arc<Self>,
        begun: Option<(usize, Session, bool)>,
    ) -> Result<FetchReport, FetchError> {
        // Dropped with this future, and with them their streams.
        let mut lanes = JoinSet::new();
        if let Some((holder, session, is_far)) = begun {
            self.met(is_far);
            let claim = lock(&self.state).schedule.claim(holder, RUN_PIECES_FIRST);
            lanes.spawn(self.clone().lane(claim.map(|claim| (claim, session))));
        }
        let more = |lanes: &mut JoinSet<()>, n_lanes| {
            while lanes.len() < n_lanes {
                lanes.spawn(self.clone().lane(None));
            }
        };
        more(&mut lanes, FETCH_LANES_NEAR);
        let mut is_far = false;
        loop {
            let lane = tokio::select! {
                () = self.far.notified(), if !is_far => {
                    is_far = true;
                    more(&mut lanes, FETCH_LANES);
                    continue;
                }
                lane = lanes.join_next() => lane,
            };
            let Some(lane) = lane else { break };
            if let Err(error) = lane
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        let report = {
            let mut state = lock(&self.state);
            if let Some(error) = state.fatal.take() {
                return Err(error.into());
            }
            let failures = self.holders.iter().copied().zip(state.failures.clone());
            let failures: Vec<_> = failures
                .filter_map(|(node, failure)| Some((node, failure?)))
                .collect();
            if !state.schedule.is_done() {
                return Err(FetchError::NobodyDelivered {
                    artifact: self.fetch.artifact.id,
                    failures,
                });
            }
            let by_holder = self.holders.iter().copied().zip(state.delivered.clone());
            FetchReport {
                bytes_fetched: state.bytes_here - state.bytes_resumed,
                bytes_resumed: state.bytes_resumed,
                by_holder: by_holder.filter(|(_, bytes)| *bytes > 0).collect(),
                failures,
            }
        };
        let (partial, durability) = (self.partial.clone(), self.fetch.durability);
        blocking(move || partial.complete(durability)).await?;
        Ok(report)
    }

    async fn lane(self: Arc<Self>, mut begun: Option<(Claim, Session)>) {
        let mut heard = self.endpoint.news();
        loop {
            let (claim, session) = match begun.take() {
                Some((claim, session)) => (claim, Some(session)),
                None => match self.next(&mut heard).await {
                    Some(claim) => (claim, None),
                    None => return,
                },
            };
            let since = Instant::now();
            let outcome = self.run_pieces(&claim, session).await;
            self.settle(&claim, since, outcome);
        }
    }

    async fn next(&self, heard: &mut News) -> Option<Claim> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Before the state is looked at, so that nothing that happens after goes unnoticed.
            news.as_mut().enable();
            let next = {
                let mut state = lock(&self.state);
                if state.fatal.is_some() {
                    Next::Done
                } else {
                    state.schedule.next(Instant::now())
                }
            };
            match next {
                Next::Ask(claim) => return Some(claim),
                Next::Done | Next::NobodyLeft => return None,
                Next::Wait(None) => news.await,
                Next::Wait(Some(until)) => tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = news => {}
                    () = heard.of(&self.holders) => lock(&self.state).schedule.ask_now(),
                },
            }
        }
    }

    /// Receives, verifies and writes the pieces of a run.
    async fn run_pieces(&self, claim: &Claim, session: Option<Session>) -> Result<(), RunFailure> {
        let ArtifactRef { id: artifact, bytes } = self.fetch.artifact;
        let mut session = match session {
            Some(session) => session,
            None => {
                let n_pieces = claim.pieces.end - claim.pieces.start;
                let ask = Ask {
                    artifact,
                    hashes: false,
                    first_piece: claim.pieces.start,
                    n_pieces,
                };
                let holder = self.holders[claim.holder];
                let (session, is_far) = self.endpoint.ask(holder, &ask, bytes).await?;
                self.met(is_far);
                session
            }
        };
        let mut buffer = BytesMut::with_capacity(PIECE_LEN);
        for piece in claim.pieces.clone() {
            let len = self.partial.tree().piece_len(piece);
            buffer.clear();
            // The session's own time-out is for silence; this one is for trickling.
            let received = session.receiver().append(&mut buffer, len);
            tokio::time::timeout(self.fetch.patience, received)
                .await
                .map_err(|_| SessionError::TimedOut(self.fetch.patience))??;
            let partial = self.partial.clone();
            let written = blocking(move || Ok((partial.write(piece, &buffer)?, buffer))).await;
            let right;
            (right, buffer) = written.map_err(RunFailure::Store)?;
            if !right {
                return Err(self.endpoint.lied().into());
            }
            self.piece_here(claim.holder, piece, len);
        }
        Ok(())
    }

    /// A holder was met.
    fn met(&self, is_far: bool) {
        if is_far {
            self.far.notify_one();
        }
    }

    fn piece_here(&self, holder: usize, piece: u64, len: usize) {
        add(&self.endpoint.shared.counters.artifact_bytes_received_total, len);
        let progress = {
            let mut state = lock(&self.state);
            state.schedule.here(piece);
            state.delivered[holder] += len as u64;
            state.bytes_here += len as u64;
            state.last_piece_at = Instant::now();
            Progress {
                bytes_here: state.bytes_here,
                bytes_total: self.fetch.artifact.bytes,
            }
        };
        (self.progress)(progress);
    }

    /// Takes note of how a run ended.
    fn settle(&self, claim: &Claim, since: Instant, outcome: Result<(), RunFailure>) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        match outcome {
            Ok(()) => {
                state.schedule.finished(claim, now - since);
                state.backoffs[claim.holder].reset();
            }
            Err(RunFailure::Store(error)) => {
                state.schedule.failed(claim, None);
                state.fatal.get_or_insert(error);
            }
            Err(RunFailure::Holder(failure)) => {
                let node = self.holders[claim.holder];
                tracing::debug!(%node, artifact = %self.fetch.artifact.id, "a run broke off: {failure}");
                let patient = now.saturating_duration_since(state.last_piece_at) < self.fetch.patience;
                let again = failure.is_transient() && patient;
                let wait = again.then(|| now + state.backoffs[claim.holder].after_failure());
                state.schedule.failed(claim, wait);
                state.failures[claim.holder] = Some(failure);
            }
        }
        drop(state);
        self.news.notify_waiters();
    }
}
