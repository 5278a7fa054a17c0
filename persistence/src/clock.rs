//! The only reader of clocks in this crate; everything else takes time as an argument.
//!
//! Invariant: wall time may jump in either direction and only ever decides retention; deadlines use monotonic time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "the crate's one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Unix milliseconds; 0 if the clock is before 1970.
#[expect(clippy::disallowed_methods, reason = "the crate's one clock")]
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
