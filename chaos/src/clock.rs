//! The only place that reads time.
//!
//! Invariant: nanoseconds of `CLOCK_MONOTONIC`, which all processes of one machine share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine's monotonic origin.
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
