//! Whether this node lives, started, and may be sent clients.
//!
//! Invariants (operators.md 1.2):
//! - Only atomics: reading health waits for nobody.
//! - A store that cannot be written unsets readiness and says why; it comes back by itself.
//! - Liveness depends on nothing but heartbeats of our own threads; a restart cannot heal anything else.
//! - Losing peers later does not unset `Joined`: a cut in the network must not empty the service.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde::Serialize;

/// A thread that has not ticked for this long is stuck.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(15);

/// What probes ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Every shard accepts connections of the client port.
    Listening,
    /// The mesh was joined, or is not used, or waiting for it was given up. Never unset.
    Joined,
    /// This node gives up its connections. Never unset.
    Draining,
}

/// Health of this node, shared by everybody.
#[derive(Debug)]
pub struct Health {
    /// Why the store takes no writes; `None` = it does.
    store_trouble: ArcSwapOption<String>,
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
    /// What is wrong, where more is known than that it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Health {
    /// A node that has done nothing yet; `threads` are those that will tick, and count as ticking from `now` on.
    pub fn new(threads: &[String], now: Instant) -> Health {
        Health {
            store_trouble: ArcSwapOption::from_pointee("it was not opened yet".to_owned()),
            listening: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            start: now,
            beats: threads.iter().map(|name| (name.clone(), AtomicU64::new(0))).collect(),
        }
    }

    fn cell(&self, fact: Fact) -> &AtomicBool {
        match fact {
            Fact::Listening => &self.listening,
            Fact::Joined => &self.joined,
            Fact::Draining => &self.draining,
        }
    }

    /// States a fact.
    pub fn set(&self, fact: Fact, value: bool) {
        self.cell(fact).store(value, Ordering::Release);
    }

    /// States whether the store is open and takes writes (`None`), or why not.
    pub fn set_store(&self, trouble: Option<&str>) {
        self.store_trouble.store(trouble.map(|why| Arc::new(why.to_owned())));
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
        report(self.beats.iter().map(|(name, beat)| check(name, fresh(beat))))
    }

    /// The store was opened and clients can connect.
    pub fn started(&self) -> Report {
        report([self.store_open(), check("listening", self.is(Fact::Listening))])
    }

    /// New clients are welcome here.
    pub fn ready(&self) -> Report {
        report([
            self.store_open(),
            check("listening", self.is(Fact::Listening)),
            check("joined", self.is(Fact::Joined)),
            check("not_draining", !self.is(Fact::Draining)),
        ])
    }

    fn store_open(&self) -> Check {
        let why = self.store_trouble.load().as_ref().map(|why| why.to_string());
        Check { why: why.clone(), ..check("store_open", why.is_none()) }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

fn check(name: &str, ok: bool) -> Check {
    Check { name: name.to_owned(), ok, why: None }
}

fn report(checks: impl IntoIterator<Item = Check>) -> Report {
    let checks: Vec<Check> = checks.into_iter().collect();
    Report { ok: checks.iter().all(|check| check.ok), checks }
}
