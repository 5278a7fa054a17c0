//! A rate with a burst, as one instant (the generic cell rate algorithm of ITU-T I.371): a bucket is the time at which it
//! will be full again.
//!
//! Invariants: over any stretch of time `t` a bucket gives at most `burst + t / unit`; a refused amount costs nothing.

use std::time::{Duration, Instant};

/// How much, how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Time that one of them takes to come back.
    unit: Duration,
    /// Time that a whole burst takes to come back.
    burst: Duration,
}

impl Rate {
    /// So many a second, and so many at once; `None`, which is no limit, for none a second.
    pub(crate) fn per_second(count: u64, burst: u64) -> Option<Rate> {
        let nanos = 1_000_000_000_u64.checked_div(count)?;
        let burst = Duration::from_nanos(nanos.saturating_mul(burst));
        Some(Rate { unit: Duration::from_nanos(nanos), burst })
    }

    /// So many a minute, all of them at once if need be; `None` for none.
    pub(crate) fn per_minute(count: u64) -> Option<Rate> {
        let nanos = 60_000_000_000_u64.checked_div(count)?;
        Some(Rate { unit: Duration::from_nanos(nanos), burst: Duration::from_nanos(nanos.saturating_mul(count)) })
    }
}

/// What is left of a rate; full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes so many, if there are so many.
    pub(crate) fn take(&mut self, rate: Rate, count: u64, now: Instant) -> bool {
        let unit = u64::try_from(rate.unit.as_nanos()).unwrap_or(u64::MAX);
        let cost = Duration::from_nanos(unit.saturating_mul(count));
        let Some(full_at) = self.full_at.map_or(now, |at| at.max(now)).checked_add(cost) else { return false };
        let fits = full_at - now <= rate.burst;
        if fits {
            self.full_at = Some(full_at);
        }
        fits
    }

    /// Whether it remembers nothing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let (rate, start) = (Rate::per_second(10, 3).unwrap(), clock::now());
        let mut bucket = Bucket::default();
        let at = |ms| start + Duration::from_millis(ms);
        let taken: Vec<bool> =
            [0, 0, 0, 0, 99, 100, 101, 200, 1_000, 1_000, 1_000, 1_000].map(|ms| bucket.take(rate, 1, at(ms))).into();
        let f = false;
        assert_eq!(taken, [true, true, true, f, f, true, f, true, true, true, true, f]);
        assert!(!bucket.is_full(at(1_299)) && bucket.is_full(at(1_300)));
    }

    #[test]
    fn no_rate_is_no_limit_and_what_exceeds_a_burst_never_passes() {
        assert_eq!(Rate::per_second(0, 10), None);
        let mut bucket = Bucket::default();
        assert!(!bucket.take(Rate::per_second(10, 3).unwrap(), 4, clock::now()));
        assert!(
            !bucket.take(Rate::per_second(1, u64::MAX).unwrap(), u64::MAX, clock::now()) || bucket.full_at.is_some()
        );
    }

    proptest! {
        #[test]
        fn over_any_stretch_no_more_passes_than_burst_and_rate(
            steps in prop::collection::vec((0..50u64, 1..5u64), 1..200), per_second in 1..200u64, burst in 5..50u64,
        ) {
            let (rate, start) = (Rate::per_second(per_second, burst).unwrap(), clock::now());
            let (mut bucket, mut ms, mut passed) = (Bucket::default(), 0, 0);
            for (wait, count) in steps {
                ms += wait;
                if bucket.take(rate, count, start + Duration::from_millis(ms)) {
                    passed += count;
                }
                prop_assert!(passed <= burst + ms * per_second / 1_000 + 1);
            }
        }
    }
}
