//! One ramp of the plan as a value: who connects or leaves when, who tries again, and when everyone is there.
//!
//! Peers are numbered: a worker's publishers first, then its members. At most [`HANDSHAKES_MAX`] of them are under way
//! at a time (then the pace waits), because a listen queue that overflows measures the kernel and not the server.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::stats::Latency;
use crate::wire::Grown;

/// Connections under way at a time.
const HANDSHAKES_MAX: usize = 256;
/// How often a peer tries to connect before it gives up.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// Pause before attempt `n` is `n` times this.
const RETRY_NS: u64 = 300_000_000;
/// Different failure reasons that are reported; further ones are counted as `other`.
const REASONS_MAX: usize = 16;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start connecting this peer.
    Connect(usize),
    /// Close this peer.
    Leave(usize),
}

/// One ramp.
#[derive(Debug)]
pub(super) struct Growth {
    from: usize,
    to: usize,
    start_ns: u64,
    over_ns: u64,
    /// How many of the `from..to` (or `to..from`, downwards) have been started.
    done: usize,
    under_way: usize,
    again: BinaryHeap<Reverse<(u64, usize)>>,
    failed: u32,
    retries: u64,
    joins_resent: u64,
    reasons: BTreeMap<String, u64>,
    connect: Latency,
    join: Latency,
    history: Option<(u32, u32)>,
}

impl Growth {
    /// A ramp from `from` to `to` peers that begins at `now_ns`.
    pub(super) fn new(from: usize, to: usize, over_ns: u64, now_ns: u64) -> Growth {
        Growth {
            from,
            to,
            start_ns: now_ns,
            over_ns,
            done: 0,
            under_way: 0,
            again: BinaryHeap::new(),
            failed: 0,
            retries: 0,
            joins_resent: 0,
            reasons: BTreeMap::new(),
            connect: Latency::new(),
            join: Latency::new(),
            history: None,
        }
    }

    /// When [`Growth::poll_step`] will have something; `u64::MAX` if a handshake has to end first.
    pub(super) fn next_due(&self) -> u64 {
        if self.under_way >= HANDSHAKES_MAX {
            return u64::MAX;
        }
        let again = self.again.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        let total = self.total() as u64;
        let scheduled = match (self.done as u64) < total {
            true => self.start_ns.saturating_add((self.over_ns / total).saturating_mul(self.done as u64)),
            false => u64::MAX,
        };
        again.min(scheduled)
    }

    /// The next thing to do, if one is due at `now_ns`.
    pub(super) fn poll_step(&mut self, now_ns: u64) -> Option<Step> {
        if self.next_due() > now_ns {
            return None;
        }
        if self.again.peek().is_some_and(|Reverse((due, _))| *due <= now_ns) {
            let Reverse((_, peer)) = self.again.pop()?;
            self.under_way += 1;
            return Some(Step::Connect(peer));
        }
        self.done += 1;
        if self.to < self.from {
            return Some(Step::Leave(self.from - self.done));
        }
        self.under_way += 1;
        Some(Step::Connect(self.from + self.done - 1))
    }

    /// A peer's namespace was connected after `elapsed_ns`.
    pub(super) fn handle_connected(&mut self, elapsed_ns: u64) {
        self.connect.record_ns(elapsed_ns);
    }

    /// A member joined `elapsed_ns` after asking, with that many history items.
    pub(super) fn handle_joined(&mut self, elapsed_ns: u64, history: u32) {
        self.join.record_ns(elapsed_ns);
        let (fewest, most) = self.history.unwrap_or((history, history));
        self.history = Some((fewest.min(history), most.max(history)));
    }

    /// A join request was repeated.
    pub(super) fn handle_join_resent(&mut self) {
        self.joins_resent += 1;
    }

    /// A peer is where it should be.
    pub(super) fn handle_ready(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A peer failed on its attempt number `attempts`, counted from 1.
    pub(super) fn handle_failed(&mut self, peer: usize, attempts: u32, reason: &str, now_ns: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        let known = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(reason);
        *self.reasons.entry(if known { reason } else { "other" }.to_owned()).or_default() += 1;
        if attempts < ATTEMPTS_MAX {
            self.retries += 1;
            self.again.push(Reverse((now_ns + RETRY_NS * u64::from(attempts), peer)));
        } else {
            self.failed += 1;
        }
    }

    /// Whether everyone was started and is ready or has given up.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.total() && self.under_way == 0 && self.again.is_empty()
    }

    /// The report, with the number of members that are joined.
    pub(super) fn finish(self, joined: u32) -> Grown {
        Grown {
            joined,
            failed: self.failed,
            retries: self.retries,
            joins_resent: self.joins_resent,
            reasons: self.reasons,
            connect: self.connect,
            join: self.join,
            history: self.history,
        }
    }

    fn total(&self) -> usize {
        self.to.abs_diff(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(growth: &mut Growth, now_ns: u64) -> Vec<Step> {
        std::iter::from_fn(|| growth.poll_step(now_ns)).collect()
    }

    #[test]
    fn peers_connect_at_an_even_pace() {
        let mut growth = Growth::new(10, 14, 400, 1000);
        assert_eq!(steps(&mut growth, 1000), [Step::Connect(10)]);
        assert_eq!(growth.next_due(), 1100);
        assert_eq!(steps(&mut growth, 1200), [Step::Connect(11), Step::Connect(12)]);
        assert_eq!(steps(&mut growth, 9999), [Step::Connect(13)]);
        assert!(!growth.is_done());
        (0..4).for_each(|_| growth.handle_ready());
        assert!(growth.is_done());
        assert_eq!(growth.next_due(), u64::MAX);
    }

    #[test]
    fn peers_leave_from_the_last_one_down() {
        let mut growth = Growth::new(3, 1, 0, 0);
        assert_eq!(steps(&mut growth, 0), [Step::Leave(2), Step::Leave(1)]);
        assert!(growth.is_done());
    }

    #[test]
    fn the_pace_waits_while_too_many_handshakes_are_under_way() {
        let mut growth = Growth::new(0, 1000, 0, 0);
        assert_eq!(steps(&mut growth, 0).len(), HANDSHAKES_MAX);
        assert_eq!(growth.next_due(), u64::MAX);
        growth.handle_ready();
        assert_eq!(steps(&mut growth, 0).len(), 1);
    }

    #[test]
    fn a_peer_that_fails_tries_again_later_and_at_last_gives_up() {
        let mut growth = Growth::new(0, 1, 0, 0);
        let mut now_ns = 0;
        for attempt in 1..=ATTEMPTS_MAX {
            assert_eq!(steps(&mut growth, now_ns), [Step::Connect(0)], "attempt {attempt}");
            growth.handle_failed(0, attempt, "refused", now_ns);
            assert_eq!(steps(&mut growth, now_ns), [], "not at once");
            now_ns += RETRY_NS * u64::from(ATTEMPTS_MAX);
        }
        assert!(growth.is_done());
        let grown = growth.finish(0);
        assert_eq!((grown.failed, grown.retries), (1, u64::from(ATTEMPTS_MAX) - 1));
        assert_eq!(grown.reasons["refused"], u64::from(ATTEMPTS_MAX));
    }
}
