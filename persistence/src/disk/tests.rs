//! Commits, reads and retention over the engine in memory, where time is an argument.

use proptest::prelude::*;

use super::*;
use crate::{Record, memory::MemoryEngine};

const MINUTE: u64 = 60_000;

#[test]
fn a_query_finds_its_part_of_the_room_across_buckets_and_pending() {
    let mut disk = disk(1 << 20);
    for n in 1..=50 {
        disk.commit(&pending([record(1, n)]), n * MINUTE / 4).unwrap();
    }
    let open = pending((51..=60).map(|n| record(1, n)));
    let read = |after, upto, limit, newest| {
        let page = disk.read(&query(after, upto, limit, newest), &open).unwrap();
        (numbers(&page), page.more)
    };
    assert_eq!(read(0, u64::MAX, 100, true), ((1..=60).collect(), false));
    assert_eq!(read(0, u64::MAX, 3, true), (vec![58, 59, 60], true));
    assert_eq!(read(0, u64::MAX, 3, false), (vec![1, 2, 3], true));
    assert_eq!(read(20, 25, 5, true), ((21..=25).collect(), false));
    assert_eq!(read(20, 25, 4, true), ((22..=25).collect(), true));
    assert_eq!(read(48, 53, 100, false), ((49..=53).collect(), false));
    assert_eq!(read(60, u64::MAX, 9, false), (vec![], false));
    assert_eq!(read(30, 20, 9, false), (vec![], false), "an empty range");
    assert_eq!(read(0, u64::MAX, 0, true), (vec![], true));
}

#[test]
fn rooms_and_slots_do_not_see_each_other() {
    let mut disk = disk(1 << 20);
    let other_room = Record { room: Bytes::from_static(b"/\0other"), ..record(1, 2) };
    let other_slot = Record { slot: 2, ..record(1, 3) };
    disk.commit(&pending([record(1, 1), other_room, other_slot]), 0).unwrap();
    let page = disk.read(&query(0, u64::MAX, 9, true), &Pending::default()).unwrap();
    assert_eq!(page.records, [record(1, 1)]);
}

#[test]
fn a_dropped_bucket_is_said_in_trimmed_through_and_the_head_stays() {
    let mut disk = disk(1 << 20);
    disk.commit(&pending([record(1, 7)]), 0).unwrap();
    disk.commit(&pending([record(2, 8)]), 5 * MINUTE).unwrap();
    assert_eq!(disk.retain(15 * MINUTE - 1).unwrap(), 0);
    assert_eq!(disk.retain(15 * MINUTE).unwrap(), 1);
    let page = disk.read(&query(0, u64::MAX, 9, true), &Pending::default()).unwrap();
    assert_eq!((numbers(&page), page.trimmed_through), (vec![], 7));
    assert_eq!(*disk.heads(), BTreeMap::from([(1, 7), (2, 8)]));

    let ledger = disk.ledger().clone();
    let loaded = Disk::load(disk.engine, policy(1 << 20)).unwrap();
    assert_eq!(*loaded.ledger(), ledger);
    assert_eq!(*loaded.heads(), BTreeMap::from([(1, 7), (2, 8)]));
}

#[test]
fn the_byte_budget_drops_the_oldest_and_holds() {
    let budget = 64 * 1024;
    let mut disk = disk(budget);
    let mut dropped = 0;
    for n in 1..=400 {
        let large = Record { body: vec![0; 1000].into(), ..record(1, n) };
        disk.commit(&pending([large]), n).unwrap();
        dropped += disk.retain(n).unwrap();
        assert!(disk.live_bytes() <= budget + budget / 8 + 2000);
    }
    assert!(dropped > 10, "{dropped} buckets went");
    let page = disk.read(&query(0, u64::MAX, 1000, true), &Pending::default()).unwrap();
    assert_eq!(numbers(&page), (page.trimmed_through + 1..=400).collect::<Vec<_>>(), "the trim is exact");
}

#[test]
fn a_generation_rises_and_takes_the_clean_marker_away() {
    let mut disk = disk(1 << 20);
    assert!(!disk.begin(1_000).unwrap(), "the first start has nothing to go on from");
    assert_eq!(disk.ledger().generation, 1_000);
    disk.finish().unwrap();
    let mut again = Disk::load(disk.engine, policy(1 << 20)).unwrap();
    assert!(again.begin(5).unwrap());
    assert_eq!(again.ledger().generation, 1_001, "a clock that went back does not matter");
    let mut killed = Disk::load(again.engine, policy(1 << 20)).unwrap();
    assert!(!killed.begin(5).unwrap());
}

#[test]
fn a_newer_schema_is_refused() {
    let mut engine = MemoryEngine::default();
    engine.put_meta(SCHEMA_KEY, Some(&2_u64.to_be_bytes())).unwrap();
    let refused = Disk::load(Box::new(engine), policy(1)).map(drop);
    assert!(matches!(refused, Err(EngineError::Schema { found: 2, supported: 1 })));
}

#[test]
fn a_damaged_block_is_found_by_the_load_and_by_a_read() {
    let mut disk = disk(1 << 20);
    disk.commit(&pending([record(1, 1)]), 0).unwrap();
    let bucket = disk.contents[0].bucket;
    let mut value = Block::new(record(1, 1)).encode(0);
    *value.last_mut().unwrap() ^= 1;
    disk.engine.put_block(bucket, Block::new(record(1, 1)).key(), value).unwrap();
    assert!(matches!(disk.read(&query(0, 9, 9, true), &Pending::default()), Err(EngineError::Damaged(_))));
    assert!(matches!(Disk::load(disk.engine, policy(1)).map(drop), Err(EngineError::Damaged(_))));
}

#[test]
fn a_missing_block_is_found_by_the_load() {
    let mut disk = disk(1 << 20);
    (1..=3).for_each(|n| disk.commit(&pending([record(1, n)]), n * 2 * MINUTE).unwrap());
    let middle = disk.contents[1].bucket;
    disk.engine.drop_bucket(middle).unwrap();
    assert!(matches!(Disk::load(disk.engine, policy(1)).map(drop), Err(EngineError::Damaged(_))));
}

#[test]
fn rooms_of_one_slot_that_take_turns_do_not_overlap() {
    let mut disk = disk(1 << 20);
    let room = |name: &'static str, n| Record { room: Bytes::from_static(name.as_bytes()), ..record(1, n) };
    for turn in 0..5 {
        let n = turn * 4;
        disk.commit(&pending([room("a", n + 1), room("b", n + 2), room("a", n + 3), room("b", n + 4)]), 0).unwrap();
    }
    assert!(!disk.contents[0].slots[&1].overlaps);
    Disk::load(disk.engine, policy(1 << 20)).unwrap();
}

#[test]
fn an_empty_disk_that_adopts_a_lost_ledger_says_that_everything_is_gone() {
    let mut lost = disk(1 << 20);
    lost.begin(9).unwrap();
    let mut batch = pending([record(1, 5)]);
    batch.put_meta(1, Bytes::from_static(b"lineage"));
    lost.commit(&batch, 0).unwrap();

    let mut fresh = disk(1 << 20);
    fresh.adopt(lost.ledger_of_loss()).unwrap();
    let loaded = Disk::load(fresh.engine, policy(1 << 20)).unwrap();
    assert_eq!(loaded.ledger().generation, 9);
    assert_eq!(loaded.ledger().meta, BTreeMap::from([(1, Bytes::from_static(b"lineage"))]));
    assert_eq!(loaded.read(&query(0, 9, 9, true), &Pending::default()).unwrap().trimmed_through, 5);
}

proptest! {
    /// Whatever order numbers arrive in (a refilled replica, a resend), however commits and buckets cut them, and
    /// whether the index was kept or rebuilt by a load: a read answers like a sorted list.
    #[test]
    fn a_read_answers_like_a_sorted_list(
        batches in prop::collection::vec((prop::collection::vec(1..60_u64, 1..40), 0..3_u64), 1..12),
        (after, upto) in (0..60_u64, 0..70_u64),
        limit in 0..30_usize,
        newest: bool,
        reload: bool,
    ) {
        let mut disk = disk(1 << 20);
        let mut model = BTreeMap::new();
        let mut open = Pending::default();
        let mut now = 0;
        for (at, (batch, minutes)) in batches.iter().enumerate() {
            open = Pending::default();
            for n in batch {
                open.push(record(1, *n));
                model.insert(*n, ());
            }
            now += minutes * MINUTE;
            if at + 1 < batches.len() {
                disk.commit(&open, now).unwrap();
            }
        }
        if reload {
            disk = Disk::load(disk.engine, policy(1 << 20)).unwrap();
        }
        let page = disk.read(&query(after, upto, limit, newest), &open).unwrap();
        let all: Vec<u64> = model.into_keys().filter(|n| after < *n && *n <= upto).collect();
        let cut = all.len().saturating_sub(limit);
        let expected = if newest { &all[cut..] } else { &all[..all.len() - cut] };
        prop_assert_eq!(numbers(&page), expected);
        prop_assert_eq!(page.more, cut > 0);

        disk.commit(&open, now).unwrap();
        disk.retain(now + 8 * MINUTE).unwrap();
        prop_assert!(Disk::load(disk.engine, policy(1 << 20)).is_ok(), "what retention leaves is no damage");
    }
}

fn policy(max_bytes: u64) -> Policy {
    Policy::new(Duration::from_secs(600), max_bytes)
}

fn disk(max_bytes: u64) -> Disk {
    Disk::load(Box::new(MemoryEngine::default()), policy(max_bytes)).unwrap()
}

fn record(slot: u16, n: u64) -> Record {
    Record { slot, room: Bytes::from_static(b"/\0a"), n, time_ms: n * 10, body: Bytes::from(format!("body {n}")) }
}

fn pending(records: impl IntoIterator<Item = Record>) -> Pending {
    let mut pending = Pending::default();
    records.into_iter().for_each(|record| pending.push(record));
    pending
}

fn query(after: u64, upto: u64, limit: usize, newest: bool) -> Query {
    Query { slot: 1, room: Bytes::from_static(b"/\0a"), after, upto, limit, max_bytes: usize::MAX, newest }
}

fn numbers(page: &Page) -> Vec<u64> {
    page.records.iter().map(|record| record.n).collect()
}
