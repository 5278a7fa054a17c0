//! `cargo xtask fuzz`: every decoder that reads bytes of others against inputs that a fuzzer makes up, one target after
//! another.
//!
//! Invariants: nothing in the tree changes: what the fuzzer learns and what it breaks on stay under `target/fuzz`, the
//! seeds are only read. A crash, a hang of two seconds and an allocation beyond the limits all count, and do not keep the
//! other targets from running.

use crate::{clock, counts::Count, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The fuzzer's version on a machine that has none.
const CARGO_FUZZ: &str = "0.13.2";
/// The folder of the targets, from the root of the tree.
const FOLDER: &str = "fuzz";
/// What one input may take: a node gives a client no more.
const LIMITS: [&str; 3] = ["-rss_limit_mb=256", "-malloc_limit_mb=64", "-timeout=2"];

/// How long, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target; all of them otherwise.
    target: Option<String>,
}

/// What came of one target.
struct Outcome {
    target: String,
    /// Inputs tried; unknown if the fuzzer died without a word.
    executions: Option<u64>,
    per_second: Option<u64>,
    /// Edges of the program that some input of the corpus takes, and how many there are. Those of code that the target
    /// links and never calls count too, so that only growth means something.
    edges: Option<(u64, u64)>,
    crashed: bool,
}

/// Builds and runs the targets; true when none of them found anything.
pub(crate) fn command(options: &Options) -> Result<bool> {
    let all = targets(&run::root().join(FOLDER).join("fuzz_targets"))?;
    let chosen = choose(all, options.target.as_deref())?;
    installed()?;
    let start = clock::now();
    run::check(&mut cargo_fuzz("build"))?;
    let mut outcomes = Vec::new();
    for target in chosen {
        println!("\n=== fuzz {target}: {} s", options.seconds);
        outcomes.push(fuzz(target, options.seconds)?);
    }
    println!("\nfuzzing took {:.0} s with the build", start.elapsed().as_secs_f64());
    outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    let crashes = outcomes.iter().filter(|outcome| outcome.crashed).count();
    println!("{} passed, {crashes} failed", outcomes.len() - crashes);
    Ok(crashes == 0)
}

/// Checks what the compiler can: a workspace of its own is in nobody's way, so that a change elsewhere breaks it unseen.
pub(crate) fn compiles() -> Result<Count> {
    let manifest = run::root().join(FOLDER).join("Cargo.toml");
    let mut cargo = run::cargo(&["check", "--bins", "--manifest-path"]);
    cargo.arg(manifest).arg("--target-dir").arg(output().join("check")).env("RUSTFLAGS", "--cfg fuzzing -D warnings");
    run::check(&mut cargo)?;
    Ok(Count::ONE)
}

/// The targets are the files of their folder.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_string_lossy().strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn choose(all: Vec<String>, only: Option<&str>) -> Result<Vec<String>> {
    match only {
        None => Ok(all),
        Some(name) if all.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("no target is called `{name}`; there are {}", all.join(", ")),
    }
}

fn installed() -> Result<()> {
    if run::which(&["cargo-fuzz"]).is_some() {
        return Ok(());
    }
    println!("installing cargo-fuzz {CARGO_FUZZ} (once)");
    run::check(&mut run::cargo(&["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))
}

/// Without a sanitizer the fuzzer needs no nightly compiler. There is no unsafe code for one to watch; the fuzzer's own
/// limits watch memory.
fn cargo_fuzz(verb: &str) -> Command {
    let mut cargo = run::cargo(&["fuzz", verb, "--sanitizer", "none", "--fuzz-dir", FOLDER]);
    cargo.arg("--target-dir").arg(output());
    cargo
}

fn output() -> PathBuf {
    run::target().join("fuzz")
}

fn fuzz(target: String, seconds: u32) -> Result<Outcome> {
    let corpus = output().join("corpus").join(&target);
    let artifacts = output().join("artifacts");
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let folder = run::root().join(FOLDER);
    let seeds = folder.join("seeds").join(&target);
    let mut fuzzer = cargo_fuzz("run");
    // What the fuzzer finds it adds to the first folder.
    fuzzer.arg(&target).args([&corpus, &seeds]).arg("--").args(LIMITS);
    fuzzer.arg(format!("-dict={}", folder.join("dictionaries").join(&target).with_extension("dict").display()));
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    fuzzer.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-verbosity=0"]);
    let finished = run::tee(&mut fuzzer)?;
    let (executions, per_second) =
        (figure(&finished.output, "number_of_executed_units"), figure(&finished.output, "average_exec_per_sec"));
    if finished.success && executions.is_none() {
        bail!("the fuzzer of `{target}` ended without saying what it did");
    }
    let edges = if finished.success { coverage(&target, &corpus, &seeds)? } else { None };
    Ok(Outcome { target, executions, per_second, edges, crashed: !finished.success })
}

/// What the corpus reaches: read once more without looking further, the fuzzer says so.
fn coverage(target: &str, corpus: &Path, seeds: &Path) -> Result<Option<(u64, u64)>> {
    let mut fuzzer = cargo_fuzz("run");
    fuzzer.arg(target).args([corpus, seeds]).args(["--", "-runs=0"]).args(LIMITS);
    let finished = fuzzer.output().context("cannot start the fuzzer")?;
    Ok(edges(&String::from_utf8_lossy(&finished.stderr)))
}

/// `cov: 344` of the last line that has it, of `(1149 inline 8-bit counters)`.
fn edges(output: &str) -> Option<(u64, u64)> {
    let number = |after: &str| {
        let rest = output.rsplit_once(after)?.1.trim_start();
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    };
    Some((number(" cov:")?, number("modules   (")?))
}

/// `stat::NAME:     123`, the last one.
fn figure(output: &str, name: &str) -> Option<u64> {
    let mut values = output.lines().rev().filter_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
    values.find_map(|rest| rest.strip_prefix(':')?.trim().parse().ok())
}

fn line(outcome: &Outcome) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let (executions, per_second) = (number(outcome.executions), number(outcome.per_second));
    let end = if outcome.crashed { "CRASHED, the input is named above" } else { "no crash" };
    let edges = outcome.edges.map_or_else(|| "?".to_owned(), |(reached, all)| format!("{reached} of {all}"));
    format!("{:<16} {executions:>11} executions {per_second:>8}/s {edges:>14} edges  {end}", outcome.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "stat::number_of_executed_units: 4899230\nstat::average_exec_per_sec:     544358\n";

    #[test]
    fn figures_are_read_from_what_the_fuzzer_prints() {
        assert_eq!(figure(OUTPUT, "number_of_executed_units"), Some(4_899_230));
        assert_eq!(figure(OUTPUT, "average_exec_per_sec"), Some(544_358));
        assert_eq!(figure(OUTPUT, "average_exec"), None);
        assert_eq!(figure("panicked", "number_of_executed_units"), None);
    }

    #[test]
    fn coverage_is_read_from_what_the_fuzzer_says_of_its_corpus() {
        let output = "INFO: Loaded 1 modules   (1149 inline 8-bit counters): 1149 [0x5, 0x6),\n\
            #3\tINITED cov: 17 ft: 20\n#370\tDONE   cov: 344 ft: 1276 corp: 366/27Kb\n";
        assert_eq!(edges(output), Some((344, 1149)));
        assert_eq!(edges("killed"), None);
    }

    #[test]
    fn a_target_that_does_not_exist_is_refused_by_name() {
        let all = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(choose(all(), None).unwrap(), all());
        assert_eq!(choose(all(), Some("b")).unwrap(), ["b"]);
        assert_eq!(choose(all(), Some("c")).unwrap_err().to_string(), "no target is called `c`; there are a, b");
    }

    #[test]
    fn every_target_has_seeds_and_a_dictionary_and_is_in_the_manifest() {
        let folder = run::root().join(FOLDER);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let targets = targets(&folder.join("fuzz_targets")).unwrap();
        assert!(targets.len() >= 19, "{targets:?}");
        for target in targets {
            assert!(folder.join(format!("dictionaries/{target}.dict")).is_file(), "{target}");
            assert!(std::fs::read_dir(folder.join("seeds").join(&target)).unwrap().count() > 0, "{target}");
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }

    #[test]
    fn a_crash_is_said_in_the_line_of_its_target() {
        let outcome = Outcome { target: "sid".into(), executions: None, per_second: None, edges: None, crashed: true };
        assert!(line(&outcome).contains("? executions") && line(&outcome).contains("CRASHED"));
    }
}
