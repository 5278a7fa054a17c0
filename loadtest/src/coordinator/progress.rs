//! One line a second while a run is under way, as a value: ticks in, a line out.

use crate::report::{count, milliseconds};
use crate::stats::Latency;
use crate::wire::Tick;

/// What the workers last said.
#[derive(Debug)]
pub(super) struct Progress {
    started_ns: u64,
    last_line_ns: u64,
    latest: Vec<Option<Tick>>,
    recent: Latency,
    /// Published and delivered at the last line.
    before: (u64, u64),
}

impl Progress {
    /// Progress of a run of so many workers that began at `now_ns`.
    pub(super) fn new(workers: usize, now_ns: u64) -> Progress {
        let latest = (0..workers).map(|_| None).collect();
        Progress { started_ns: now_ns, last_line_ns: now_ns, latest, recent: Latency::new(), before: (0, 0) }
    }

    /// A worker reported.
    pub(super) fn handle_tick(&mut self, worker: usize, tick: Tick) {
        self.recent.merge(&tick.deliver);
        if let Some(latest) = self.latest.get_mut(worker) {
            *latest = Some(tick);
        }
    }

    /// The line for the time since the line before.
    pub(super) fn line(&mut self, now_ns: u64) -> String {
        let sum = |of: fn(&Tick) -> u64| self.latest.iter().flatten().map(of).sum::<u64>();
        let now = (sum(|tick| tick.published), sum(|tick| tick.delivered));
        let seconds = (now_ns.saturating_sub(self.last_line_ns).max(1)) as f64 / 1e9;
        // A new phase counts from 0 again.
        let rate = |now: u64, before: u64| (now.checked_sub(before).unwrap_or(now) as f64 / seconds).round();
        let latency = match self.recent.count() {
            0 => String::new(),
            _ => format!(
                "  p50 {}  p99 {}  max {} ms",
                milliseconds(self.recent.quantile_ms(0.5)),
                milliseconds(self.recent.quantile_ms(0.99)),
                milliseconds(self.recent.max_ms())
            ),
        };
        let line = format!(
            "{:>5}s  members {}  published {}/s  delivered {}/s{latency}  duplicated {}  reordered {}  disconnects {}",
            now_ns.saturating_sub(self.started_ns) / 1_000_000_000,
            count(sum(|tick| u64::from(tick.joined)) as f64),
            count(rate(now.0, self.before.0)),
            count(rate(now.1, self.before.1)),
            sum(|tick| tick.duplicated),
            sum(|tick| tick.reordered),
            sum(|tick| tick.disconnects),
        );
        self.before = now;
        self.last_line_ns = now_ns;
        self.recent = Latency::new();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(published: u64, delivered: u64) -> Tick {
        let mut deliver = Latency::new();
        deliver.record_ns(2_000_000);
        Tick { joined: 500, published, delivered, disconnects: 0, duplicated: 1, reordered: 2, deliver }
    }

    #[test]
    fn a_line_adds_the_workers_up_and_shows_rates_since_the_line_before() {
        let mut progress = Progress::new(2, 0);
        progress.handle_tick(0, tick(10, 5000));
        progress.handle_tick(1, tick(0, 5000));
        let line = progress.line(1_000_000_000);
        assert!(line.contains("members 1,000  published 10/s  delivered 10,000/s  p50 2.0"), "{line}");
        assert!(line.contains("duplicated 2  reordered 4"), "{line}");
        progress.handle_tick(0, tick(20, 9000));
        let line = progress.line(3_000_000_000);
        assert!(line.contains("published 5/s  delivered 2,000/s"), "{line}");
    }

    #[test]
    fn a_second_without_news_has_no_latency() {
        let line = Progress::new(1, 0).line(1_000_000_000);
        assert!(line.contains("members 0") && !line.contains("p50"), "{line}");
    }
}
