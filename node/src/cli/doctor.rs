//! `starling doctor`: whether this machine can run the node that the configuration describes, and what to do where not.
//!
//! Invariants:
//! - Nothing is changed: ports are let go again, the store is opened as a copy, what is written for a try is removed.
//! - `fail` is what keeps a node from starting or from doing its work, `warn` what will hurt later; each says what to do.
//! - A running node is not disturbed, and what only it may hold (ports, the data directory) is then in order.

mod machine;
mod network;
mod storage;

use serde_json::json;

use super::{DoctorArgs, Exit, say, sources};
use crate::config::{self, Config, Problem};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warn,
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// What one look at something found.
#[derive(Clone, Debug)]
struct Finding {
    /// What was looked at, in one or two words.
    about: &'static str,
    state: State,
    found: String,
    /// What to do; empty where all is well.
    to_do: String,
}

impl Finding {
    fn ok(about: &'static str, found: impl Into<String>) -> Finding {
        Finding { about, state: State::Ok, found: found.into(), to_do: String::new() }
    }

    fn warn(about: &'static str, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding { about, state: State::Warn, found: found.into(), to_do: to_do.into() }
    }

    fn fail(about: &'static str, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding { about, state: State::Fail, found: found.into(), to_do: to_do.into() }
    }
}

pub(super) fn run(arguments: &DoctorArgs) -> Exit {
    let findings = examine(&arguments.serve);
    let fails = findings.iter().any(|finding| finding.state == State::Fail);
    if arguments.json {
        let rows: Vec<_> = findings.iter().map(to_json).collect();
        say(json!({ "good": !fails, "findings": rows }));
    } else {
        findings.iter().map(line).for_each(say);
    }
    if fails { Exit::Failed } else { Exit::Ok }
}

fn examine(arguments: &super::ServeArgs) -> Vec<Finding> {
    let (mut findings, config) = match config::load(&sources::gather(arguments)) {
        Ok(loaded) => (configuration(&loaded.warnings), Some(loaded.config)),
        Err(problems) => (configuration(&problems), None),
    };
    if let Some(config) = config {
        look_at(&config, &mut findings);
    }
    findings
}

fn configuration(problems: &[Problem]) -> Vec<Finding> {
    const ABOUT: &str = "configuration";
    if problems.is_empty() {
        return vec![Finding::ok(ABOUT, "it is good")];
    }
    let finding = |problem: &Problem| {
        let (found, to_do) = (Problem { hint: None, ..problem.clone() }.to_string(), problem.hint.clone());
        let to_do = to_do.unwrap_or_else(|| "correct it; starling config env lists every key".to_owned());
        if problem.code.is_warning() { Finding::warn(ABOUT, found, to_do) } else { Finding::fail(ABOUT, found, to_do) }
    };
    problems.iter().map(finding).collect()
}

fn look_at(config: &Config, findings: &mut Vec<Finding>) {
    let running = network::is_running(config);
    findings.extend(network::ports(config, running));
    findings.extend(network::certificate(config));
    findings.extend(network::seeds(config));
    findings.extend(storage::directory(config));
    findings.extend(machine::descriptors(config));
    findings.extend(machine::kernel(config));
    findings.push(machine::clock(config));
    findings.extend(machine::resources(config));
}

fn line(finding: &Finding) -> String {
    let Finding { about, state, found, to_do } = finding;
    let to_do = if to_do.is_empty() { String::new() } else { format!("\n      {:<15}  -> {to_do}", "") };
    // Names of files and hosts come from outside; a line break in one would forge a second finding.
    let found: String = found.chars().filter(|c| !c.is_control()).collect();
    format!("{:<4}  {about:<15}  {found}{to_do}", state.as_str())
}

fn to_json(finding: &Finding) -> serde_json::Value {
    let Finding { about, state, found, to_do } = finding;
    json!({ "about": about, "state": state.as_str(), "found": found, "to_do": to_do })
}
