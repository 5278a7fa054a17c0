//! Counters of the store, written by its thread and read by anyone.
//!
//! Invariant: every counter only rises, except the gauges, which say so.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the commit histogram, in milliseconds; one more class takes what is above.
pub const COMMIT_BOUNDS_MS: [u64; 9] = [1, 2, 5, 10, 25, 50, 100, 250, 1000];

/// A snapshot of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that became durable.
    pub appended_records: u64,
    /// Body bytes that became durable.
    pub appended_bytes: u64,
    /// Gauge: bytes accepted and not yet durable, with bookkeeping.
    pub queue_bytes: u64,
    /// Gauge: bytes of blocks that retention keeps, and of the index to them.
    pub live_bytes: u64,
    /// Gauge: bytes the files take, refreshed with retention.
    pub disk_bytes: u64,
    /// Group commits by duration, in the classes of [`COMMIT_BOUNDS_MS`] (not cumulative).
    pub commits: [u64; COMMIT_BOUNDS_MS.len() + 1],
    /// Time spent in commits, in microseconds.
    pub commit_micros: u64,
    /// The longest commit so far, in microseconds.
    pub commit_max_micros: u64,
    /// Errors of the engine, each followed by attempts to open it again.
    pub errors: u64,
    /// Times the store was opened again after an error.
    pub reopens: u64,
    /// Sections that a read met and could not believe; what they held is in no answer.
    pub damaged: u64,
    /// Gauge: how long the last open with its verification took, in microseconds.
    pub open_micros: u64,
    /// Reads that were answered, with a page or an error.
    pub reads: u64,
    /// Buckets that retention dropped.
    pub dropped_buckets: u64,
    /// Directories that were moved aside because they were damaged.
    pub quarantines: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended_records: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) queue_bytes: AtomicUsize,
    pub(crate) live_bytes: AtomicU64,
    pub(crate) disk_bytes: AtomicU64,
    commits: [AtomicU64; COMMIT_BOUNDS_MS.len() + 1],
    commit_micros: AtomicU64,
    commit_max_micros: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) reopens: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) open_micros: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) dropped_buckets: AtomicU64,
    pub(crate) quarantines: AtomicU64,
}

impl Counters {
    pub(crate) fn commit_took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = COMMIT_BOUNDS_MS.iter().position(|bound| micros <= bound * 1000).unwrap_or(COMMIT_BOUNDS_MS.len());
        self.commits[class].fetch_add(1, Relaxed);
        self.commit_micros.fetch_add(micros, Relaxed);
        self.commit_max_micros.fetch_max(micros, Relaxed);
    }

    pub(crate) fn open_took(&self, time: Duration) {
        self.open_micros.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            appended_records: self.appended_records.load(Relaxed),
            appended_bytes: self.appended_bytes.load(Relaxed),
            queue_bytes: u64::try_from(self.queue_bytes.load(Relaxed)).unwrap_or(u64::MAX),
            live_bytes: self.live_bytes.load(Relaxed),
            disk_bytes: self.disk_bytes.load(Relaxed),
            commits: std::array::from_fn(|class| self.commits[class].load(Relaxed)),
            commit_micros: self.commit_micros.load(Relaxed),
            commit_max_micros: self.commit_max_micros.load(Relaxed),
            errors: self.errors.load(Relaxed),
            reopens: self.reopens.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            open_micros: self.open_micros.load(Relaxed),
            reads: self.reads.load(Relaxed),
            dropped_buckets: self.dropped_buckets.load(Relaxed),
            quarantines: self.quarantines.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_in_the_class_that_holds_it() {
        let counters = Counters::default();
        [1, 1000, 1001, 900_000, 5_000_000].into_iter().for_each(|us| counters.commit_took(Duration::from_micros(us)));
        let stats = counters.snapshot();
        assert_eq!(stats.commits, [2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((stats.commit_max_micros, stats.commit_micros), (5_000_000, 5_902_002));
    }
}
