//! The report for people: all parameters first, the verdict last.

use std::fmt::Write as _;

use super::{Verdict, count, machine, milliseconds};
use crate::args::{Preset, Settings};
use crate::coordinator::Run;
use crate::scenario::multiple_of_talk;
use crate::stats::Summary;
use crate::step::Step;
use crate::wire::Pace;

/// The first line: what is run, and where.
pub(crate) fn heading(settings: &Settings) -> String {
    let pace = match settings.pace {
        Pace::Open { per_second } => format!("{per_second} msg/s open loop"),
        Pace::Closed { outstanding } => {
            format!("{outstanding} outstanding per publisher until answered and at every member of its process")
        }
    };
    let preset = match settings.preset {
        Preset::Baseline => "baseline",
        Preset::Broadcast => "broadcast",
    };
    let targets: Vec<_> = settings.targets.iter().map(ToString::to_string).collect();
    let machine = machine();
    let build = if cfg!(debug_assertions) { " (debug build: figures are not representative)" } else { "" };
    format!(
        "loadtest {}{build} {preset}  targets {}  rooms {}  publishers {}  {pace}  payload {} B  plan {}  \
         transport {:?}  dialect {}  history {}  procs {}  |  {} cores, {} GiB, Linux {}",
        env!("CARGO_PKG_VERSION"),
        targets.join(","),
        settings.rooms,
        settings.publishers,
        settings.payload,
        settings.plan,
        settings.transport,
        settings.dialect,
        settings.history,
        settings.procs,
        machine.cores,
        machine.memory_bytes >> 30,
        machine.kernel,
    )
}

/// One line about a step, as soon as it is over.
pub(crate) fn step_line(preset: Preset, step: &Step) -> String {
    let multiple = match preset {
        Preset::Broadcast => String::new(),
        Preset::Baseline => {
            let (against_most, against_least) = multiple_of_talk(step.members);
            format!(" = {against_most:.1}-{against_least:.1}x the talk's 2,500-3,500")
        }
    };
    let server = step.server.map_or_else(String::new, |server| {
        format!(
            "  {:.2} CPU-s/M  {:.2} cores  {} B/connection",
            server.cpu_seconds_per_million,
            server.cores,
            count(server.rss_bytes_per_connection)
        )
    });
    let latency = match step.latency.deliver.count {
        0 => String::new(),
        _ => format!(
            "  p50 {} p99 {} max {} ms",
            milliseconds(step.latency.deliver.p50_ms),
            milliseconds(step.latency.deliver.p99_ms),
            milliseconds(step.latency.deliver.max_ms)
        ),
    };
    format!(
        "{:<6} {} members{multiple}  {}/s delivered{latency}  lost {} duplicated {} reordered {}{server}",
        if step.passes() { "ok" } else { "FAILED" },
        count(f64::from(step.members)),
        count(step.deliveries_per_second),
        step.lost,
        step.duplicated,
        step.reordered,
    )
}

/// The whole report.
pub(crate) fn report(settings: &Settings, run: &Run, verdict: Verdict) -> String {
    let mut out = String::new();
    for step in &run.steps {
        // Writing to a string cannot fail.
        let _ = write_step(&mut out, settings, step);
    }
    if settings.preset == Preset::Baseline {
        run.steps.iter().for_each(|step| {
            let _ = writeln!(out, "{}", step_line(settings.preset, step));
        });
    }
    let _ = writeln!(out, "{}", verdict_line(run, verdict));
    out
}

fn write_step(out: &mut String, settings: &Settings, step: &Step) -> std::fmt::Result {
    writeln!(out, "\n{} members, {:.1} s", count(f64::from(step.members)), step.seconds)?;
    writeln!(
        out,
        "  messages    sent {}  accepted {}  refused {}  unanswered {}{}",
        count(step.sent as f64),
        count(step.accepted as f64),
        step.refused,
        step.unanswered,
        if step.refusals.is_empty() { String::new() } else { format!("  {:?}", step.refusals) },
    )?;
    writeln!(
        out,
        "  deliveries  {}  ({}/s)  lost {}  duplicated {}  reordered {}  foreign {}  disconnects {}",
        count(step.delivered as f64),
        count(step.deliveries_per_second),
        step.lost,
        step.duplicated,
        step.reordered,
        step.foreign,
        step.disconnects,
    )?;
    let order = match step.orders {
        0 => "nothing was received".to_owned(),
        1 => "one identical order at every member".to_owned(),
        different => format!("{different} DIFFERENT ORDERS in one room"),
    };
    writeln!(out, "  order       {order}  offsets back {}  epochs changed {}", step.offsets_back, step.epochs_changed)?;
    write_latency(out, "deliver", &step.latency.deliver)?;
    if settings.targets.len() > 1 {
        write_latency(out, "local", &step.latency.local)?;
        write_latency(out, "cross-node", &step.latency.remote)?;
    }
    write_latency(out, "last member", &step.latency.last)?;
    write_latency(out, "publish", &step.latency.publish)?;
    write_latency(out, "connect", &step.latency.connect)?;
    write_latency(out, "join", &step.latency.join)?;
    let history = step.history.map_or_else(String::new, |(fewest, most)| format!("  history items {fewest}-{most}"));
    if step.retries + step.joins_resent > 0 || step.history.is_some() {
        let failures = &step.connect_failures;
        let reasons = if failures.is_empty() { String::new() } else { format!(" {failures:?}") };
        writeln!(out, "  arrival     retries {}{reasons}  joins resent {}{history}", step.retries, step.joins_resent)?;
    }
    if let Some(server) = step.server {
        writeln!(
            out,
            "  server      {:.2} CPU s = {:.2} cores  {:.2} CPU s per million deliveries  RSS {:.1} MiB  {} B per connection  {} threads",
            server.cpu_seconds,
            server.cores,
            server.cpu_seconds_per_million,
            server.rss_bytes as f64 / f64::from(1 << 20),
            count(server.rss_bytes_per_connection),
            server.threads,
        )?;
    }
    let cores: Vec<_> = step.generator.cores.iter().map(|cores| format!("{cores:.2}")).collect();
    write!(out, "  generator   {} cores  slip p99 {} ms", cores.join(" + "), milliseconds(step.generator.slip.p99_ms))?;
    writeln!(out, "{}", if step.stalls > 0 { format!("  stalls {}", step.stalls) } else { String::new() })?;
    write_checks(out, step)
}

fn write_checks(out: &mut String, step: &Step) -> std::fmt::Result {
    write!(out, "  expected   ")?;
    for check in &step.checks {
        let value = check.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.3}"));
        let value = if check.passed { String::new() } else { format!(" ({value})") };
        write!(out, " {} {}{value} ", check.expectation, if check.passed { "ok" } else { "FAILED" })?;
    }
    writeln!(out)
}

fn write_latency(out: &mut String, name: &str, summary: &Summary) -> std::fmt::Result {
    if summary.count == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "  {name:<11} p50 {}  p90 {}  p99 {}  p99.9 {}  max {} ms",
        milliseconds(summary.p50_ms),
        milliseconds(summary.p90_ms),
        milliseconds(summary.p99_ms),
        milliseconds(summary.p999_ms),
        milliseconds(summary.max_ms),
    )
}

fn verdict_line(run: &Run, verdict: Verdict) -> String {
    let failed = run.steps.iter().flat_map(|step| {
        let failed = step.checks.iter().filter(|check| !check.passed);
        failed.map(|check| format!("{} at {} members", check.expectation, count(f64::from(step.members))))
    });
    let reasons = run.steps.iter().flat_map(|step| step.generator.invalid.iter().cloned());
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("; ");
    match verdict {
        Verdict::Pass => {
            let most = run.steps.iter().map(|step| step.members).max().unwrap_or(0);
            format!("PASS: everything expected held, up to {} members", count(f64::from(most)))
        }
        Verdict::Fail => format!("FAIL: {}", list(&mut failed.into_iter())),
        Verdict::Invalid => {
            format!("INVALID: {}; the figures are a lower bound of the server", list(&mut reasons.into_iter()))
        }
        Verdict::Interrupted => format!("INTERRUPTED after {} of the planned measurements", run.steps.len()),
    }
}
