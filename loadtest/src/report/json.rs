//! Everything about a run as one JSON document.

use serde::Serialize;

use super::Verdict;
use crate::args::Settings;
use crate::coordinator::Run;
use crate::server::Metrics;
use crate::step::Step;

/// The document. Fields are added, never renamed.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    tool: Tool,
    machine: Machine,
    parameters: &'a Settings,
    verdict: Verdict,
    exit_code: u8,
    steps: &'a [Step],
    /// Counters of the servers' `/metrics` by their rise, gauges by their last value.
    server_metrics: &'a Metrics,
}

#[derive(Debug, Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
    build: &'static str,
}

/// Where a run ran: absolute figures mean nothing without it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) processor: String,
}

impl<'a> Document<'a> {
    /// The document of `run`.
    pub(crate) fn new(settings: &'a Settings, run: &'a Run, verdict: Verdict) -> Document<'a> {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Document {
            tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), build },
            machine: machine(),
            parameters: settings,
            verdict,
            exit_code: verdict.code(),
            steps: &run.steps,
            server_metrics: &run.metrics,
        }
    }
}

/// This machine, as far as it tells.
pub(crate) fn machine() -> Machine {
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let kilobytes = memory.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kilobytes.unwrap_or(0) * 1024,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        processor: field("/proc/cpuinfo", "model name"),
    }
}
