//! Measures a store on real files: append rate, bytes on disk per live byte, reads, and the time of an open.
//!
//! `cargo run --release -p persistence --example measure -- [--max-mib N] [--body BYTES] [--rooms N] [--rate N/s]`
//! Prints one line per figure. Everything is written to a directory of its own, which is deleted at the end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement, not the product")]

use std::{
    env,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use persistence::{AppendError, Config, Kind, Opened, Query, Record, SPACE_FACTOR, Store, open};

/// Times the budget is written over, so that the oldest went several times.
const TURNS: u64 = 6;
const READS: u64 = 2000;

fn main() {
    let max_bytes = argument("--max-mib", 256) << 20;
    let (body, rooms, rate) = (argument("--body", 200), argument("--rooms", 1000), argument("--rate", 0));
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes, queue_bytes: 16 << 20, ..Config::new(dir.path()) };
    println!(
        "max_bytes {} MiB, bodies of {body} B, {rooms} rooms, live budget {} MiB",
        max_bytes >> 20,
        (max_bytes / SPACE_FACTOR) >> 20
    );

    let Opened { store, .. } = open(Kind::Sled(config.clone()), 1).unwrap();
    let total = max_bytes / SPACE_FACTOR * TURNS / (body + 60);
    let (start, mut worst_ratio, mut worst_disk) = (Instant::now(), 0.0_f64, 0);
    for n in 1..=total {
        append(&store, &record(n, rooms, body));
        if n % 2000 == 0 {
            if rate > 0 {
                thread::sleep(
                    Duration::from_secs_f64(
                        f64::from(u32::try_from(n).unwrap()) / f64::from(u32::try_from(rate).unwrap()),
                    )
                    .saturating_sub(start.elapsed()),
                );
            }
            let disk = size(dir.path());
            let live = store.stats().live_bytes;
            worst_disk = worst_disk.max(disk);
            if live > max_bytes / SPACE_FACTOR / 2 {
                worst_ratio = worst_ratio.max(ratio(disk, live));
            }
        }
    }
    while store.stats().queue_bytes > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("append: {total} records in {seconds:.1} s, {:.0} k/s", ratio(total, 1000) / seconds);
    let stats = store.stats();
    println!(
        "commit: longest {:.1} ms, mean {:.1} ms",
        ratio(stats.commit_max_micros, 1000),
        ratio(stats.commit_micros, stats.commits.iter().sum::<u64>() * 1000)
    );
    println!(
        "disk: at most {} MiB, {worst_ratio:.2} per live byte at worst, {:.2} at the end; {} buckets dropped",
        worst_disk >> 20,
        ratio(size(dir.path()), stats.live_bytes),
        stats.dropped_buckets
    );
    println!("read the last 20 of a room: {:.0} us", reads(&store, total, rooms));
    println!("memory: {} MiB", resident() >> 20);
    let start = Instant::now();
    store.close().unwrap();
    println!("close: {:.0} ms", start.elapsed().as_secs_f64() * 1000.0);

    let Opened { store, clean, .. } = open(Kind::Sled(config), 1).unwrap();
    assert!(clean);
    println!("open with verification and index: {:.0} ms", ratio(store.stats().open_micros, 1000));
    println!("read the last 20 of a room, cold: {:.0} us", reads(&store, total, rooms));
    store.close().unwrap();
}

fn argument(name: &str, default: u64) -> u64 {
    let words: Vec<String> = env::args().collect();
    let value = words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    value.map_or(default, |value| value.parse().unwrap())
}

fn record(n: u64, rooms: u64, body: u64) -> Record {
    let room = n % rooms;
    Record {
        slot: u16::try_from(room % 4096).unwrap(),
        room: format!("/\0room {room}").into(),
        n,
        time_ms: n,
        body: noise(n, usize::try_from(body).unwrap()),
    }
}

/// Bytes that do not compress, different for every record.
fn noise(mut seed: u64, len: usize) -> Bytes {
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        out.extend_from_slice(&(seed ^ (seed >> 29)).to_be_bytes());
    }
    out.truncate(len);
    out.into()
}

fn append(store: &Store, record: &Record) {
    while let Err(error) = store.append(vec![record.clone()]) {
        assert_eq!(error, AppendError::QueueFull);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Mean time of a read of the newest 20, in microseconds.
fn reads(store: &Store, total: u64, rooms: u64) -> f64 {
    let start = Instant::now();
    for at in 0..READS {
        let Record { slot, room, .. } = record(total - at % rooms, rooms, 0);
        let query =
            Query { slot, room, after: 0, upto: u64::MAX, limit: 20, max_bytes: usize::MAX, newest: true, keep: 1000 };
        let (reply, page) = mpsc::channel();
        store.read(query, move |page| reply.send(page).unwrap()).unwrap();
        let page = page.recv().unwrap().unwrap();
        assert!(!page.records.is_empty() && page.damaged == 0);
    }
    start.elapsed().as_secs_f64() * 1e6 / ratio(READS, 1)
}

fn size(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir).unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() {
            size(&entry.path())
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        })
    });
    sizes.sum()
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}
