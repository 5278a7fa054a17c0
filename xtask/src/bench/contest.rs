//! One turn: a fresh server on core 0, the generator on core 1, and what came out.
//!
//! Invariants: a server lives for one turn and is ended whatever happens; the generator's own report is the only source of
//! figures.

use super::others::Others;
use crate::{clock, run};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(15);
const SERVER_CORE: &str = "0";
const GENERATOR_CORE: &str = "1";
/// What the generator exits with when it was too slow itself: the server may be better than its figures.
pub(super) const EXIT_INVALID: i32 = 98;
/// A check of the generator failed (a peer reorders, for example); its figures are valid.
pub(super) const EXIT_EXPECTATION: i32 = 99;

/// Somebody who can serve a room.
pub(super) struct Peer {
    pub(super) name: &'static str,
    binary: &'static str,
    flags: &'static [&'static str],
    /// How the generator talks to it; nothing is Starling's own events.
    dialect: Option<&'static str>,
}

const EMIT: Option<&str> = Some("emit:join,publish");

pub(super) const PEERS: [Peer; 3] = [
    Peer { name: "floor-write", binary: "floor", flags: &[], dialect: EMIT },
    Peer { name: "socketioxide", binary: "socketioxide-peer", flags: &[], dialect: EMIT },
    Peer { name: "starling", binary: "starling", flags: &["serve", "--node", "bench-0"], dialect: None },
];

/// A load, and which of its figures matter.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) shows: &'static str,
    load: &'static [&'static str],
    pub(super) figures: &'static [Figure],
}

/// A figure of the generator's report: its heading and where it is in a step.
pub(super) struct Figure {
    pub(super) heading: &'static str,
    pub(super) place: &'static str,
}

const LOST: Figure = Figure { heading: "lost", place: "/lost" };
const REORDERED: Figure = Figure { heading: "reordered", place: "/reordered" };
const CPU: Figure = Figure { heading: "CPU-s per M deliveries", place: "/server/cpu_seconds_per_million" };
const RATE: Figure = Figure { heading: "deliveries/s", place: "/deliveries_per_second" };
const P50: Figure = Figure { heading: "p50 ms", place: "/latency/deliver/p50_ms" };
const P99: Figure = Figure { heading: "p99 ms", place: "/latency/deliver/p99_ms" };
const LAST: Figure = Figure { heading: "last member p50 ms", place: "/latency/last/p50_ms" };
const CORES: Figure = Figure { heading: "server cores", place: "/server/cores" };

pub(super) const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "S2",
        shows: "one room of 3,000 members, 10 messages a second of 128 B",
        load: &["--members", "3000", "--rate", "10", "--duration", "20s"],
        figures: &[P50, P99, LAST, CPU, LOST],
    },
    Scenario {
        name: "S3 one outstanding",
        shows: "one room of 1,000 members, the next message when the last member has the one before",
        load: &["--members", "1000", "--outstanding", "1", "--duration", "10s"],
        figures: &[RATE, CPU, CORES, LOST, REORDERED],
    },
    Scenario {
        name: "S3 sixteen outstanding",
        shows: "one room of 1,000 members, sixteen messages on the way at any time",
        load: &["--members", "1000", "--outstanding", "16", "--duration", "10s"],
        figures: &[RATE, CPU, CORES, LOST, REORDERED],
    },
];

/// What one turn measured.
pub(super) struct Turn {
    pub(super) peer: &'static str,
    pub(super) scenario: &'static str,
    /// In the order of the scenario's figures; nothing where the report had none.
    pub(super) figures: Vec<Option<f64>>,
    /// Whether the generator was too slow itself.
    pub(super) generator_late: bool,
    /// Cores that everybody else used meanwhile.
    pub(super) others_cores: f64,
    pub(super) machine: Value,
}

/// Where the peers' workspace is built.
pub(super) fn peers_target() -> PathBuf {
    run::target().join("peers")
}

/// Starts the peer, drives it, ends it.
pub(super) fn turn(peer: &'static Peer, scenario: &'static Scenario) -> Result<Turn> {
    let folder = run::target().join("bench");
    let data = folder.join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    std::fs::create_dir_all(&folder)?;
    let others = Others::now()?;
    let port = free_port()?;
    let server = Server::start(peer, port, &data)?;
    let report = folder.join("report.json");
    let mut load = run::command("taskset");
    load.args(["-c", GENERATOR_CORE]).arg(run::target().join("release/loadtest")).args(["run", "broadcast"]);
    load.args(["--target", &format!("http://127.0.0.1:{port}"), "--payload", "128", "--procs", "1"])
        .args(scenario.load);
    load.args(["--server-pid", &server.0.id().to_string(), "--json"]).arg(&report);
    load.args(peer.dialect.iter().flat_map(|dialect| ["--dialect", dialect]));
    let code = load.status().context("cannot start loadtest")?.code();
    drop(server);
    if !matches!(code, Some(0 | EXIT_INVALID | EXIT_EXPECTATION)) {
        bail!("loadtest ended with {code:?}");
    }
    let report: Value =
        serde_json::from_slice(&std::fs::read(&report)?).context("cannot read the generator's report")?;
    let step = report["steps"].as_array().and_then(|steps| steps.last()).context("the report has no step")?;
    let cores = step["generator"]["cores"].as_array().map_or(&[][..], Vec::as_slice);
    let workers = cores.iter().filter_map(Value::as_f64).sum::<f64>() * step["seconds"].as_f64().unwrap_or_default();
    let others_cores = others.cores(workers)?;
    Ok(Turn {
        peer: peer.name,
        scenario: scenario.name,
        figures: scenario.figures.iter().map(|figure| step.pointer(figure.place).and_then(Value::as_f64)).collect(),
        generator_late: code == Some(EXIT_INVALID),
        others_cores,
        machine: report["machine"].clone(),
    })
}

/// A server process, ended when dropped.
struct Server(Child);

impl Server {
    fn start(peer: &Peer, port: u16, data: &std::path::Path) -> Result<Server> {
        let ours = peer.dialect.is_none();
        let folder = if ours { run::target() } else { peers_target() }.join("release");
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(folder.join(peer.binary)).args(peer.flags);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        if ours {
            for flag in ["--admin-listen", "--mesh-listen"] {
                command.args([flag, &format!("127.0.0.1:{}", free_port()?)]);
            }
            command.arg("--data-dir").arg(data);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server(command.spawn().with_context(|| format!("cannot start {}", peer.name))?);
        let start = clock::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("{} ended at once: {status}", peer.name);
            }
            if start.elapsed() > START_LIMIT {
                bail!("{} does not listen after {} s", peer.name, START_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and its code is collected below.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
