//! The engine that keeps everything in memory, for `store.kind = "memory"` and for tests.
//!
//! Invariant: it behaves like the one on disk and never fails; `sync` has nothing to do.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;

use crate::{
    engine::{Engine, KeyRange, Visit},
    error::EngineError,
    key::{KEY_BYTES, Key},
    retention::Bucket,
};

type Tree = BTreeMap<[u8; KEY_BYTES], Bytes>;

/// Sorted maps, nothing else.
#[derive(Debug, Default)]
pub(crate) struct MemoryEngine {
    buckets: BTreeMap<Bucket, Tree>,
    meta: BTreeMap<Bytes, Bytes>,
}

impl Engine for MemoryEngine {
    fn check_room(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn buckets(&self) -> Result<Vec<Bucket>, EngineError> {
        Ok(self.buckets.keys().copied().collect())
    }

    fn scan(&self, bucket: Bucket, visit: &mut dyn FnMut(Bytes) -> Result<(), EngineError>) -> Result<(), EngineError> {
        self.buckets.get(&bucket).into_iter().flat_map(Tree::values).try_for_each(|value| visit(value.clone()))
    }

    fn range(&self, bucket: Bucket, range: KeyRange, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let KeyRange { from, to, newest } = range;
        let Some(tree) = self.buckets.get(&bucket).filter(|_| from <= to) else { return Ok(()) };
        let mut values = tree.range(from.encode()..=to.encode()).map(|(_, value)| value);
        while let Some(value) = if newest { values.next_back() } else { values.next() } {
            if let ControlFlow::Break(()) = visit(value.clone())? {
                break;
            }
        }
        Ok(())
    }

    fn block(&self, bucket: Bucket, key: Key) -> Result<Option<Bytes>, EngineError> {
        Ok(self.buckets.get(&bucket).and_then(|tree| tree.get(&key.encode())).cloned())
    }

    fn put_block(&mut self, bucket: Bucket, key: Key, value: Vec<u8>) -> Result<(), EngineError> {
        self.buckets.entry(bucket).or_default().insert(key.encode(), value.into());
        Ok(())
    }

    fn drop_bucket(&mut self, bucket: Bucket) -> Result<(), EngineError> {
        self.buckets.remove(&bucket);
        Ok(())
    }

    fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        Ok(self.meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        match value {
            Some(value) => self.meta.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
            None => self.meta.remove(key),
        };
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
