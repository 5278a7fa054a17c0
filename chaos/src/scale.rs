//! `chaos form` and `chaos scale`: nodes that find each other, come and go as they should.
//!
//! Invariant: a node leaves by SIGTERM and ends with 0; nothing may be lost and no epoch may change for it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::time::sleep;

use crate::clock;
use crate::round::{Fault, Options, Test};

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct FormArgs {
    /// The longest time in which three nodes may find each other, in milliseconds.
    #[arg(long, default_value_t = 3000)]
    three_max: u64,
    /// The same for five that are started at once.
    #[arg(long, default_value_t = 5000)]
    five_max: u64,
    #[command(flatten)]
    options: Options,
}

/// What to try.
#[derive(Clone, Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    options: Options,
}

/// Nodes find each other, and three publishers at once are seen in one order; true when all held.
pub(crate) async fn form(args: FormArgs) -> Result<bool> {
    let mut held = true;
    for (nodes, max) in [(3, args.three_max), (5, args.five_max)] {
        let (mut test, formed) =
            Test::start(args.options.clone().within(&format!("{nodes}")), nodes, nodes, None).await?;
        let formed = formed.as_millis();
        test.demand(&format!("{nodes} nodes found each other in {formed} ms, at most {max}"), formed <= max.into());
        let round = test.begin(|_, _| true).await?;
        let at = clock::now_ns();
        sleep(Duration::from_secs(2)).await;
        test.end(round, Fault { what: "no fault".to_owned(), at, ..Fault::default() }).await?;
        held &= test.finish().await?;
    }
    Ok(held)
}

/// 3 → 5 → 2; true when the round was clean.
pub(crate) async fn run(args: ScaleArgs) -> Result<bool> {
    let (mut test, _) = Test::start(args.options, 3, 5, None).await?;
    let round = test.begin(|_, _| true).await?;
    let at = clock::now_ns();
    for more in [3, 4] {
        round.stage.mark(&format!("start gw-{more}"));
        test.cluster.start(more)?;
    }
    let grown = test.cluster.healed(Duration::from_secs(60)).await.context("five nodes do not become whole")?;
    println!("3 → 5 took {:.1} s", grown.as_secs_f64());
    round.stage.set_doors(test.cluster.doors());
    sleep(Duration::from_secs(2)).await;
    for less in [4, 3, 2] {
        round.stage.mark(&format!("SIGTERM gw-{less}"));
        let status = test.cluster.stop(less).await?;
        if !status.success() {
            bail!("gw-{less} ended with {status} on SIGTERM");
        }
        round.stage.set_doors(test.cluster.doors());
        test.cluster.healed(Duration::from_secs(60)).await?;
        sleep(Duration::from_secs(1)).await;
    }
    let affected = test.rooms.iter().cloned().collect();
    test.end(round, Fault { what: "3 nodes, 5, 2".to_owned(), at, affected, ..Fault::default() }).await?;
    test.finish().await
}
