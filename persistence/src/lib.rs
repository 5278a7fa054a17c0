//! Recent history of slots on disk: one directory, one plain thread, opaque records, and a way back from every damage.
//!
//! Invariants:
//! - This crate knows slots, rooms and numbers; what a record means is the caller's business. It imports no other crate
//!   of the workspace and no runtime.
//! - Nothing here blocks a caller: [`Store::append`] and [`Store::read`] hand over and return. [`Store::close`] and
//!   [`open`] wait, each with a time limit.
//! - What was accepted is durable one commit later (50 ms); a hard kill loses at most that tail and never makes a hole.
//! - The store may lose everything (a damaged disk is moved aside) and says so: losing it is a non-event for the cluster,
//!   lying about it is not.
//!
//! Reading order: [`Store`] (the verbs), `worker` (the thread), `disk` (load, commit, retention), `index` and `reading` (what a
//! read does), `supervisor` and `directory` (open, quarantine, reopen), `block` and `section` (the bytes), `engine` (what an
//! engine must do), `sled_engine` (the only file that names the one on disk).

#[cfg(fuzzing)]
pub mod fuzzing;

mod block;
mod clock;
mod directory;
mod disk;
mod engine;
mod error;
mod index;
mod inspect;
mod key;
mod ledger;
mod memory;
mod page;
mod pending;
mod quarantine;
mod reading;
mod retention;
mod section;
mod sled_engine;
mod stats;
mod store;
mod supervisor;
mod worker;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

pub use error::{AppendError, CloseError, OpenError, ReadError};
pub use inspect::{copy_store, holds_store, is_in_use, store_bytes};
pub use stats::{COMMIT_BOUNDS_MS, Stats};
pub use store::{QUEUED_READS_MAX, Status, Store, open};

/// The longest room key (`namespace`, a zero byte, `room`) that a record may carry, in bytes.
pub const ROOM_BYTES_MAX: usize = 4096;

/// Bytes of files for a byte of live history: the engine frees space by copying what still lives in it (measured, with
/// room to spare: `docs/benchmarks-store.md`).
pub const SPACE_FACTOR: u64 = 4;

/// A store on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory. The store lives in `history` below it, damaged ones in `quarantine-<n>`.
    pub dir: PathBuf,
    /// Age at which history is dropped, in whole buckets: a record lives at least this long and at most an eighth longer,
    /// unless `max_bytes` asks for the space.
    pub retention: Duration,
    /// What the files may take. A [`SPACE_FACTOR`]th of it may be live; the oldest buckets are dropped early to keep that,
    /// and the time of an open is bounded with it.
    pub max_bytes: u64,
    /// How long an accepted record may wait for its group commit.
    pub commit_interval: Duration,
    /// Bytes accepted and not yet durable. Full policy: the append is refused with [`AppendError::QueueFull`].
    pub queue_bytes: usize,
    /// How long an open (scan and verification of every block) may take before the directory counts as damaged.
    pub open_timeout: Duration,
    /// Page cache of the engine, in bytes; it takes a few times as much memory at peak.
    pub cache_bytes: u64,
}

impl Config {
    /// The defaults of the design for a data directory.
    pub fn new(dir: impl AsRef<Path>) -> Config {
        Config {
            dir: dir.as_ref().to_path_buf(),
            retention: Duration::from_secs(600),
            max_bytes: 512 * 1024 * 1024,
            commit_interval: Duration::from_millis(50),
            queue_bytes: 8 * 1024 * 1024,
            open_timeout: Duration::from_secs(20),
            cache_bytes: 32 * 1024 * 1024,
        }
    }
}

/// What holds the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Files that survive the process.
    Sled(Config),
    /// The same behaviour in memory: nothing survives, nothing is promised to.
    Memory {
        /// As [`Config::retention`].
        retention: Duration,
        /// The memory that history may take.
        max_bytes: u64,
        /// As [`Config::queue_bytes`].
        queue_bytes: usize,
    },
}

/// One stored message: key fields that the store orders by, and a body that it never looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The slot of the room.
    pub slot: u16,
    /// `namespace`, a zero byte, `room`; 1 to [`ROOM_BYTES_MAX`] bytes.
    pub room: Bytes,
    /// Position in the slot. Rises per slot in normal life. A number at or below the slot's head is kept as well (a stale
    /// replica that is refilled); of two records of one room with one number the later bucket's is read.
    pub n: u64,
    /// Wall time of the message in Unix milliseconds. Stored, never interpreted: retention counts from the arrival here.
    pub time_ms: u64,
    /// The message.
    pub body: Bytes,
}

/// What [`open`] found.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub store: Store,
    /// Higher than every generation this directory ever had, and at least `now_ms`; durable before `open` returned, unless
    /// the disk could not be used.
    pub generation: u64,
    /// The last stop was a [`Store::close`] that succeeded: nothing accepted is missing. False on a first start and after
    /// a quarantine, where there is nothing to go on from.
    pub clean: bool,
    /// Slot to the highest `n` it ever held (records that retention dropped meanwhile count). `None` if the disk could not
    /// be used ([`Store::status`] says why): it may hold any number, and will be read again later.
    pub heads: Option<BTreeMap<u16, u64>>,
    /// Slot to the value of its last [`Store::put_meta`] that became durable in the life before this one. It is gone from
    /// the disk now: what a slot is to find next time has to be written again.
    pub meta: BTreeMap<u16, Bytes>,
    /// Where the directory was moved because it was damaged, of an older version, or could not be opened in time; this
    /// store then started empty.
    pub quarantined: Option<PathBuf>,
}

/// A question for [`Store::read`]: records of one room with `after < n <= upto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The slot of the room.
    pub slot: u16,
    /// The room key, as in [`Record::room`].
    pub room: Bytes,
    /// Exclusive lower bound.
    pub after: u64,
    /// Inclusive upper bound; `u64::MAX` asks for everything.
    pub upto: u64,
    /// Most records to return.
    pub limit: usize,
    /// Most body bytes to return; the first record is returned even when it alone is larger.
    pub max_bytes: usize,
    /// True: the newest `limit` records of the range. False: the oldest.
    pub newest: bool,
    /// Retention by count: only the room's newest so many records exist. `usize::MAX` asks for all that are kept.
    pub keep: usize,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Ascending `n`, contiguous at the asked end of the range. Bodies share memory with up to 32 neighbours: copy what is
    /// kept for long.
    pub records: Vec<Record>,
    /// The range holds more than this.
    pub more: bool,
    /// Sections of the range that are damaged. Their records are in no page; a page never goes on behind one, unless it
    /// would have been empty.
    pub damaged: u64,
    /// The highest `n` of this slot that retention (or the loss of the disk at runtime) may have taken; 0 = nothing was.
    pub trimmed_through: u64,
}

/// Where a scan goes on; the default is the beginning. Good for as long as the store is open, and for the slots it was
/// asked about. As a number (`u64::from`, `Cursor::from`) it survives a round trip; 0 is the beginning and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

impl From<u64> for Cursor {
    fn from(number: u64) -> Cursor {
        Cursor(number)
    }
}

impl From<Cursor> for u64 {
    fn from(cursor: Cursor) -> u64 {
        cursor.0
    }
}

/// A part of the answer to [`Store::scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Of each room in the order of writing, which is the order of `n` unless a slot was refilled.
    pub records: Vec<Record>,
    /// Where the next part begins; `None` = this was the last.
    pub next: Option<Cursor>,
    /// Blocks that are damaged; nothing of them is in `records`.
    pub damaged: u64,
}
