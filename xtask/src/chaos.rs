//! `cargo xtask chaos`: real nodes that are really killed, stopped, cut off and scaled (crate `chaos`); this file builds and
//! starts it.
//!
//! Invariant: release binaries unless told otherwise, because a debug build's pauses say nothing.

use crate::{counts::Count, install, run, steps};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

/// What test runners take for "skipped"; handed on, so that nobody takes it for a pass or a failure.
const EXIT_SKIPPED: i32 = 77;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Test this server instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Debug builds.
    #[arg(long)]
    debug: bool,
    /// Where data, logs and records go [default: a folder of its own in the target folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// `form`, `kill`, `stop`, `cut`, `loss` or `scale`, and its options: see `chaos kill --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    chaos: Vec<String>,
}

/// Builds and runs; true when every promise held.
pub(crate) fn command(options: &Options) -> Result<bool> {
    install::npm()?;
    let mut build = vec!["build", "--locked", "-p", "node", "-p", "chaos", "--bins"];
    if !options.debug {
        build.push("--release");
    }
    run::check(&mut run::cargo(&build))?;
    let built = run::target().join(if options.debug { "debug" } else { "release" });
    let binary = options.binary.clone().unwrap_or_else(|| built.join("starling"));
    let dir = options.dir.clone().unwrap_or_else(|| run::target().join("chaos"));
    let mut chaos = run::command(built.join("chaos"));
    chaos.args(&options.chaos).arg("--binary").arg(binary.canonicalize()?).arg("--dir").arg(dir);
    let ended = chaos.env("STARLING_E2E", install::e2e()).status().context("cannot start chaos")?;
    if ended.code() == Some(EXIT_SKIPPED) {
        std::process::exit(EXIT_SKIPPED);
    }
    Ok(ended.success())
}

/// The short forms of `cargo xtask test`: nodes that find each other, one order for all. Counted in rounds.
pub(crate) fn short() -> Result<Count> {
    install::npm()?;
    run::check(&mut run::cargo(&["build", "--locked", "-p", "node", "-p", "chaos", "--bins"]))?;
    let mut sum = Count::default();
    for arguments in SHORT {
        sum += rounds(run::command(steps::binaries().join("chaos")).args(arguments.iter()), arguments[0])?;
    }
    Ok(sum)
}

/// Debug builds on a busy machine are slower than what is promised, which release builds show. Where nodes keep one copy of a
/// message, a kill shows only that.
const SHORT: [&[&str]; 2] = [
    &["form", "--three-max", "6000", "--five-max", "10000"],
    &["kill", "--rounds", "3", "--copies", "2", "--pause-max", "6000", "--rate", "150"],
];

fn rounds(chaos: &mut Command, kind: &str) -> Result<Count> {
    chaos.arg("--binary").arg(steps::binaries().join("starling"));
    chaos.arg("--dir").arg(run::target().join("chaos").join(kind)).env("STARLING_E2E", install::e2e());
    let finished = run::tee(chaos)?;
    if finished.output.lines().any(|line| line.starts_with("SKIPPED: ")) {
        return Ok(Count::default());
    }
    let count = counted(&finished.output)?;
    if !finished.success && count.failed == 0 {
        bail!("chaos {kind} came to no end");
    }
    Ok(count)
}

/// The sum of all lines `N rounds, N clean`.
fn counted(output: &str) -> Result<Count> {
    let line = |line: &str| {
        let (rounds, clean) = line.strip_suffix(" clean")?.split_once(" rounds, ")?;
        let (rounds, clean): (u64, u64) = (rounds.parse().ok()?, clean.parse().ok()?);
        Some(Count { passed: clean, failed: rounds.saturating_sub(clean) })
    };
    let mut sum = None::<Count>;
    for count in output.lines().filter_map(line) {
        *sum.get_or_insert_default() += count;
    }
    sum.context("it counted no rounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_are_not_clean_are_failures() {
        let count =
            counted("round 1 clean: no fault\n2 rounds, 2 clean\nround 1 NOT CLEAN\n3 rounds, 1 clean\n").unwrap();
        assert_eq!(count, Count { passed: 3, failed: 2 });
        assert!(counted("chaos: the cluster does not form\n").is_err());
    }
}
