//! One round: a burst, a fault, healing, quiet, and the judgement.
//!
//! Invariants: a round begins and ends with every node well and every member in its rooms; the same rooms go through all
//! rounds, and what was acked in one is owed by every later one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::time::{Instant, sleep, timeout};

use crate::check::{Anomaly, Counts, Promise, Verdict, check};
use crate::cluster::{Cluster, Triple};
use crate::dice::Dice;
use crate::fleet::Load;
use crate::network::Network;
use crate::official::Official;
use crate::pause::{self, Pauses};
use crate::record::{Entry, Recorder, What};
use crate::stage::{Phase, Stage};
use crate::{auditor, clock};

/// How long nodes may take to be well, at the start and after a fault.
const HEAL_PATIENCE: Duration = Duration::from_secs(60);
/// How long everything that was begun may take to end after that.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
/// How long the burst goes on after the healing.
const AFTER: Duration = Duration::from_millis(1500);
/// How long nothing more may come before histories are read.
const QUIET: Duration = Duration::from_millis(500);
/// Findings that are printed of one round.
const SHOWN: usize = 12;

/// What to try it on.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The `starling` binary under test.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// Where nodes keep data and logs, and where what clients saw is written.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Seed of all chance; printed, so that a run can be repeated.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest pause of an affected room, but for one in a hundred, in milliseconds.
    #[arg(long, default_value_t = 3000)]
    pause_max: u64,
    /// Show nothing, loudly, where nodes keep fewer copies of a message than this.
    #[arg(long, default_value_t = 0)]
    copies: u8,
    #[command(flatten)]
    load: Load,
}

impl Options {
    /// The same, in a folder inside.
    pub(crate) fn within(mut self, folder: &str) -> Options {
        self.dir = self.dir.join(folder);
        self
    }
}

/// Why nothing can be shown here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skipped(pub(crate) String);

/// A test of several rounds on one cluster.
pub(crate) struct Test {
    pub(crate) cluster: Cluster,
    pub(crate) dice: Dice,
    pub(crate) rooms: Vec<String>,
    options: Options,
    recorder: Rc<Recorder>,
    earlier: HashSet<(String, String)>,
    rounds: u32,
    clean: u32,
    counts: Counts,
    anomalies: BTreeMap<Anomaly, usize>,
    pauses: Pauses,
    /// Times that living nodes were given up until now.
    given_up: usize,
}

/// What a fault was.
#[derive(Default)]
pub(crate) struct Fault {
    /// For people.
    pub(crate) what: String,
    /// When it struck.
    pub(crate) at: u64,
    /// Rooms that may pause for it.
    pub(crate) affected: BTreeSet<String>,
    /// Rooms that both sides of a cut wrote to.
    pub(crate) split: BTreeSet<String>,
    /// The node that was cut off from the others.
    pub(crate) apart: Option<usize>,
}

/// A round that goes on.
pub(crate) struct Round {
    pub(crate) stage: Rc<Stage>,
    official: Vec<Official>,
}

impl Test {
    /// Starts `nodes` of at most `size` nodes and waits until they are well; how long that took.
    pub(crate) async fn start(
        options: Options,
        nodes: usize,
        size: usize,
        network: Option<Network>,
    ) -> Result<(Test, Duration)> {
        println!("seed {}, logs and records in {}", options.seed, options.dir.display());
        let mut cluster = Cluster::new(&options.binary, &options.dir, size, network)?;
        let recorder = Rc::new(Recorder::create(&options.dir.join("record.jsonl"))?);
        (0..nodes).try_for_each(|index| cluster.start(index))?;
        let formed = cluster.healed(HEAL_PATIENCE).await.context("the cluster does not form")?;
        let copies = cluster.report(0).await.context("gw-0 does not answer")?.copies();
        if copies < options.copies {
            return Err(
                Skipped(format!("these nodes keep {copies} copies of a message, not {}", options.copies)).into()
            );
        }
        let test = Test {
            cluster,
            dice: Dice::new(options.seed),
            rooms: options.load.names(),
            options,
            recorder,
            earlier: HashSet::new(),
            rounds: 0,
            clean: 0,
            counts: Counts::default(),
            anomalies: BTreeMap::new(),
            pauses: Pauses::default(),
            given_up: 0,
        };
        Ok((test, formed))
    }

    /// Waits until the cluster is whole, and could lose a node if it keeps two copies.
    pub(crate) async fn whole(&mut self) -> Result<()> {
        self.cluster.healed(HEAL_PATIENCE).await.map(drop)
    }

    /// Who has which part in each room.
    pub(crate) async fn triples(&self) -> Result<BTreeMap<String, Triple>> {
        let mut triples = BTreeMap::new();
        for room in &self.rooms {
            triples.insert(room.clone(), self.cluster.explain(room).await?);
        }
        Ok(triples)
    }

    /// Starts all clients and waits until every member is in its rooms and messages flow.
    pub(crate) async fn begin(&mut self, publishes: impl Fn(usize, &str) -> bool) -> Result<Round> {
        self.rounds += 1;
        let doors = self.cluster.doors();
        let homes = doors.len();
        let stage = Stage::new(self.recorder.clone(), format!("{}", self.rounds), doors);
        let official = self.options.load.start(&stage, homes, publishes)?;
        // The open ends of publishers come and go; all members in their rooms is what is waited for.
        let calm = async {
            loop {
                sleep(Duration::from_millis(20)).await;
                if stage.open() <= homes * self.rooms.len() / 2 {
                    return;
                }
            }
        };
        timeout(SETTLE_PATIENCE, calm).await.context("clients do not come in")?;
        sleep(Duration::from_millis(300)).await;
        Ok(Round { stage, official })
    }

    /// Waits for healing, lets everything come to its end, and judges.
    pub(crate) async fn end(&mut self, round: Round, fault: Fault) -> Result<()> {
        let Round { stage, official } = round;
        stage.set_doors(self.cluster.doors());
        let healed = self.cluster.healed(HEAL_PATIENCE).await?;
        let (from, to) = (fault.at, clock::now_ns());
        stage.mark("healed");
        sleep(AFTER).await;
        stage.set_phase(Phase::Settle);
        let begin = Instant::now();
        while stage.open() > 0 && begin.elapsed() < SETTLE_PATIENCE {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(QUIET).await;
        auditor::read(&self.recorder, &self.cluster.doors(), &self.rooms).await?;
        stage.set_phase(Phase::Over);
        for client in official {
            client.end().await?;
        }
        stage.tasks.close();
        timeout(SETTLE_PATIENCE, stage.tasks.wait()).await.context("clients do not end")?;
        let entries = self.recorder.take().context("the record cannot be written")?;
        let promise = Promise {
            prefix: format!("{}.", stage.prefix),
            split: fault.split.clone(),
            apart: fault.apart.map(|node| sessions_of(&entries, self.cluster.name(node))).unwrap_or_default(),
            earlier: self.earlier.clone(),
        };
        let verdict = check(&entries, &promise);
        let mut pauses = Pauses::default();
        pauses.add(pause::of_rooms(&entries, from, to), &fault.affected);
        for entry in &entries {
            if let What::Acked { room, mid, .. } = &entry.what {
                self.earlier.insert((room.clone(), mid.clone()));
            }
        }
        self.note(&verdict, &pauses, &fault, healed);
        Ok(())
    }

    /// Adds a round to the sums and prints it.
    fn note(&mut self, verdict: &Verdict, pauses: &Pauses, fault: &Fault, healed: Duration) {
        let slow = pauses.affected_p99() > self.options.pause_max;
        let clean = verdict.findings.is_empty() && !slow;
        self.clean += u32::from(clean);
        self.counts += verdict.counts;
        self.pauses.extend(pauses);
        let word = if clean { "clean" } else { "NOT CLEAN" };
        println!("round {} {word}: {}; whole again after {:.1} s", self.rounds, fault.what, healed.as_secs_f64());
        println!("  {}; {pauses}", verdict.counts);
        let given_up = self.cluster.given_up();
        if given_up > self.given_up {
            println!("  nodes that lived were given up {} times in this round", given_up - self.given_up);
        }
        self.given_up = given_up;
        if slow {
            println!("  the pause is longer than {} ms", self.options.pause_max);
        }
        let mut found = Vec::new();
        for anomaly in Anomaly::ALL {
            let count = verdict.count(anomaly);
            *self.anomalies.entry(anomaly).or_default() += count;
            if count > 0 {
                found.push(format!("{count} {}", anomaly.as_str()));
            }
        }
        if !found.is_empty() {
            println!("  {}", found.join(", "));
        }
        // Some of each kind rather than many of the first.
        let mut shown: BTreeMap<Anomaly, usize> = BTreeMap::new();
        for finding in &verdict.findings {
            let kind = shown.entry(finding.anomaly).or_default();
            *kind += 1;
            if *kind <= SHOWN / 4 {
                println!("    {finding}");
            }
        }
    }

    /// A promise besides those of rooms.
    pub(crate) fn demand(&mut self, what: &str, held: bool) {
        println!("{}: {what}", if held { "held" } else { "BROKEN" });
        self.rounds += 1;
        self.clean += u32::from(held);
    }

    /// Ends the nodes and prints the sums; true when every round was clean.
    pub(crate) async fn finish(mut self) -> Result<bool> {
        for index in self.cluster.running() {
            let status = self.cluster.stop(index).await?;
            if !status.success() {
                bail!("{} ended with {status} on SIGTERM", self.cluster.name(index));
            }
        }
        let figures: Vec<String> =
            self.anomalies.iter().map(|(anomaly, count)| format!("{count} {}", anomaly.as_str())).collect();
        println!("all rounds: {}", self.counts);
        println!("  {}", figures.join(", "));
        println!("  {}", self.pauses);
        println!("{} rounds, {} clean", self.rounds, self.clean);
        Ok(self.rounds == self.clean)
    }
}

/// Those that were connected to this node.
fn sessions_of(entries: &[Entry], name: &str) -> BTreeSet<String> {
    let connected = |entry: &&Entry| matches!(&entry.what, What::Connected { node } if node == name);
    entries.iter().filter(connected).map(|entry| entry.who.clone()).collect()
}
