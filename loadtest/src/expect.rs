//! What a run must achieve: `deliver.p99<50ms`, `lost==0`, `rate>=100000`.
//!
//! Names are checked when the command line is read; a figure that a run does not have fails its expectation, because an
//! unmeasured promise is not a kept one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A figure, a comparison and a bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expectation {
    /// As it was written, for reports.
    pub(crate) text: String,
    /// What is compared.
    pub(crate) figure: Figure,
    comparison: Comparison,
    bound: f64,
}

/// Everything that can be expected of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// A percentile of a distribution, in milliseconds.
    Latency(Series, Quantile),
    /// A number.
    Count(Counter),
}

/// The distributions of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Intended send time to the arrival at a member.
    Deliver,
    /// Intended send time to the arrival at the last member.
    Last,
    /// Intended send time to the answer to the publisher.
    Publish,
    /// Start of the TCP connection to the Socket.IO CONNECT answer.
    Connect,
    /// Join request to its answer.
    Join,
    /// Intended to actual send time: how late the generator was.
    Slip,
}

/// The percentiles that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantile {
    P50,
    P90,
    P99,
    P999,
    Max,
}

/// The plain numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Lost,
    Duplicated,
    Reordered,
    /// Different orders seen in one room; 1 is what an ordered room has.
    Orders,
    /// Members that did not join.
    Absent,
    Disconnects,
    /// Publishes that were answered with an error or not at all.
    Refused,
    /// Answers whose offset did not rise.
    OffsetsBack,
    /// Deliveries per second.
    Rate,
    /// Server CPU seconds per million deliveries.
    CpuPerMillion,
    /// Server memory per connection, in bytes.
    RssPerConnection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

/// Why an expectation cannot be checked. Nothing was started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ExpectationError {
    /// No `<`, `<=`, `==`, `>=` or `>`.
    #[error("`{0}` compares nothing; write for example `deliver.p99<50ms` or `lost==0`")]
    NoComparison(String),
    /// Not one of the names.
    #[error("`{0}` is not a figure; there are {names}", names = names())]
    UnknownFigure(String),
    /// The right side is not a number, or has no unit where one is needed.
    #[error(
        "`{0}` is not a bound for this figure; latencies need a unit such as `50ms`, other figures are plain numbers"
    )]
    BadBound(String),
}

/// Longest first, so that `<=` is not read as `<` and `=`.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

const SERIES: [(&str, Series); 6] = [
    ("deliver", Series::Deliver),
    ("last", Series::Last),
    ("publish", Series::Publish),
    ("connect", Series::Connect),
    ("join", Series::Join),
    ("slip", Series::Slip),
];

const QUANTILES: [(&str, Quantile); 5] = [
    ("p50", Quantile::P50),
    ("p90", Quantile::P90),
    ("p99", Quantile::P99),
    ("p999", Quantile::P999),
    ("max", Quantile::Max),
];

const COUNTERS: [(&str, Counter); 11] = [
    ("lost", Counter::Lost),
    ("duplicated", Counter::Duplicated),
    ("reordered", Counter::Reordered),
    ("orders", Counter::Orders),
    ("absent", Counter::Absent),
    ("disconnects", Counter::Disconnects),
    ("refused", Counter::Refused),
    ("offsets_back", Counter::OffsetsBack),
    ("rate", Counter::Rate),
    ("cpu_per_million", Counter::CpuPerMillion),
    ("rss_per_connection", Counter::RssPerConnection),
];

impl Expectation {
    /// Whether `value` meets it; a figure that was not measured does not.
    pub(crate) fn is_met(&self, value: Option<f64>) -> bool {
        value.is_some_and(|value| match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Equal => (value - self.bound).abs() < f64::EPSILON,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Greater => value > self.bound,
        })
    }
}

impl FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Expectation, ExpectationError> {
        let found = COMPARISONS.iter().find_map(|(sign, comparison)| Some((text.split_once(sign)?, *comparison)));
        let ((name, bound), comparison) = found.ok_or_else(|| ExpectationError::NoComparison(text.to_owned()))?;
        let name = name.trim();
        let figure = figure(name).ok_or_else(|| ExpectationError::UnknownFigure(name.to_owned()))?;
        let bound = match figure {
            Figure::Latency(..) => milliseconds(bound.trim()),
            Figure::Count(_) => bound.trim().parse().ok(),
        };
        let bound = bound.filter(|bound: &f64| bound.is_finite());
        let bound = bound.ok_or_else(|| ExpectationError::BadBound(text.to_owned()))?;
        Ok(Expectation { text: text.to_owned(), figure, comparison, bound })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn figure(name: &str) -> Option<Figure> {
    if let Some((series, quantile)) = name.split_once('.') {
        return Some(Figure::Latency(named(&SERIES, series)?, named(&QUANTILES, quantile)?));
    }
    named(&COUNTERS, name).map(Figure::Count)
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// A fraction such as `1.5ms` is allowed, which the duration parser alone does not read.
fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let unit: Duration = humantime::parse_duration(&format!("1{}", unit.trim())).ok()?;
    let number: f64 = number.trim().parse().ok()?;
    (number >= 0.0).then_some(number * unit.as_secs_f64() * 1000.0)
}

fn names() -> String {
    let series = SERIES.iter().map(|(name, _)| format!("{name}.p50/p90/p99/p999/max"));
    let counters = COUNTERS.iter().map(|(name, _)| (*name).to_owned());
    series.chain(counters).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Expectation {
        text.parse().unwrap()
    }

    #[test]
    fn a_latency_bound_is_compared_in_milliseconds() {
        let expectation = parsed("deliver.p99<50ms");
        assert_eq!(expectation.figure, Figure::Latency(Series::Deliver, Quantile::P99));
        assert!(expectation.is_met(Some(49.999)));
        assert!(!expectation.is_met(Some(50.0)));
        assert!(parsed("join.max <= 1.5s").is_met(Some(1500.0)));
        assert!(!parsed("slip.p50>250us").is_met(Some(0.25)));
    }

    #[test]
    fn every_comparison_means_what_it_says() {
        for (text, met) in [
            ("lost<1", [true, false, false]),
            ("lost<=1", [true, true, false]),
            ("lost==1", [false, true, false]),
            ("lost>=1", [false, true, true]),
            ("lost>1", [false, false, true]),
        ] {
            let expectation = parsed(text);
            assert_eq!([0.0, 1.0, 2.0].map(|value| expectation.is_met(Some(value))), met, "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(!parsed("cpu_per_million<1000").is_met(None));
    }

    #[test]
    fn every_name_is_understood_and_named_in_the_help() {
        let help = names();
        for (name, counter) in COUNTERS {
            assert_eq!(parsed(&format!("{name}==0")).figure, Figure::Count(counter));
            assert!(help.contains(name));
        }
        for (name, series) in SERIES {
            for (quantile_name, quantile) in QUANTILES {
                let expectation = parsed(&format!("{name}.{quantile_name}<1s"));
                assert_eq!(expectation.figure, Figure::Latency(series, quantile));
            }
        }
    }

    #[test]
    fn an_expectation_that_cannot_be_checked_is_refused() {
        assert!(matches!("lost".parse::<Expectation>(), Err(ExpectationError::NoComparison(_))));
        assert!(matches!("found==0".parse::<Expectation>(), Err(ExpectationError::UnknownFigure(_))));
        assert!(matches!("deliver.p98<1s".parse::<Expectation>(), Err(ExpectationError::UnknownFigure(_))));
        for bad in ["deliver.p99<50", "deliver.p99<ms", "deliver.p99<-1ms", "lost==none", "lost==", "lost==inf"] {
            assert!(matches!(bad.parse::<Expectation>(), Err(ExpectationError::BadBound(_))), "{bad}");
        }
    }
}
