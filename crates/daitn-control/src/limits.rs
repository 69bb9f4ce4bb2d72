//! Every bound and time of the control center, each with the reason for its value.

/// How long the center waits for others before it acts. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Sites answer an order within this time, or the job goes on without them. Also the time in which they answer a
    /// new conductor's.
    pub preparing_ms: u64,
    /// A conductor whose node is gone this long is replaced, if another can take over.
    pub conductor_lost_ms: u64,
    /// A job without a conductor this long fails.
    pub conductor_lost_max_ms: u64,
    /// A connected conductor that reports nothing for this long, on top of three rounds' deadlines, is replaced.
    pub conductor_silent_ms: u64,
    /// Verification units report within this time, on top of the time that the weights take over a slow link.
    pub verifying_ms: u64,
    /// Hosts serve within this time, on top of the time that the weights take over a slow link.
    pub deploying_ms: u64,
    /// A host whose node is gone this long is replaced.
    pub host_lost_ms: u64,
    /// A host that could not serve is asked again after this time.
    pub host_again_ms: u64,
    /// Changes of load reach the gateways at most this often.
    pub telemetry_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            preparing_ms: 15_000,
            conductor_lost_ms: 10_000,
            conductor_lost_max_ms: 10 * 60_000,
            conductor_silent_ms: 60_000,
            verifying_ms: 120_000,
            deploying_ms: 120_000,
            host_lost_ms: 10_000,
            host_again_ms: 60_000,
            telemetry_ms: 500,
        }
    }
}

impl Timing {
    /// What `bytes` add to a deadline: two megabits a second, half of the slowest links that users report.
    #[must_use]
    pub(crate) fn transfer_ms(bytes: u64) -> u64 {
        const SLOW_LINK_BYTES_PER_MS: u64 = 250;
        bytes / SLOW_LINK_BYTES_PER_MS
    }

    /// Verification units report on weights of this size within this time.
    #[must_use]
    pub(crate) fn reporting_ms(&self, weights_bytes: u64) -> u64 {
        self.verifying_ms.saturating_add(Self::transfer_ms(weights_bytes))
    }

    /// A host serves weights of this size within this time.
    #[must_use]
    pub(crate) fn placing_ms(&self, weights_bytes: u64) -> u64 {
        self.deploying_ms.saturating_add(Self::transfer_ms(weights_bytes))
    }
}

/// Nodes of a domain.
pub(crate) const NODES_MAX: usize = 64 * 1024;
/// Descriptors of a domain.
pub(crate) const DESCRIPTORS_MAX: usize = 2 * 1024 * 1024;
/// Join tokens that are kept, spent and revoked ones included until they expire.
pub(crate) const TOKENS_MAX: usize = 64 * 1024;
/// Nodes that may join with one token.
pub(crate) const TOKEN_USES_MAX: u32 = 10_000;
/// Longest validity of a join token: 90 days.
pub(crate) const TOKEN_VALID_MS_MAX: u64 = 90 * 24 * 60 * 60 * 1000;
/// API keys of a domain.
pub(crate) const KEYS_MAX: usize = 64 * 1024;
/// Plans that wait to be applied; the oldest goes first.
pub(crate) const PLANS_MAX: usize = 256;
/// Plans that are being made at once: each holds a thread, and what has changed of the topology since it began.
pub(crate) const PLANNING_MAX: usize = 8;
/// Jobs that have not ended.
pub(crate) const JOBS_ACTIVE_MAX: usize = 256;
/// Ended jobs that stay in memory with all their cycles; older ones are read from the store.
pub(crate) const JOBS_ENDED_MAX: usize = 256;
/// Ended jobs that are listed without being in memory.
pub(crate) const JOBS_LISTED_MAX: usize = 10_000;
/// Deployments that have not ended.
pub(crate) const DEPLOYMENTS_ACTIVE_MAX: usize = 4 * 1024;
/// Models without a ready replica of which gateways are told: of others a query hears that there is no such model.
pub(crate) const UNSERVED_MAX: usize = 4 * 1024;
/// Ended deployments that stay in memory.
pub(crate) const DEPLOYMENTS_ENDED_MAX: usize = 1024;
/// Conductors of one job: after so many something else is wrong.
pub(crate) const CONDUCTORS_MAX: u32 = 16;
/// A verification unit is asked again so often after it could not get the weights.
pub(crate) const VERIFY_ATTEMPTS_MAX: u32 = 5;
/// Verification units that may take the place of others: they may fetch the weights, so that they are few.
pub(crate) const SPARE_UNITS_MAX: usize = 8;
/// Entries of what was left out that a job's view shows.
pub(crate) const LEFT_OUT_MAX: usize = 10_000;
/// Idempotency keys are kept this long: longer than any client retries.
pub(crate) const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1000;
/// Idempotency keys at once.
pub(crate) const IDEMPOTENCY_MAX: usize = 64 * 1024;
/// Longest idempotency key, bytes.
pub(crate) const IDEMPOTENCY_BYTES_MAX: usize = 200;
/// Work orders of a job may be begun this long after they were signed: a job's longest life but for its deadline.
pub(crate) const ORDER_VALID_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Orders to serve outlive restarts of hosts for a year.
pub(crate) const SERVE_VALID_MS: u64 = 365 * 24 * 60 * 60 * 1000;
/// Answers of discovery on one page.
pub(crate) const HITS_MAX: u32 = 1_000;
/// Answers of discovery on one page where none is asked for.
pub(crate) const HITS_DEFAULT: u32 = 50;
/// Nodes that a node is asked to probe when it joins.
pub(crate) const PROBES_MAX: usize = 8;
/// Sites that an aggregator is asked to probe besides, a quarter of a second each at most and four at once: who comes
/// after it measures the way to it.
pub(crate) const SITES_PROBED_MAX: usize = 64;
/// Candidates that a decision record names.
pub(crate) const CANDIDATES_MAX: usize = 1_000;
/// Nodes that may fetch one model's weights.
pub(crate) const READERS_MAX: usize = 1_024;
/// Holders that an order names.
pub(crate) const HOLDERS_MAX: usize = 16;
/// How often old records are looked through.
pub(crate) const HOUSEKEEPING_MS: u64 = 60_000;
/// Measured links or telemetry entries in one message.
pub(crate) const MEASUREMENTS_MAX: usize = 1_024;
