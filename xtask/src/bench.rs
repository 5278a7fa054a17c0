//! `cargo xtask bench`: Starling beside a floor program and socketioxide, alternating, in one run on this machine.
//!
//! The server has core 0 and the generator core 1. Absolute figures move with the machine: only ratios within one run are
//! compared, which is why the peers take turns in every round.
//!
//! Invariants: release builds; a run that calls itself invalid is marked, never dropped; docs/benchmarks.md
//! is written from what was measured and says how.

mod cluster;
mod contest;
mod others;
mod report;

use crate::run;
use anyhow::{Result, bail};
use clap::Args;
use contest::{PEERS, Peer, SCENARIOS};

/// Cores that others may use during a turn before it is taken again.
const OTHERS_MAX: f64 = 0.3;
/// How often a turn is taken at most; the quietest one counts, and its page says how quiet it was.
const TRIES: u32 = 3;

/// How long to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; each peer has one turn per scenario in each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only peers whose name contains this.
    #[arg(long, default_value = "")]
    peer: String,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    scenario: String,
    /// Print the result without writing docs/benchmarks.md.
    #[arg(long)]
    dry_run: bool,
    /// Measure three nodes instead; writes docs/benchmarks-cluster.md.
    #[arg(long)]
    cluster: bool,
}

/// Builds everything, runs the contest, prints and writes the result.
pub(crate) fn command(options: &Options) -> Result<bool> {
    if options.cluster {
        return cluster::command(options.rounds, options.dry_run);
    }
    if run::which(&["taskset"]).is_none() {
        bail!("`taskset` is needed to give server and generator a core each (Debian: util-linux)");
    }
    build()?;
    let peers: Vec<&'static Peer> = PEERS.iter().filter(|peer| peer.name.contains(&options.peer)).collect();
    let scenarios: Vec<_> = SCENARIOS.iter().filter(|one| one.name.contains(&options.scenario)).collect();
    if peers.is_empty() || scenarios.is_empty() || options.rounds == 0 {
        bail!("nothing to measure");
    }
    let mut turns = Vec::new();
    for round in 1..=options.rounds {
        for scenario in &scenarios {
            for peer in &peers {
                println!("--- round {round} of {}: {}, {}", options.rounds, scenario.name, peer.name);
                turns.push(quiet_turn(peer, scenario)?);
            }
        }
    }
    let page = report::page(&turns, options.rounds)?;
    println!("\n{page}");
    if !options.dry_run {
        std::fs::write(run::root().join("docs/benchmarks.md"), page)?;
        println!("written to docs/benchmarks.md");
    }
    Ok(true)
}

/// One turn; taken again, a few times, while somebody else uses the machine.
fn quiet_turn(peer: &'static Peer, scenario: &'static contest::Scenario) -> Result<contest::Turn> {
    let mut turn = contest::turn(peer, scenario)?;
    for _ in 1..TRIES {
        if turn.others_cores <= OTHERS_MAX {
            break;
        }
        println!("others used {:.2} cores meanwhile: once more", turn.others_cores);
        let again = contest::turn(peer, scenario)?;
        if again.others_cores < turn.others_cores {
            turn = again;
        }
    }
    Ok(turn)
}

/// Release builds of ours and of the peers, which are a workspace of their own.
fn build() -> Result<()> {
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "-p", "loadtest", "--bins"]))?;
    let mut peers = run::cargo(&["build", "--release", "--locked", "--manifest-path", "xtask/peers/Cargo.toml"]);
    run::check(peers.arg("--target-dir").arg(contest::peers_target()))
}
