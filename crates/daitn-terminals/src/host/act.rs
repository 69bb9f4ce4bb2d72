//! Loads a model and serves it, until it is told to stop.

use super::{Host, Replica};
use crate::{
    orders::Decided,
    shared::{Shared, only},
    terminal::{Attached, Terminal},
};
use daitn_fabric::Backoff;
use daitn_messages::{
    ids::{DeploymentId, OrderId},
    order::{Instruction, ServeOrder},
    receipt::Outcome,
    rejection::{Code, Rejection},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard},
};

/// Weights that nobody delivers are asked for so often before the center is told.
const ATTEMPTS_MAX: u32 = 3;

impl Host {
    /// Loads the model of an accepted order and tells the center that it is served.
    pub(crate) fn begin(attached: &Arc<Attached>, shared: &Arc<Shared>, known: &Arc<Decided>) {
        let (Terminal::Host(host), Instruction::Serve(serve)) =
            (&attached.terminal, &known.order.instruction)
        else {
            return;
        };
        // At once, so that weights which are here since before a restart are not cleared away.
        let scope: Arc<str> = scope_of(&known.order.id).into();
        if let Err(rejection) = shared
            .holds
            .hold(&scope, serve.weights.id, &crate::shared::nobody())
        {
            tracing::warn!(order = %known.order.id, "weights are not held: {rejection}");
        }
        host.loading.begin(attached, shared, known, load_and_tell);
    }

    /// Serves the order's model no more and forgets its weights.
    pub(crate) fn halt(&self, shared: &Arc<Shared>, known: &Decided, serve: &ServeOrder) {
        self.loading.stop(&known.order.id);
        {
            let mut replicas = self.replicas_mut();
            if replicas
                .get(&serve.deployment)
                .is_some_and(|replica| replica.order == known.order.id)
            {
                replicas.remove(&serve.deployment);
            }
        }
        shared.release_all(&scope_of(&known.order.id));
        shared.changed.notify_one();
    }

    async fn load(&self, shared: &Arc<Shared>, known: &Decided, serve: &ServeOrder) -> Result<(), Rejection> {
        let scope: Arc<str> = scope_of(&known.order.id).into();
        let mut backoff = Backoff::new(known.order.issued_at.0);
        let readers = only(serve.readers.iter().copied());
        let mut attempt = 0;
        let parameters = loop {
            attempt += 1;
            match shared
                .weights(&scope, &serve.spec, serve.weights, &serve.holders, &readers)
                .await
            {
                Ok(parameters) => break parameters,
                Err(rejection) if rejection.code == Code::Unreachable && attempt < ATTEMPTS_MAX => {
                    super::present::present(shared, known, serve).await;
                    tokio::time::sleep(backoff.after_failure()).await;
                }
                Err(rejection) => return Err(rejection),
            }
        };
        let (engine, spec) = (shared.engine.clone(), serve.spec.clone());
        let loaded = shared.cpu.run(move || engine.load(&spec, &parameters)).await??;
        let replica = Replica {
            epoch: known.order.epoch,
            order: known.order.id.clone(),
            model: serve.model.clone(),
            gateways: Arc::new(serve.gateways.iter().copied().collect()),
            memory_bytes: serve.weights.bytes,
            loaded: loaded.into(),
        };
        let replaced = {
            let mut replicas = self.replicas_mut();
            let newer = replicas
                .get(&serve.deployment)
                .is_some_and(|other| other.epoch > replica.epoch);
            if newer {
                None
            } else {
                replicas.insert(serve.deployment.clone(), replica)
            }
        };
        if let Some(replaced) = replaced.filter(|replaced| replaced.order != known.order.id) {
            shared.release_all(&scope_of(&replaced.order));
        }
        Ok(())
    }

    /// Memory that further models may take.
    #[must_use]
    pub(crate) fn free_memory_bytes(&self) -> u64 {
        let used: u64 = self.replicas().values().map(|replica| replica.memory_bytes).sum();
        self.options.memory.0.saturating_sub(used)
    }

    pub(super) fn replicas(&self) -> RwLockReadGuard<'_, BTreeMap<DeploymentId, Replica>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replicas_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<DeploymentId, Replica>> {
        self.replicas.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load_and_tell(attached: Arc<Attached>, shared: Arc<Shared>, known: Arc<Decided>) {
    let (Terminal::Host(host), Instruction::Serve(serve)) = (&attached.terminal, &known.order.instruction)
    else {
        return;
    };
    let outcome = match host.load(&shared, &known, serve).await {
        Ok(()) => {
            tracing::info!(order = %known.order.id, model = %serve.model.name, version = serve.model.version, "serving");
            Outcome::Serving
        }
        Err(rejection) => {
            if let Err(error) = shared.orders.end(&known.order.id).await {
                tracing::error!(order = %known.order.id, "a failed order was not marked as ended: {error}");
            }
            Outcome::Refused(Rejection {
                message: format!("the model could not be loaded: {}", rejection.message),
                ..rejection
            })
        }
    };
    shared.changed.notify_one();
    if let Err(rejection) = shared.report(&known.order, outcome).await {
        tracing::error!(order = %known.order.id, "a receipt could not be kept: {rejection}");
    }
}

fn scope_of(id: &OrderId) -> String {
    format!("serve/{id}")
}
