//! Whether this node lives, started, and may be sent clients.
//!
//! Invariants (operators.md 1.2):
//! - Only atomics: reading health waits for nobody.
//! - Liveness depends on nothing but heartbeats of our own threads; a restart cannot heal anything else.
//! - Losing peers later does not unset `Joined`: a cut in the network must not empty the service.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A thread that has not ticked for this long is stuck.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(15);

/// What probes ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The store is open and takes writes.
    StoreOpen,
    /// The client port accepts connections.
    Listening,
    /// The mesh was joined, or is not used, or waiting for it was given up. Never unset.
    Joined,
    /// This node gives up its connections. Never unset.
    Draining,
}

/// Health of this node, shared by everybody.
#[derive(Debug)]
pub struct Health {
    store_open: AtomicBool,
    listening: AtomicBool,
    joined: AtomicBool,
    draining: AtomicBool,
    start: Instant,
    /// Milliseconds from `start` to the last tick, per thread.
    beats: Vec<(String, AtomicU64)>,
}

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every check passed.
    pub ok: bool,
    /// The checks, by name.
    pub checks: Vec<Check>,
}

/// One named check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
}

impl Health {
    /// A node that has done nothing yet; `threads` are those that will tick, and count as ticking from `now` on.
    pub fn new(threads: &[String], now: Instant) -> Health {
        Health {
            store_open: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            start: now,
            beats: threads.iter().map(|name| (name.clone(), AtomicU64::new(0))).collect(),
        }
    }

    fn cell(&self, fact: Fact) -> &AtomicBool {
        match fact {
            Fact::StoreOpen => &self.store_open,
            Fact::Listening => &self.listening,
            Fact::Joined => &self.joined,
            Fact::Draining => &self.draining,
        }
    }

    /// States a fact.
    pub fn set(&self, fact: Fact, value: bool) {
        self.cell(fact).store(value, Ordering::Release);
    }

    /// Whether a fact holds.
    pub fn is(&self, fact: Fact) -> bool {
        self.cell(fact).load(Ordering::Acquire)
    }

    /// The thread with this index (into the names given to `new`) ticks. Call at least every five seconds.
    pub fn beat(&self, thread: usize, now: Instant) {
        if let Some((_, beat)) = self.beats.get(thread) {
            beat.fetch_max(self.millis(now), Ordering::Relaxed);
        }
    }

    /// Every thread ticked lately.
    pub fn live(&self, now: Instant) -> Report {
        let now = self.millis(now);
        let max = HEARTBEAT_MAX.as_millis();
        let fresh = |beat: &AtomicU64| u128::from(now.saturating_sub(beat.load(Ordering::Relaxed))) < max;
        report(self.beats.iter().map(|(name, beat)| (name.as_str(), fresh(beat))))
    }

    /// The store was opened and clients can connect.
    pub fn started(&self) -> Report {
        report([("store_open", self.is(Fact::StoreOpen)), ("listening", self.is(Fact::Listening))])
    }

    /// New clients are welcome here.
    pub fn ready(&self) -> Report {
        report([
            ("store_open", self.is(Fact::StoreOpen)),
            ("listening", self.is(Fact::Listening)),
            ("joined", self.is(Fact::Joined)),
            ("not_draining", !self.is(Fact::Draining)),
        ])
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

fn report<'a>(checks: impl IntoIterator<Item = (&'a str, bool)>) -> Report {
    let checks: Vec<Check> = checks.into_iter().map(|(name, ok)| Check { name: name.to_owned(), ok }).collect();
    Report { ok: checks.iter().all(|check| check.ok), checks }
}
