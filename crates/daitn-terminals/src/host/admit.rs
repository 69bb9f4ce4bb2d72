//! Whether a model host serves a model.

use super::Host;
use crate::{
    limits::MODELS_MAX,
    shared::{Shared, file_bytes},
};
use daitn_messages::{
    order::ServeOrder,
    rejection::{Code, Rejection},
};

/// The rule under which a host works.
const RULE: &str = "order-of-own-center";

impl Host {
    /// The rules that permit the order.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, shared: &Shared, serve: &ServeOrder) -> Result<Vec<String>, Rejection> {
        let expected = file_bytes(&shared.engine.layout(&serve.spec)?);
        if serve.weights.bytes != expected {
            let message = format!(
                "weights of {} bytes, where the model's take {expected}",
                serve.weights.bytes
            );
            return Err(Rejection::new(Code::UpdateRefused, message));
        }
        let replicas = self.replicas();
        let others = || {
            replicas
                .iter()
                .filter(|(deployment, _)| **deployment != serve.deployment)
        };
        if others().count() >= MODELS_MAX {
            return Err(Rejection::new(
                Code::Overloaded,
                format!("the host serves {MODELS_MAX} models already"),
            ));
        }
        let used: u64 = others().map(|(_, replica)| replica.memory_bytes).sum();
        let free = self.options.memory.0.saturating_sub(used);
        if serve.weights.bytes > free {
            return Err(Rejection::too_large(
                "model for this host's free memory",
                serve.weights.bytes,
                free,
            ));
        }
        Ok(vec![RULE.to_owned()])
    }
}
