//! Buckets of time: which one takes the next block, and which ones go (pure).
//!
//! Invariants:
//! - Ids count up, so the order of buckets is the order of arrival even when the wall clock jumps.
//! - Retention only ever drops whole buckets, oldest first, and never the one that is being written.
//! - A record lives at least `retention` unless the byte budget asks for its space.

use std::time::Duration;

/// Buckets per retention: dropping one takes an eighth of the history at most.
const PARTS: u32 = 8;
/// Narrower buckets would be all overhead.
const WIDTH_MIN: Duration = Duration::from_secs(1);

/// A tree of blocks that were written in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket {
    pub(crate) id: u64,
    /// Wall time at which it was begun, Unix milliseconds.
    pub(crate) begun_ms: u64,
}

impl Bucket {
    pub(crate) fn name(self) -> String {
        format!("h{:016x}-{:016x}", self.id, self.begun_ms)
    }

    pub(crate) fn from_name(name: &str) -> Option<Bucket> {
        let (id, begun_ms) = name.strip_prefix('h')?.split_once('-')?;
        Some(Bucket { id: u64::from_str_radix(id, 16).ok()?, begun_ms: u64::from_str_radix(begun_ms, 16).ok()? })
    }
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    retention_ms: u64,
    width_ms: u64,
    max_bytes: u64,
}

impl Policy {
    pub(crate) fn new(retention: Duration, max_bytes: u64) -> Policy {
        let width = (retention / PARTS).max(WIDTH_MIN);
        Policy { retention_ms: millis(retention), width_ms: millis(width), max_bytes: max_bytes.max(1) }
    }

    /// The budget of live bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// How often to ask [`Policy::expired`].
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.width_ms / 4)
    }

    /// The bucket for a block that arrives at `now_ms`, where `newest` is the last one and holds so many bytes.
    pub(crate) fn current(&self, newest: Option<(Bucket, u64)>, now_ms: u64) -> Bucket {
        let Some((newest, bytes)) = newest else { return Bucket { id: 0, begun_ms: now_ms } };
        let clock_went_back = now_ms < newest.begun_ms;
        let old = now_ms >= newest.begun_ms.saturating_add(self.width_ms);
        let full = bytes > self.max_bytes / u64::from(PARTS);
        if clock_went_back || old || full {
            return Bucket { id: newest.id + 1, begun_ms: now_ms };
        }
        newest
    }

    /// How many of `buckets` (oldest first, with their bytes) are to be dropped at `now_ms`.
    pub(crate) fn expired(&self, buckets: &[(Bucket, u64)], now_ms: u64) -> usize {
        let mut live: u64 = buckets.iter().map(|(_, bytes)| bytes).sum();
        let mut count = 0;
        for (at, (bucket, bytes)) in buckets.iter().enumerate() {
            let over_budget = live > self.max_bytes && at + 1 < buckets.len();
            let ended_ms = self.ended_ms(*bucket, &buckets[at + 1..]);
            if !over_budget && ended_ms.saturating_add(self.retention_ms) > now_ms {
                break;
            }
            live -= bytes;
            count = at + 1;
        }
        count
    }

    /// When the last block of `bucket` had arrived. Every later bucket began after that, so the earliest of their
    /// beginnings is a bound that survives a clock which was far ahead for a while.
    fn ended_ms(&self, bucket: Bucket, later: &[(Bucket, u64)]) -> u64 {
        let by_width = bucket.begun_ms.saturating_add(self.width_ms);
        later.iter().map(|(bucket, _)| bucket.begun_ms).min().unwrap_or(by_width)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn bucket(id: u64, begun_ms: u64) -> Bucket {
        Bucket { id, begun_ms }
    }

    fn ten_minutes() -> Policy {
        Policy::new(Duration::from_secs(600), 8_000)
    }

    #[test]
    fn a_name_leads_back_to_its_bucket() {
        let it = bucket(17, 1_700_000_000_000);
        assert_eq!(Bucket::from_name(&it.name()), Some(it));
        assert_eq!(Bucket::from_name("meta"), None);
        assert_eq!(Bucket::from_name("__sled__default"), None);
    }

    #[test]
    fn a_bucket_is_written_for_an_eighth_of_the_retention_or_of_the_budget() {
        let policy = ten_minutes();
        let first = policy.current(None, 1_000);
        assert_eq!(first, bucket(0, 1_000));
        assert_eq!(policy.current(Some((first, 10)), 75_999), first);
        assert_eq!(policy.current(Some((first, 10)), 76_000), bucket(1, 76_000));
        assert_eq!(policy.current(Some((first, 1_001)), 2_000), bucket(1, 2_000));
    }

    #[test]
    fn a_clock_that_went_back_begins_a_bucket_and_keeps_the_order() {
        assert_eq!(ten_minutes().current(Some((bucket(4, 5_000), 1)), 4_999), bucket(5, 4_999));
    }

    #[test]
    fn a_bucket_goes_when_its_last_record_is_old_enough_and_not_before() {
        let policy = ten_minutes();
        let buckets = [(bucket(0, 0), 1), (bucket(1, MINUTE), 1), (bucket(2, 2 * MINUTE), 1)];
        assert_eq!(policy.expired(&buckets, 11 * MINUTE - 1), 0);
        assert_eq!(policy.expired(&buckets, 11 * MINUTE), 1);
        assert_eq!(policy.expired(&buckets, 12 * MINUTE), 2);
        assert_eq!(policy.expired(&buckets, 30 * MINUTE), 3, "an idle store ends up empty");
    }

    #[test]
    fn a_bucket_from_a_clock_that_was_years_ahead_still_goes() {
        let ahead = [(bucket(0, 90_000 * MINUTE), 1), (bucket(1, MINUTE), 1), (bucket(2, 2 * MINUTE), 1)];
        assert_eq!(ten_minutes().expired(&ahead, 11 * MINUTE), 1);
    }

    #[test]
    fn over_the_budget_the_oldest_go_but_never_the_newest() {
        let policy = ten_minutes();
        let buckets = [(bucket(0, 0), 4_000), (bucket(1, 1), 4_000), (bucket(2, 2), 4_000)];
        assert_eq!(policy.expired(&buckets, 3), 1);
        assert_eq!(policy.expired(&[(bucket(0, 0), 99_000)], 1), 0);
    }
}
