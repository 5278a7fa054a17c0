//! The engine on disk: sled 0.34.7, named in this file only.
//!
//! Invariants, each the answer to a measured fault of sled:
//! - Every call runs inside `catch_unwind`: sled panics on some damaged files.
//! - Buckets are trees and are dropped whole: deleting single keys costs several times the live space.
//! - Values are below [`PIECE_BYTES`]: larger blocks are written in pieces, all or none. Large values make sled write files
//!   beside its log, which it does not sync, and take six times their size (measured).
//! - Nobody but `sync` flushes (`flush_every_ms(None)`), and `flush_async` is never called: it deadlocks.
//! - Its flush writes and waits for the data (`sync_file_range`), but not for the length of the file: that is enough for a
//!   kill and too little for a power cut, so `sync` asks the system once more.
//! - Sled never sees a full disk if we can help it: after a failed write its handle is dead, and dropping it may wait
//!   for ever while it holds the lock on its files (seen on a full file system). So a commit begins only with room.
//! - Values are borrowed for one call and never held: a held value pins a whole page in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    directory::is_at,
    engine::{HistoryStore, Visit},
    error::EngineError,
    key::{BlockId, KEY_BYTES},
    retention::Bucket,
};

const META_TREE: &str = "meta";
/// Free space below which no commit is begun: a full queue of 8 MiB, four times over.
const HEADROOM_BYTES: u64 = 32 * 1024 * 1024;

/// What a value may take. Ten of them, which is what sled gathers before it writes a node of the tree anew, stay below the
/// size from which it puts the node into a file of its own.
const PIECE_BYTES: usize = 9 * 1024;
/// Length of the key of a piece: the block, and the number of the piece.
const PIECE_KEY_BYTES: usize = KEY_BYTES + 4;

/// The file that holds nearly everything.
const MAIN_FILE: &str = "db";

/// An open database and its trees.
pub(crate) struct SledEngine {
    dir: PathBuf,
    /// The main file, opened once more to be synced.
    main: File,
    db: sled::Db,
    meta: sled::Tree,
    buckets: BTreeMap<Bucket, sled::Tree>,
}

impl SledEngine {
    /// Opens or creates the database in `dir`. May take seconds, or for ever on a damaged file: call it where that is
    /// allowed.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<SledEngine, EngineError> {
        guard(|| {
            let db = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None).open()?;
            let meta = db.open_tree(META_TREE)?;
            let mut buckets = BTreeMap::new();
            for name in db.tree_names() {
                if let Some(bucket) = std::str::from_utf8(&name).ok().and_then(Bucket::from_name) {
                    buckets.insert(bucket, db.open_tree(&name)?);
                }
            }
            Ok((db, meta, buckets))
        })?
        .map_err(translate)
        .and_then(|(db, meta, buckets)| {
            let main = File::open(dir.join(MAIN_FILE)).map_err(EngineError::Environment)?;
            Ok(SledEngine { dir: dir.to_path_buf(), main, db, meta, buckets })
        })
    }

    fn tree(&mut self, bucket: Bucket) -> Result<sled::Tree, EngineError> {
        if let Some(tree) = self.buckets.get(&bucket) {
            return Ok(tree.clone());
        }
        let tree = guard(|| self.db.open_tree(bucket.name()))?.map_err(translate)?;
        self.buckets.insert(bucket, tree.clone());
        Ok(tree)
    }
}

impl HistoryStore for SledEngine {
    fn check_room(&self) -> Result<(), EngineError> {
        // Sled goes on writing into files that nobody will find again.
        if !is_at(&self.main, &self.dir.join(MAIN_FILE)) {
            return Err(EngineError::Gone);
        }
        let disk = rustix::fs::statvfs(&self.dir).map_err(|error| EngineError::Environment(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < HEADROOM_BYTES { Err(EngineError::Full) } else { Ok(()) }
    }

    fn buckets(&self) -> Result<Vec<Bucket>, EngineError> {
        Ok(self.buckets.keys().copied().collect())
    }

    fn scan(&self, bucket: Bucket, from: BlockId, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let Some(tree) = self.buckets.get(&bucket) else { return Ok(()) };
        guard(|| {
            let mut whole = Vec::new();
            for item in tree.range(piece_key(from, 0)..) {
                let (key, piece) = item.map_err(translate)?;
                let id = key.get(..KEY_BYTES).and_then(BlockId::decode);
                let id = id.ok_or_else(|| EngineError::Damaged(format!("key {key:?}")))?;
                whole.extend_from_slice(&piece);
                if piece.len() < PIECE_BYTES {
                    if let ControlFlow::Break(()) = visit(id, &whole)? {
                        break;
                    }
                    whole.clear();
                }
            }
            Ok(())
        })?
    }

    fn block(&self, bucket: Bucket, id: BlockId, visit: &mut dyn FnMut(&[u8])) -> Result<(), EngineError> {
        let Some(tree) = self.buckets.get(&bucket) else { return Ok(()) };
        guard(|| {
            let mut whole = Vec::new();
            for number in 0.. {
                let Some(piece) = tree.get(piece_key(id, number)).map_err(translate)? else { break };
                if piece.len() < PIECE_BYTES && whole.is_empty() {
                    visit(&piece);
                    break;
                }
                whole.extend_from_slice(&piece);
                if piece.len() < PIECE_BYTES {
                    visit(&whole);
                    break;
                }
            }
            Ok(())
        })?
    }

    fn put_block(&mut self, bucket: Bucket, id: BlockId, value: &[u8]) -> Result<(), EngineError> {
        let tree = self.tree(bucket)?;
        guard(|| {
            if value.len() < PIECE_BYTES {
                return tree.insert(piece_key(id, 0), value).map(drop);
            }
            let mut batch = sled::Batch::default();
            // The piece that is not full ends the block, so there is always one.
            let pieces = value.chunks(PIECE_BYTES).chain(value.len().is_multiple_of(PIECE_BYTES).then_some(&[][..]));
            (0_u32..).zip(pieces).for_each(|(number, piece)| batch.insert(&piece_key(id, number), piece));
            tree.apply_batch(batch)
        })?
        .map_err(translate)
    }

    fn drop_bucket(&mut self, bucket: Bucket) -> Result<(), EngineError> {
        self.buckets.remove(&bucket);
        guard(|| self.db.drop_tree(bucket.name()).map(drop))?.map_err(translate)
    }

    fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        guard(|| {
            let copy =
                |(key, value): (sled::IVec, sled::IVec)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
            self.meta.iter().map(|item| item.map(copy)).collect::<Result<Vec<_>, _>>()
        })?
        .map_err(translate)
    }

    fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        guard(|| match value {
            Some(value) => self.meta.insert(key, value).map(drop),
            None => self.meta.remove(key).map(drop),
        })?
        .map_err(translate)
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        guard(|| self.db.flush().map(drop))?.map_err(translate)?;
        self.main.sync_data().map_err(EngineError::Environment)
    }

    fn disk_bytes(&self) -> u64 {
        guard(|| self.db.size_on_disk()).ok().and_then(Result::ok).unwrap_or(0)
    }
}

fn piece_key(id: BlockId, piece: u32) -> [u8; PIECE_KEY_BYTES] {
    let mut key = [0; PIECE_KEY_BYTES];
    key[..KEY_BYTES].copy_from_slice(&id.encode());
    key[KEY_BYTES..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// Runs a call into sled and turns a panic into an error. Unwind safety: after an error the engine is only dropped.
fn guard<T>(call: impl FnOnce() -> T) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        EngineError::Panicked(text.to_owned())
    })
}

/// Sled reports its own findings (short files, bad checksums) as I/O errors of a few kinds, beside those of the system.
/// It clones errors without their system number, so the kind decides. A lock that is still held is known by its text
/// (the version is pinned).
fn translate(error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => EngineError::Busy,
        sled::Error::Io(error) if !is_finding(&error) => EngineError::Environment(error),
        damage @ (sled::Error::Io(_)
        | sled::Error::Corruption { .. }
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)) => EngineError::Damaged(damage.to_string()),
    }
}

fn is_finding(error: &io::Error) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData, ErrorKind::InvalidInput, ErrorKind::Other];
    error.raw_os_error().is_none() && kinds.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_damage_even_when_sled_cloned_the_error() {
        let full = sled::Error::Io(io::Error::from_raw_os_error(28));
        assert!(matches!(translate(full.clone()), EngineError::Environment(_)));
        assert!(matches!(translate(full), EngineError::Environment(_)));
        let short = io::Error::new(ErrorKind::UnexpectedEof, "failed to fill whole buffer");
        assert!(matches!(translate(sled::Error::Io(short)), EngineError::Damaged(_)));
        let damage = sled::Error::Corruption { at: None, bt: () };
        assert!(matches!(translate(damage), EngineError::Damaged(_)));
    }

    #[test]
    fn a_panic_inside_is_an_error() {
        let caught = guard(|| -> () { panic!("page {} is gone", 7) });
        assert!(matches!(caught, Err(EngineError::Panicked(text)) if text == "page 7 is gone"));
    }
}
