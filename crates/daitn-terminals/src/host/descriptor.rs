//! What a model host tells others.

use super::Host;
use daitn_messages::descriptor::ModelHostBody;

impl Host {
    /// The body of the descriptor.
    #[must_use]
    pub(crate) fn describe(&self, compute_rate: u64) -> ModelHostBody {
        ModelHostBody {
            memory_bytes: self.options.memory.0,
            compute_rate,
            price_micros_per_thousand: self.options.price_micros_per_thousand,
        }
    }
}
