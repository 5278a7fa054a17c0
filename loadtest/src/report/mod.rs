//! The verdict of a run, and its two forms: text for people, JSON for programs.

mod json;
mod text;

pub(crate) use json::{Document, machine};
pub(crate) use text::{heading, report, step_line};

use serde::Serialize;

use crate::coordinator::Run;

/// How a run ended; each is an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Everything expected was found.
    Pass,
    /// An expectation failed.
    Fail,
    /// The generator measured itself.
    Invalid,
    /// Somebody stopped it.
    Interrupted,
}

impl Verdict {
    /// Judges a run. A message that was lost or came twice is a failure whoever was late; a latency is one only if the
    /// generator was not.
    pub(crate) fn of(run: &Run) -> Verdict {
        let failed = run.steps.iter().flat_map(|step| &step.checks).filter(|check| !check.passed);
        let (about_time, wrong): (Vec<_>, Vec<_>) = failed.partition(|check| check.about_time);
        let invalid = run.steps.iter().any(|step| !step.generator.invalid.is_empty());
        if run.interrupted {
            Verdict::Interrupted
        } else if !wrong.is_empty() {
            Verdict::Fail
        } else if invalid {
            Verdict::Invalid
        } else if !about_time.is_empty() {
            Verdict::Fail
        } else {
            Verdict::Pass
        }
    }

    /// The exit code it stands for.
    pub(crate) fn code(self) -> u8 {
        match self {
            Verdict::Pass => 0,
            Verdict::Fail => 99,
            Verdict::Invalid => 98,
            Verdict::Interrupted => 130,
        }
    }
}

/// A number with thousands separated, without decimals.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < -0.5 { format!("-{text}") } else { text }
}

/// Milliseconds with as many decimals as they deserve.
pub(crate) fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => count(value),
    }
}
