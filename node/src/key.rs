//! The name of a connection inside its shard.
//!
//! Invariant: a key names one connection for ever; a place that is used again gets another serial.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnKey {
    /// The place in the shard's table.
    pub(crate) index: u32,
    /// Which of its users, one after the other, is meant.
    pub(crate) serial: u32,
}
