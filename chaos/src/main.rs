//! `chaos`: real nodes that are really killed, stopped, cut off and scaled, judged by what clients saw.
//!
//! How to read it: `record` (what is evidence) → `check` (what is promised) → `round` (burst, fault, healing, judgement) →
//! `kill`, `stop`, `cut`, `scale` (the faults). `fleet` starts the clients: `publisher`, `subscriber`, `official`;
//! `cluster` and `network` hold the nodes. `cargo xtask chaos` builds everything and starts this.
//!
//! Invariants: exit code 0 when every promise held, 1 when one did not or nothing could be shown, 77 when a fault cannot be
//! made on this machine; servers' logs are no evidence.

mod auditor;
mod check;
mod clock;
mod cluster;
mod cut;
mod dice;
mod fleet;
mod kill;
mod network;
mod official;
mod packet;
mod pause;
mod publisher;
mod record;
mod round;
mod scale;
mod stage;
mod stop;
mod subscriber;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use round::Skipped;

/// What test runners take for "skipped".
const EXIT_SKIPPED: u8 = 77;

/// Faults on real processes.
#[derive(Parser)]
#[command(name = "chaos")]
enum Command {
    /// Three nodes find each other, then five; and one order for all.
    Form(scale::FormArgs),
    /// kill -9 of an owner, a replica or a witness in a burst of acked publishes.
    Kill(kill::KillArgs),
    /// A node stands still for seconds and goes on.
    Stop(stop::StopArgs),
    /// One node is cut off from two, silently, and comes back. Needs root.
    Cut(cut::CutArgs),
    /// Packets between nodes are lost. Needs root.
    Loss(cut::LossArgs),
    /// Three nodes become five and then two, under load.
    Scale(scale::ScaleArgs),
}

fn main() -> ExitCode {
    match prepare(Command::parse()).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Skipped>() => {
            println!("SKIPPED: {error}; nothing was shown");
            ExitCode::from(EXIT_SKIPPED)
        }
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Enters name spaces of its own where the fault needs them: this program begins again inside.
fn prepare(command: Command) -> anyhow::Result<Command> {
    if matches!(command, Command::Cut(_) | Command::Loss(_)) {
        if let Some(why) = network::lacking() {
            return Err(Skipped(why).into());
        }
        network::enter()?;
    }
    Ok(command)
}

fn run(command: Command) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Form(args) => scale::form(args).await,
            Command::Kill(args) => kill::run(args).await,
            Command::Stop(args) => stop::run(args).await,
            Command::Cut(args) => cut::run(args).await,
            Command::Loss(args) => cut::loss(args).await,
            Command::Scale(args) => scale::run(args).await,
        }
    })
}
