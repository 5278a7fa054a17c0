//! The only place in this crate that reads a clock.
//!
//! Invariant: monotonic time only; nothing here is used for dates.

use std::time::Instant;

/// Now, for measuring how long a step or a run took.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
