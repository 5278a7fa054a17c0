//! The only place in this crate that reads a clock.
//!
//! Invariant: monotonic time only; it bounds a search and is in no state.

use std::time::Instant;

/// Now, for measuring how long a search took.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
