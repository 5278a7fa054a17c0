//! Reading how many tests passed and failed from what each runner prints.
//!
//! Invariant: a runner whose summary is missing is an error, and so is one that ran nothing, except for doc tests, which a
//! workspace need not have.

use anyhow::{Context, Result, bail};
use std::ops::AddAssign;

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    /// A check that is one thing and passed.
    pub(crate) const ONE: Count = Count { passed: 1, failed: 0 };

    /// This many passed, none failed.
    pub(crate) fn passed(passed: usize) -> Count {
        Count { passed: passed as u64, failed: 0 }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// `Summary [ 1.2s] 45 tests run: 44 passed (1 slow), 1 failed, 0 skipped`.
pub(crate) fn nextest(output: &str) -> Result<Count> {
    let line = output.lines().rev().find(|line| line.trim_start().starts_with("Summary ["));
    let (_, tail) = line.and_then(|line| line.split_once("run:")).context("nextest printed no summary")?;
    let (mut count, mut previous) = (Count::default(), "");
    for word in tail.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word {
            "passed" => count.passed += number(previous)?,
            "failed" | "timed" => count.failed += number(previous)?,
            _ => {}
        }
        previous = word;
    }
    something_ran(count, "nextest")
}

/// The sum of `test result: ok. 3 passed; 0 failed; …` over all crates; crates without doc tests print zeros, and all may.
pub(crate) fn libtest(output: &str) -> Result<Count> {
    let (mut count, mut crates) = (Count::default(), 0);
    for line in output.lines().filter(|line| line.starts_with("test result:")) {
        crates += 1;
        let (_, tail) = line.split_once(". ").context("a test result without figures")?;
        for part in tail.split(';') {
            match part.trim().split_once(' ') {
                Some((n, "passed")) => count.passed += number(n)?,
                Some((n, "failed")) => count.failed += number(n)?,
                Some(_) | None => {}
            }
        }
    }
    if crates == 0 {
        bail!("no crate's doc tests were run");
    }
    Ok(count)
}

/// Node's own runner: `ℹ pass 12` and `ℹ fail 0` (or `# pass 12` when it prints TAP).
pub(crate) fn node(output: &str) -> Result<Count> {
    let figure = |name: &str| -> Result<u64> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = output.lines().rev().map(words).find(|words| words.len() == 3 && words[1] == name);
        number(&found.with_context(|| format!("node printed no `{name}` figure"))?[2])
    };
    let failed = figure("fail")? + figure("cancelled")?;
    something_ran(Count { passed: figure("pass")?, failed }, "node")
}

/// Python's unittest: `Ran 12 tests in 3.2s`, then `OK` or `FAILED (failures=1, errors=2)`.
pub(crate) fn unittest(output: &str) -> Result<Count> {
    let ran = output.lines().rev().find_map(|line| line.strip_prefix("Ran "));
    let ran = number(ran.and_then(|tail| tail.split(' ').next()).context("unittest printed no summary")?)?;
    let verdict = output.lines().rev().find(|line| line.starts_with("OK") || line.starts_with("FAILED"));
    let figures = verdict.context("unittest printed no verdict")?.split(['(', ',', ')']);
    let mut not_passed = (0, 0);
    for (name, n) in figures.filter_map(|part| part.trim().split_once('=')) {
        match name {
            "failures" | "errors" => not_passed.0 += number(n)?,
            _ => not_passed.1 += number(n)?,
        }
    }
    let (failed, skipped) = not_passed;
    something_ran(Count { passed: ran.saturating_sub(failed + skipped), failed }, "unittest")
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("not a number of tests: `{text}`"))
}

fn something_ran(count: Count, runner: &str) -> Result<Count> {
    if count == Count::default() {
        bail!("{runner} ran no test");
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_read_with_slow_and_failed_tests() {
        let ok = "     Summary [  12.3s] 45 tests run: 45 passed (2 slow), 0 skipped\n";
        assert_eq!(nextest(ok).unwrap(), Count { passed: 45, failed: 0 });
        let bad = "  Summary [   1.0s] 3 tests run: 1 passed, 1 failed, 1 timed out, 7 skipped\n  FAIL x\n";
        assert_eq!(nextest(bad).unwrap(), Count { passed: 1, failed: 2 });
    }

    #[test]
    fn doc_tests_of_all_crates_are_added() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
                    noise\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(libtest(text).unwrap(), Count { passed: 4, failed: 2 });
        assert_eq!(libtest("test result: ok. 0 passed; 0 failed; 0 ignored\n").unwrap(), Count::default());
    }

    #[test]
    fn node_figures_are_read_in_both_of_its_formats() {
        let spec = "✔ a thing (3ms)\nℹ tests 4\nℹ pass 3\nℹ fail 1\nℹ cancelled 0\n";
        assert_eq!(node(spec).unwrap(), Count { passed: 3, failed: 1 });
        assert_eq!(node(&spec.replace('ℹ', "#")).unwrap(), Count { passed: 3, failed: 1 });
        assert_eq!(node(&spec.replace("cancelled 0", "cancelled 2")).unwrap(), Count { passed: 3, failed: 3 });
    }

    #[test]
    fn unittest_failures_and_skips_are_not_counted_as_passed() {
        assert_eq!(unittest("Ran 12 tests in 3.2s\n\nOK\n").unwrap(), Count { passed: 12, failed: 0 });
        let bad = "Ran 12 tests in 3.2s\n\nFAILED (failures=1, errors=2, skipped=3)\n";
        assert_eq!(unittest(bad).unwrap(), Count { passed: 6, failed: 3 });
    }

    #[test]
    fn a_runner_that_ran_nothing_is_an_error() {
        assert!(nextest("Summary [ 0.0s] 0 tests run: 0 passed, 0 skipped\n").is_err());
        assert!(libtest("error: could not compile\n").is_err());
        assert!(node("ℹ pass 0\nℹ fail 0\nℹ cancelled 0\n").is_err());
        assert!(unittest("Ran 0 tests in 0.0s\n\nOK\n").is_err());
        assert!(nextest("error: could not compile\n").is_err());
    }
}
