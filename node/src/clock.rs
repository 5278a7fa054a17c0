//! The two clocks of the node, read nowhere else: everything below takes `now` as an argument.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the node's one place that reads the monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall time in Unix milliseconds, for stamps that people and other nodes read.
#[expect(clippy::disallowed_methods, reason = "the node's one place that reads wall time")]
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
