//! `chaos stop`: SIGSTOP, some seconds, SIGCONT.
//!
//! Invariant: nothing that the woken node still has from before may reach a client as if it were valid: the judgement is the
//! same as for a kill.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::clock;
use crate::kill::{choose, touched};
use crate::round::{Fault, Options, Test};

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct StopArgs {
    /// Rounds of a burst and a stop.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// How long a node stands still, in turn, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 2_500, 5_000, 9_000, 15_000])]
    lengths: Vec<u64>,
    #[command(flatten)]
    options: Options,
}

/// Stops so many times; true when every round was clean.
pub(crate) async fn run(args: StopArgs) -> Result<bool> {
    let (mut test, _) = Test::start(args.options, 3, 3, None).await?;
    for turn in 0..args.rounds {
        let round = test.begin(|_, _| true).await?;
        let triples = test.triples().await?;
        let part = ["owner", "replica", "witness"][turn as usize % 3];
        let (victim, what) = choose(&mut test, &triples, part)?;
        let length = args.lengths.get(turn as usize % args.lengths.len().max(1)).copied().unwrap_or(1_000);
        sleep(Duration::from_millis(test.dice.between(200, 2000))).await;
        test.whole().await?;
        let at = clock::now_ns();
        round.stage.mark(&format!("SIGSTOP {what}"));
        test.cluster.signal(victim, Signal::STOP)?;
        sleep(Duration::from_millis(length)).await;
        round.stage.mark("SIGCONT");
        test.cluster.signal(victim, Signal::CONT)?;
        // It has to notice first that it was away.
        sleep(Duration::from_secs(1)).await;
        let what = format!("stopped {what} for {length} ms");
        let fault = Fault { what, at, affected: touched(&triples, victim), ..Fault::default() };
        test.end(round, fault).await?;
    }
    test.finish().await
}
