//! How much of the machine somebody else used while we measured: a figure taken beside a compiler is worth nothing.
//!
//! Invariant: what our own children used is known once they have been waited for, so both readings are taken when none is
//! alive; what the generator's workers used is not among it and comes from its report.

use crate::clock;
use anyhow::{Context, Result};
use std::time::Instant;

/// Ticks a second in `/proc`; a constant of Linux's interface to programs.
const TICKS: f64 = 100.0;

/// A reading to compare with later.
pub(super) struct Others {
    at: Instant,
    busy: f64,
    ours: f64,
}

impl Others {
    pub(super) fn now() -> Result<Others> {
        let machine = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let own = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
        Ok(Others { at: clock::now(), busy: busy(&machine)?, ours: children(&own)? })
    }

    /// Cores that others used on average since the reading; `workers` are the seconds of the generator's workers.
    pub(super) fn cores(&self, workers: f64) -> Result<f64> {
        let now = Others::now()?;
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        Ok((((now.busy - self.busy) - (now.ours - self.ours) - workers) / seconds).max(0.0))
    }
}

/// Seconds that all processors were busy: everything but idling and waiting for the disk.
fn busy(stat: &str) -> Result<f64> {
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Result<Vec<f64>, _> = line.split_whitespace().skip(1).map(str::parse).collect();
    match ticks.context("/proc/stat holds no numbers")?[..] {
        [user, nice, system, _idle, _disk, irq, softirq, steal, ..] => {
            Ok((user + nice + system + irq + softirq + steal) / TICKS)
        }
        _ => anyhow::bail!("/proc/stat has too few numbers"),
    }
}

/// Seconds of processor time of children that were waited for.
fn children(stat: &str) -> Result<f64> {
    // The program's name may hold spaces and brackets; the fields begin after its last bracket, with the third.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat names no program")?;
    let field = |number: usize| -> Result<f64> {
        let text = fields.split_whitespace().nth(number - 3).context("/proc/self/stat is too short")?;
        text.parse().context("/proc/self/stat holds no numbers")
    };
    Ok((field(16)? + field(17)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_not_busy() {
        let stat = "cpu  100 20 300 9999 8888 4 5 6 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(busy(stat).unwrap(), 4.35);
        assert!(busy("cpu 1 2 3\n").is_err());
    }

    #[test]
    fn the_time_of_children_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 250 150 20 0";
        assert_eq!(children(stat).unwrap(), 4.0);
    }

    #[test]
    fn our_own_children_are_not_others() {
        let reading = Others::now().unwrap();
        let ours = || Others::now().unwrap().ours - reading.ours;
        crate::run::check(crate::run::command("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]))
            .unwrap();
        assert!(ours() > 0.01, "{} s", ours());
        reading.cores(0.0).unwrap();
    }
}
