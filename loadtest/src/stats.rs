//! Latencies as histograms that can be merged: percentiles are never averaged.
//!
//! A histogram holds microseconds up to one hour at three significant digits; between processes and in reports it
//! travels as base64 of the HdrHistogram V2 form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};

/// One hour; anything longer is recorded as this.
const MAX_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A distribution of durations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latency(Histogram<u64>);

/// The figures people read, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// An empty distribution.
    #[expect(clippy::expect_used, reason = "the bounds are constants; every test of this module proves them accepted")]
    pub(crate) fn new() -> Latency {
        Latency(Histogram::new_with_bounds(1, MAX_US, SIGNIFICANT_DIGITS).expect("constant bounds are valid"))
    }

    /// Adds one duration.
    pub(crate) fn record_ns(&mut self, nanoseconds: u64) {
        self.0.saturating_record((nanoseconds / 1000).max(1));
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Latency) {
        // Both have the same bounds, so nothing in `other` can be out of range.
        let _ = self.0.add(&other.0);
    }

    /// How many durations were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration below which `quantile` (0 to 1) of all lie, in milliseconds; 0 when there are none.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        milliseconds(self.0.value_at_quantile(quantile))
    }

    /// The longest, in milliseconds.
    pub(crate) fn max_ms(&self) -> f64 {
        milliseconds(self.0.max())
    }

    /// The usual figures.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            mean_ms: self.0.mean() / 1000.0,
            p50_ms: self.quantile_ms(0.50),
            p90_ms: self.quantile_ms(0.90),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: self.max_ms(),
        }
    }
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let histogram = Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(D::Error::custom)?;
        let mut latency = Latency::new();
        latency.0.add(&histogram).map_err(D::Error::custom)?;
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::new();
        milliseconds.into_iter().for_each(|ms| latency.record_ns(ms * 1_000_000));
        latency
    }

    #[test]
    fn merging_gives_the_percentiles_of_the_whole_and_not_their_mean() {
        let mut whole = of(std::iter::repeat_n(1, 990));
        whole.merge(&of(std::iter::repeat_n(100, 10)));
        assert_eq!(whole.count(), 1000);
        assert!((whole.quantile_ms(0.5) - 1.0).abs() < 0.01, "{}", whole.quantile_ms(0.5));
        assert!((whole.quantile_ms(0.999) - 100.0).abs() < 0.1, "{}", whole.quantile_ms(0.999));
        assert!((whole.max_ms() - 100.0).abs() < 0.1, "{}", whole.max_ms());
    }

    #[test]
    fn a_distribution_survives_the_trip_between_processes() {
        let latency = of([1, 2, 3, 500, 60_000]);
        let text = serde_json::to_string(&latency).unwrap();
        assert_eq!(serde_json::from_str::<Latency>(&text).unwrap(), latency);
    }

    #[test]
    fn an_empty_distribution_has_zeros() {
        assert_eq!(Latency::new().summary(), Summary::default());
    }

    #[test]
    fn nothing_is_too_short_or_too_long_to_be_recorded() {
        let mut latency = Latency::new();
        latency.record_ns(0);
        latency.record_ns(u64::MAX);
        assert_eq!(latency.count(), 2);
    }

    #[test]
    fn garbage_from_another_process_is_an_error() {
        for text in ["\"\"", "\"!!\"", "\"AAAA\"", "7"] {
            assert!(serde_json::from_str::<Latency>(text).is_err(), "{text}");
        }
    }
}
