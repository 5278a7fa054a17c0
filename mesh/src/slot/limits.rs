//! Sizes and times of a shard's slots, and what single rooms keep instead.
//!
//! Invariants: values only; whoever judges a room asks [`Limits::of`] for it first.

use std::{fmt::Debug, sync::Arc, time::Duration};

use crate::room::RoomKey;

/// How much history a room shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Newest frames that history shows; 0 = the room keeps none.
    pub size: u32,
    /// Age beyond which history shows nothing.
    pub ttl: Duration,
}

/// Says what rooms keep, where they do not keep the same. Called for every publish: it must be cheap and never wait, and
/// always say the same.
pub trait Retention: Debug + Send + Sync {
    /// What `room` keeps.
    fn keep(&self, room: &RoomKey) -> Keep;
}

/// Sizes and times of a shard's slots. Every one is a setting or a constant of `mesh.md` 6.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Newest frames of a room that history shows.
    pub history_size: u32,
    /// Age beyond which history shows nothing.
    pub history_ttl: Duration,
    /// Rooms that keep something else than the two say; `None` = there are none.
    pub retention: Option<Arc<dyn Retention>>,
    /// Frames of a room kept in memory.
    pub log_items: usize,
    /// Payload bytes of a room kept in memory.
    pub log_bytes: usize,
    /// How long a publish or a join waits for an owner that cannot be reached.
    pub patience: Duration,
    /// How long interest outlives the last member.
    pub linger: Duration,
    /// How long a node that just started waits for others before it takes those it does not know for dead
    /// (`semantics.md` 3, cold start); zero for one that has nobody to wait for.
    pub cold: Duration,
    /// How long members of a node that cannot be reached stay present.
    pub ghost: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history_size: 1_000,
            history_ttl: Duration::from_secs(600),
            retention: None,
            log_items: 50,
            log_bytes: 64 * 1024,
            patience: Duration::from_secs(5),
            linger: Duration::from_secs(15),
            cold: Duration::from_secs(5),
            ghost: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The limits of one room.
    pub(crate) fn of(&self, room: &RoomKey) -> Limits {
        let mut limits = self.clone();
        if let Some(retention) = &self.retention {
            let Keep { size, ttl } = retention.keep(room);
            (limits.history_size, limits.history_ttl) = (size, ttl);
        }
        limits
    }

    pub(crate) fn oldest_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(u64::try_from(self.history_ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Memory keeps at most five minutes; the store has the rest.
    pub(crate) fn log_oldest_ms(&self, now_ms: u64) -> u64 {
        self.oldest_ms(now_ms).max(now_ms.saturating_sub(300_000))
    }
}
