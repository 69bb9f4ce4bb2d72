//! What all requests share, and the two things that most of them do first: say whose authority they act with, and ask
//! the control center.

use crate::{
    auth::Caller,
    config::{GatewayConfig, GatewayLimits},
    control::Control,
    decisions::Decisions,
    front::Hosts,
    routing::{Now, Random},
    sessions::Sessions,
    stats::GatewayStats,
    view::View,
};
use arc_swap::ArcSwap;
use daitn_messages::{
    ids::DecisionId,
    operation::{Answer, Operation},
    rejection::{Code, Rejection},
    units::UnixMillis,
};
use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Gives the gateway's metrics as text in the Prometheus format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What all requests share.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) hosts: Hosts,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) view: ArcSwap<View>,
    pub(crate) sessions: Sessions,
    pub(crate) decisions: Decisions,
    pub(crate) stats: Arc<GatewayStats>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    /// Requests under way.
    pub(crate) requests: Semaphore,
    /// Responses that stream.
    pub(crate) streams: Arc<Semaphore>,
    /// Memory for bodies, in units of [`crate::input::BODY_UNIT_BYTES`].
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) metrics: Option<MetricsText>,
    /// Streams end when the gateway shuts down.
    pub(crate) stop: CancellationToken,
}

impl Gateway {
    pub(crate) fn limits(&self) -> &GatewayLimits {
        &self.config.limits
    }

    /// Asks the control center with the caller's authority.
    pub(crate) async fn ask(&self, caller: &Caller, operation: Operation) -> Result<Answer, Rejection> {
        // Handlers check the scope before they read a body; this is the check that none can forget.
        caller.demand(operation.scope())?;
        let asked = self.control.call(caller.principal().clone(), operation);
        let within = self.limits().control_timeout;
        tokio::time::timeout(within, asked).await.unwrap_or_else(|_| {
            let message = format!("the control center has not answered within {within:?}");
            Err(Rejection::new(Code::ControlUnavailable, message))
        })
    }

    pub(crate) fn decision_id(&self, at: UnixMillis) -> DecisionId {
        let mut random = [0; 10];
        // Without the system's randomness an id is still unique here: it only has to be a name.
        if getrandom::fill(&mut random).is_err() {
            random[..8].copy_from_slice(&self.random.next().to_le_bytes());
        }
        DecisionId::new(at.0, random)
    }
}

/// The gateway's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        // An hour ahead, so that zero is long ago.
        const HOUR_MS: u64 = 3_600_000;
        let steady_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            steady: UnixMillis(steady_ms.saturating_add(HOUR_MS)),
            wall: self.wall(),
        }
    }

    /// The time of day.
    pub(crate) fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
