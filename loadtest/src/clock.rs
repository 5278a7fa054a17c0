//! The only place that reads time.
//!
//! Everything is in nanoseconds of `CLOCK_MONOTONIC`, which all processes of one machine share: a stamp written by one
//! worker can be compared with a reading in another.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the machine's monotonic origin.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of processor time this process has used, all threads together.
pub(crate) fn cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// The timeout for a system call that shall return when the clock shows `deadline_ns`; `None` waits for ever.
pub(crate) fn until(deadline_ns: u64, now_ns: u64) -> Option<Timespec> {
    if deadline_ns == u64::MAX {
        return None;
    }
    let wait = deadline_ns.saturating_sub(now_ns);
    let seconds = i64::try_from(wait / 1_000_000_000).unwrap_or(i64::MAX);
    let rest = i64::try_from(wait % 1_000_000_000).unwrap_or(0);
    Some(Timespec { tv_sec: seconds, tv_nsec: rest })
}

/// Both clocks count from zero upwards, so the sign carries nothing.
fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
