//! What can go wrong, one enum per verb; each variant says what happened to state and what the caller may do.
//!
//! Invariant: a refused verb changed nothing. Errors of the engine never leave the crate: the supervisor turns them into
//! a status and a reopen.

use std::{io, path::PathBuf, sync::Arc};

/// [`crate::open`] failed: no thread is left running, no file of a healthy store was touched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory does not exist and cannot be made: a wrong path or a missing permission, nothing of which will
    /// heal by itself. (A directory that exists and cannot be used is no error: the store starts degraded and tries again.)
    #[error("data directory {} cannot be made: {source}", dir.display())]
    Directory {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the data directory. Give this one its own.
    #[error("data directory {} is in use by another process", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The store was written by a newer version, which only that version can read. It is left alone.
    #[error("store in {} has schema {found}, this version reads schema {supported}", dir.display())]
    Schema {
        /// The data directory.
        dir: PathBuf,
        /// The schema on disk.
        found: u64,
        /// The schema of this version.
        supported: u64,
    },
    /// The system refused a thread. Nothing was touched.
    #[error("cannot start the store thread: {0}")]
    Thread(io::Error),
}

/// [`crate::Store::append`] or [`crate::Store::put_meta`] was refused as a whole; nothing of it was taken. What was
/// passed in is dropped: keep a clone (bodies are reference-counted) to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is slower than the writers, or away. Try again later, or go on without the disk.
    #[error("the store's queue is full")]
    QueueFull,
    /// A record has a room key over [`crate::ROOM_BYTES_MAX`] or could not fit into an empty queue: never retry.
    #[error("a record is larger than the store accepts")]
    TooLarge,
    /// A room key is empty: never retry.
    #[error("a record has no room")]
    Unnamed,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A read did not produce a page. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// [`crate::QUEUED_READS_MAX`] reads wait already; the reply was dropped uncalled. Try again later.
    #[error("too many reads are waiting")]
    QueueFull,
    /// The disk is not readable at present. Ask another holder, or try again.
    #[error("the store is degraded: {reason}")]
    Failed {
        /// Why, for the log.
        reason: Arc<str>,
    },
    /// The store was closed; the reply was dropped uncalled, or was called with this.
    #[error("the store is closed")]
    Closed,
}

/// [`crate::Store::close`] could not end cleanly: the clean marker is absent, the next open says `clean: false`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// The last commit failed; this many accepted records are not on disk.
    #[error("{records} records could not be written: {reason}")]
    Unwritten {
        /// Accepted, not durable.
        records: usize,
        /// What the engine said.
        reason: Arc<str>,
    },
    /// The thread did not finish in time and may still be writing. The process may exit.
    #[error("the store did not finish within its time limit")]
    TimedOut,
    /// It was closed before; nothing was done.
    #[error("the store was closed before")]
    AlreadyClosed,
}

/// What an engine says. `Damaged`, `Panicked` and `TimedOut` mean that the files cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The system refused (full disk, permission): the files are as good as before, this handle is not.
    #[error("{0}")]
    Environment(io::Error),
    /// Too little space is left to begin a commit. Nothing was tried: the handle is good, and reads work.
    #[error("the disk is full")]
    Full,
    /// The files are still held by a handle that is going away.
    #[error("the files are still in use")]
    Busy,
    /// The files are damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The engine panicked, which it does on damaged files.
    #[error("the engine panicked: {0}")]
    Panicked(String),
    /// Nothing happened within the time limit.
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The files are no longer where they were opened.
    #[error("the files of the store were moved away or deleted")]
    Gone,
    /// Written by an older version, in a layout that this one does not read.
    #[error("schema {found} is older than {supported}")]
    Outdated {
        /// On disk.
        found: u64,
        /// Of this version.
        supported: u64,
    },
    /// Written by a newer version.
    #[error("schema {found} is newer than {supported}")]
    Schema {
        /// On disk.
        found: u64,
        /// Of this version.
        supported: u64,
    },
}
