//! `cargo xtask idle`: what an idle client costs. A fresh server each run, resident memory before anybody came and after
//! thousands of WebSocket clients have joined `/` and answered their first heartbeat.
//!
//! Invariants: release build, default configuration, memory as the kernel counts it (`VmRSS`, code pages and free lists
//! of the allocator included); a client that is lost fails the run.

mod clients;

use crate::{clock, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use clients::Clients;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(15);
/// Longer than the server's pause between two heartbeats.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(60);

/// How much to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients; each takes a descriptor here and one in the server.
    #[arg(long, default_value_t = 15_000)]
    connections: u32,
    /// Runs, each with a fresh server.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Measure this server instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// One run, in KiB.
struct Run {
    before: u64,
    after: u64,
    per_connection: f64,
}

/// Builds, measures, prints; true when every run could be measured.
pub(crate) fn command(options: &Options) -> Result<bool> {
    if options.connections == 0 || options.runs == 0 {
        bail!("nothing to measure");
    }
    let binary = match &options.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("there is no {}", binary.display()))?,
        None => {
            run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "--bin", "starling"]))?;
            run::target().join("release/starling")
        }
    };
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        let run = measure(&binary, options.connections)?;
        println!(
            "run {number}: {} KiB before, {} KiB after: {:.2} KiB each",
            run.before, run.after, run.per_connection
        );
        runs.push(run.per_connection);
    }
    runs.sort_by(f64::total_cmp);
    let (low, high) = (runs[0], runs[runs.len() - 1]);
    println!(
        "\n{:.2} KiB per idle connection ({low:.2}–{high:.2}, {} runs of {} WebSocket clients in `/`)",
        runs[runs.len() / 2],
        options.runs,
        options.connections,
    );
    println!("at commit {}, {}", run::commit()?, run::machine()?);
    println!("cargo xtask idle --connections {} --runs {}", options.connections, options.runs);
    Ok(true)
}

fn measure(binary: &Path, connections: u32) -> Result<Run> {
    let data = run::target().join("idle-data");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let (server, address) = Server::start(binary, &data)?;
    let before = server.resident()?;
    let mut clients = Clients::open(address, connections)?;
    clients.answer_one_heartbeat(HEARTBEAT_LIMIT)?;
    let after = server.resident()?;
    drop(clients);
    drop(server);
    std::fs::remove_dir_all(&data)?;
    #[expect(clippy::cast_precision_loss, reason = "KiB stay far below 2^53")]
    let per_connection = after.saturating_sub(before) as f64 / f64::from(connections);
    Ok(Run { before, after, per_connection })
}

/// A server process, ended when dropped.
struct Server(Child);

impl Server {
    fn start(binary: &Path, data: &Path) -> Result<(Server, SocketAddr)> {
        let [address, admin, mesh] = [free_address()?, free_address()?, free_address()?];
        let mut command = run::command(binary);
        command.args(["serve", "--node", "idle-0", "--data-dir"]).arg(data);
        for (flag, address) in [("--listen", address), ("--admin-listen", admin), ("--mesh-listen", mesh)] {
            command.args([flag, &address.to_string()]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server(command.spawn().context("cannot start the server")?);
        let start = clock::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("the server ended at once: {status}");
            }
            if start.elapsed() > START_LIMIT {
                bail!("the server does not listen after {} s", START_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok((server, address))
    }

    /// KiB of memory that are resident.
    fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).context("the server is gone")?;
        resident(&status).context("the kernel does not say how much memory is resident")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its code is collected below.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn resident(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found_among_the_others() {
        assert_eq!(resident("VmHWM:\t  20 kB\nVmRSS:\t   12345 kB\nRssAnon:\t 1 kB\n"), Some(12_345));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
