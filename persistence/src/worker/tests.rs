//! The thread over an engine that can be made slow, full or lost.

use std::{
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
    AppendError, Opened, Page, Record, Store,
    engine::{Engine, KeyRange, Visit},
    key::Key,
    memory::MemoryEngine,
    pending::cost_of,
    retention::{Bucket, Policy},
    store, supervisor,
};

const PATIENCE: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);
const QUEUE_BYTES: usize = 64 * 1024;

#[test]
fn a_full_disk_refuses_appends_and_later_writes_what_it_had_accepted() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    files.full.store(true, SeqCst);
    store.append(vec![record(1)]).unwrap();
    until(|| store.status() != Status::Ok);
    assert!(matches!(store.append(vec![record(2)]), Err(AppendError::Failed { .. })));
    assert!(matches!(page(&store), Err(ReadError::Failed { .. })));
    files.full.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!(page(&store).unwrap().records, [record(1)]);
    let stats = store.stats();
    assert!(stats.errors >= 1 && stats.appended_records == 1 && stats.queue_bytes == 0, "{stats:?}");
    store.append(vec![record(2)]).unwrap();
    store.close().unwrap();
    let again = files.open(NEVER, QUEUE_BYTES);
    assert!(again.clean && again.heads[&1] == 2);
}

#[test]
fn a_disk_without_room_serves_reads_and_takes_appends_again_when_there_is_room() {
    let files = Files::default();
    let Opened { store, .. } = files.open(Duration::from_millis(1), QUEUE_BYTES);
    store.append(vec![record(1)]).unwrap();
    until(|| store.stats().appended_records == 1);
    files.tight.store(true, SeqCst);
    store.append(vec![record(2)]).unwrap();
    until(|| store.status() != Status::Ok);
    assert!(matches!(store.append(vec![record(3)]), Err(AppendError::Failed { .. })));
    assert_eq!(page(&store).unwrap().records, [record(1), record(2)]);
    files.tight.store(false, SeqCst);
    until(|| store.status() == Status::Ok);
    assert_eq!((store.stats().appended_records, store.stats().errors), (2, 1));
    files.tight.store(true, SeqCst);
    store.append(vec![record(3)]).unwrap();
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
    assert!(!again.clean && again.heads[&1] == 7);
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
    fn open(&mut self) -> Result<(Disk, Option<PathBuf>), EngineError> {
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

impl Engine for Files {
    fn check_room(&self) -> Result<(), EngineError> {
        if self.tight.load(SeqCst) { Err(EngineError::Full) } else { Ok(()) }
    }
    fn buckets(&self) -> Result<Vec<Bucket>, EngineError> {
        self.disk.lock().unwrap().buckets()
    }
    fn scan(&self, bucket: Bucket, visit: &mut dyn FnMut(Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        self.disk.lock().unwrap().scan(bucket, visit)
    }
    fn range(&self, bucket: Bucket, range: KeyRange, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.disk.lock().unwrap().range(bucket, range, visit)
    }
    fn block(&self, bucket: Bucket, key: Key) -> Result<Option<Bytes>, EngineError> {
        self.disk.lock().unwrap().block(bucket, key)
    }
    fn put_block(&mut self, bucket: Bucket, key: Key, value: Vec<u8>) -> Result<(), EngineError> {
        self.check()?;
        self.disk.lock().unwrap().put_block(bucket, key, value)
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
    }
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
