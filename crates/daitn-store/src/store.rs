//! Opening, committing, closing.

use crate::{
    batch::Batch,
    error::StoreError,
    family::LEAVES_NEXT,
    limits::{BUSY_TIMEOUT, QUEUE_BATCHES_MAX, READERS_MAX},
    schema,
    stats::{Counters, StoreStats},
    writer::{Committed, Request, Writer},
};
use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinHandle,
};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database file. It, its directory and what SQLite puts beside it are made where they do not exist, readable
    /// by their owner only.
    pub path: PathBuf,
    /// The file grows no further than this many bytes; none: as far as the disk.
    pub bytes_max: Option<u64>,
}

/// The durable state; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    readers: SqlitePool,
    counters: Arc<Counters>,
    writer: Mutex<Option<Running>>,
    queue: std::sync::Mutex<Option<mpsc::Sender<Request>>>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    /// Held as long as the writer runs.
    _lock: File,
}

const SQLITE_PAGE_BYTES: u64 = 4096;

impl Store {
    /// Opens the database at `path` with the usual options.
    ///
    /// # Errors
    /// Where it is in use, foreign, newer, damaged, or the file system says no.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        Self::open_with(StoreOptions {
            path,
            bytes_max: None,
        })
        .await
    }

    /// Opens a database.
    ///
    /// # Errors
    /// Where it is in use, foreign, newer, damaged, or the file system says no.
    pub async fn open_with(options: StoreOptions) -> Result<Self, StoreError> {
        let StoreOptions { path, bytes_max } = options;
        let lock = take_files(&path)?;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let mut connection = connect
            .connect()
            .await
            .map_err(|e| StoreError::from_sqlx("open", &e))?;
        schema::prepare(&mut connection, &path).await?;
        if let Some(bytes) = bytes_max {
            let statement = format!("PRAGMA max_page_count = {}", bytes.div_ceil(SQLITE_PAGE_BYTES));
            let bound = sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut connection)
                .await;
            bound.map_err(|e| StoreError::from_sqlx("open", &e))?;
        }
        let next_leaf = schema::number(&mut connection, LEAVES_NEXT)
            .await?
            .cast_unsigned();
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(connect.read_only(true))
            .await
            .map_err(|e| StoreError::from_sqlx("open", &e))?;
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            connection,
            next_leaf,
            counters: counters.clone(),
        };
        let (queue, requests) = mpsc::channel(QUEUE_BATCHES_MAX);
        let task = tokio::spawn(writer.run(requests));
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                readers,
                counters,
                writer: Mutex::new(Some(Running { task, _lock: lock })),
                queue: std::sync::Mutex::new(Some(queue)),
            }),
        })
    }

    /// Writes a batch. When this returns it is on disk. Waits while [`QUEUE_BATCHES_MAX`] batches wait already.
    ///
    /// `name` says what the transaction is for; it labels errors and metrics.
    ///
    /// # Errors
    /// Nothing of the batch was written then, but for [`StoreError::Closed`], where that is not known.
    pub async fn commit(&self, name: &'static str, batch: Batch) -> Result<Committed, StoreError> {
        batch.check()?;
        let queue = self.queue().ok_or(StoreError::Closed)?;
        let (done, committed) = oneshot::channel();
        let request = Request { name, batch, done };
        queue.send(request).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
        committed.await.map_err(|_| StoreError::Closed)?
    }

    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.inner.counters.read()
    }

    /// Takes no more batches, writes those that wait, and closes the files. Another process can open them then.
    pub async fn close(&self) {
        drop(
            self.inner
                .queue
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(),
        );
        self.inner.readers.close().await;
        if let Some(running) = self.inner.writer.lock().await.take()
            && let Err(error) = running.task.await
        {
            tracing::error!(%error, "the store's writer did not end well");
        }
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    fn queue(&self) -> Option<mpsc::Sender<Request>> {
        self.inner
            .queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

/// Makes directory and file where they do not exist, for their owner only, and takes the lock that keeps other
/// processes out.
fn take_files(path: &Path) -> Result<File, StoreError> {
    let refused = |error: std::io::Error| StoreError::File {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(refused)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let open = |path: &Path| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(refused)
    };
    let lock = open(Path::new(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Locked {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(refused(error)),
    }
    // SQLite gives the files beside it the mode of this one.
    open(path)?;
    Ok(lock)
}
