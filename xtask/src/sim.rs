//! `cargo xtask sim`: parts of the cluster in virtual time, far larger and far unluckier than real processes can be.
//!
//! The simulators live beside the values they drive, as tests that are ignored otherwise, and take their arguments from the
//! environment; this file builds them, passes the arguments and says what ran where.
//!
//! Invariants: release builds; equal arguments give equal results, and whatever is broken is printed with the command that
//! shows it again.

mod bugs;
mod slot;

use crate::run;
use anyhow::Result;
use clap::{Args, Subcommand};

/// What is simulated.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Slots with two copies and a witness, under faults: order, loss, repeats, what is told, and how long it takes.
    Slot(slot::Options),
    /// Who is in the cluster: loss, cuts, pauses, crashes and restarts; nobody is wronged, everyone agrees in the end.
    Members(Members),
    /// Who wants which room: a million rooms on a hundred nodes, what interest costs and how it heals.
    Interest(Interest),
}

/// Which stories, and how many.
#[derive(Args)]
struct Members {
    /// Only this story: loss-10, loss-20, loss-30, chaos, blink, starved, islands.
    #[arg(long, default_value = "")]
    story: String,
    /// Nodes of the cluster; small ones in turn without it. With `--figures` the largest cluster (300).
    #[arg(long)]
    nodes: Option<u16>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// So many seeds, one after the other.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Print the tables of docs/scaling.md instead: 3 to 300 nodes.
    #[arg(long, conflicts_with_all = ["story", "bugs"])]
    figures: bool,
    /// Plant the mistakes of mesh/bugs one at a time in a copy of the tree; each must break a story.
    #[arg(long, conflicts_with = "story")]
    bugs: bool,
}

/// How large.
#[derive(Args)]
struct Interest {
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 100)]
    nodes: u16,
    /// Rooms.
    #[arg(long, default_value_t = 1_000_000)]
    rooms: u32,
}

/// Runs the simulation; true when nothing was broken.
pub(crate) fn command(options: &Options) -> Result<bool> {
    println!("at commit {}, {}", run::commit()?, run::machine()?);
    match &options.kind {
        Kind::Slot(slot) => slot::command(slot),
        Kind::Members(members) if members.bugs => bugs::command(members.seeds),
        Kind::Members(members) => {
            let mut arguments =
                vec![("SIM_FIRST", members.first.to_string()), ("SIM_SEEDS", members.seeds.to_string())];
            arguments.extend(members.nodes.map(|nodes| ("SIM_NODES", nodes.to_string())));
            if members.figures {
                let mut held = true;
                for table in [
                    "membership::tests::figures::figures",
                    "membership::tests::figures::losses",
                    "ring::tests::figures",
                ] {
                    held &= simulate("--lib", table, &arguments)?;
                }
                return Ok(held);
            }
            arguments.push(("SIM_STORY", members.story.clone()));
            simulate("--lib", "membership::tests::command::stories", &arguments)
        }
        Kind::Interest(interest) => {
            let arguments = [("SIM_NODES", interest.nodes.to_string()), ("SIM_ROOMS", interest.rooms.to_string())];
            simulate("--test=sim_interest", "figures", &arguments)
        }
    }
}

/// One ignored test of `mesh`, with these arguments; whether it passed.
fn simulate(target: &str, test: &str, arguments: &[(&str, String)]) -> Result<bool> {
    let mut cargo = run::cargo(&["test", "--release", "--locked", "-p", "mesh", target, "--"]);
    cargo.args(["--ignored", "--exact", "--nocapture", test]);
    cargo.envs(arguments.iter().map(|(name, value)| (name, value)));
    Ok(run::tee(&mut cargo)?.success)
}
