//! How long rooms stood still.
//!
//! Invariant: a room's pause is the longest time between two messages that any member received, within a span of the run; it
//! is never less than the time between two publishes to that room.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Entry, What};

/// The longest silence of each room between two moments, in milliseconds.
pub(crate) fn of_rooms(entries: &[Entry], from: u64, to: u64) -> BTreeMap<String, u64> {
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| (from..to).contains(&entry.t)) {
        if let What::Received { room, .. } = &entry.what {
            let (seen, longest) = last.entry(room).or_insert((from, 0));
            *longest = (*longest).max(entry.t - *seen);
            *seen = entry.t;
        }
    }
    last.into_iter().map(|(room, (_, longest))| (room.to_owned(), longest / 1_000_000)).collect()
}

/// Pauses of many rooms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses {
    affected: Vec<u64>,
    others: Vec<u64>,
}

impl Pauses {
    /// Adds the rooms of a round.
    pub(crate) fn add(&mut self, pauses: BTreeMap<String, u64>, affected: &BTreeSet<String>) {
        for (room, pause) in pauses {
            let side = if affected.contains(&room) { &mut self.affected } else { &mut self.others };
            side.push(pause);
        }
    }

    /// Adds those of another round.
    pub(crate) fn extend(&mut self, other: &Pauses) {
        self.affected.extend(&other.affected);
        self.others.extend(&other.others);
    }

    /// The longest but one in a hundred of the affected rooms; 0 if there are none.
    pub(crate) fn affected_p99(&self) -> u64 {
        percentile(&self.affected, 99)
    }
}

impl std::fmt::Display for Pauses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figures = |all: &[u64]| {
            format!(
                "p50 {} p99 {} max {} ms ({})",
                percentile(all, 50),
                percentile(all, 99),
                percentile(all, 100),
                all.len()
            )
        };
        write!(f, "pause of affected rooms {}, of others {}", figures(&self.affected), figures(&self.others))
    }
}

fn percentile(all: &[u64], percent: usize) -> u64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(t_ms: u64, room: &str) -> Entry {
        let what = What::Received { room: room.to_owned(), mid: "m".to_owned() };
        Entry { t: t_ms * 1_000_000, who: "s".to_owned(), what }
    }

    #[test]
    fn the_longest_silence_within_the_span_counts() {
        let entries =
            [received(0, "a"), received(900, "a"), received(1000, "b"), received(1500, "a"), received(9000, "a")];
        let pauses = of_rooms(&entries, 800_000_000, 2_000_000_000);
        assert_eq!(pauses, BTreeMap::from([("a".to_owned(), 600), ("b".to_owned(), 200)]));
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let all: Vec<u64> = (1..=200).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&all, percent)), [100, 198, 200]);
        assert_eq!(percentile(&[], 99), 0);
    }
}
