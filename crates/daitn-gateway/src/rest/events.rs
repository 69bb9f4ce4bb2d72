//! A job's events as server-sent events that a client can resume after a break, at another gateway too: an event's id
//! is the place in the job's record up to which the client knows it, so what it missed is read from the record.

use crate::{auth::Caller, control::JobFeed, gateway::Gateway, stats::Open, stats::count};
use axum::{
    http::{HeaderValue, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use daitn_messages::{
    ids::JobId,
    job::{JobEvent, JobPhase, JobView},
    operation::Principal,
    rejection::{Code, Rejection},
    snapshot::Snapshot,
};
use futures_util::stream;
use serde::Serialize;
use std::{collections::VecDeque, convert::Infallible, str::FromStr, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, broadcast::error::RecvError, watch};

/// How far a client knows a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
    epoch: u64,
    cycles: usize,
    left_out: usize,
    reports: usize,
    phase: Option<JobPhase>,
}

/// Phases in an event's id, in the order of [`PHASES`].
const PHASES: [JobPhase; 8] = [
    JobPhase::Preparing,
    JobPhase::Training,
    JobPhase::Verifying,
    JobPhase::Deploying,
    JobPhase::Succeeded,
    JobPhase::NotVerified,
    JobPhase::Failed,
    JobPhase::Stopped,
];

impl Position {
    fn of(job: &JobView) -> Self {
        Self {
            epoch: job.epoch,
            cycles: job.cycles.len(),
            left_out: job.left_out.len(),
            reports: job.reports.len(),
            phase: Some(job.phase),
        }
    }

    /// What a client at this place has missed. Where more has moved than lists that only grow, the whole job again.
    fn missed(self, job: &JobView) -> Vec<JobEvent> {
        let now = Self::of(job);
        let grown = self.cycles <= now.cycles && self.left_out <= now.left_out && self.reports <= now.reports;
        if self.phase != now.phase || self.epoch != now.epoch || !grown {
            return vec![JobEvent::View {
                job: Box::new(job.clone()),
            }];
        }
        let cycles = job.cycles[self.cycles..]
            .iter()
            .map(|cycle| JobEvent::Cycle { cycle: cycle.clone() });
        let left_out = job.left_out[self.left_out..]
            .iter()
            .map(|left_out| JobEvent::LeftOut {
                left_out: left_out.clone(),
            });
        let reports = job.reports[self.reports..]
            .iter()
            .map(|(unit, report)| JobEvent::Report {
                unit: unit.clone(),
                report: Box::new(report.clone()),
            });
        // What it waits for is a state and not a list: whoever comes again is told anew.
        let waiting = job.waiting.clone().map(|waiting| JobEvent::Waiting {
            waiting: Some(waiting),
        });
        cycles.chain(left_out).chain(reports).chain(waiting).collect()
    }

    fn advance(&mut self, event: &JobEvent) {
        match event {
            JobEvent::View { job } => *self = Self::of(job),
            JobEvent::Phase { phase, .. } => self.phase = Some(*phase),
            JobEvent::Cycle { .. } => self.cycles += 1,
            JobEvent::LeftOut { .. } => self.left_out += 1,
            JobEvent::Report { .. } => self.reports += 1,
            JobEvent::Conductor { epoch, .. } => self.epoch = *epoch,
            JobEvent::Waiting { .. } => {}
        }
    }

    fn is_terminal(self) -> bool {
        self.phase.is_some_and(JobPhase::is_terminal)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = PHASES
            .iter()
            .position(|phase| Some(*phase) == self.phase)
            .unwrap_or(PHASES.len());
        write!(
            f,
            "{}.{}.{}.{}.{phase}",
            self.epoch, self.cycles, self.left_out, self.reports
        )
    }
}

impl FromStr for Position {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text
            .splitn(5, '.')
            .map(|part| part.parse::<u64>().map_err(|_| ()));
        let mut next = || parts.next().unwrap_or(Err(()));
        let index = |n: u64| usize::try_from(n).map_err(|_| ());
        Ok(Self {
            epoch: next()?,
            cycles: index(next()?)?,
            left_out: index(next()?)?,
            reports: index(next()?)?,
            phase: PHASES.get(index(next()?)?).copied(),
        })
    }
}

/// An event as it is sent: the event's own fields and whether it is the last.
#[derive(Serialize)]
struct Sent<'a> {
    #[serde(flatten)]
    event: &'a JobEvent,
    terminal: bool,
}

fn kind(event: &JobEvent) -> &'static str {
    match event {
        JobEvent::View { .. } => "view",
        JobEvent::Phase { .. } => "phase",
        JobEvent::Cycle { .. } => "cycle",
        JobEvent::LeftOut { .. } => "left-out",
        JobEvent::Report { .. } => "report",
        JobEvent::Conductor { .. } => "conductor",
        JobEvent::Waiting { .. } => "waiting",
    }
}

/// One client's stream.
struct Watch {
    gateway: Arc<Gateway>,
    principal: Principal,
    job: JobId,
    feed: JobFeed,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    pending: VecDeque<JobEvent>,
    position: Position,
    ended: bool,
    _open: Open,
    _slot: OwnedSemaphorePermit,
}

/// The response, or why there is none.
pub(super) async fn stream(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    job: JobId,
    last: Option<&str>,
) -> Result<Response, Rejection> {
    let slot = gateway.streams.clone().try_acquire_owned().map_err(|_| {
        count(&gateway.stats.overloads_total);
        let max = gateway.limits().streams_max;
        Rejection::new(
            Code::Overloaded,
            format!("{max} streams are open, which is the most"),
        )
    })?;
    let principal = caller.principal().clone();
    let feed = gateway.control.watch_job(principal.clone(), job.clone()).await?;
    // An id that is not ours is as none: the client gets the whole job.
    let known = last.and_then(|id| id.parse::<Position>().ok());
    let pending: VecDeque<JobEvent> = known.unwrap_or_default().missed(&feed.0).into();
    if pending.is_empty() && Position::of(&feed.0).is_terminal() {
        // Tells an EventSource not to come again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = Watch {
        gateway: gateway.clone(),
        principal,
        job,
        feed,
        snapshots: gateway.control.snapshot(),
        pending,
        position: known.unwrap_or_default(),
        ended: false,
        _open: gateway.stats.stream_opened(),
        _slot: slot,
    };
    let events = stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(watch.sent(&event)), watch))
    });
    let heartbeat = KeepAlive::new()
        .interval(gateway.limits().heartbeat)
        .text("alive");
    let mut response = Sse::new(events).keep_alive(heartbeat).into_response();
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Watch {
    /// The next event, or `None` after the last, when the client's key is revoked, or when the gateway shuts down.
    async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(event) = self.pending.pop_front() {
                self.position.advance(&event);
                self.ended = self.pending.is_empty() && self.position.is_terminal();
                return Some(event);
            }
            let stop = self.gateway.stop.clone();
            tokio::select! {
                event = self.feed.1.recv() => match event {
                    Ok(event) => self.pending.push_back(event),
                    // The client reads more slowly than the job moves: what it missed is in the record.
                    Err(RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(RecvError::Closed) => return None,
                },
                changed = self.snapshots.changed() => {
                    changed.ok()?;
                    self.is_in_force().then_some(())?;
                }
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Whether the key with which the stream was opened may still be used.
    fn is_in_force(&mut self) -> bool {
        let snapshot = self.snapshots.borrow_and_update();
        snapshot.keys.iter().any(|key| key.principal == self.principal)
    }

    async fn catch_up(&mut self) -> Option<()> {
        let watched = self
            .gateway
            .control
            .watch_job(self.principal.clone(), self.job.clone())
            .await;
        self.feed = watched
            .map_err(|rejection| tracing::debug!(job = %self.job, "a watcher is lost: {rejection}"))
            .ok()?;
        self.pending = self.position.missed(&self.feed.0).into();
        Some(())
    }

    fn sent(&self, event: &JobEvent) -> Event {
        let made = Event::default().event(kind(event)).id(self.position.to_string());
        let data = Sent {
            event,
            terminal: self.ended,
        };
        match serde_json::to_string(&data) {
            Ok(text) => made.data(text),
            Err(error) => {
                // Only a map with a key that is no text fails, which no type of ours has.
                tracing::error!(job = %self.job, "an event does not encode: {error}");
                made.data("{}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
