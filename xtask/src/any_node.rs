//! `cargo xtask any-node`: no sticky sessions, at length.
//!
//! The script `xtask/e2e/any_node.mjs` starts three real processes behind a balancer that sends every request of a client to
//! another node than the one before, then behind nginx and HAProxy, and lets official clients talk. This file builds and starts it.
//!
//! Invariant: release binaries, because hundreds of clients on a debug build would measure the build.

use crate::{install, run};
use anyhow::Result;
use clap::Args;

/// Who talks, and how long.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients: a third each with default settings, WebSocket only and long-polling only.
    #[arg(long, default_value_t = 300)]
    clients: u32,
    /// How long they talk behind each balancer.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Milliseconds between two messages of a client.
    #[arg(long, default_value_t = 1_000)]
    every: u32,
}

/// Builds the release binary and runs the script; true when nothing was lost, repeated or refused.
pub(crate) fn command(options: &Options) -> Result<bool> {
    install::npm()?;
    install::balancers()?;
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "--bins"]))?;
    let mut script = run::command("node");
    script.arg(install::e2e().join("any_node.mjs"));
    for (name, value) in [("clients", options.clients), ("seconds", options.seconds), ("every", options.every)] {
        script.arg(format!("--{name}={value}"));
    }
    script.env("STARLING_BIN", run::target().join("release/starling"));
    Ok(run::tee(&mut script)?.success)
}
