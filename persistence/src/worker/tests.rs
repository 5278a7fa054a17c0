//! The thread over an engine that can be made slow, full or lost.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use bytes::Bytes;

use super::*;
use crate::{
    AppendError, Cursor, Opened, Page, Query, Record, ScanPage, Store,
    engine::{HistoryStore, Visit},
    key::BlockId,
    memory::MemoryEngine,
    pending::cost_of,
    retention::{Bucket, Policy},
    store, supervisor,
};

const PATIENCE: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);
const QUEUE_BYTES: usize = 64 * 1024;

#[test]
fn a_disk_that_fails_is_opened_again_and_gets_what_was_accepted_meanwhile() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    files.full.store(true, SeqCst);
    store.append(vec![record(1)]).unwrap();
    until(|| store.status() != Status::Ok);
    store.append(vec![record(2)]).unwrap();
    assert!(matches!(page(&store), Err(ReadError::Failed { .. })));
    files.full.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!(page(&store).unwrap().records, [record(1), record(2)]);
    let stats = store.stats();
    assert!(stats.errors >= 1 && stats.reopens == 1 && stats.appended_records == 2, "{stats:?}");
    assert_eq!(stats.queue_bytes, 0);
    store.close().unwrap();
    let again = files.open(NEVER, QUEUE_BYTES);
    assert!(again.clean && head(&again) == 2);
}

#[test]
fn a_disk_without_room_serves_reads_and_becomes_durable_again_when_there_is_room() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    until(|| store.stats().appended_records == 1);
    files.tight.store(true, SeqCst);
    store.append(vec![record(2)]).unwrap();
    until(|| store.status() != Status::Ok);
    store.append(vec![record(3)]).unwrap();
    assert_eq!(page(&store).unwrap().records, [record(1), record(2), record(3)]);
    files.tight.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!((store.stats().appended_records, store.stats().errors), (3, 1));
    files.tight.store(true, SeqCst);
    store.append(vec![record(4)]).unwrap();
    assert!(matches!(store.close(), Err(CloseError::Unwritten { records: 1, .. })));
}

#[test]
fn a_disk_lost_at_runtime_is_said_and_the_ledger_goes_on() {
    let files = Files::default();
    let Opened { store, generation, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1), record(2)]).unwrap();
    store.put_meta(1, Bytes::from_static(b"lineage")).unwrap();
    until(|| store.stats().queue_bytes == 0);
    files.lost.store(true, SeqCst);
    files.full.store(true, SeqCst);
    store.append(vec![record(3)]).unwrap();
    until(|| store.status() != Status::Ok);
    files.full.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    let page = page(&store).unwrap();
    assert_eq!((page.records, page.trimmed_through), (vec![record(3)], 2));
    assert_eq!(store.stats().quarantines, 1);
    store.close().unwrap();
    let again = files.open(NEVER, QUEUE_BYTES);
    assert!(again.generation > generation);
    assert_eq!(again.meta[&1], Bytes::from_static(b"lineage"));
}

#[test]
fn a_store_without_its_disk_starts_and_opens_it_later() {
    let files = Files::default();
    let first = files.open(Duration::from_millis(1), QUEUE_BYTES);
    first.store.append(vec![record(1)]).unwrap();
    first.store.put_meta(1, Bytes::from_static(b"where slot 1 stands")).unwrap();
    first.store.close().unwrap();
    files.full.store(true, SeqCst);
    let Opened { store, generation, clean, heads, meta, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    assert!(!clean && heads.is_none() && meta.is_empty() && store.status() != Status::Ok);
    store.append(vec![record(1_000)]).unwrap();
    assert!(matches!(page(&store), Err(ReadError::Failed { .. })));
    files.full.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!(page(&store).unwrap().records, [record(1), record(1_000)]);
    drop(store);
    until(|| Arc::strong_count(&files.disk) == 1);
    let third = files.open(NEVER, QUEUE_BYTES);
    assert!(third.generation > generation && !third.clean);
    assert!(third.meta.is_empty(), "where slot 1 stood two lives ago is not true any more");
}

#[test]
fn a_forgotten_room_is_forgotten_at_once_and_for_good() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    store.forget(1, Bytes::from_static(b"/\0a")).unwrap();
    assert_eq!(page(&store).unwrap().records, []);
    store.append(vec![record(2)]).unwrap();
    assert_eq!(page(&store).unwrap().records, [record(2)]);
    store.close().unwrap();
    assert_eq!(page(&files.open(NEVER, QUEUE_BYTES).store).unwrap().records, [record(2)]);
}

#[test]
fn a_forgotten_slot_is_forgotten_at_once_and_for_good_and_what_comes_after_stays() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    until(|| store.stats().appended_records == 1);
    store.append(vec![record(2)]).unwrap();
    store.forget_slot(1).unwrap();
    assert_eq!(page(&store).unwrap().records, []);
    store.append(vec![record(3)]).unwrap();
    assert_eq!(page(&store).unwrap().records, [record(3)]);
    assert_eq!(scan(&store).unwrap().records, [record(3)]);
    store.close().unwrap();
    assert_eq!(store.stats().queue_bytes, 0, "the reservations are given back");
    let again = files.open(NEVER, QUEUE_BYTES);
    assert_eq!(page(&again.store).unwrap().records, [record(3)]);
    assert_eq!(head(&again), 3);
}

#[test]
fn a_slot_is_forgotten_though_the_disk_is_away_and_the_queue_full() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), cost_of(&record(1)) * 2);
    store.append(vec![record(1)]).unwrap();
    until(|| store.stats().appended_records == 1);
    files.full.store(true, SeqCst);
    store.append(vec![record(2), record(3)]).unwrap();
    until(|| store.status() != Status::Ok);
    assert_eq!(store.append(vec![record(4)]), Err(AppendError::QueueFull));
    store.forget_slot(1).unwrap();
    files.full.store(false, SeqCst);
    until(|| store.status() == Status::Ok && store.stats().queue_bytes == 0);
    assert_eq!(page(&store).unwrap().records, []);
    store.close().unwrap();
    assert_eq!(store.forget_slot(1), Err(AppendError::Closed));
    assert_eq!(store.stats().queue_bytes, 0);
    assert_eq!(page(&files.open(NEVER, QUEUE_BYTES).store).unwrap().records, []);
}

#[test]
fn a_scan_sees_what_was_accepted_before_it() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    store.append(vec![record(1), record(2)]).unwrap();
    let page = scan(&store).unwrap();
    assert_eq!((page.records, page.next), (vec![record(1), record(2)], None));
    assert_eq!(store.stats().appended_records, 2);
}

#[test]
fn a_scan_that_would_lack_what_cannot_be_written_is_refused() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    until(|| store.stats().appended_records == 1);
    files.tight.store(true, SeqCst);
    store.forget_slot(1).unwrap();
    until(|| store.status() != Status::Ok);
    assert!(matches!(scan(&store), Err(ReadError::Failed { .. })));
    assert_eq!(page(&store).unwrap().records, [], "a read knows what waits");
    assert_eq!(store.stats().reopens, 0, "the disk is good");
    files.tight.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!(scan(&store).unwrap().records, []);
}

#[test]
fn a_slow_disk_fills_the_queue_and_never_blocks_a_writer() {
    let files = Files::default();
    let room_for_ten = cost_of(&record(1)) * 10;
    let Opened { store, .. } = files.open(Duration::from_millis(1), room_for_ten);
    let gate = files.gate.lock().unwrap();
    for n in 1..=10 {
        store.append(vec![record(n)]).unwrap();
    }
    assert_eq!(store.append(vec![record(11)]), Err(AppendError::QueueFull));
    drop(gate);
    until(|| store.stats().queue_bytes == 0);
    store.append(vec![record(11)]).unwrap();
    store.close().unwrap();
}

#[test]
fn an_append_is_refused_as_a_whole() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, cost_of(&record(1)) * 2);
    assert_eq!(store.append(vec![record(1), record(2), record(3)]), Err(AppendError::QueueFull));
    let large = Record { body: vec![0; 4096].into(), ..record(1) };
    assert_eq!(store.append(vec![large]), Err(AppendError::TooLarge));
    let no_room = Record { room: Bytes::new(), ..record(1) };
    assert_eq!(store.append(vec![record(1), no_room]), Err(AppendError::Unnamed));
    assert_eq!(store.forget(1, Bytes::new()), Err(AppendError::Unnamed), "a room is not mistaken for its slot");
    let long_room = Record { room: vec![b'x'; crate::ROOM_BYTES_MAX + 1].into(), ..record(1) };
    assert_eq!(store.append(vec![long_room]), Err(AppendError::TooLarge));
    assert_eq!(page(&store).unwrap().records, []);
}

#[test]
fn a_read_sees_appends_that_are_not_durable() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    store.append(vec![record(1), record(2)]).unwrap();
    assert_eq!(page(&store).unwrap().records, [record(1), record(2)]);
    assert_eq!(store.stats().appended_records, 0);
}

#[test]
fn much_at_once_is_committed_before_the_interval() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, 4 * COMMIT_BYTES);
    store.append(vec![Record { body: vec![0; COMMIT_BYTES].into(), ..record(1) }]).unwrap();
    until(|| store.stats().appended_records == 1);
}

#[test]
fn reads_that_wait_are_bounded() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    let (answers, answered) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    store.read(query(), move |_| assert!(gate.recv().is_err())).unwrap();
    until(|| store.stats().reads == 1);
    for _ in 0..crate::QUEUED_READS_MAX {
        let answers = answers.clone();
        store.read(query(), move |page| answers.send(page).unwrap()).unwrap();
    }
    assert_eq!(store.read(query(), |_| panic!("a refused read is never answered")), Err(ReadError::QueueFull));
    drop(open);
    drop(answers);
    assert_eq!(answered.iter().count(), crate::QUEUED_READS_MAX);
}

#[test]
fn a_closed_store_refuses_everything() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    store.close().unwrap();
    assert_eq!(store.append(vec![record(2)]), Err(AppendError::Closed));
    assert_eq!(store.put_meta(1, Bytes::new()), Err(AppendError::Closed));
    assert_eq!(store.read(query(), |_| panic!("a refused read is never answered")), Err(ReadError::Closed));
    assert_eq!(store.close(), Err(CloseError::AlreadyClosed));
    assert_ne!(store.status(), Status::Ok);
}

#[test]
fn a_close_without_a_disk_says_how_much_is_missing() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    store.append(vec![record(1), record(2)]).unwrap();
    files.full.store(true, SeqCst);
    assert!(matches!(store.close(), Err(CloseError::Unwritten { records: 2, .. })));
    files.full.store(false, SeqCst);
    assert!(!files.open(NEVER, QUEUE_BYTES).clean);
}

#[test]
fn a_dropped_store_writes_what_it_accepted_but_is_not_clean() {
    let files = Files::default();
    let Opened { store, .. } = files.open(NEVER, QUEUE_BYTES);
    store.append(vec![record(7)]).unwrap();
    drop(store);
    until(|| Arc::strong_count(&files.disk) == 1);
    let again = files.open(NEVER, QUEUE_BYTES);
    assert!(!again.clean && head(&again) == 7);
}

/// Files that survive the engine and the faults that can be switched on.
#[derive(Clone, Default)]
struct Files {
    disk: Arc<Mutex<MemoryEngine>>,
    /// Every sync and every open fails.
    full: Arc<AtomicBool>,
    /// No room for a commit, and the engine says so before it fails.
    tight: Arc<AtomicBool>,
    /// The next open finds damage.
    lost: Arc<AtomicBool>,
    /// A sync waits for it.
    gate: Arc<Mutex<()>>,
}

impl Files {
    fn open(&self, commit_interval: Duration, queue_bytes: usize) -> Opened {
        let started = supervisor::begin(Box::new(self.clone()), 1).unwrap();
        store::spawn(started, commit_interval, queue_bytes).unwrap()
    }

    fn check(&self) -> Result<(), EngineError> {
        let full = self.full.load(SeqCst);
        if full { Err(EngineError::Environment(io::Error::from_raw_os_error(28))) } else { Ok(()) }
    }
}

impl Opener for Files {
    fn open(&mut self, _: &BTreeMap<u16, u64>) -> Result<(Disk, Option<PathBuf>), EngineError> {
        self.check()?;
        let lost = self.lost.swap(false, SeqCst);
        if lost {
            *self.disk.lock().unwrap() = MemoryEngine::default();
        }
        let disk = Disk::load(Box::new(self.clone()), Policy::new(NEVER, 1 << 30))?;
        Ok((disk, lost.then(|| PathBuf::from("quarantine-1"))))
    }
    fn noted_generation(&self) -> u64 {
        0
    }
    fn note_generation(&mut self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}

impl HistoryStore for Files {
    fn check_room(&self) -> Result<(), EngineError> {
        if self.tight.load(SeqCst) { Err(EngineError::Full) } else { Ok(()) }
    }
    fn buckets(&self) -> Result<Vec<Bucket>, EngineError> {
        self.disk.lock().unwrap().buckets()
    }
    fn scan(&self, bucket: Bucket, from: BlockId, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.disk.lock().unwrap().scan(bucket, from, visit)
    }
    fn block(&self, bucket: Bucket, id: BlockId, visit: &mut dyn FnMut(&[u8])) -> Result<(), EngineError> {
        self.disk.lock().unwrap().block(bucket, id, visit)
    }
    fn put_block(&mut self, bucket: Bucket, id: BlockId, value: &[u8]) -> Result<(), EngineError> {
        self.check()?;
        self.disk.lock().unwrap().put_block(bucket, id, value)
    }
    fn drop_bucket(&mut self, bucket: Bucket) -> Result<(), EngineError> {
        self.disk.lock().unwrap().drop_bucket(bucket)
    }
    fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.disk.lock().unwrap().meta()
    }
    fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        self.disk.lock().unwrap().put_meta(key, value)
    }
    fn sync(&mut self) -> Result<(), EngineError> {
        drop(self.gate.lock().unwrap());
        self.check()
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn head(opened: &Opened) -> u64 {
    opened.heads.as_ref().unwrap()[&1]
}

fn record(n: u64) -> Record {
    Record { slot: 1, room: Bytes::from_static(b"/\0a"), n, time_ms: n, body: Bytes::from_static(b"body") }
}

fn query() -> Query {
    Query {
        slot: 1,
        room: Bytes::from_static(b"/\0a"),
        after: 0,
        upto: u64::MAX,
        limit: 100,
        max_bytes: 1 << 20,
        newest: true,
        keep: usize::MAX,
    }
}

fn scan(store: &Store) -> Result<ScanPage, ReadError> {
    let (reply, page) = mpsc::channel();
    store.scan_slot(1, Cursor::default(), 1 << 20, move |page| reply.send(page).unwrap()).unwrap();
    page.recv_timeout(PATIENCE).unwrap()
}

fn page(store: &Store) -> Result<Page, ReadError> {
    let (reply, page) = mpsc::channel();
    store.read(query(), move |page| reply.send(page).unwrap())?;
    page.recv_timeout(PATIENCE).unwrap()
}

fn until(condition: impl Fn() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "it never came true");
        thread::sleep(Duration::from_millis(2));
    }
}
