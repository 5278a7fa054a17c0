//! The store on real files: what survives a restart, what damage does, who may open it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use persistence::{Config, Kind, OpenError, Opened, Page, Query, Record, Status, Store, open};

#[test]
fn records_metas_heads_and_the_generation_survive_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path());
    assert!(!first.clean && first.heads.as_ref().unwrap().is_empty() && first.generation == 1000);
    first.store.append((1..=100).map(|n| record(3, n)).collect()).unwrap();
    first.store.append((101..=105).map(|n| record(9, n)).collect()).unwrap();
    first.store.put_meta(3, Bytes::from_static(b"old")).unwrap();
    first.store.put_meta(3, Bytes::from_static(b"lineage 3")).unwrap();
    first.store.close().unwrap();

    let second = start(dir.path());
    assert!(second.clean && second.quarantined.is_none());
    assert_eq!(second.generation, 1001);
    assert_eq!(second.heads.unwrap().into_iter().collect::<Vec<_>>(), [(3, 100), (9, 105)]);
    assert_eq!(second.meta.into_iter().collect::<Vec<_>>(), [(3, Bytes::from_static(b"lineage 3"))]);
    let page = read(&second.store, 3, 10);
    assert_eq!(page.records, (91..=100).map(|n| record(3, n)).collect::<Vec<_>>());
    assert!(page.more && page.trimmed_through == 0);
}

#[test]
fn a_commit_becomes_durable_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path());
    first.store.append(vec![record(1, 1)]).unwrap();
    until(|| first.store.stats().appended_records == 1);
    assert_eq!(first.store.stats().commits.iter().sum::<u64>(), 1);
    assert!(first.store.stats().live_bytes > 0);
    assert_eq!(first.store.status(), Status::Ok);
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path());
    let second = open(Kind::Sled(Config::new(dir.path())), 1);
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    first.store.append(vec![record(1, 1)]).unwrap();
    first.store.close().unwrap();
    assert_eq!(start(dir.path()).heads.unwrap()[&1], 1, "the refused one harmed nothing");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_and_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    fs::write(&file, b"not a directory").unwrap();
    let refused = open(Kind::Sled(Config::new(file.join("data"))), 1);
    assert!(matches!(refused, Err(OpenError::Directory { .. })), "{refused:?}");
}

#[test]
fn a_truncated_main_file_never_passes_for_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let length = fs::metadata(filled(dir.path()).join("db")).unwrap().len();
    let mut quarantined = 0;
    for part in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let main_file = filled(dir.path()).join("db");
        fs::OpenOptions::new().write(true).open(main_file).unwrap().set_len(length * part / 12 + part * 37).unwrap();
        quarantined += usize::from(runs_after_damage(dir.path()));
    }
    assert!(quarantined >= 1, "an empty file at least is worth a quarantine");
}

#[test]
fn a_garbled_file_ends_in_a_running_store_without_wrong_records() {
    for name in ["db", "conf"] {
        for tenth in [0, 1, 5, 9] {
            let dir = tempfile::tempdir().unwrap();
            let file = filled(dir.path()).join(name);
            let mut bytes = fs::read(&file).unwrap();
            let begin = bytes.len() * tenth / 10;
            bytes[begin..].iter_mut().take(4096).for_each(|byte| *byte ^= 0xA5);
            fs::write(&file, bytes).unwrap();
            runs_after_damage(dir.path());
        }
    }
}

#[test]
fn a_store_that_went_back_to_nothing_is_damaged_and_the_generation_still_rises() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path());
    fs::remove_dir_all(&files).unwrap();
    fs::create_dir(&files).unwrap();
    let Opened { generation, quarantined, clean, .. } = open(Kind::Sled(Config::new(dir.path())), 5).unwrap();
    assert!(quarantined.is_some() && !clean);
    assert_eq!(generation, 1001);
}

#[test]
fn a_quarantined_directory_stays_readable_and_only_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = PathBuf::new();
    for _ in 0..3 {
        fs::write(filled(dir.path()).join("db"), b"").unwrap();
        last = start(dir.path()).quarantined.unwrap();
        until(|| open_may_follow(dir.path()));
    }
    assert_eq!(last, dir.path().join("quarantine-3"));
    assert!(last.join("db").exists() && dir.path().join("quarantine-2").exists());
    assert!(!dir.path().join("quarantine-1").exists());
}

#[test]
fn retention_by_bytes_drops_buckets_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_bytes: 256 * 1024 * persistence::SPACE_FACTOR,
        retention: Duration::from_secs(8),
        ..Config::new(dir.path())
    };
    let Opened { store, .. } = open(Kind::Sled(config.clone()), 1).unwrap();
    let mut n = 0;
    while store.stats().dropped_buckets < 3 {
        let batch = (n + 1..=n + 20).map(|n| Record { body: vec![7; 1000].into(), ..record(1, n) }).collect();
        store.append(batch).unwrap();
        n += 20;
        until(|| store.stats().queue_bytes == 0);
    }
    store.close().unwrap();
    let again = open(Kind::Sled(config), 1).unwrap();
    let page = read(&again.store, 1, usize::MAX);
    let numbers: Vec<u64> = page.records.iter().map(|record| record.n).collect();
    assert!(page.trimmed_through > 0);
    assert_eq!(numbers, (page.trimmed_through + 1..=n).collect::<Vec<_>>());
}

#[test]
fn a_store_in_memory_forgets_everything() {
    let kind = Kind::Memory { retention: Duration::from_secs(600), max_bytes: 1 << 20, queue_bytes: 1 << 20 };
    let first = open(kind.clone(), 77).unwrap();
    first.store.append(vec![record(1, 1)]).unwrap();
    assert_eq!(read(&first.store, 1, 10).records, [record(1, 1)]);
    first.store.close().unwrap();
    let second = open(kind, 78).unwrap();
    assert!(!second.clean && second.heads.unwrap().is_empty() && second.generation == 78);
}

/// A closed store of a few segments; returns the directory of its files.
fn filled(dir: &Path) -> PathBuf {
    let config = Config { commit_interval: Duration::from_millis(1), ..Config::new(dir) };
    let Opened { store, .. } = open(Kind::Sled(config), 1000).unwrap();
    for batch in 0..30 {
        let records = (batch * 50 + 1..=batch * 50 + 50).map(|n| Record { body: body(n), ..record(1, n) });
        store.append(records.collect()).unwrap();
        until(|| store.stats().queue_bytes == 0);
    }
    store.close().unwrap();
    dir.join("history")
}

/// Opens a damaged store and uses it; says whether the old files were moved aside. If they were not, it must not claim
/// to be whole, and what is answered must be a prefix of what was written.
fn runs_after_damage(dir: &Path) -> bool {
    let Opened { store, quarantined, heads, clean, .. } = start(dir);
    let heads = heads.unwrap();
    let page = read(&store, 1, usize::MAX);
    assert!(page.records.iter().all(|r| r.body == body(r.n)));
    if let Some(aside) = &quarantined {
        assert!(aside.is_dir() && heads.is_empty() && page.records.is_empty());
    }
    let numbers: Vec<u64> = page.records.iter().map(|record| record.n).collect();
    assert_eq!(numbers, (1..=heads.get(&1).copied().unwrap_or(0)).collect::<Vec<_>>(), "a prefix, no hole");
    assert!(!clean || page.records.len() == 1500, "{} of 1500 records and clean", page.records.len());
    store.append(vec![record(2, 1)]).unwrap();
    store.close().unwrap();
    assert_eq!(start(dir).heads.unwrap()[&2], 1);
    quarantined.is_some()
}

fn body(n: u64) -> Bytes {
    vec![n.to_be_bytes()[7]; 800].into()
}

fn open_may_follow(dir: &Path) -> bool {
    fs::File::create(dir.join("lock")).unwrap().try_lock().is_ok()
}

fn start(dir: &Path) -> Opened {
    open(Kind::Sled(Config::new(dir)), 1000).unwrap()
}

fn record(slot: u16, n: u64) -> Record {
    let body = Bytes::from(format!("body {n}"));
    Record { slot, room: Bytes::from_static(b"/\0lobby"), n, time_ms: n * 10, body }
}

fn read(store: &Store, slot: u16, limit: usize) -> Page {
    let room = Bytes::from_static(b"/\0lobby");
    let query =
        Query { slot, room, after: 0, upto: u64::MAX, limit, max_bytes: usize::MAX, newest: true, keep: usize::MAX };
    let (reply, page) = mpsc::channel();
    store.read(query, move |page| reply.send(page).unwrap()).unwrap();
    page.recv_timeout(Duration::from_secs(10)).unwrap().unwrap()
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("it never came true");
}
