//! The command line, and the settings it means once everything in it has been checked.
//!
//! Whatever cannot work is refused here, before a single connection is opened: exit code 2.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::client::{Dialect, Transport};
use crate::expect::Expectation;
use crate::plan::Plan;
use crate::scenario;
use crate::trial;
use crate::wire::Pace;

/// Descriptors of a worker that are not connections, generously.
const SPARE_DESCRIPTORS: u64 = 64;
/// Local ports that something else on the machine may be using.
const SPARE_PORTS: u32 = 500;
/// Every publisher number fits the marker, and its connection fits in beside the members.
const PUBLISHERS_MAX: u16 = 10_000;
/// More source addresses than this are a typing error.
const SOURCES_MAX: u32 = 1024;

/// Measures a Socket.IO server honestly: open-loop load, latency from the intended send time, every message accounted for.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a preset against one or more servers and report.
    Run(Box<RunArgs>),
    /// Join a room while it is published to: everybody sees history and then live, without gap or repeat.
    Joins(trial::JoinsArgs),
    /// Let most members of a room stop reading: what it costs the server and the others.
    Stalled(trial::StalledArgs),
    /// Serve a `run` over stdin and stdout; started by it.
    #[command(hide = true)]
    Worker,
}

/// The kinds of test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    /// 2,500, 3,000 and 3,500 members, then five times as many, on one server: multiples of the classic figure.
    Baseline,
    /// One room (or a few) with a steady rate, or saturated with `--outstanding`.
    Broadcast,
}

/// Everything `run` can be told.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to run.
    #[arg(value_enum)]
    pub(crate) preset: Preset,
    /// A server, such as http://127.0.0.1:3000; several share members and publishers.
    #[arg(long = "target", value_name = "URL", required = true)]
    targets: Vec<String>,
    /// Members in all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    members: u32,
    /// Connections that publish; they are no members. Default: one per room.
    #[arg(long, value_name = "P")]
    publishers: Option<u16>,
    /// Messages per second over all publishers.
    #[arg(long, value_name = "R", default_value_t = 10.0)]
    rate: f64,
    /// Bytes of every payload; at least the 38 that identify it.
    #[arg(long, value_name = "B", default_value_t = 128)]
    payload: usize,
    /// How long to publish (every step of a preset).
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Ramps and holds instead of --members and --duration, such as "0..3000@20s, hold 60s".
    #[arg(long, conflicts_with = "members", conflicts_with = "duration")]
    plan: Option<Plan>,
    /// New connections per second, where the plan does not say.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    arrivals: u32,
    /// Closed loop instead of --rate: this many messages per publisher on the way to the slowest member.
    #[arg(long, value_name = "K", conflicts_with = "rate")]
    outstanding: Option<u32>,
    /// Generator processes. Default: as few as the limit of open files allows.
    #[arg(long, value_name = "N")]
    procs: Option<u32>,
    /// Local addresses to connect from: a list, or ranges such as 127.0.0.2-127.0.0.9.
    #[arg(long, value_name = "ADDRS", value_parser = parse_sources)]
    source_ips: Option<Sources>,
    /// How packets travel.
    #[arg(long, value_enum, default_value = "websocket")]
    transport: Transport,
    /// Name of the room.
    #[arg(long, default_value = "loadtest")]
    room: String,
    /// Number of rooms; members and publishers are dealt out evenly.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rooms: u32,
    /// Namespace.
    #[arg(long, value_name = "NSP", default_value = "/")]
    namespace: String,
    /// History items every member asks for when it joins.
    #[arg(long, value_name = "N", default_value_t = 0)]
    history: u32,
    /// A figure that must hold, such as "deliver.p99<50ms" or "lost==0"; repeatable.
    #[arg(long = "expect", value_name = "EXPR")]
    expectations: Vec<Expectation>,
    /// Write everything as JSON to this file; `-` is stdout (the text report then goes to stderr).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// `room` for Starling, `volatile` for its messages without order and history, `emit:JOIN,PUBLISH` for application events of any Socket.IO server.
    #[arg(long, default_value = "room")]
    dialect: Dialect,
    /// A server process on this machine whose CPU and memory are read; repeatable.
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<i32>,
    /// An admin address such as http://127.0.0.1:3001 whose /metrics are compared; repeatable.
    #[arg(long = "admin", value_name = "URL")]
    admins: Vec<String>,
    /// Allow targets that are not this machine.
    #[arg(long)]
    allow_remote: bool,
}

/// Source addresses, as a type of their own so that one option gives many.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sources(Vec<IpAddr>);

/// A checked run.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) preset: Preset,
    pub(crate) targets: Vec<SocketAddr>,
    #[serde(serialize_with = "as_text")]
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) publishers: u16,
    pub(crate) payload: usize,
    pub(crate) procs: u32,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) transport: Transport,
    #[serde(serialize_with = "as_text")]
    pub(crate) dialect: Dialect,
    pub(crate) namespace: String,
    pub(crate) room: String,
    pub(crate) rooms: u32,
    pub(crate) history: u32,
    #[serde(serialize_with = "as_texts")]
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) server_pids: Vec<i32>,
    pub(crate) admins: Vec<SocketAddr>,
}

/// Why a run cannot be started. Nothing was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// Not `http://host:port`.
    #[error("`{0}` is not a URL like http://127.0.0.1:3000")]
    Url(String),
    /// A name that does not resolve.
    #[error("cannot resolve `{0}`")]
    Resolve(String),
    /// A target elsewhere.
    #[error("{0} is not this machine; add --allow-remote if the load on it is welcome")]
    Remote(SocketAddr),
    /// A number that makes no sense.
    #[error("{0}")]
    Number(String),
    /// The limit of open files.
    #[error("{members} members do not fit {procs} process(es) of {limit} open files each; --procs {needed} would do")]
    Descriptors {
        /// Members at the peak.
        members: u32,
        /// Processes asked for.
        procs: u32,
        /// Hard limit of open files.
        limit: u64,
        /// Processes needed.
        needed: u32,
    },
    /// The range of local ports.
    #[error(
        "{members} members are more than the {ports} that the local ports of one source address allow; name {needed} \
         addresses, such as --source-ips 127.0.0.2-127.0.0.{last}"
    )]
    Ports {
        /// Members at the peak.
        members: u32,
        /// Members that one address has ports for.
        ports: u32,
        /// Addresses needed.
        needed: u32,
        /// Last byte of the last of them.
        last: u32,
    },
}

impl RunArgs {
    /// Checks everything against this machine, which may have `open_files` in a process.
    ///
    /// # Errors
    /// What to change on the command line.
    pub(crate) fn check(self, open_files: u64) -> Result<Settings, UsageError> {
        self.check_numbers()?;
        let rooms = u16::try_from(self.rooms).unwrap_or(u16::MAX);
        let publishers = self.publishers.unwrap_or(rooms);
        let plan = match (self.preset, self.plan) {
            (Preset::Baseline, None) => scenario::baseline(self.arrivals, self.duration),
            (Preset::Broadcast, None) => Plan::steady(self.members, self.arrivals, self.duration),
            (Preset::Baseline, Some(_)) => {
                return Err(UsageError::Number("`baseline` has its own plan; use `broadcast --plan`".to_owned()));
            }
            (Preset::Broadcast, Some(plan)) => plan,
        };
        let targets = self.targets.iter().map(|url| resolve(url)).collect::<Result<Vec<_>, _>>()?;
        let admins = self.admins.iter().map(|url| resolve(url)).collect::<Result<Vec<_>, _>>()?;
        if let Some(remote) = targets.iter().find(|target| !self.allow_remote && !target.ip().is_loopback()) {
            return Err(UsageError::Remote(*remote));
        }
        let sources = self.source_ips.map(|sources| sources.0).unwrap_or_default();
        let sockets = match self.transport {
            Transport::WebSocket => 1,
            Transport::Polling => 2,
        };
        check_ports(plan.peak(), sockets, targets.len(), sources.len(), local_ports())?;
        let procs = fit(plan.peak(), publishers, u64::from(sockets), open_files, self.procs)?;
        let pace = match self.outstanding {
            Some(outstanding) => Pace::Closed { outstanding },
            None => Pace::Open { per_second: self.rate },
        };
        let expectations = scenario::expectations(self.preset, &self.dialect, self.expectations);
        Ok(Settings {
            preset: self.preset,
            targets,
            plan,
            pace,
            publishers,
            payload: self.payload,
            procs,
            sources,
            transport: self.transport,
            dialect: self.dialect,
            namespace: self.namespace,
            room: self.room,
            rooms: self.rooms,
            history: self.history,
            expectations,
            json: self.json,
            server_pids: self.server_pids,
            admins,
        })
    }

    fn check_numbers(&self) -> Result<(), UsageError> {
        let complaint = if self.members == 0 || self.rooms == 0 || self.arrivals == 0 {
            "--members, --rooms and --arrivals must be at least 1"
        } else if !(self.rate > 0.0 && self.rate.is_finite()) {
            "--rate must be above 0"
        } else if self.publishers == Some(0) || self.outstanding == Some(0) || self.procs == Some(0) {
            "--publishers, --outstanding and --procs must be at least 1"
        } else if self.publishers.unwrap_or(1) > PUBLISHERS_MAX || self.rooms > u32::from(PUBLISHERS_MAX) {
            "at most 10000 publishers and rooms"
        } else if !self.namespace.starts_with('/') || self.namespace.contains([',', '?']) {
            "--namespace must begin with / and contain neither comma nor question mark"
        } else {
            return Ok(());
        };
        Err(UsageError::Number(complaint.to_owned()))
    }
}

/// The number of processes: as asked, or as few as possible.
fn fit(members: u32, publishers: u16, sockets: u64, open_files: u64, procs: Option<u32>) -> Result<u32, UsageError> {
    let room = open_files.saturating_sub(SPARE_DESCRIPTORS).max(1);
    let connections = (u64::from(members) + u64::from(publishers)) * sockets;
    // One more per process than an even share, because neither members nor publishers divide evenly.
    let needed = (1..).find(|procs| connections.div_ceil(u64::from(*procs)) + 2 * sockets <= room);
    let needed = needed.unwrap_or(u32::MAX);
    match procs {
        Some(procs) if procs < needed => Err(UsageError::Descriptors { members, procs, limit: open_files, needed }),
        Some(procs) => Ok(procs),
        None => Ok(needed),
    }
}

/// Without source addresses the kernel may use a port once per target; a bound address uses it once in all.
fn check_ports(members: u32, sockets: u32, targets: usize, sources: usize, ports: u32) -> Result<(), UsageError> {
    let ports = (ports.saturating_sub(SPARE_PORTS) / sockets).max(1);
    let ways = if sources > 0 { sources } else { targets };
    if u64::from(members) <= u64::from(ports) * ways as u64 {
        return Ok(());
    }
    let needed = members.div_ceil(ports);
    Err(UsageError::Ports { members, ports, needed, last: needed + 1 })
}

/// The size of the kernel's range of local ports; its default where it cannot be read.
fn local_ports() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u32>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) => last.saturating_sub(first) + 1,
        _ => 28_232,
    }
}

fn resolve(url: &str) -> Result<SocketAddr, UsageError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| UsageError::Url(url.to_owned()))?;
    let address = rest.trim_end_matches('/');
    if address.contains('/') || !address.contains(':') {
        return Err(UsageError::Url(url.to_owned()));
    }
    let mut addresses = address.to_socket_addrs().map_err(|_| UsageError::Resolve(address.to_owned()))?;
    addresses.next().ok_or_else(|| UsageError::Resolve(address.to_owned()))
}

fn parse_sources(text: &str) -> Result<Sources, String> {
    let mut sources = Vec::new();
    for piece in text.split(',').map(str::trim) {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        if let (Ok(first), Ok(last)) = (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
            let (first, last) = (u32::from(first), u32::from(last));
            if last < first || last - first >= SOURCES_MAX {
                return Err(format!("`{piece}` is no range of 1 to {SOURCES_MAX} addresses"));
            }
            sources.extend((first..=last).map(|address| IpAddr::V4(address.into())));
        } else {
            sources.push(piece.parse().map_err(|_| format!("`{piece}` is not an address"))?);
        }
    }
    Ok(Sources(sources))
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_texts<T: std::fmt::Display, S: serde::Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests;
