//! What a gateway needs of the control center. The binary implements it for the control center's handle; the two crates
//! do not know each other.

use daitn_messages::{
    ids::JobId,
    job::{JobEvent, JobView},
    operation::{Answer, Operation, Principal},
    rejection::Rejection,
    snapshot::Snapshot,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// A job as it is, and everything that happens to it from then on, without a gap between.
pub type JobFeed = (JobView, broadcast::Receiver<JobEvent>);

/// The control center, as a gateway sees it.
pub trait Control: Send + Sync + 'static {
    /// Asks for something with the authority of a principal, and waits until it is durable.
    fn call(&self, principal: Principal, operation: Operation) -> BoxFuture<'_, Result<Answer, Rejection>>;

    /// The topology snapshot, whenever it changes. Queries are routed by the newest, also when the sender is gone.
    fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>>;

    /// Follows a job that the principal may see.
    fn watch_job(&self, principal: Principal, job: JobId) -> BoxFuture<'_, Result<JobFeed, Rejection>>;
}
