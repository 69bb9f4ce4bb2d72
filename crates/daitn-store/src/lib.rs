//! Durable state in named transactions: the only crate that knows SQL.
//!
//! Records are bytes under a text key in one table for each [`Family`]; their meaning belongs to whoever writes them.
//! What [`Store::commit`] has returned is on disk: SQLite in WAL mode with `synchronous = FULL`, one writer that puts
//! many callers' batches into one transaction. Every record carries a checksum that each read verifies. There is one
//! process to a database; a second one is told so.

mod batch;
mod checksum;
mod error;
mod family;
mod limits;
mod read;
mod schema;
mod stats;
mod store;
mod writer;

pub use batch::{Batch, Change};
pub use error::StoreError;
pub use family::Family;
pub use limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, GROUP_BATCHES_MAX, PAGE_RECORDS_MAX, QUEUE_BATCHES_MAX,
};
pub use read::Record;
pub use stats::{StoreStats, TransactionStats};
pub use store::{Store, StoreOptions};
pub use writer::Committed;
