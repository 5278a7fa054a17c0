//! A small seeded generator for jitter and for the choices of SWIM; not for secrets.
//!
//! Invariants: equal seeds give equal sequences, so a failing simulation can be repeated.

use std::{convert::Infallible, time::Duration};

use rand_core::TryRng;

/// SplitMix64: one addition and two multiplications per value.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// A generator that is wholly determined by `seed`.
    pub(crate) fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A value below `bound`; zero when `bound` is zero. The bias is far below what jitter could show.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A duration between the two, to the microsecond.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.below(span.saturating_add(1)))
    }
}

/// A seed for jitter, different in every process. Not a secret.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

impl TryRng for SplitMix {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The upper half fits by construction.
        Ok(u32::try_from(self.next() >> 32).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences() {
        let (mut one, mut other) = (SplitMix::new(7), SplitMix::new(7));
        assert!((0..100).all(|_| one.next() == other.next()));
    }

    #[test]
    fn between_stays_between() {
        let mut rng = SplitMix::new(1);
        let (least, most) = (Duration::from_millis(50), Duration::from_millis(60));
        assert!((0..1000).map(|_| rng.between(least, most)).all(|value| value >= least && value <= most));
        assert_eq!(rng.between(most, least), most);
    }
}
