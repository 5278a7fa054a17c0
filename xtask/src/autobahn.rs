//! `cargo xtask autobahn`: the WebSocket cases of the Autobahn suite against the acceptor that every client meets.
//!
//! Invariants: the server is the echo example, which is the product with a handler; nothing in it knows of the suite. The
//! driver and its pinned packages live in `xtask/autobahn`; the server is ended whatever comes of the run.

use crate::server::{self, Server};
use crate::{install, run};
use anyhow::Result;
use clap::Args;

/// Which cases.
#[derive(Args)]
pub(crate) struct Options {
    /// Cases such as `6.4.1` or `9.*`; all of them otherwise.
    cases: Vec<String>,
}

/// Runs the cases; true when each one that applies is as RFC 6455 has it.
pub(crate) fn command(options: &Options) -> Result<bool> {
    let folder = run::root().join("xtask/autobahn");
    let python = install::environment("autobahn", &folder.join("requirements.txt"))?;
    run::check(&mut run::cargo(&["build", "--locked", "--package", "node", "--example", "echo"]))?;
    let port = server::free_port()?;
    let mut echo = run::command(run::target().join("debug/examples/echo"));
    let _server = Server::start(echo.args(["--engine", "--large", &port.to_string()]), port)?;
    let mut driver = run::command(python);
    // The driver leaves no compiled files in the tree.
    driver.arg("-B").arg(folder.join("run.py"));
    driver.arg(format!("ws://127.0.0.1:{port}/engine.io/?EIO=4&transport=websocket")).args(&options.cases);
    Ok(run::tee(&mut driver)?.success)
}
