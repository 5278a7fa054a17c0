//! What every engine has to do, on every engine.

use tempfile::TempDir;

use super::*;
use crate::{memory::MemoryEngine, sled_engine::SledEngine};

/// An engine of each kind, by name; files are deleted with the value.
pub(crate) struct Engines {
    folder: TempDir,
}

impl Engines {
    pub(crate) fn new() -> Engines {
        Engines { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn each(&self) -> Vec<(&'static str, Box<dyn HistoryStore>)> {
        let sled = SledEngine::open(&self.folder.path().join("history"), 1 << 20).unwrap();
        vec![("memory", Box::new(MemoryEngine::default())), ("sled", Box::new(sled))]
    }
}

fn on_each(check: impl Fn(&str, Box<dyn HistoryStore>)) {
    Engines::new().each().into_iter().for_each(|(name, engine)| check(name, engine));
}

const OLD: Bucket = Bucket { id: 1, begun_ms: 10 };
const NEW: Bucket = Bucket { id: 2, begun_ms: 5 };

fn blocks(engine: &dyn HistoryStore, bucket: Bucket, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut take = |id: BlockId, value: &[u8]| {
        found.push((id.0, value.to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    engine.scan(bucket, BlockId(from), &mut take).unwrap();
    found
}

#[test]
fn blocks_come_in_the_order_of_their_numbers_from_where_they_are_asked_for() {
    on_each(|name, mut engine| {
        for id in [256, 1, 255, 2] {
            engine.put_block(OLD, BlockId(id), &vec![7; usize::try_from(id).unwrap() * 300]).unwrap();
        }
        let numbers = |from| blocks(engine.as_ref(), OLD, from).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(numbers(0), [1, 2, 255, 256], "{name}");
        assert_eq!(numbers(2), [2, 255, 256], "{name}");
        assert_eq!(numbers(257), [0; 0], "{name}");
        assert_eq!(blocks(engine.as_ref(), OLD, 256)[0].1, vec![7; 256 * 300], "{name}: a large value is whole");
        assert_eq!(blocks(engine.as_ref(), NEW, 0), [], "{name}: a bucket that does not exist is empty");
    });
}

#[test]
fn a_scan_ends_when_its_visitor_says_so_or_fails() {
    on_each(|name, mut engine| {
        (1..=3).for_each(|id| engine.put_block(OLD, BlockId(id), &[1]).unwrap());
        let mut seen = 0;
        let mut first = |_: BlockId, _: &[u8]| {
            seen += 1;
            Ok(ControlFlow::Break(()))
        };
        engine.scan(OLD, BlockId(0), &mut first).unwrap();
        assert_eq!(seen, 1, "{name}");
        let failed = engine.scan(OLD, BlockId(0), &mut |_, _| Err(EngineError::Full));
        assert!(matches!(failed, Err(EngineError::Full)), "{name}");
    });
}

#[test]
fn one_block_is_read_whole_whatever_its_size_and_one_that_is_not_there_is_missed() {
    on_each(|name, mut engine| {
        let sizes = [0, 1, 9 * 1024 - 1, 9 * 1024, 9 * 1024 + 1, 18 * 1024, 1_000_000];
        let value = |len: usize| (0..len).map(|at| (at % 251).to_be_bytes()[7]).collect::<Vec<u8>>();
        for (id, len) in (1..).zip(sizes) {
            engine.put_block(OLD, BlockId(id), &value(len)).unwrap();
        }
        let read = |bucket, id| {
            let mut found = None;
            engine.block(bucket, BlockId(id), &mut |value| found = Some(value.to_vec())).unwrap();
            found
        };
        for (id, len) in (1..).zip(sizes) {
            assert!(read(OLD, id) == Some(value(len)), "{name}: {len} bytes");
        }
        assert_eq!((read(OLD, 8), read(NEW, 4)), (None, None), "{name}");
        let lengths = blocks(engine.as_ref(), OLD, 3).into_iter().map(|(id, value)| (id, value.len()));
        assert!(lengths.eq((3..).zip(sizes[2..].iter().copied())), "{name}");
    });
}

#[test]
fn a_dropped_bucket_is_gone_and_the_others_stay() {
    on_each(|name, mut engine| {
        engine.put_block(NEW, BlockId(2), &[2]).unwrap();
        engine.put_block(OLD, BlockId(1), &[1]).unwrap();
        assert_eq!(engine.buckets().unwrap(), [OLD, NEW], "{name}: oldest first, by number and not by clock");
        engine.drop_bucket(OLD).unwrap();
        engine.drop_bucket(OLD).unwrap();
        engine.sync().unwrap();
        assert_eq!(engine.buckets().unwrap(), [NEW], "{name}");
        assert_eq!(blocks(engine.as_ref(), OLD, 0), [], "{name}");
        assert_eq!(blocks(engine.as_ref(), NEW, 0).len(), 1, "{name}");
    });
}

#[test]
fn the_small_table_is_in_order_and_forgets() {
    on_each(|name, mut engine| {
        engine.put_meta(b"b", Some(b"1")).unwrap();
        engine.put_meta(b"a", Some(b"2")).unwrap();
        engine.put_meta(b"c", Some(b"3")).unwrap();
        engine.put_meta(b"b", None).unwrap();
        engine.put_meta(b"no such key", None).unwrap();
        let table = engine.meta().unwrap();
        assert_eq!(table, [("a", "2"), ("c", "3")].map(|(k, v)| (Bytes::from(k), Bytes::from(v))), "{name}");
        assert!(engine.check_room().is_ok(), "{name}");
    });
}
