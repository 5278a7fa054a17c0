//! The network of the simulator: what becomes of a datagram, how long a stream takes, whose path is blocked.
//!
//! Invariants: all choices come from the generator it is given; a process that is paused answers nobody, so its paths are
//! blocked in both directions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::Side;
use crate::rng::SplitMix;

/// How long a sender of a stream waits before it sends a lost packet again; doubles.
const RETRANSMIT: Duration = Duration::from_millis(30);
/// Bytes of one packet of a stream.
const STREAM_PACKET: usize = 1_200;

/// Faults that are on, and the ordinary behaviour.
pub(in crate::membership) struct Net {
    /// Of a hundred datagrams so many are lost, each on its own.
    pub(in crate::membership) loss_percent: u64,
    /// Of a hundred datagrams so many arrive twice.
    pub(in crate::membership) twice_percent: u64,
    /// Least time on the way.
    pub(in crate::membership) delay: Duration,
    /// Up to so much longer; more than the sender's pace means that datagrams overtake each other.
    pub(in crate::membership) jitter: Duration,
    /// Nothing goes from the first to the second.
    pub(in crate::membership) cuts: BTreeSet<(u16, u16)>,
    /// Processes that are stopped, and until when.
    pub(in crate::membership) paused: BTreeMap<u16, Instant>,
    /// Since when the path of a link, lower ordinal first, is blocked.
    pub(super) blocked_since: BTreeMap<(u16, u16), Instant>,
}

impl Net {
    pub(super) fn new(loss_percent: u64) -> Net {
        Net {
            loss_percent,
            twice_percent: 0,
            delay: Duration::from_micros(500),
            jitter: Duration::from_millis(1),
            cuts: BTreeSet::new(),
            paused: BTreeMap::new(),
            blocked_since: BTreeMap::new(),
        }
    }

    /// When the copies of a datagram arrive.
    pub(super) fn datagram(&self, rng: &mut SplitMix) -> Vec<Duration> {
        let copies = 1 + u32::from(rng.below(100) < self.twice_percent);
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            if rng.below(100) >= self.loss_percent {
                arrivals.push(self.delay + rng.between(Duration::ZERO, self.jitter));
            }
        }
        arrivals
    }

    /// How long these bytes take on a stream: its slowest packet, sent again until it and its acknowledgement arrive.
    pub(super) fn stream(&self, bytes: usize, rng: &mut SplitMix) -> Duration {
        let packets = bytes / STREAM_PACKET + 1;
        let slowest = (0..packets).map(|_| {
            let mut took = Duration::ZERO;
            let mut again = RETRANSMIT;
            while rng.below(100) < self.loss_percent && took < Duration::from_secs(10) {
                took += again;
                again *= 2;
            }
            took
        });
        slowest.max().unwrap_or_default() + self.delay + rng.between(Duration::ZERO, self.jitter)
    }

    /// Whether a stream between them stands still.
    pub(super) fn is_cut(&self, one: u16, other: u16) -> bool {
        self.cuts.contains(&(one, other)) || self.cuts.contains(&(other, one))
    }

    /// Whether a link between them hears nothing.
    pub(super) fn blocked(&self, one: u16, other: u16, now: Instant) -> bool {
        let stopped = |node| self.paused.get(&node).is_some_and(|until| *until > now);
        self.is_cut(one, other) || stopped(one) || stopped(other)
    }

    /// Cuts `side` off from the rest of `all`, both ways.
    pub(in crate::membership) fn split(&mut self, side: &Side, all: &[u16]) {
        for one in side {
            for other in all.iter().filter(|node| !side.contains(node)) {
                self.cuts.insert((*one, *other));
                self.cuts.insert((*other, *one));
            }
        }
    }
}
