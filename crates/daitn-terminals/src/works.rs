//! What a terminal does for its orders beside answering: for each order at most once at a time, until it is done, the
//! order is stopped, or the node shuts down.

use crate::{orders::Decided, shared::Shared, terminal::Attached};
use daitn_messages::ids::OrderId;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// The works of a terminal; clones are the same works.
#[derive(Debug, Default, Clone)]
pub(crate) struct Works {
    running: Arc<Mutex<HashMap<OrderId, CancellationToken>>>,
}

impl Works {
    /// Does the work of an order in the background, unless that is under way.
    pub(crate) fn begin<F, W>(
        &self,
        attached: &Arc<Attached>,
        shared: &Arc<Shared>,
        known: &Arc<Decided>,
        work: F,
    ) where
        F: FnOnce(Arc<Attached>, Arc<Shared>, Arc<Decided>) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let id = known.order.id.clone();
        let stop = match self.running().entry(id.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(shared.stop.child_token()).clone(),
        };
        let (works, work) = (
            self.clone(),
            work(attached.clone(), shared.clone(), known.clone()),
        );
        shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                // Who stopped it has taken it off the list; another may stand there by now.
                () = stop.cancelled() => {}
                () = work => drop(works.running().remove(&id)),
            }
        });
    }

    /// Stops what is done for an order, if anything.
    pub(crate) fn stop(&self, order: &OrderId) {
        if let Some(stop) = self.running().remove(order) {
            stop.cancel();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<OrderId, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
