//! Why the store could not do it: what happened, and what to do about it.

use daitn_messages::rejection::{Code, Rejection};
use std::path::PathBuf;

/// Why the store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the database {} is in use by another process", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("cannot use the database {}: {cause}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        cause: String,
    },
    /// There is no room, on the disk or within the bound that was set.
    #[error("no room on the disk for the transaction `{transaction}`")]
    Full {
        /// Which.
        transaction: &'static str,
    },
    /// The disk does not let itself be written or read.
    #[error("the disk refuses the transaction `{transaction}`: {cause}")]
    Disk {
        /// Which.
        transaction: &'static str,
        /// SQLite's reason.
        cause: String,
    },
    /// A record's checksum does not match.
    #[error("record `{key}` of table `{table}` is corrupted: its checksum does not match its content")]
    Corrupted {
        /// Where.
        table: &'static str,
        /// Which record.
        key: String,
    },
    /// A record does not decode although its checksum matches.
    #[error("record `{key}` of table `{table}` was written by another version: {cause}")]
    Undecodable {
        /// Where.
        table: &'static str,
        /// Which record.
        key: String,
        /// What did not fit.
        cause: String,
    },
    /// The file's structure is broken.
    #[error("the database file is damaged: {cause}")]
    Damaged {
        /// What SQLite found.
        cause: String,
    },
    /// A newer program wrote it.
    #[error("the database has schema version {found}, this program knows up to {supported}")]
    NewerSchema {
        /// The file's.
        found: i64,
        /// This program's.
        supported: i64,
    },
    /// Somebody else's file.
    #[error("{} is not a database of this program", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Over a bound.
    #[error("{what}: {found} is over the bound of {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The store has shut down.
    #[error("the store has shut down")]
    Closed,
    /// Anything else that SQLite says.
    #[error("the transaction `{transaction}` failed: {cause}")]
    Failed {
        /// Which.
        transaction: &'static str,
        /// SQLite's reason.
        cause: String,
    },
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "Stop the other process, or give this one a directory of its own.",
            Self::File { .. } => {
                "Check that the directory exists, is writable for this user and not on a read-only disk."
            }
            Self::Full { .. } => "Make room on the disk, then start again: what was acknowledged is there.",
            Self::Disk { .. } => {
                "The system's log says what is wrong with the disk: read-only, over a quota or failing. Mend that, then \
                 start again: what was acknowledged is there."
            }
            Self::Corrupted { .. } | Self::Damaged { .. } => {
                "The disk or another program changed the file. Restore the newest backup; do not go on with this file."
            }
            Self::Undecodable { .. } | Self::NewerSchema { .. } => {
                "Start the version that wrote it, or a newer one."
            }
            Self::Foreign { .. } => {
                "Give the path of a database of this program, or of a file that does not exist yet."
            }
            Self::TooLarge { .. } => "Split what is written.",
            Self::Closed => "Start the program again.",
            Self::Failed { .. } => "The log holds the cause. Please report it.",
        }
    }

    /// Whether the disk or the file is at fault, and not this program.
    #[must_use]
    pub fn is_of_storage(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Closed | Self::Failed { .. })
    }

    /// As told to users and kept in records.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        let code = match self {
            Self::TooLarge { .. } => Code::TooLarge,
            _ => Code::ControlUnavailable,
        };
        Rejection::new(code, self.to_string()).with_hint(self.remedy())
    }

    /// From SQLite's result codes (<https://www.sqlite.org/rescode.html>).
    pub(crate) fn from_sqlx(transaction: &'static str, error: &sqlx::Error) -> Self {
        let cause = error.to_string();
        let code = error
            .as_database_error()
            .and_then(|e| e.code())
            .and_then(|code| code.parse::<u32>().ok());
        // The low byte is the primary code: 8 READONLY, 10 IOERR, 11 CORRUPT, 13 FULL, 14 CANTOPEN, 26 NOTADB.
        match code.map(|code| code & 0xff) {
            Some(13) => Self::Full { transaction },
            Some(8 | 10 | 14) => Self::Disk { transaction, cause },
            Some(11 | 26) => Self::Damaged { cause },
            _ if matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) => Self::Closed,
            _ => Self::Failed { transaction, cause },
        }
    }
}
