//! `cargo xtask sim KIND`: whole clusters in virtual time, from seeds; a seed that fails prints the command that plays it again.
//!
//! Invariant: what is played are the tests of the crate that is simulated, so CI and this command judge alike.

use crate::run;
use anyhow::Result;
use clap::{Args, Subcommand};

/// What to simulate.
#[derive(Subcommand)]
pub(crate) enum Kind {
    /// Slots with two copies and a witness, under faults: order, loss, repeats, what is told, and how long it takes.
    Slot(Slot),
}

/// Which runs of the slot simulator.
#[derive(Args)]
pub(crate) struct Slot {
    /// One run by its name, as a failing seed prints it; all of them otherwise.
    #[arg(long)]
    run: Option<String>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds of each run.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Build with optimisation: ten times as fast, but the build takes a minute.
    #[arg(long)]
    release: bool,
    /// Lines of the trace that a failing seed prints.
    #[arg(long, default_value_t = 400)]
    lines: u64,
}

/// Plays the seeds; true when every promise held.
pub(crate) fn command(kind: &Kind) -> Result<bool> {
    let Kind::Slot(slot) = kind;
    let mut arguments = vec!["test", "--locked", "--package", "mesh", "--lib"];
    if slot.release {
        arguments.push("--release");
    }
    arguments.extend(["slot::tests::storm::runs::explore", "--", "--ignored", "--nocapture", "--exact"]);
    let mut cargo = run::cargo(&arguments);
    cargo.env("SIM_RUN", slot.run.as_deref().unwrap_or_default());
    for (name, value) in [("SIM_FIRST", slot.first), ("SIM_SEEDS", slot.seeds), ("SIM_LINES", slot.lines)] {
        cargo.env(name, value.to_string());
    }
    Ok(run::tee(&mut cargo)?.success)
}
