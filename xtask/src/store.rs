//! `cargo xtask kill-store` and `cargo xtask damage-store`: what the store promises, shown on real processes.
//!
//! The scripts in `xtask/e2e` kill and damage; this file builds and starts them. `cargo xtask test` runs short forms of both.
//!
//! Invariant: release binaries, because a debug build publishes too slowly to have much on its way when it is killed.

use crate::{install, run};
use anyhow::Result;
use clap::Args;
use std::process::Command;

/// How often to kill.
#[derive(Args)]
pub(crate) struct Kill {
    /// Rounds of a burst, a kill and a restart.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
}

/// What to damage.
#[derive(Args)]
pub(crate) struct Damage {
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Kill -9 in a burst of publishes; true when every round held.
pub(crate) fn kill(options: &Kill) -> Result<bool> {
    let mut script = script("kill_store.mjs")?;
    script.arg(format!("--rounds={}", options.rounds));
    Ok(run::tee(&mut script)?.success)
}

/// Every damage in the table; true when every case held.
pub(crate) fn damage(options: &Damage) -> Result<bool> {
    let mut script = script("damage_store.mjs")?;
    script.arg(format!("--only={}", options.only));
    Ok(run::tee(&mut script)?.success)
}

fn script(name: &str) -> Result<Command> {
    install::npm()?;
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "--bins"]))?;
    let mut script = run::command("node");
    script.arg(install::e2e().join(name)).env("STARLING_BIN", run::target().join("release/starling"));
    Ok(script)
}
