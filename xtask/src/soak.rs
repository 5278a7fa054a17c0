//! `cargo xtask cluster-soak`: the cluster's promises under a steady load, seen from outside.
//!
//! The script `xtask/e2e/soak.mjs` starts three real processes, drives them with `loadtest`, joins late with the official
//! client on a node that does not own the room, and watches a node that has no part in it. This file builds and starts it.
//!
//! Invariant: release binaries, because a debug build's latency says nothing.

use crate::{install, run};
use anyhow::Result;
use clap::Args;

/// What to soak.
#[derive(Args)]
pub(crate) struct Options {
    /// How long the publishers run.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Messages a second, over all publishers.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Members, spread over the three nodes.
    #[arg(long, default_value_t = 300)]
    members: u32,
}

/// Builds the release binaries and runs the script; true when every promise held.
pub(crate) fn command(options: &Options) -> Result<bool> {
    install::npm()?;
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "-p", "loadtest", "--bins"]))?;
    let release = run::target().join("release");
    let mut script = run::command("node");
    script.arg(install::e2e().join("soak.mjs"));
    for (name, value) in [("seconds", options.seconds), ("rate", options.rate), ("members", options.members)] {
        script.arg(format!("--{name}={value}"));
    }
    script.env("STARLING_BIN", release.join("starling")).env("LOADTEST_BIN", release.join("loadtest"));
    Ok(run::tee(&mut script)?.success)
}
