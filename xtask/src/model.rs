//! `cargo xtask model`: the rules of one slot, searched exhaustively, and the same rules with one mistake at a time.
//!
//! Invariant: a release build, because a debug build would see a tenth of the states in the time.

use crate::run;
use anyhow::Result;
use clap::Args;

/// How far to search.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds that each search may take.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// Millions of states that each search may hold; ten million take about 3 GB.
    #[arg(long, default_value_t = 20)]
    millions: u32,
}

/// Builds the model and runs it; true when every promise held and every mistake was found.
pub(crate) fn command(options: &Options) -> Result<bool> {
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "model"]))?;
    let mut model = run::command(run::target().join("release/model"));
    model.args(["--seconds", &options.seconds.to_string(), "--millions", &options.millions.to_string()]);
    Ok(run::tee(&mut model)?.success)
}
