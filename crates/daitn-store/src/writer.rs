//! The one writer: takes what callers have queued, writes it in one transaction, and tells them after the fsync.

use crate::{
    batch::{Batch, Change},
    checksum,
    error::StoreError,
    family::{LEAVES_PUT, LEAVES_TABLE},
    limits::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX},
    schema::execute,
    stats::Counters,
};
use sqlx::{Connection, SqliteConnection};
use std::{sync::Arc, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// A batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Index of the batch's first leaf; where it has none, of the next leaf to come.
    pub first_leaf: u64,
}

/// A batch on its way to the writer.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) batch: Batch,
    pub(crate) done: oneshot::Sender<Result<Committed, StoreError>>,
}

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) connection: SqliteConnection,
    pub(crate) next_leaf: u64,
    pub(crate) counters: Arc<Counters>,
}

impl Writer {
    /// Runs until every sender is gone and the queue is empty.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP_BATCHES_MAX);
        while let Some(first) = queue.recv().await {
            let mut n_bytes = first.batch.n_bytes();
            group.push(first);
            while group.len() < GROUP_BATCHES_MAX && n_bytes < GROUP_BYTES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                n_bytes += next.batch.n_bytes();
                group.push(next);
            }
            self.commit(&mut group, n_bytes).await;
        }
        // Folds the WAL into the file; what was committed is safe without.
        if let Err(error) = execute(&mut self.connection, "PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::warn!(%error, "the last checkpoint failed; the next start will make it");
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    async fn commit(&mut self, group: &mut Vec<Request>, n_bytes: usize) {
        let started = Instant::now();
        let result = self.write(group).await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match result {
            Ok(first_leaves) => {
                let n_records = group
                    .iter()
                    .map(|r| r.batch.changes().len() + r.batch.leaves().len())
                    .sum();
                self.counters.group(n_records, n_bytes, micros);
                for (request, first_leaf) in group.drain(..).zip(first_leaves) {
                    self.counters.batch(request.name, true);
                    // A caller that no longer waits has nothing to be told.
                    let _ = request.done.send(Ok(Committed { first_leaf }));
                }
            }
            Err((name, error)) => {
                let error = StoreError::from_sqlx(name, &error);
                tracing::error!(transaction = name, %error, "a transaction failed; nothing of it was written");
                for request in group.drain(..) {
                    self.counters.batch(request.name, false);
                    let _ = request.done.send(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction; the first leaf of each batch. After an error nothing of it is there.
    async fn write(&mut self, group: &[Request]) -> Result<Vec<u64>, (&'static str, sqlx::Error)> {
        let first = group.first().map_or("empty", |request| request.name);
        let connection = &mut self.connection;
        execute(connection, "BEGIN IMMEDIATE")
            .await
            .map_err(|e| (first, e))?;
        let mut next_leaf = self.next_leaf;
        let mut first_leaves = Vec::with_capacity(group.len());
        for request in group {
            first_leaves.push(next_leaf);
            if let Err(error) = write_batch(connection, &request.batch, next_leaf).await {
                roll_back(connection).await;
                return Err((request.name, error));
            }
            next_leaf += request.batch.leaves().len() as u64;
        }
        if let Err(error) = execute(connection, "COMMIT").await {
            roll_back(connection).await;
            return Err((first, error));
        }
        self.next_leaf = next_leaf;
        Ok(first_leaves)
    }
}

async fn roll_back(connection: &mut SqliteConnection) {
    // SQLite itself has rolled back after a full disk; then this says that no transaction is active.
    if let Err(error) = execute(connection, "ROLLBACK").await {
        tracing::debug!(%error, "nothing to roll back");
    }
}

async fn write_batch(
    connection: &mut SqliteConnection,
    batch: &Batch,
    first_leaf: u64,
) -> Result<(), sqlx::Error> {
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => {
                let sum = checksum::sum(family.table(), key, value);
                let query = sqlx::query(family.put())
                    .bind(key.as_str())
                    .bind(value.as_slice())
                    .bind(sum.to_vec());
                query.execute(&mut *connection).await?;
            }
            Change::Delete { family, key } => {
                sqlx::query(family.delete())
                    .bind(key.as_str())
                    .execute(&mut *connection)
                    .await?;
            }
        }
    }
    for (leaf, index) in batch.leaves().iter().zip(first_leaf..) {
        let value = leaf.to_bytes();
        let sum = checksum::sum(LEAVES_TABLE, &index.to_string(), &value);
        let query = sqlx::query(LEAVES_PUT)
            .bind(index.cast_signed())
            .bind(value)
            .bind(sum.to_vec());
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
