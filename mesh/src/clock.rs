//! The only place of the crate that reads a clock.
//!
//! Invariants: tokio's clock, so that a test with paused time sees one time everywhere; values take `now` from their driver.

use std::time::Instant;

/// The present moment.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
