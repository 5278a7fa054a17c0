//! What the store needs from a key-value engine: buckets of sorted blocks, one small table, and a sync.
//!
//! Invariants:
//! - Writes are visible to reads of the same engine at once and durable after `sync`. What survives a kill is a prefix
//!   of the writes in their order.
//! - Any error or panic inside an engine is an [`EngineError`]; after one, only dropping it is allowed.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{error::EngineError, key::Key, retention::Bucket};

/// An ordered map of blocks per bucket, dropped as a whole.
pub(crate) trait Engine: Send {
    /// [`EngineError::Full`] unless there is room for another commit.
    fn check_room(&self) -> Result<(), EngineError>;

    /// The buckets that exist, oldest first.
    fn buckets(&self) -> Result<Vec<Bucket>, EngineError>;

    /// Hands out every block of a bucket in key order.
    fn scan(&self, bucket: Bucket, visit: &mut dyn FnMut(Bytes) -> Result<(), EngineError>) -> Result<(), EngineError>;

    /// Hands out blocks with `from <= key <= to`, descending if `newest`, until `visit` breaks.
    fn range(&self, bucket: Bucket, range: KeyRange, visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// The block with exactly this key.
    fn block(&self, bucket: Bucket, key: Key) -> Result<Option<Bytes>, EngineError>;

    /// Writes a block, replacing one with the same key, and creating the bucket if need be.
    fn put_block(&mut self, bucket: Bucket, key: Key, value: Vec<u8>) -> Result<(), EngineError>;

    /// Forgets a bucket and everything in it.
    fn drop_bucket(&mut self, bucket: Bucket) -> Result<(), EngineError>;

    /// The small table, in key order.
    fn meta(&self) -> Result<Vec<(Bytes, Bytes)>, EngineError>;

    /// Writes into the small table; `None` removes.
    fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError>;

    /// Makes everything written durable.
    fn sync(&mut self) -> Result<(), EngineError>;

    /// Bytes the files take.
    fn disk_bytes(&self) -> u64;
}

/// Part of one room in one bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange {
    pub(crate) from: Key,
    pub(crate) to: Key,
    pub(crate) newest: bool,
}

/// Receives the blocks of a range.
pub(crate) type Visit<'a> = dyn FnMut(Bytes) -> Result<ControlFlow<()>, EngineError> + 'a;
