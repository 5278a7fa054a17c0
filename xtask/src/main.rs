//! The one place for every command that a developer or CI runs on this repository: `cargo xtask COMMAND`.
//!
//! Invariants: a command that fails exits non-zero and says in its last lines what failed and what to do; nothing here is
//! needed to build or run the product.

mod any_node;
mod autobahn;
mod bench;
mod chaos;
mod clock;
mod counts;
mod docs;
mod fuzz;
mod idle;
mod image;
mod install;
mod kube;
mod model;
mod run;
mod server;
mod sim;
mod soak;
mod steps;
mod store;
mod tidy;
mod trials;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands of Starling.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, then run every check and test in order; the last line counts them.
    Test {
        /// Run only this step (repeatable), as named in the step headings.
        #[arg(long = "only", value_name = "STEP")]
        only: Vec<String>,
        /// Print the steps and stop.
        #[arg(long)]
        list: bool,
    },
    /// Check the house rules that a program can check.
    Tidy,
    /// Build the static binary and lay out what the Dockerfile copies.
    Image,
    /// Measure Starling beside a floor program and socketioxide in one run; writes docs/benchmarks.md.
    Bench(bench::Options),
    /// Three real processes, members and publishers on all of them: order, loss, repeats, a late join, an idle node.
    ClusterSoak(soak::Options),
    /// No sticky sessions: clients of every kind behind balancers that send their requests anywhere; nothing may be lost.
    AnyNode(any_node::Options),
    /// Real nodes that are killed, stopped, cut off and scaled in a burst of publishes, judged by what clients saw.
    Chaos(chaos::Options),
    /// Search everything that can happen to one slot, and find every mistake that is planted in its rules.
    Model(model::Options),
    /// Parts of the cluster in virtual time: larger and unluckier than real processes can be.
    Sim(sim::Options),
    /// Kill -9 in a burst of publishes, restart, compare: what was acked and is missing, what is said about it.
    KillStore(store::Kill),
    /// Bit flips, cuts, missing files, full and broken disks: the process lives, no wrong byte, it recovers by itself.
    DamageStore(store::Damage),
    /// Measure what an idle client costs the server in memory.
    Idle(idle::Options),
    /// The WebSocket cases of the Autobahn suite against the client port; the last line counts them.
    Autobahn(autobahn::Options),
    /// 200 clients join a room during 5,000 publishes a second: each sees history and then live, without gap or repeat.
    Joins(trials::Options),
    /// 1,000 members of a room stop reading: what it costs the server and the others.
    Stalled(trials::Options),
    /// Fuzz every decoder that reads bytes of others, one target after another; fails on a crash.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test { only, list } => steps::test(&only, list),
        Command::Tidy => tidy::command(),
        Command::Image => image::command(),
        Command::Bench(options) => bench::command(&options),
        Command::ClusterSoak(options) => soak::command(&options),
        Command::AnyNode(options) => any_node::command(&options),
        Command::Chaos(options) => chaos::command(&options),
        Command::Model(options) => model::command(&options),
        Command::Sim(options) => sim::command(&options),
        Command::KillStore(options) => store::kill(&options),
        Command::DamageStore(options) => store::damage(&options),
        Command::Idle(options) => idle::command(&options),
        Command::Autobahn(options) => autobahn::command(&options),
        Command::Joins(options) => trials::joins(&options),
        Command::Stalled(options) => trials::stalled(&options),
        Command::Fuzz(options) => fuzz::command(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
