//! Durable state in named transactions.
