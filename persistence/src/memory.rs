//! The engine that keeps everything in memory, for `store.kind = "memory"` and for tests.
//!
//! Invariant: it behaves like the one on disk and never fails; `sync` has nothing to do.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;

use crate::{
    engine::{HistoryStore, Visit},
    error::EngineError,
    key::BlockId,
    retention::Bucket,
};

/// Sorted maps, nothing else.
#[derive(Debug, Default)]
pub(crate) struct MemoryEngine {
    buckets: BTreeMap<Bucket, BTreeMap<BlockId, Vec<u8>>>,
    meta: BTreeMap<Bytes, Bytes>,
}

impl HistoryStore for MemoryEngine {
    fn check_room(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn buckets(&self) -> Result<Vec<Bucket>, EngineError> {
        Ok(self.buckets.keys().copied().collect())
    }

    fn scan(&self, bucket: Bucket, from: BlockId, visit: &mut Visit<'_>) -> Result<(), EngineError> {
        for (id, value) in self.buckets.get(&bucket).into_iter().flat_map(|blocks| blocks.range(from..)) {
            if let ControlFlow::Break(()) = visit(*id, value)? {
                break;
            }
        }
        Ok(())
    }

    fn block(&self, bucket: Bucket, id: BlockId, visit: &mut dyn FnMut(&[u8])) -> Result<(), EngineError> {
        if let Some(value) = self.buckets.get(&bucket).and_then(|blocks| blocks.get(&id)) {
            visit(value);
        }
        Ok(())
    }

    fn put_block(&mut self, bucket: Bucket, id: BlockId, value: &[u8]) -> Result<(), EngineError> {
        self.buckets.entry(bucket).or_default().insert(id, value.to_vec());
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
