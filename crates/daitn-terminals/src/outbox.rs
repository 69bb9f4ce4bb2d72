//! Receipts on their way to the center: each a durable file until the center has acknowledged it.
//!
//! Sent in the order in which they were put, at least once.

use crate::{
    durable::{self, DurableError, blocking},
    limits::OUTBOX_MAX,
};
use daitn_messages::{
    receipt::Receipt,
    rejection::{Code, Rejection},
    signed::Signed,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// The outbox of a node.
#[derive(Debug)]
pub(crate) struct Outbox {
    directory: PathBuf,
    waiting: Mutex<Waiting>,
    put: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Durable, not acknowledged.
    numbers: BTreeSet<u64>,
    /// Taken, perhaps not durable yet.
    next: u64,
}

impl Outbox {
    /// Opens the outbox in a directory. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn open(directory: &Path) -> Result<Self, DurableError> {
        durable::make_directory(directory)?;
        let files = durable::list(directory, "rec")?;
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let numbers: BTreeSet<u64> = files.iter().filter_map(number).collect();
        let next = numbers.last().map_or(0, |last| last + 1);
        let waiting = Mutex::new(Waiting { numbers, next });
        Ok(Self {
            directory: directory.to_owned(),
            waiting,
            put: Notify::new(),
        })
    }

    /// Puts a receipt; durable when this returns.
    ///
    /// # Errors
    /// Where the outbox is full or the disk fails.
    pub(crate) async fn put(&self, receipt: Signed<Receipt>) -> Result<(), Rejection> {
        let number = {
            let mut waiting = self.waiting();
            if waiting.numbers.len() >= OUTBOX_MAX {
                let message = format!("{OUTBOX_MAX} receipts wait for the control center already");
                return Err(Rejection::new(Code::Overloaded, message));
            }
            waiting.next += 1;
            waiting.next - 1
        };
        let path = self.path(number);
        blocking(move || durable::write(&path, &receipt))
            .await
            .map_err(|error| {
                tracing::error!("a receipt could not be kept: {error}");
                error.rejection()
            })?;
        self.waiting().numbers.insert(number);
        self.put.notify_one();
        Ok(())
    }

    /// The oldest receipt that waits, once there is one.
    ///
    /// # Errors
    /// Where the disk fails or the file is damaged; it is then set aside.
    pub(crate) async fn oldest(&self) -> Result<(u64, Signed<Receipt>), DurableError> {
        let number = loop {
            let put = self.put.notified();
            let first = self.waiting().numbers.first().copied();
            match first {
                Some(number) => break number,
                None => put.await,
            }
        };
        let path = self.path(number);
        let read = blocking({
            let path = path.clone();
            move || durable::read(&path)
        });
        match read.await {
            Ok(Some(receipt)) => Ok((number, receipt)),
            Ok(None) => {
                self.waiting().numbers.remove(&number);
                Err(DurableError::Damaged(path))
            }
            Err(error) => {
                // Kept on disk for a person to look at; the others must not wait behind it.
                self.waiting().numbers.remove(&number);
                Err(error)
            }
        }
    }

    /// The center has it.
    ///
    /// # Errors
    /// What the disk says; the receipt is then sent again after a restart, which does no harm.
    pub(crate) async fn acknowledge(&self, number: u64) -> Result<(), DurableError> {
        self.waiting().numbers.remove(&number);
        let path = self.path(number);
        blocking(move || durable::discard(&path)).await
    }

    /// How many wait.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.waiting().numbers.len()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:020}.rec"))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
