//! foca's timers, with a brake: while our own clock runs late, timers that judge others wait.
//!
//! Invariants: every timer that was pushed is popped once, in order of due time, never early; after a lag beyond the limit
//! no probe is concluded and no suspect declared down until the pause is over (`mesh.md` 2.1, point 2).

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use foca::Timer;

use super::Identity;

/// The heap and the brake.
#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    pushed: u64,
    lag_limit: Duration,
    pause: Duration,
    /// Until when we do not judge, and the lag that said so.
    brake: Option<(Instant, Duration)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    due: Instant,
    order: u64,
    timer: Timer<Identity>,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        // foca orders timers that are due together; the rest is first come, first served.
        self.due.cmp(&other.due).then_with(|| self.timer.cmp(&other.timer)).then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Timers {
    pub(super) fn new(lag_limit: Duration, pause: Duration) -> Timers {
        Timers { heap: BinaryHeap::new(), pushed: 0, lag_limit, pause, brake: None }
    }

    pub(super) fn push(&mut self, due: Instant, timer: Timer<Identity>) {
        self.pushed += 1;
        self.heap.push(Reverse(Entry { due, order: self.pushed, timer }));
    }

    /// A timer that is due and may run now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer<Identity>> {
        loop {
            let Reverse(first) = self.heap.peek()?;
            if first.due > now {
                return None;
            }
            let lag = now.saturating_duration_since(first.due);
            if lag > self.lag_limit {
                self.brake = Some((now + self.pause, lag));
            }
            let Reverse(entry) = self.heap.pop()?;
            match self.brake {
                Some((until, _)) if until > now && judges(&entry.timer) => self.push(until, entry.timer),
                Some(_) | None => return Some(entry.timer),
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// The lag that put the brake on, while it is on.
    pub(super) fn lag(&self, now: Instant) -> Option<Duration> {
        self.brake.and_then(|(until, lag)| (until > now).then_some(lag))
    }
}

fn judges(timer: &Timer<Identity>) -> bool {
    matches!(timer, Timer::ProbeRandomMember(_) | Timer::ChangeSuspectToDown { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(250);
    const PAUSE: Duration = Duration::from_secs(2);

    fn probe() -> Timer<Identity> {
        Timer::ProbeRandomMember(0)
    }

    fn gossip() -> Timer<Identity> {
        Timer::PeriodicGossip(0)
    }

    #[test]
    fn timers_come_in_order_and_never_early() {
        let start = crate::clock::now();
        let mut timers = Timers::new(LIMIT, PAUSE);
        timers.push(start + LIMIT, gossip());
        timers.push(start, probe());
        assert_eq!(timers.pop_due(start), Some(probe()));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.poll_timeout(), Some(start + LIMIT));
        assert_eq!(timers.pop_due(start + LIMIT), Some(gossip()));
    }

    #[test]
    fn after_a_stall_nobody_is_judged_until_the_pause_is_over() {
        let start = crate::clock::now();
        let late = start + LIMIT * 2;
        let mut timers = Timers::new(LIMIT, PAUSE);
        timers.push(start, probe());
        timers.push(start, gossip());
        assert_eq!(timers.pop_due(late), Some(gossip()));
        assert_eq!(timers.pop_due(late), None);
        assert_eq!(timers.lag(late), Some(LIMIT * 2));
        assert_eq!(timers.pop_due(late + PAUSE), Some(probe()));
        assert_eq!(timers.lag(late + PAUSE), None);
    }
}
