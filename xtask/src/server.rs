//! A server process for the length of a measurement.
//!
//! Invariants: it is ended when the value is dropped, whatever comes of the measurement; what it says goes to the terminal.

use crate::{clock, run};
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts a command that listens on `port`, and waits until it does.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Server> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start the server")?;
        let mut server = Server { child, port };
        let start = clock::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended at once: {status}");
            }
            if start.elapsed() > START_LIMIT {
                bail!("the server does not listen after {} s", START_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Starts a release build of Starling on free ports, on one core, with these settings; history lives in memory.
    pub(crate) fn starling(core: &str, settings: Vec<(&str, String)>, data: &Path) -> Result<Server> {
        let port = free_port()?;
        let mut command = run::command("taskset");
        command.args(["-c", core]).arg(run::target().join("release/starling"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data);
        for flag in ["--admin-listen", "--mesh-listen"] {
            command.args([flag, &format!("127.0.0.1:{}", free_port()?)]);
        }
        command.env("STARLING_STORE__KIND", "memory").env("STARLING_LOG__FILTER", "warn");
        Server::start(command.envs(settings), port)
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its code is collected below.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
