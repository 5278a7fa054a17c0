//! Commits, reads and retention on every engine, where time is an argument.

use proptest::prelude::*;

use super::*;
use crate::{Cursor, Page, Query, Record, ScanPage, engine::tests::Engines, memory::MemoryEngine};

const MINUTE: u64 = 60_000;

/// Runs a story on a disk over each engine.
fn on_each(max_bytes: u64, story: impl Fn(&str, Disk)) {
    for (name, engine) in Engines::new().each() {
        story(name, Disk::load(engine, policy(max_bytes)).unwrap());
    }
}

/// The same files, read again from the start.
fn load_again(disk: Disk, max_bytes: u64) -> Result<Disk, EngineError> {
    Disk::load(disk.store, policy(max_bytes))
}

#[test]
fn a_query_finds_its_part_of_the_room_across_buckets_and_pending() {
    on_each(1 << 20, |name, mut disk| {
        for n in 1..=50 {
            disk.commit(&pending([record(1, n)]), n * MINUTE / 4).unwrap();
        }
        let open = pending((51..=60).map(|n| record(1, n)));
        let read = |after, upto, limit, newest| {
            let page = ask(&disk, &query(after, upto, limit, newest), &open);
            (numbers(&page), page.more)
        };
        assert_eq!(read(0, u64::MAX, 100, true), ((1..=60).collect(), false), "{name}");
        assert_eq!(read(0, u64::MAX, 3, true), (vec![58, 59, 60], true), "{name}");
        assert_eq!(read(0, u64::MAX, 3, false), (vec![1, 2, 3], true), "{name}");
        assert_eq!(read(20, 25, 5, true), ((21..=25).collect(), false), "{name}");
        assert_eq!(read(20, 25, 4, true), ((22..=25).collect(), true), "{name}");
        assert_eq!(read(48, 53, 100, false), ((49..=53).collect(), false), "{name}");
        assert_eq!(read(60, u64::MAX, 9, false), (vec![], false), "{name}");
        assert_eq!(read(30, 20, 9, false), (vec![], false), "{name}: an empty range");
        assert_eq!(read(0, u64::MAX, 0, true), (vec![], true), "{name}");
    });
}

#[test]
fn only_the_newest_that_are_kept_exist() {
    on_each(1 << 20, |name, mut disk| {
        (0..5).for_each(|c| disk.commit(&pending((c * 7 + 1..=c * 7 + 7).map(|n| record(1, n))), 0).unwrap());
        let open = pending((36..=40).map(|n| record(1, n)));
        for keep in [0, 1, 4, 5, 6, 12, 20, 39, 40, 41] {
            let all = ask(&disk, &Query { keep, ..query(0, u64::MAX, 100, true) }, &open);
            let kept: Vec<u64> = (1..=40).skip(40_usize.saturating_sub(keep)).collect();
            assert_eq!((numbers(&all), all.more), (kept.clone(), false), "{name} keeps {keep}");
            let oldest = ask(&disk, &Query { keep, ..query(0, 38, 2, false) }, &open);
            let expected: Vec<u64> = kept.into_iter().filter(|n| *n <= 38).take(2).collect();
            assert_eq!(numbers(&oldest), expected, "{name} keeps {keep}");
        }
    });
}

#[test]
fn rooms_and_slots_do_not_see_each_other() {
    on_each(1 << 20, |name, mut disk| {
        let other_room = Record { room: Bytes::from_static(b"/\0other"), ..record(1, 2) };
        let other_slot = Record { slot: 2, ..record(1, 3) };
        disk.commit(&pending([record(1, 1), other_room, other_slot]), 0).unwrap();
        let page = ask(&disk, &query(0, u64::MAX, 9, true), &Pending::default());
        assert_eq!(page.records, [record(1, 1)], "{name}");
    });
}

#[test]
fn ten_thousand_quiet_rooms_are_few_large_values() {
    on_each(1 << 30, |name, mut disk| {
        let quiet = |n: u64| Record {
            slot: u16::try_from(n % 4096).unwrap(),
            room: format!("/\0room {n}").into(),
            ..record(1, n)
        };
        disk.commit(&pending((1..=10_000).map(quiet)), 0).unwrap();
        assert!(disk.last_block().0 < 100, "{name}: {} blocks", disk.last_block().0);
        let disk = load_again(disk, 1 << 30).unwrap();
        for n in [1, 4_097, 10_000] {
            let Record { slot, room, .. } = quiet(n);
            let page = ask(&disk, &Query { slot, room, ..query(0, u64::MAX, 9, true) }, &Pending::default());
            assert_eq!(page.records, [quiet(n)], "{name}");
        }
    });
}

#[test]
fn a_dropped_bucket_is_said_in_trimmed_through_and_the_head_stays() {
    on_each(1 << 20, |name, mut disk| {
        disk.commit(&pending([record(1, 7)]), 0).unwrap();
        disk.commit(&pending([record(2, 8)]), 5 * MINUTE).unwrap();
        assert_eq!(disk.retain(15 * MINUTE - 1).unwrap(), 0);
        assert_eq!(disk.retain(15 * MINUTE).unwrap(), 1);
        let page = ask(&disk, &query(0, u64::MAX, 9, true), &Pending::default());
        assert_eq!((numbers(&page), page.trimmed_through), (vec![], 7), "{name}");
        assert_eq!(*disk.heads(), BTreeMap::from([(1, 7), (2, 8)]), "{name}");

        let ledger = disk.ledger.clone();
        let loaded = load_again(disk, 1 << 20).unwrap();
        assert_eq!(loaded.ledger, ledger, "{name}");
        assert_eq!(*loaded.heads(), BTreeMap::from([(1, 7), (2, 8)]), "{name}");
        assert_eq!(loaded.last_block(), BlockId(2), "{name}: numbers of blocks go on");
    });
}

#[test]
fn the_byte_budget_drops_the_oldest_and_holds() {
    let budget = 64 * 1024;
    on_each(budget, |name, mut disk| {
        let mut dropped = 0;
        for n in 1..=400 {
            let large = Record { body: vec![0; 1000].into(), ..record(1, n) };
            disk.commit(&pending([large]), n).unwrap();
            dropped += disk.retain(n).unwrap();
            assert!(disk.live_bytes() <= budget + budget / 8 + 2000, "{name}");
        }
        assert!(dropped > 10, "{name}: {dropped} buckets went");
        let live = disk.live_bytes();
        let disk = load_again(disk, budget).unwrap();
        assert_eq!(disk.live_bytes(), live, "{name}: a load counts as a commit does");
        let page = ask(&disk, &query(0, u64::MAX, 1000, true), &Pending::default());
        assert_eq!(numbers(&page), (page.trimmed_through + 1..=400).collect::<Vec<_>>(), "{name}: the trim is exact");
    });
}

#[test]
fn a_forgotten_room_stays_forgotten_and_goes_on() {
    on_each(1 << 20, |name, mut disk| {
        let read = |disk: &Disk, open: &Pending| numbers(&ask(disk, &query(0, u64::MAX, 99, true), open));
        disk.commit(&pending([record(1, 1), record(2, 1)]), 0).unwrap();
        let mut open = pending([record(1, 2)]);
        open.forget(1, record(1, 0).room);
        open.push(record(1, 3));
        assert_eq!(read(&disk, &open), [3], "{name}: at once");
        disk.commit(&open, 1).unwrap();
        assert_eq!(read(&disk, &Pending::default()), [3], "{name}");
        let mut disk = load_again(disk, 1 << 20).unwrap();
        assert_eq!(read(&disk, &Pending::default()), [3], "{name}: after a load");
        assert_eq!(disk.heads()[&1], 3, "{name}");
        let other = Query { slot: 2, ..query(0, 9, 9, true) };
        assert_eq!(numbers(&ask(&disk, &other, &Pending::default())), [1], "{name}: another slot's room of that name");
        disk.commit(&pending([record(1, 4)]), 2).unwrap();
        assert_eq!(read(&disk, &Pending::default()), [3, 4], "{name}");
        assert_eq!(scanned(&disk, 1), [(1, 3), (1, 4)], "{name}: a scan shows nothing forgotten");
    });
}

#[test]
fn a_forgotten_slot_stays_forgotten_in_all_its_rooms_and_goes_on() {
    on_each(1 << 20, |name, mut disk| {
        let beside = |slot, n| Record { room: Bytes::from_static(b"/\0b"), ..record(slot, n) };
        let read = |disk: &Disk, open: &Pending, slot: u16, room: &'static str| {
            let query = Query { slot, room: Bytes::from(room), ..query(0, u64::MAX, 99, true) };
            numbers(&ask(disk, &query, open))
        };
        let check = |disk: &Disk, open: &Pending, when: &str| {
            assert_eq!(read(disk, open, 1, "/\0a"), [5], "{name}: {when}");
            assert_eq!(read(disk, open, 1, "/\0b"), [], "{name}: {when}: a room that did not go on");
            assert_eq!(read(disk, open, 2, "/\0b"), [3], "{name}: {when}: another slot");
        };
        disk.commit(&pending([record(1, 1), beside(1, 2), beside(2, 3)]), 0).unwrap();
        let mut open = pending([beside(1, 4)]);
        open.forget_slot(1);
        open.push(record(1, 5));
        check(&disk, &open, "at once");
        disk.commit(&open, 1).unwrap();
        check(&disk, &Pending::default(), "when it is durable");
        assert_eq!(scanned(&disk, 1), [(1, 5)], "{name}: a scan shows nothing forgotten");
        let mut disk = load_again(disk, 1 << 20).unwrap();
        check(&disk, &Pending::default(), "after a load");
        assert_eq!(scanned(&disk, 1), [(1, 5)], "{name}: after a load");
        assert_eq!(disk.heads()[&1], 5, "{name}");
        disk.commit(&pending([beside(1, 6)]), 2).unwrap();
        assert_eq!(read(&disk, &Pending::default(), 1, "/\0b"), [6], "{name}");
    });
}

#[test]
fn a_scan_of_a_slot_with_many_small_blocks_stops_between_them_and_goes_on() {
    on_each(1 << 20, |name, mut disk| {
        for n in 1..=300 {
            disk.commit(&pending([record(1, n)]), 0).unwrap();
        }
        let first = disk.scan_slot(1, Cursor::default(), usize::MAX).unwrap();
        assert_eq!(first.records.len(), 256, "{name}");
        let rest = disk.scan_slot(1, first.next.unwrap(), usize::MAX).unwrap();
        assert_eq!((rest.records.len(), rest.next), (44, None), "{name}");
    });
}

#[test]
fn a_scan_ends_where_retention_took_everything() {
    on_each(1 << 20, |name, mut disk| {
        disk.commit(&pending([record(1, 1)]), 0).unwrap();
        disk.retain(60 * MINUTE).unwrap();
        assert_eq!(scanned(&disk, 1), [], "{name}");
    });
}

#[test]
fn a_scan_in_parts_is_every_kept_record_of_the_slot_in_the_order_of_writing() {
    on_each(1 << 20, |name, mut disk| {
        let room = |slot: u16, name: &'static str, n| Record { room: Bytes::from(name), ..record(slot, n) };
        for tick in 0..20_u64 {
            let n = tick * 3;
            let batch = [room(7, "b", n + 1), room(7, "a", n + 2), room(8, "c", n + 3)];
            disk.commit(&pending(batch), tick * MINUTE).unwrap();
        }
        disk.retain(13 * MINUTE).unwrap();
        let trimmed = disk.trimmed_through(7);
        assert!(trimmed > 0, "{name}");
        let expected: Vec<(u16, u64)> =
            (0..20).flat_map(|tick| [tick * 3 + 2, tick * 3 + 1]).filter(|n| *n > trimmed).map(|n| (7, n)).collect();
        assert_eq!(scanned(&disk, 7), expected, "{name}");
        assert_eq!(scanned(&disk, 9), [], "{name}");
        let all = disk.scan(&|_| true, Cursor::default(), usize::MAX).unwrap();
        assert_eq!((all.records.len(), all.next, all.damaged), (expected.len() / 2 * 3, None, 0), "{name}");
    });
}

#[test]
fn a_clean_stop_whose_last_block_is_gone_was_none() {
    on_each(1 << 20, |name, mut disk| {
        disk.begin(1_000).unwrap();
        disk.commit(&pending([record(7, 1)]), 0).unwrap();
        disk.last = disk.last.next();
        disk.finish().unwrap();
        let mut again = load_again(disk, 1 << 20).unwrap();
        assert!(!again.begin(5).unwrap().clean, "{name}");
    });
}

#[test]
fn a_generation_rises_and_takes_the_clean_marker_and_the_metas_away() {
    on_each(1 << 20, |name, mut disk| {
        assert!(!disk.begin(1_000).unwrap().clean, "{name}: the first start has nothing to go on from");
        let mut batch = Pending::default();
        batch.put_meta(4, Bytes::from_static(b"left"));
        disk.commit(&batch, 0).unwrap();
        disk.finish().unwrap();
        let mut again = load_again(disk, 1 << 20).unwrap();
        let begun = again.begin(5).unwrap();
        assert_eq!((begun.clean, begun.generation), (true, 1_001), "{name}: a clock that went back does not matter");
        assert_eq!(begun.meta, BTreeMap::from([(4, Bytes::from_static(b"left"))]), "{name}");
        let mut killed = load_again(again, 1 << 20).unwrap();
        let begun = killed.begin(5).unwrap();
        assert!(!begun.clean && begun.meta.is_empty(), "{name}: what a slot left two lives ago is not true any more");
    });
}

#[test]
fn a_damaged_section_is_found_by_the_load_ends_a_page_and_is_passed_over_by_the_next() {
    on_each(1 << 20, |name, mut disk| {
        (1..=5).for_each(|n| disk.commit(&pending([record(1, n), Record { slot: 2, ..record(1, n) }]), 0).unwrap());
        let (bucket, id) = (disk.contents[0].bucket, BlockId(3));
        let mut value = Vec::new();
        disk.store.block(bucket, id, &mut |bytes| value = bytes.to_vec()).unwrap();
        value[30] ^= 1;
        disk.store.put_block(bucket, id, &value).unwrap();
        let page = |upto, newest| {
            let page = ask(&disk, &query(0, upto, 9, newest), &Pending::default());
            (numbers(&page), page.more, page.damaged)
        };
        assert_eq!(page(u64::MAX, true), (vec![4, 5], true, 1), "{name}");
        assert_eq!(page(3, true), (vec![1, 2], false, 1), "{name}: paging goes on behind it");
        assert_eq!(page(u64::MAX, false), (vec![1, 2], true, 1), "{name}");
        let other = ask(&disk, &Query { slot: 2, ..query(0, 9, 9, true) }, &Pending::default());
        assert_eq!((numbers(&other), other.damaged), (vec![1, 2, 3, 4, 5], 0), "{name}: a neighbour is whole");
        let scan = disk.scan(&|_| true, Cursor::default(), usize::MAX).unwrap();
        assert_eq!((scan.records.len(), scan.damaged), (8, 1), "{name}");
        assert!(matches!(load_again(disk, 1).map(drop), Err(EngineError::Damaged(_))), "{name}");
    });
}

#[test]
fn a_missing_block_is_found_by_the_load_and_a_missing_tail_is_no_damage() {
    for (missing, whole) in [(0, false), (1, false), (2, true)] {
        on_each(1 << 20, |name, mut disk| {
            (1..=3).for_each(|n| disk.commit(&pending([record(1, n)]), n * 2 * MINUTE).unwrap());
            let bucket = disk.contents[missing].bucket;
            disk.store.drop_bucket(bucket).unwrap();
            assert_eq!(load_again(disk, 1 << 20).is_ok(), whole, "{name} without bucket {missing}");
        });
    }
}

#[test]
fn a_drop_that_was_interrupted_shows_nothing_twice() {
    on_each(1 << 20, |name, mut disk| {
        (1..=2).for_each(|n| disk.commit(&pending([record(1, n)]), n * 2 * MINUTE).unwrap());
        disk.ledger.dropped = BlockId(1);
        disk.ledger.write_named(disk.store.as_mut()).unwrap();
        let disk = load_again(disk, 1 << 20).unwrap();
        assert_eq!(numbers(&ask(&disk, &query(0, 9, 9, true), &Pending::default())), [2], "{name}");
    });
}

#[test]
fn an_empty_disk_that_adopts_a_lost_ledger_says_that_everything_is_gone() {
    let mut lost = disk();
    lost.begin(9).unwrap();
    let mut batch = pending([record(1, 5)]);
    batch.put_meta(1, Bytes::from_static(b"lineage"));
    lost.commit(&batch, 0).unwrap();

    let mut fresh = disk();
    fresh.adopt(&lost.ledger_of_loss()).unwrap();
    let loaded = load_again(fresh, 1 << 20).unwrap();
    assert_eq!((loaded.generation(), loaded.is_of(9)), (9, true));
    assert_eq!(loaded.ledger.meta, BTreeMap::from([(1, Bytes::from_static(b"lineage"))]));
    assert_eq!(ask(&loaded, &query(0, 9, 9, true), &Pending::default()).trimmed_through, 5);
}

#[test]
fn a_disk_that_is_older_than_what_was_promised_keeps_its_history_and_takes_the_promise() {
    let mut old = disk();
    old.begin(3).unwrap();
    old.commit(&pending([record(1, 5)]), 0).unwrap();
    old.finish().unwrap();
    assert!(!old.is_of(3), "a clean disk is in nobody's life");
    old.adopt(&Ledger { generation: 9, ..Ledger::default() }).unwrap();
    assert!(old.is_of(9) && old.heads()[&1] == 5);
    assert_eq!(numbers(&ask(&old, &query(0, 9, 9, true), &Pending::default())), [5]);
}

proptest! {
    /// Whatever order numbers arrive in (a refilled replica, a resend), however commits and buckets cut them, and
    /// whether the index was kept or rebuilt by a load: a read answers like a sorted list.
    #[test]
    fn a_read_answers_like_a_sorted_list(
        batches in prop::collection::vec((prop::collection::vec(1..60_u64, 1..40), 0..3_u64), 1..12),
        (after, upto) in (0..60_u64, 0..70_u64),
        (limit, keep) in (0..30_usize, 0..70_usize),
        newest: bool,
        reload: bool,
        sorted: bool,
    ) {
        let mut disk = disk();
        let mut model = BTreeMap::new();
        let mut open = Pending::default();
        let (mut now, mut highest) = (0, 0);
        for (at, (batch, minutes)) in batches.iter().enumerate() {
            open = Pending::default();
            for step in batch {
                let n = if sorted { highest + step % 3 + 1 } else { *step };
                highest = n;
                open.push(record(1, n));
                model.insert(n, ());
            }
            now += minutes * MINUTE;
            if at + 1 < batches.len() {
                disk.commit(&open, now).unwrap();
            }
        }
        if reload {
            disk = load_again(disk, 1 << 20).unwrap();
        }
        let page = ask(&disk, &Query { keep, ..query(after, upto, limit, newest) }, &open);
        let gone = model.len().saturating_sub(keep);
        let all: Vec<u64> = model.into_keys().skip(gone).filter(|n| after < *n && *n <= upto).collect();
        let cut = all.len().saturating_sub(limit);
        let expected = if newest { &all[cut..] } else { &all[..all.len() - cut] };
        prop_assert_eq!(numbers(&page), expected);
        prop_assert_eq!(page.more, cut > 0);

        disk.commit(&open, now).unwrap();
        disk.retain(now + 8 * MINUTE).unwrap();
        prop_assert!(load_again(disk, 1 << 20).is_ok(), "what retention leaves is no damage");
    }
}

fn policy(max_bytes: u64) -> Policy {
    Policy::new(Duration::from_secs(600), max_bytes)
}

fn disk() -> Disk {
    Disk::load(Box::new(MemoryEngine::default()), policy(1 << 20)).unwrap()
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
    let room = Bytes::from_static(b"/\0a");
    Query { slot: 1, room, after, upto, limit, max_bytes: usize::MAX, newest, keep: usize::MAX }
}

fn ask(disk: &Disk, query: &Query, open: &Pending) -> Page {
    disk.read(query, open.room(query.slot, &query.room)).unwrap()
}

fn numbers(page: &Page) -> Vec<u64> {
    page.records.iter().map(|record| record.n).collect()
}

/// A slot, scanned in the smallest parts: by its own blocks, and by all blocks there are.
fn scanned(disk: &Disk, slot: u16) -> Vec<(u16, u64)> {
    let own = in_parts(|after| disk.scan_slot(slot, after, 1).unwrap());
    assert_eq!(own, in_parts(|after| disk.scan(&|other| other == slot, after, 1).unwrap()));
    own
}

fn in_parts(scan: impl Fn(Cursor) -> ScanPage) -> Vec<(u16, u64)> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(after) = next {
        let page = scan(Cursor::from(after));
        all.extend(page.records.iter().map(|record| (record.slot, record.n)));
        next = page.next.map(u64::from);
        assert!(next.is_none_or(|next| next > after), "a scan comes to its end");
    }
    all
}
