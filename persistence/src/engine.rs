//! What the store needs from a key-value engine: buckets of numbered blocks, one small table, and a sync.
//!
//! Invariants, which one suite checks on every engine (`engine/tests.rs`):
//! - Writes are visible to reads of the same engine at once and durable after `sync`. What survives a kill is a prefix
//!   of the writes in their order.
//! - Any error or panic inside an engine is an [`EngineError`]; after one that is not damage met by a read, only dropping
//!   the engine is allowed.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{error::EngineError, key::BlockId, retention::Bucket};

/// Receives blocks, with their numbers, while they are borrowed from the engine.
pub(crate) type Visit<'a> = dyn FnMut(BlockId, &[u8]) -> Result<ControlFlow<()>, EngineError> + 'a;

/// Blocks in the order of their numbers per bucket, and buckets that are dropped as a whole.
pub(crate) trait HistoryStore: Send {
    /// [`EngineError::Full`] unless there is room for another commit; another error if the files are no longer where they
    /// were opened. Neither harms the engine.
    fn check_room(&self) -> Result<(), EngineError>;

    /// The buckets that exist, oldest first.
    fn buckets(&self) -> Result<Vec<Bucket>, EngineError>;

    /// Hands out the blocks of a bucket with numbers from `from` on, rising, until `visit` breaks.
    fn scan(&self, bucket: Bucket, from: BlockId, visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// Hands out one block, if it is there.
    fn block(&self, bucket: Bucket, id: BlockId, visit: &mut dyn FnMut(&[u8])) -> Result<(), EngineError>;

    /// Writes a block that is not there yet, all of it or nothing, creating the bucket if need be.
    fn put_block(&mut self, bucket: Bucket, id: BlockId, value: &[u8]) -> Result<(), EngineError>;

    /// Forgets a bucket and everything in it.
    fn drop_bucket(&mut self, bucket: Bucket) -> Result<(), EngineError>;

    /// The small table, in key order.
    fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, EngineError>;

    /// Writes into the small table; `None` removes.
    fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError>;

    /// Makes everything written durable.
    fn sync(&mut self) -> Result<(), EngineError>;

    /// Bytes the files take; 0 if there are none.
    fn disk_bytes(&self) -> u64;
}

#[cfg(test)]
pub(crate) mod tests;
