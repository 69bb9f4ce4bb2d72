//! Receipts on their way to the center: each a durable file until the center has acknowledged it.
//!
//! Sent in the order in which they were put, at least once.

use crate::{
    durable::{self, DurableError, blocking},
    limits::{OUTBOX_MAX, RECEIPT_TRIES_MAX},
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
    /// The one that is tried, and how often it was.
    tries: (u64, u32),
    /// Set aside since the start.
    n_aside: u64,
}

impl Outbox {
    /// Opens the outbox in a directory. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn open(directory: &Path) -> Result<Self, DurableError> {
        durable::make_directory(directory)?;
        let numbers = |extension: &str| -> Result<BTreeSet<u64>, DurableError> {
            let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
            let files = durable::list(directory, extension)?;
            Ok(files.iter().filter_map(number).collect())
        };
        // What was set aside keeps its name.
        let (numbers, aside) = (numbers("rec")?, numbers("aside")?);
        let next = numbers.last().max(aside.last()).map_or(0, |last| last + 1);
        let waiting = Mutex::new(Waiting {
            numbers,
            next,
            ..Waiting::default()
        });
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
                self.forget(number);
                Err(DurableError::Damaged(path))
            }
            Err(error) => {
                // Kept on disk for a person to look at; the others must not wait behind it.
                self.forget(number);
                Err(error)
            }
        }
    }

    /// The center has nothing but a fault of its own to say to this receipt. After so many times it is set aside: kept on
    /// disk, beside those that wait. Whether it was.
    ///
    /// # Errors
    /// What the disk says; the receipt is then tried again after a restart.
    pub(crate) async fn not_taken(&self, number: u64) -> Result<bool, DurableError> {
        {
            let mut waiting = self.waiting();
            let tries = if waiting.tries.0 == number {
                waiting.tries.1 + 1
            } else {
                1
            };
            waiting.tries = (number, tries);
            if tries < RECEIPT_TRIES_MAX {
                return Ok(false);
            }
        }
        self.forget(number);
        let path = self.path(number);
        blocking(move || durable::place(&path, &path.with_extension("aside"))).await?;
        Ok(true)
    }

    fn forget(&self, number: u64) {
        let mut waiting = self.waiting();
        waiting.numbers.remove(&number);
        waiting.n_aside += 1;
    }

    /// How many were set aside since the start.
    #[must_use]
    pub(crate) fn n_aside(&self) -> u64 {
        self.waiting().n_aside
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

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::{
        ids::{NodeId, OrderId},
        receipt::Outcome,
        signed::NodeKey,
        units::UnixMillis,
    };

    fn receipt(at: u64) -> Signed<Receipt> {
        let receipt = Receipt {
            order: OrderId::new(at, [0; 10]),
            job: None,
            epoch: 1,
            node: NodeId([1; 32]),
            terminal: "dataset:a/d".parse().unwrap(),
            at: UnixMillis(at),
            outcome: Outcome::Stopped,
        };
        Signed::seal(&receipt, &NodeKey::from_bytes(&[1; 32]))
    }

    #[tokio::test]
    async fn a_receipt_that_is_never_taken_is_set_aside_and_the_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(directory.path()).unwrap();
        outbox.put(receipt(1)).await.unwrap();
        outbox.put(receipt(2)).await.unwrap();
        let (first, _) = outbox.oldest().await.unwrap();
        for _ in 1..RECEIPT_TRIES_MAX {
            assert!(!outbox.not_taken(first).await.unwrap());
            assert_eq!(
                outbox.oldest().await.unwrap().0,
                first,
                "in order, while there is hope"
            );
        }
        assert!(outbox.not_taken(first).await.unwrap());
        let (second, found) = outbox.oldest().await.unwrap();
        assert_eq!(found, receipt(2));
        assert_eq!((outbox.len(), outbox.n_aside()), (1, 1));
        // Tries of one are not those of another.
        assert!(!outbox.not_taken(second).await.unwrap());
        let aside = durable::list(directory.path(), "aside").unwrap();
        assert_eq!(
            durable::read(&aside[0]).unwrap(),
            Some(receipt(1)),
            "kept on disk"
        );
        // And it does not come back by itself.
        drop(outbox);
        let outbox = Outbox::open(directory.path()).unwrap();
        assert_eq!(outbox.oldest().await.unwrap().1, receipt(2));
        outbox.acknowledge(second).await.unwrap();
        assert_eq!(outbox.len(), 0);
        // Nor is it written over, when nothing else is left that its number could be told from.
        std::fs::rename(&aside[0], aside[0].with_file_name("99.aside")).unwrap();
        drop(outbox);
        let outbox = Outbox::open(directory.path()).unwrap();
        outbox.put(receipt(3)).await.unwrap();
        assert_eq!(outbox.oldest().await.unwrap().0, 100);
    }
}
