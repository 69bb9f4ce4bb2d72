//! What a compute facility tells others.

use super::Compute;
use daitn_messages::descriptor::ComputeBody;

impl Compute {
    /// The body of the descriptor.
    #[must_use]
    pub(crate) fn describe(&self, compute_rate: u64) -> ComputeBody {
        ComputeBody {
            compute_rate,
            memory_bytes: self.options.memory.0,
            price_micros_per_hour: self.options.price_micros_per_hour,
        }
    }
}
