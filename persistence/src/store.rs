//! The handle of the store: hand over and return, never block.
//!
//! Invariants:
//! - Commands reach the thread in the order in which they were accepted; a read sees every append accepted before it.
//! - The channel itself is unbounded; what may be in it is bounded by reservations: `queue_bytes` for appends and metas,
//!   [`QUEUED_READS_MAX`] for reads. Nothing is accepted without a reservation, and the thread gives each one back.
//! - The sender is taken away by `close`, so `Close` is the last command and nothing accepted can be behind it.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender, SyncSender},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    AppendError, CloseError, Cursor, Kind, OpenError, Opened, Page, Query, ROOM_BYTES_MAX, ReadError, Record, ScanPage,
    Stats, clock,
    pending::{cost_of, cost_of_mark, cost_of_meta},
    stats::Counters,
    supervisor::{self, Started},
    worker::Worker,
};

/// Reads that may wait at once. Full policy: refused with [`ReadError::QueueFull`].
pub const QUEUED_READS_MAX: usize = 1024;

/// How long [`Store::close`] waits for the last commit.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// `queue_bytes` above this is cut to it: it bounds every length on disk to 32 bits.
const QUEUE_BYTES_LIMIT: usize = 1024 * 1024 * 1024;

/// Opens the store of `kind` and starts its thread. `now_ms` is Unix milliseconds; the generation is at least that.
///
/// A store that is damaged, of an older layout, or not opened within [`crate::Config::open_timeout`], is moved to
/// `quarantine-<n>` (the newest two are kept, within `max_bytes`) and an empty one is started: [`Opened::quarantined`] says
/// so. A disk that cannot be used for now (full, read-only, no permission) is no error: [`Store::status`] is degraded,
/// [`Opened::heads`] is `None`, and the store opens when it can.
///
/// # Errors
/// See [`OpenError`]; nothing is left running.
pub fn open(kind: Kind, now_ms: u64) -> Result<Opened, OpenError> {
    let (commit_interval, queue_bytes) = match &kind {
        Kind::Sled(config) => (config.commit_interval, config.queue_bytes),
        Kind::Memory { queue_bytes, .. } => (Duration::from_millis(1), *queue_bytes),
    };
    let start = clock::now();
    let started = supervisor::start(kind, now_ms)?;
    let opened = spawn(started, commit_interval, queue_bytes)?;
    opened.store.shared.counters.open_took(clock::now().saturating_duration_since(start));
    Ok(opened)
}

/// Starts the thread of a store.
pub(crate) fn spawn(started: Started, commit_interval: Duration, queue_bytes: usize) -> Result<Opened, OpenError> {
    let Started { state, opener, generation, clean, heads, meta, quarantined } = started;
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared::new(queue_bytes.min(QUEUE_BYTES_LIMIT)));
    shared.counters.quarantines.store(u64::from(quarantined.is_some()), Ordering::Relaxed);
    let worker = Worker::new(receiver, Arc::clone(&shared), state, opener, commit_interval);
    thread::Builder::new().name("store".to_owned()).spawn(move || worker.run()).map_err(OpenError::Thread)?;
    let store = Store { shared, sender: Arc::new(RwLock::new(Some(sender))) };
    Ok(Opened { store, generation, clean, heads, meta, quarantined })
}

/// Whether the store can be relied upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Appends are accepted and become durable.
    Ok,
    /// The disk is not usable (or the store was closed); what is appended waits. The text is the reason, for people.
    Degraded(Arc<str>),
}

/// A cheap handle; clones share one store. When the last one is dropped without [`Store::close`], what was accepted is
/// still written, without the clean marker.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    sender: Arc<RwLock<Option<Sender<Command>>>>,
}

impl Store {
    /// Accepts all of `records` or none. They are visible to reads at once and durable within the commit interval, as
    /// long as [`Store::status`] stays `Ok`; while it does not, they wait in the queue and are written after the reopen.
    ///
    /// # Errors
    /// See [`AppendError`]; refused records are dropped, not given back.
    pub fn append(&self, records: Vec<Record>) -> Result<(), AppendError> {
        let cost = records.iter().map(cost_of).sum();
        records.iter().try_for_each(|record| check_room(&record.room))?;
        if records.iter().any(|record| cost_of(record) > self.shared.queue_bytes) {
            return Err(AppendError::TooLarge);
        }
        self.submit(cost, Command::Append(records))
    }

    /// Asks for records of a room. `reply` is called on the store's thread: hand the page on and return. It is called
    /// exactly once if this returned `Ok`, and never otherwise.
    ///
    /// # Errors
    /// [`ReadError::QueueFull`] and [`ReadError::Closed`] at once; [`ReadError::Failed`] only through the reply.
    pub fn read(
        &self,
        query: Query,
        reply: impl FnOnce(Result<Page, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.ask(Command::Read(query, Box::new(reply)))
    }

    /// Hands out the records of the slots that `wanted` names, in the order of writing, from `after` on, up to the end of
    /// the block that brings them to `max_bytes`. What was accepted before is written first. `reply` as in [`Store::read`];
    /// it counts as a read.
    ///
    /// # Errors
    /// As [`Store::read`]; [`ReadError::Failed`] also while something that was accepted cannot be written.
    pub fn scan(
        &self,
        wanted: impl Fn(u16) -> bool + Send + 'static,
        after: Cursor,
        max_bytes: usize,
        reply: impl FnOnce(Result<ScanPage, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let wanted = Wanted::Slots(Box::new(wanted));
        self.ask(Command::Scan(Scan { wanted, after, max_bytes, reply: Box::new(reply) }))
    }

    /// [`Store::scan`] of one slot. It reads no more than what the slot has to do with, and a part may end before
    /// `max_bytes`: only [`ScanPage::next`] says whether it was the last.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn scan_slot(
        &self,
        slot: u16,
        after: Cursor,
        max_bytes: usize,
        reply: impl FnOnce(Result<ScanPage, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let wanted = Wanted::Slot(slot);
        self.ask(Command::Scan(Scan { wanted, after, max_bytes, reply: Box::new(reply) }))
    }

    /// Forgets what was accepted of a room so far: no read shows it from now on, also after a restart once the next commit
    /// is durable. Its bytes leave the disk with their bucket, when retention says.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn forget(&self, slot: u16, room: Bytes) -> Result<(), AppendError> {
        check_room(&room)?;
        self.submit(cost_of_mark(&room), Command::Forget(slot, room))
    }

    /// As [`Store::forget`], of all rooms of a slot, also those that this store does not know (any more). A full queue does
    /// not refuse it: what is to be forgotten must not be believed because the disk is slow.
    ///
    /// # Errors
    /// [`AppendError::Closed`].
    pub fn forget_slot(&self, slot: u16) -> Result<(), AppendError> {
        let cost = cost_of_mark(&Bytes::new());
        self.shared.counters.queue_bytes.fetch_add(cost, Ordering::Relaxed);
        self.submit_reserved(cost, Command::ForgetSlot(slot))
    }

    /// Remembers `value` for `slot`, replacing the one before; durable with the next commit, after the records accepted
    /// before it.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn put_meta(&self, slot: u16, value: Bytes) -> Result<(), AppendError> {
        let cost = cost_of_meta(&value);
        if cost > self.shared.queue_bytes {
            return Err(AppendError::TooLarge);
        }
        self.submit(cost, Command::PutMeta(slot, value))
    }

    /// For the readiness check and the publish path; costs one atomic load while all is well.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Bytes accepted and not yet durable, with bookkeeping; costs one atomic load.
    pub fn queued_bytes(&self) -> usize {
        self.shared.counters.queue_bytes.load(Ordering::Relaxed)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// Writes everything accepted, then the clean marker, and ends the thread. Blocks for as long as that takes, at most
    /// ten seconds. Later appends and reads are refused as closed.
    ///
    /// # Errors
    /// See [`CloseError`]; the store is closed in every case.
    pub fn close(&self) -> Result<(), CloseError> {
        let (done, finished) = mpsc::sync_channel(1);
        let sender = self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
        sender.ok_or(CloseError::AlreadyClosed)?.send(Command::Close(done)).map_err(|_| CloseError::AlreadyClosed)?;
        finished.recv_timeout(CLOSE_TIMEOUT).unwrap_or(Err(CloseError::TimedOut))
    }

    fn ask(&self, command: Command) -> Result<(), ReadError> {
        let shared = &self.shared;
        if !reserve(&shared.queued_reads, 1, QUEUED_READS_MAX) {
            return Err(ReadError::QueueFull);
        }
        self.send(command).map_err(|()| {
            shared.queued_reads.fetch_sub(1, Ordering::Relaxed);
            ReadError::Closed
        })
    }

    fn submit(&self, cost: usize, command: Command) -> Result<(), AppendError> {
        if !reserve(&self.shared.counters.queue_bytes, cost, self.shared.queue_bytes) {
            return Err(AppendError::QueueFull);
        }
        self.submit_reserved(cost, command)
    }

    fn submit_reserved(&self, cost: usize, command: Command) -> Result<(), AppendError> {
        self.send(command).map_err(|()| {
            self.shared.counters.queue_bytes.fetch_sub(cost, Ordering::Relaxed);
            AppendError::Closed
        })
    }

    fn send(&self, command: Command) -> Result<(), ()> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().ok_or(())?.send(command).map_err(|_| ())
    }
}

/// The empty key means a whole slot, and is no room's.
fn check_room(room: &Bytes) -> Result<(), AppendError> {
    match room.len() {
        0 => Err(AppendError::Unnamed),
        1..=ROOM_BYTES_MAX => Ok(()),
        _ => Err(AppendError::TooLarge),
    }
}

/// What the thread is told.
pub(crate) enum Command {
    Append(Vec<Record>),
    Read(Query, Reply<Page>),
    Scan(Scan),
    Forget(u16, Bytes),
    ForgetSlot(u16),
    PutMeta(u16, Bytes),
    Close(SyncSender<Result<(), CloseError>>),
}

/// Where an answer goes.
pub(crate) type Reply<T> = Box<dyn FnOnce(Result<T, ReadError>) + Send>;

/// What a scan is about.
pub(crate) enum Wanted {
    Slot(u16),
    Slots(Box<dyn Fn(u16) -> bool + Send>),
}

/// A question for [`Store::scan`] or [`Store::scan_slot`].
pub(crate) struct Scan {
    pub(crate) wanted: Wanted,
    pub(crate) after: Cursor,
    pub(crate) max_bytes: usize,
    pub(crate) reply: Reply<ScanPage>,
}

/// What handles and thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) queued_reads: AtomicUsize,
    queue_bytes: usize,
    degraded: AtomicBool,
    reason: Mutex<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(queue_bytes: usize) -> Shared {
        Shared {
            counters: Counters::default(),
            queued_reads: AtomicUsize::new(0),
            queue_bytes,
            degraded: AtomicBool::new(false),
            reason: Mutex::new(Arc::from("")),
        }
    }

    pub(crate) fn status(&self) -> Status {
        if !self.degraded.load(Ordering::Acquire) {
            return Status::Ok;
        }
        Status::Degraded(Arc::clone(&self.reason.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn set_status(&self, status: Status) {
        match status {
            Status::Ok => self.degraded.store(false, Ordering::Release),
            Status::Degraded(reason) => {
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
                self.degraded.store(true, Ordering::Release);
            }
        }
    }
}

/// Adds `amount` to `used` if the sum stays within `limit`.
fn reserve(used: &AtomicUsize, amount: usize, limit: usize) -> bool {
    let add = |now: usize| now.checked_add(amount).filter(|sum| *sum <= limit);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}
