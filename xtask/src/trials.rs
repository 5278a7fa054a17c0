//! `cargo xtask joins` and `cargo xtask stalled`: two promises that no steady load shows, several rounds each.
//!
//! `loadtest` tries them (its presets of the same names); this file builds, gives server and generator a core each, and
//! prints each figure with its spread, the machine, the commit and the command.
//!
//! Invariants: release builds; a fresh server for every round; the last line counts rounds in which the promise held.

use crate::run;
use crate::server::Server;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

const SERVER_CORE: &str = "0";
const GENERATOR_CORE: &str = "1";

/// What is shown of the report of `loadtest joins`: what it is, and where it stands.
const JOINS: [(&str, &str); 5] = [
    ("clients that saw everything", "/whole"),
    ("messages a second", "/acked_per_second"),
    ("join p50 ms", "/join/p50_ms"),
    ("join p99 ms", "/join/p99_ms"),
    ("join max ms", "/join/max_ms"),
];
/// The same of `loadtest stalled`.
const STALLED: [(&str, &str); 7] = [
    ("stalled members not cut off", "/kept"),
    ("MiB before", "/before_mib"),
    ("MiB at most", "/peak_mib"),
    ("others p50 ms, all reading", "/reading/p50_ms"),
    ("others p50 ms, members stalled", "/stalled/p50_ms"),
    ("others p99 ms, all reading", "/reading/p99_ms"),
    ("others p99 ms, members stalled", "/stalled/p99_ms"),
];

/// How often, and what the trial itself is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Rounds, each with a fresh server.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Bytes that may wait for one connection (`limits.queue_bytes`), however long; the defaults of the server otherwise.
    #[arg(long, value_name = "SIZE")]
    queue_bytes: Option<String>,
    /// Options of `loadtest joins` or `loadtest stalled`, behind `--`.
    #[arg(last = true)]
    load: Vec<String>,
}

/// Runs `loadtest joins`; true when every round held.
pub(crate) fn joins(options: &Options) -> Result<bool> {
    command("joins", &JOINS, options)
}

/// Runs `loadtest stalled`; true when every round held.
pub(crate) fn stalled(options: &Options) -> Result<bool> {
    command("stalled", &STALLED, options)
}

fn command(trial: &str, figures: &[(&str, &str)], options: &Options) -> Result<bool> {
    if run::which(&["taskset"]).is_none() {
        bail!("`taskset` is needed to give server and generator a core each (Debian: util-linux)");
    }
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "-p", "loadtest", "--bins"]))?;
    let (mut reports, mut held) = (Vec::new(), 0);
    for _ in 0..options.rounds {
        let (report, holds) = round(trial, options)?;
        reports.push(report);
        held += u32::from(holds);
    }
    for (name, place) in figures {
        println!("{name:<31} {}", spread(&reports, place));
    }
    println!("at commit {}, {}", run::commit()?, run::machine()?);
    let queue = options.queue_bytes.iter().map(|bytes| format!(" --queue-bytes {bytes}")).collect::<String>();
    let load = if options.load.is_empty() { String::new() } else { format!(" -- {}", options.load.join(" ")) };
    println!("cargo xtask {trial} --rounds {}{queue}{load}", options.rounds);
    println!("{held} passed, {} failed", options.rounds - held);
    Ok(held == options.rounds)
}

/// One round: the report, and whether the promise held.
fn round(trial: &str, options: &Options) -> Result<(Value, bool)> {
    let data = run::target().join("trial");
    let patient = |bytes: &String| {
        vec![
            ("STARLING_LIMITS__QUEUE_BYTES", bytes.clone()),
            ("STARLING_LIMITS__LAG_TIMEOUT", "10m".to_owned()),
            ("STARLING_SOCKETIO__PING_TIMEOUT", "2m".to_owned()),
        ]
    };
    let settings = options.queue_bytes.as_ref().map_or_else(Vec::new, patient);
    let server = Server::starling(SERVER_CORE, settings, &data)?;
    let mut load = run::command("taskset");
    load.args(["-c", GENERATOR_CORE]).arg(run::target().join("release/loadtest")).arg(trial);
    load.args(["--target", &server.address()]).args(&options.load);
    if trial == "stalled" {
        load.args(["--server-pid", &server.pid()]);
    }
    let ended = run::tee(&mut load)?;
    let report =
        ended.output.lines().rev().find(|line| line.starts_with('{')).context("the trial came to no result")?;
    Ok((serde_json::from_str(report).context("cannot read the trial's report")?, ended.success))
}

/// The middle value of a figure, and between what it lies.
fn spread(reports: &[Value], place: &str) -> String {
    let mut values: Vec<f64> = reports.iter().filter_map(|report| report.pointer(place)?.as_f64()).collect();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(middle), Some(most)) => format!("{middle:>10.2}  ({least:.2} to {most:.2})"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_with_its_spread() {
        let reports: Vec<Value> = ["3", "1", "2.5"]
            .map(|value| serde_json::from_str(&format!(r#"{{"join":{{"p50_ms":{value}}}}}"#)).unwrap())
            .into();
        assert_eq!(spread(&reports, "/join/p50_ms").trim(), "2.50  (1.00 to 3.00)");
        assert_eq!(spread(&reports, "/nothing"), "?");
    }
}
