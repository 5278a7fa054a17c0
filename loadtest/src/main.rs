//! `loadtest`: measures Socket.IO servers honestly.
//!
//! The schedule is an open loop, latency counts from the time a message *should* have left, every message is accounted
//! for at every member, and a run in which the generator itself was late says so instead of blaming the server.
//!
//! `args` what to do · `scenario`, `plan`, `expect` presets, load over time, goals · `coordinator` follows the plan ·
//! `worker` one process of connections · `trial` joins and stalled members · `client` one connection as a value · `marker`, `tracker` who sent what and who
//! saw what · `stats`, `step`, `report` figures · `server` what the servers used · `wire` coordinator and workers talk.

mod args;
mod client;
mod clock;
mod coordinator;
mod expect;
mod marker;
mod plan;
mod report;
mod scenario;
mod server;
mod stats;
mod step;
mod tracker;
mod trial;
mod wire;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use args::{Cli, Command, RunArgs, Settings};
use coordinator::{Run, RunError};
use report::{Document, Verdict};

/// Something that is no finding about a server: a worker died, a file could not be written.
const EXIT_FAILED: u8 = 1;
/// The command line cannot be followed.
const EXIT_USAGE: u8 = 2;
/// Nobody could connect.
const EXIT_NO_CONNECTION: u8 = 3;

/// A trial showed that a promise does not hold; the same as an expectation of `run` that failed.
const EXIT_BROKEN: u8 = 99;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Worker => worker::run().map(|()| 0),
        Command::Run(args) => run(*args),
        Command::Joins(args) => trial::joins(&args).map(verdict),
        Command::Stalled(args) => trial::stalled(&args).map(verdict),
    };
    ExitCode::from(outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        EXIT_FAILED
    }))
}

/// The exit code of a promise that held, or did not.
fn verdict(held: bool) -> u8 {
    if held { 0 } else { EXIT_BROKEN }
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    // Workers inherit the limit.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).context("limit of open files")?;
    let settings = match args.check(open_files) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let outcome = runtime.block_on(measure(&settings));
    let run = match outcome {
        Ok(run) => run,
        Err(Failure::Run(error @ RunError::NoConnection(_))) => {
            eprintln!("error: {error}");
            return Ok(EXIT_NO_CONNECTION);
        }
        Err(Failure::Run(error @ RunError::Server(_))) => {
            eprintln!("error: {error}");
            return Ok(EXIT_USAGE);
        }
        Err(Failure::Run(error @ RunError::Fleet(_))) => return Err(error.into()),
        Err(Failure::Signal(error)) => return Err(error).context("signals"),
    };
    let verdict = Verdict::of(&run);
    publish(&settings, &run, verdict)?;
    Ok(verdict.code())
}

enum Failure {
    Run(RunError),
    Signal(std::io::Error),
}

/// Runs until done or until SIGINT or SIGTERM ask for the report of what there is.
async fn measure(settings: &Settings) -> Result<Run, Failure> {
    let mut int = signal(SignalKind::interrupt()).map_err(Failure::Signal)?;
    let mut term = signal(SignalKind::terminate()).map_err(Failure::Signal)?;
    let interrupt = CancellationToken::new();
    let tasks = TaskTracker::new();
    let asked = interrupt.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        asked.cancel();
    });
    eprintln!("{}", report::heading(settings));
    let preset = settings.preset;
    let on_step = |step: &step::Step| eprintln!("{}", report::step_line(preset, step));
    coordinator::run(settings, interrupt, &tasks, on_step).await.map_err(Failure::Run)
}

/// Text to stdout and JSON to its file, or JSON to stdout and text to stderr.
fn publish(settings: &Settings, run: &Run, verdict: Verdict) -> anyhow::Result<()> {
    let text = report::report(settings, run, verdict);
    let Some(path) = &settings.json else {
        return write_all(&mut std::io::stdout(), &text);
    };
    let json = serde_json::to_string_pretty(&Document::new(settings, run, verdict))? + "\n";
    if path == Path::new("-") {
        write_all(&mut std::io::stderr(), &text)?;
        return write_all(&mut std::io::stdout(), &json);
    }
    // The text first: a full disk must not cost both.
    write_all(&mut std::io::stdout(), &text)?;
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

fn write_all(out: &mut impl std::io::Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the report")
}
