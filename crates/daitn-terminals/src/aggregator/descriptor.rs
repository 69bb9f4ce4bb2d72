//! What an aggregator tells others.

use super::Aggregator;
use daitn_messages::descriptor::AggregatorBody;

impl Aggregator {
    /// The body of the descriptor.
    #[must_use]
    pub(crate) fn describe(&self) -> AggregatorBody {
        AggregatorBody {
            storage_bytes: self.options.storage.0,
            price_micros_per_gb: self.options.price_micros_per_gb,
        }
    }
}
