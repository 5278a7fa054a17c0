//! How short memory is, and what is given up for it, in the order of `reliability.md` 4.4.
//!
//! Invariants: a level is entered at once when its share of the limit is used, and left only when clearly less is, so that
//! nothing flaps; whatever a level gives up, the ones above it give up too.

use std::sync::atomic::{AtomicU8, Ordering};

/// Memory, in percent of the limit, below a level's own at which it is left again.
const HYSTERESIS: u64 = 5;

/// What is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// Newcomers.
    Newcomers,
    /// Polling sessions, idle longest first.
    Polling,
    /// Clients that do not read what they are given.
    Laggards,
    /// Messages that nobody is promised.
    Volatile,
    /// All messages of clients. What other nodes replicate is never refused.
    Publishes,
}

impl Level {
    const ALL: [Level; 6] =
        [Level::Calm, Level::Newcomers, Level::Polling, Level::Laggards, Level::Volatile, Level::Publishes];

    /// Percent of the limit from which on it holds.
    fn begins_at(self) -> u64 {
        match self {
            Level::Calm => 0,
            Level::Newcomers => 80,
            Level::Polling => 85,
            Level::Laggards => 90,
            Level::Volatile => 95,
            Level::Publishes => 100,
        }
    }
}

/// The level as it was last said, for every thread to see.
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicU8);

impl Pressure {
    /// What is given up now.
    pub(crate) fn level(&self) -> Level {
        Level::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Says it to every thread.
    pub(crate) fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

/// The level that `used` of `limit` bytes ask for, after `before`.
pub(crate) fn level(before: Level, used: u64, limit: u64) -> Level {
    let reached = |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
    let holds = |level: &Level| {
        let margin = if *level <= before { HYSTERESIS } else { 0 };
        reached(level.begins_at().saturating_sub(margin))
    };
    Level::ALL.into_iter().rev().find(holds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_entered_at_their_share_and_left_five_percent_below() {
        let mut now = Level::Calm;
        let mut at = |used: u64| {
            now = level(now, used, 1_000);
            now
        };
        assert_eq!([799, 800, 790, 750, 749].map(&mut at).map(|level| level as u8), [0, 1, 1, 1, 0]);
        assert_eq!([1_200, 951, 949, 901, 899].map(&mut at).map(|level| level as u8), [5, 5, 4, 4, 3]);
        assert_eq!([851, 849, 0].map(&mut at).map(|level| level as u8), [3, 2, 0]);
    }

    #[test]
    fn what_one_thread_says_every_thread_sees() {
        let pressure = Pressure::default();
        for said in Level::ALL {
            pressure.set(said);
            assert_eq!(pressure.level(), said);
        }
        assert!(Level::ALL.is_sorted());
    }
}
