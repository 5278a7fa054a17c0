//! One line a second while a run is under way, as a value: ticks in, a line out.

use crate::report::{count, milliseconds};
use crate::stats::Latency;
use crate::wire::Tick;

/// What the workers last said.
#[derive(Debug)]
pub(super) struct Progress {
    started_ns: u64,
    workers: Vec<Option<Pulse>>,
    recent: Latency,
}

/// The last tick of a worker, and its rates since the one before.
#[derive(Debug)]
struct Pulse {
    tick: Tick,
    published: f64,
    delivered: f64,
}

impl Progress {
    /// Progress of a run of so many workers that began at `now_ns`.
    pub(super) fn new(workers: usize, now_ns: u64) -> Progress {
        Progress { started_ns: now_ns, workers: (0..workers).map(|_| None).collect(), recent: Latency::new() }
    }

    /// A worker reported.
    pub(super) fn handle_tick(&mut self, worker: usize, tick: Tick) {
        self.recent.merge(&tick.deliver);
        let Some(pulse) = self.workers.get_mut(worker) else { return };
        let before = pulse.as_ref().map(|pulse| &pulse.tick);
        let seconds = before.map_or(1.0, |before| tick.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9);
        let rate = |of: fn(&Tick) -> u64| {
            let (now, before) = (of(&tick), before.map_or(0, of));
            // A new phase counts from 0 again.
            now.checked_sub(before).unwrap_or(now) as f64 / seconds
        };
        let (published, delivered) = (rate(|tick| tick.published), rate(|tick| tick.delivered));
        *pulse = Some(Pulse { tick, published, delivered });
    }

    /// The line for the time since the line before.
    pub(super) fn line(&mut self, now_ns: u64) -> String {
        let sum = |of: fn(&Pulse) -> f64| count(self.workers.iter().flatten().map(of).sum::<f64>());
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
            sum(|pulse| f64::from(pulse.tick.joined)),
            sum(|pulse| pulse.published),
            sum(|pulse| pulse.delivered),
            sum(|pulse| pulse.tick.duplicated as f64),
            sum(|pulse| pulse.tick.reordered as f64),
            sum(|pulse| pulse.tick.disconnects as f64),
        );
        self.recent = Latency::new();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn tick(at_ns: u64, published: u64, delivered: u64) -> Tick {
        let mut deliver = Latency::new();
        deliver.record_ns(2_000_000);
        Tick { at_ns, joined: 500, published, delivered, disconnects: 0, duplicated: 1, reordered: 2, deliver }
    }

    #[test]
    fn a_line_adds_the_workers_up_and_shows_rates_of_each_workers_own_time() {
        let mut progress = Progress::new(2, 0);
        progress.handle_tick(0, tick(SECOND, 10, 5000));
        progress.handle_tick(1, tick(SECOND, 0, 5000));
        let line = progress.line(SECOND);
        assert!(line.contains("members 1,000  published 10/s  delivered 10,000/s  p50 2.0"), "{line}");
        assert!(line.contains("duplicated 2  reordered 4"), "{line}");
        progress.handle_tick(0, tick(3 * SECOND, 20, 9000));
        progress.handle_tick(1, tick(2 * SECOND, 0, 6000));
        let line = progress.line(4 * SECOND);
        assert!(line.contains("published 5/s  delivered 3,000/s"), "{line}");
    }

    #[test]
    fn a_new_phase_counts_from_zero_again() {
        let mut progress = Progress::new(1, 0);
        progress.handle_tick(0, tick(SECOND, 100, 100));
        progress.handle_tick(0, tick(2 * SECOND, 7, 70));
        let line = progress.line(2 * SECOND);
        assert!(line.contains("published 7/s  delivered 70/s"), "{line}");
    }

    #[test]
    fn a_second_without_news_has_no_latency() {
        let line = Progress::new(1, 0).line(SECOND);
        assert!(line.contains("members 0") && !line.contains("p50"), "{line}");
    }
}
