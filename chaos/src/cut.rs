//! `chaos cut` and `chaos loss`: faults of the network between nodes, silent as real ones.
//!
//! Invariants: clients keep their connections; in a cut the smaller side publishes to one half of the rooms only, so that
//! rooms which only the larger side wrote to must keep their epoch, and the others must get a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::network::Network;
use crate::round::{Fault, Options, Test};

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct CutArgs {
    /// Cuts; each node is the smaller side in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a cut in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    options: Options,
}

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct LossArgs {
    /// Packets lost of a hundred.
    #[arg(long, default_value_t = 20)]
    percent: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    #[command(flatten)]
    options: Options,
}

/// Cuts one node off from two; true when every round was clean.
pub(crate) async fn run(args: CutArgs) -> Result<bool> {
    let network = Network::create(3)?;
    let (mut test, _) = Test::start(args.options, 3, 3, Some(network)).await?;
    for turn in 0..args.rounds {
        let alone = turn % 3;
        let halves: BTreeMap<String, bool> =
            test.rooms.iter().enumerate().map(|(number, room)| (room.clone(), number % 2 == 0)).collect();
        let round = test.begin(|node, room| node != alone || halves.get(room).copied().unwrap_or(false)).await?;
        sleep(Duration::from_secs(1)).await;
        test.whole().await?;
        let at = clock::now_ns();
        round.stage.mark(&format!("cut off {}", test.cluster.name(alone)));
        network_of(&test)?.cut(alone)?;
        sleep(Duration::from_secs(args.seconds)).await;
        network_of(&test)?.heal()?;
        round.stage.mark("the network is whole");
        let what = format!("{} cut off for {} s", test.cluster.name(alone), args.seconds);
        let split: BTreeSet<String> = halves.into_iter().filter(|(_, both)| *both).map(|(room, _)| room).collect();
        let affected = test.rooms.iter().cloned().collect();
        test.end(round, Fault { what, at, affected, split, apart: Some(alone) }).await?;
    }
    test.finish().await
}

/// Loses packets for a while; true when nobody was given up and the round was clean.
pub(crate) async fn loss(args: LossArgs) -> Result<bool> {
    let network = Network::create(3)?;
    let (mut test, _) = Test::start(args.options, 3, 3, Some(network)).await?;
    let round = test.begin(|_, _| true).await?;
    let at = clock::now_ns();
    round.stage.mark(&format!("{} % loss", args.percent));
    network_of(&test)?.lose(args.percent)?;
    let (begin, mut deaths) = (Instant::now(), BTreeSet::new());
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        sleep(Duration::from_millis(500)).await;
        for index in test.cluster.running() {
            if let Some(report) = test.cluster.report(index).await {
                let down = report.down().into_iter().map(|node| format!("{} gave up {node}", test.cluster.name(index)));
                deaths.extend(down);
            }
        }
    }
    network_of(&test)?.heal()?;
    round.stage.mark("the network is whole");
    let what = format!("{} % of packets lost for {} s", args.percent, args.seconds);
    let affected = test.rooms.iter().cloned().collect();
    test.end(round, Fault { what, at, affected, ..Fault::default() }).await?;
    test.demand(&format!("nobody was given up: {deaths:?}"), deaths.is_empty());
    test.finish().await
}

fn network_of(test: &Test) -> Result<&Network> {
    test.cluster.network().context("the nodes are in no network of their own")
}
