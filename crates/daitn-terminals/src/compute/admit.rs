//! Whether a compute facility trains for a dataset's node.

use super::Compute;
use crate::shared::{Shared, file_bytes};
use daitn_messages::{order::ComputeOrder, rejection::Rejection};

/// The rule under which a facility works.
const RULE: &str = "order-of-own-center";

impl Compute {
    /// The rules that permit the order.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, shared: &Shared, order: &ComputeOrder) -> Result<Vec<String>, Rejection> {
        let layout = shared.engine.layout(&order.spec)?;
        let needed = file_bytes(&layout).saturating_mul(super::act::VECTORS);
        if needed > self.options.memory.0 {
            return Err(Rejection::too_large(
                "model for this facility",
                needed,
                self.options.memory.0,
            ));
        }
        Ok(vec![RULE.to_owned()])
    }
}
