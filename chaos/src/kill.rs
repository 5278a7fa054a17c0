//! `chaos kill`: kill -9 in a burst of acked publishes.
//!
//! Invariant: owner, replica and witness of a room chosen by chance are the victims in turn; the room's slot has had time to
//! be whole again before the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::sleep;

use crate::clock;
use crate::cluster::Triple;
use crate::round::{Fault, Options, Test};

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct KillArgs {
    /// Rounds of a burst, a kill and a restart.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    #[command(flatten)]
    options: Options,
}

/// The parts a victim can have, in the order of their turns.
const PARTS: [&str; 3] = ["owner", "replica", "witness"];

/// Kills so many times; true when every round was clean.
pub(crate) async fn run(args: KillArgs) -> Result<bool> {
    let (mut test, formed) = Test::start(args.options, 3, 3, None).await?;
    println!("three nodes formed a cluster in {:.1} s", formed.as_secs_f64());
    for turn in 0..args.rounds {
        let round = test.begin(|_, _| true).await?;
        let triples = test.triples().await?;
        let part = PARTS[turn as usize % PARTS.len()];
        let (victim, what) = choose(&mut test, &triples, part)?;
        sleep(Duration::from_millis(test.dice.between(200, 2000))).await;
        // What is promised is the loss of one node of a whole cluster.
        test.whole().await?;
        let at = clock::now_ns();
        round.stage.mark(&format!("kill -9 {what}"));
        test.cluster.kill(victim).await?;
        let dead = test.dice.between(2000, 4000);
        sleep(Duration::from_millis(dead)).await;
        test.cluster.start(victim)?;
        let what = format!("killed {what}, dead for {dead} ms");
        let fault = Fault { what, at, affected: touched(&triples, victim), ..Fault::default() };
        test.end(round, fault).await?;
    }
    test.finish().await
}

/// A node that has this part in a room chosen by chance, and what to call it.
pub(crate) fn choose(test: &mut Test, triples: &BTreeMap<String, Triple>, part: &str) -> Result<(usize, String)> {
    let room = test.dice.pick(&test.rooms).cloned().context("there are no rooms")?;
    let Triple { owner, replica, witness } = triples[&room];
    let victim = match part {
        "owner" => owner,
        "replica" => replica,
        _ => witness,
    };
    let victim = victim.with_context(|| format!("{room} has no {part}"))?;
    Ok((victim, format!("{} ({part} of {room})", test.cluster.name(victim))))
}

/// Rooms whose messages a node orders or keeps.
pub(crate) fn touched(triples: &BTreeMap<String, Triple>, node: usize) -> BTreeSet<String> {
    let has = |triple: &Triple| [triple.owner, triple.replica].contains(&Some(node));
    triples.iter().filter(|(_, triple)| has(triple)).map(|(room, _)| room.clone()).collect()
}
