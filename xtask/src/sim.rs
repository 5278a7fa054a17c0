//! `cargo xtask sim`: parts of the cluster in virtual time, far larger and far unluckier than real processes can be.
//!
//! The simulators live beside the values they drive, as tests that are ignored otherwise, and take their arguments from the
//! environment; this file builds them and passes the arguments.
//!
//! Invariant: equal arguments give equal results, and whatever is broken is printed with the command that shows it again.

mod slot;

use anyhow::Result;
use clap::{Args, Subcommand};

/// What is simulated.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Slots with two copies and a witness, under faults: order, loss, repeats, what is told, and how long it takes.
    Slot(slot::Options),
}

/// Runs the simulation; true when nothing was broken.
pub(crate) fn command(options: &Options) -> Result<bool> {
    let Kind::Slot(slot) = &options.kind;
    slot::command(slot)
}
