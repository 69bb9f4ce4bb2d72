//! Every bound of the store, each with the reason for its value.

use std::time::Duration;

/// Batches in one transaction. Beyond this a commit's fsync is already spread thin and callers only wait longer.
pub const GROUP_BATCHES_MAX: usize = 256;
/// Bytes after which a group takes no further batch, so that the WAL of one transaction stays small.
pub(crate) const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Batches that wait for the writer; further callers wait in their turn.
pub const QUEUE_BATCHES_MAX: usize = 1024;
/// Bytes of one batch: four plans of 10,000 sites and their orders.
pub const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Records and leaves of one batch.
pub const BATCH_RECORDS_MAX: usize = 256 * 1024;
/// Longest key, bytes.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// Records, or leaves, of one page that is read.
pub const PAGE_RECORDS_MAX: u32 = 1_000;
/// Connections that read beside the writer.
pub(crate) const READERS_MAX: u32 = 2;
/// SQLite waits this long for a checkpoint of its own to end.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
