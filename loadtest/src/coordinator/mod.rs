//! Follows the plan: ramps, holds, settlements; and what an interrupt does to it.
//!
//! - Every worker is armed before any of them publishes, and all have published before any settles: no message is
//!   counted against a member that could not have it.
//! - An interrupt ends publishing, never the accounting: what was measured so far is settled and reported.

mod fleet;
mod progress;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::fleet::Fleet;
use self::progress::Progress;
use crate::args::{Preset, Settings};
use crate::clock;
use crate::plan::Segment;
use crate::server::{Metrics, ServerError, Servers, Usage, change};
use crate::step::{Arrival, Measured, Step};
use crate::wire::{Grown, Notice, Order, Phase, Published, Settled, Spec};

pub(crate) use self::fleet::FleetError;

/// From the last worker being armed to the first message, for the order to reach everyone.
const LEAD_NS: u64 = 100_000_000;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// The measured holds, in order; fewer than planned if a step failed or somebody interrupted.
    pub(crate) steps: Vec<Step>,
    /// Whether somebody did.
    pub(crate) interrupted: bool,
    /// Server counters over the whole run.
    pub(crate) metrics: Metrics,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Nobody could connect.
    #[error("nobody could connect: {0}")]
    NoConnection(String),
    /// A process or admin port that was to be watched cannot be.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A worker failed.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// Runs `settings` until the plan is done, a baseline step fails, or `interrupt` fires.
///
/// # Errors
/// See [`RunError`]; all workers are gone then.
pub(crate) async fn run(
    settings: &Settings,
    interrupt: CancellationToken,
    tasks: &TaskTracker,
    on_step: impl Fn(&Step),
) -> Result<Run, RunError> {
    let servers = Servers::new(settings.server_pids.clone(), settings.admins.clone());
    let idle = servers.usage()?;
    let metrics_before = servers.metrics()?;
    let mut coordinator = Coordinator::start(settings, servers, idle, interrupt, tasks).await?;
    let mut steps = Vec::new();
    for segment in &settings.plan.segments {
        match segment {
            Segment::Ramp { to, over } => {
                coordinator.ramp(*to, *over).await?;
                // Once something was measured, an empty room is a finding of the next step and not the end of the report.
                if steps.is_empty() {
                    coordinator.demand_somebody()?;
                }
            }
            Segment::Hold { duration } => {
                let step = coordinator.measure(*duration).await?;
                on_step(&step);
                let stop = settings.preset == Preset::Baseline && !step.passes();
                steps.push(step);
                if stop {
                    break;
                }
            }
        }
        if coordinator.interrupt.is_cancelled() {
            break;
        }
    }
    // A server that died under load has no metrics any more, and its steps say so already.
    let metrics_after = coordinator.servers.metrics().unwrap_or_default();
    let interrupted = coordinator.interrupt.is_cancelled();
    Ok(Run { steps, interrupted, metrics: change(&metrics_before, &metrics_after) })
}

struct Coordinator<'a> {
    settings: &'a Settings,
    fleet: Fleet,
    servers: Servers,
    /// Before anyone connected.
    idle: Option<Usage>,
    interrupt: CancellationToken,
    halted: bool,
    progress: Progress,
    seconds: Interval,
    /// Members the plan wants now.
    members: u32,
    arrival: Arrival,
    next_run: u32,
}

impl<'a> Coordinator<'a> {
    async fn start(
        settings: &'a Settings,
        servers: Servers,
        idle: Option<Usage>,
        interrupt: CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Coordinator<'a>, RunError> {
        let specs = (0..settings.procs).map(|worker| spec(settings, worker)).collect();
        let fleet = Fleet::start(specs, tasks).await?;
        let progress = Progress::new(fleet.size(), clock::now_ns());
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        seconds.reset();
        Ok(Coordinator {
            settings,
            fleet,
            servers,
            idle,
            interrupt,
            halted: false,
            progress,
            seconds,
            members: 0,
            arrival: Arrival::default(),
            next_run: run_id(),
        })
    }

    async fn ramp(&mut self, to: u32, over: Duration) -> Result<(), RunError> {
        self.members = to;
        let over_ns = u64::try_from(over.as_nanos()).unwrap_or(u64::MAX);
        self.fleet.order(&Order::Grow { members: to, over_ns }).await?;
        let grown: Vec<Box<Grown>> =
            self.gather(|notice| if let Notice::Grown(grown) = notice { Some(grown) } else { None }).await?;
        self.arrival = Arrival::new(grown.iter().map(AsRef::as_ref));
        Ok(())
    }

    fn demand_somebody(&self) -> Result<(), RunError> {
        if self.members > 0 && self.arrival.joined == 0 && !self.interrupt.is_cancelled() {
            return Err(RunError::NoConnection(self.arrival.reasons_text()));
        }
        Ok(())
    }

    async fn measure(&mut self, duration: Duration) -> Result<Step, RunError> {
        let run = self.next_run;
        self.next_run = self.next_run.wrapping_add(1);
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.fleet.order(&Order::Begin(Phase { run, pace: self.settings.pace, duration_ns })).await?;
        self.gather(|notice| matches!(notice, Notice::Armed).then_some(())).await?;
        let before = self.servers.usage().ok().flatten();
        let start_ns = clock::now_ns() + LEAD_NS;
        self.fleet.order(&Order::Go { start_ns }).await?;
        let published: Vec<Box<Published>> = self
            .gather(|notice| if let Notice::Published(published) = notice { Some(published) } else { None })
            .await?;
        let accounts = published.iter().flat_map(|one| one.accounts.iter().cloned()).collect();
        self.fleet.order(&Order::Settle(accounts)).await?;
        let settled: Vec<Box<Settled>> =
            self.gather(|notice| if let Notice::Settled(settled) = notice { Some(settled) } else { None }).await?;
        let after = self.servers.usage().ok().flatten();
        let seconds = clock::now_ns().saturating_sub(start_ns) as f64 / 1e9;
        Ok(Step::new(
            self.settings,
            Measured {
                members: self.members,
                arrival: std::mem::take(&mut self.arrival),
                published: published.iter().map(AsRef::as_ref).collect(),
                settled: settled.iter().map(AsRef::as_ref).collect(),
                usage: (self.idle, before, after),
                seconds,
            },
        ))
    }

    /// One notice of a kind from every worker. Prints progress meanwhile, and passes an interrupt on.
    async fn gather<T>(&mut self, pick: impl Fn(Notice) -> Option<T>) -> Result<Vec<T>, RunError> {
        let mut picked: BTreeMap<usize, T> = BTreeMap::new();
        while picked.len() < self.fleet.size() {
            // Every arm is cancel-safe: a channel, a timer and a token.
            tokio::select! {
                heard = self.fleet.next() => {
                    let (worker, notice) = heard?;
                    if let Notice::Tick(tick) = notice {
                        self.progress.handle_tick(worker, *tick);
                    } else if let Some(value) = pick(notice) {
                        picked.insert(worker, value);
                    }
                }
                _ = self.seconds.tick() => eprintln!("{}", self.progress.line(clock::now_ns())),
                () = self.interrupt.cancelled(), if !self.halted => {
                    self.halted = true;
                    eprintln!("interrupted: settling what was measured");
                    self.fleet.order(&Order::Halt).await?;
                }
            }
        }
        Ok(picked.into_values().collect())
    }
}

fn spec(settings: &Settings, worker: u32) -> Spec {
    Spec {
        worker,
        workers: settings.procs,
        targets: settings.targets.clone(),
        sources: settings.sources.clone(),
        dialect: settings.dialect.clone(),
        transport: settings.transport,
        namespace: settings.namespace.clone(),
        room: settings.room.clone(),
        rooms: settings.rooms,
        publishers: settings.publishers,
        payload: settings.payload,
        history: settings.history,
    }
}

/// A number that another run against the same room will not have. Without randomness, the clock has to do.
fn run_id() -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => (clock::now_ns() & u64::from(u32::MAX)).try_into().unwrap_or(0),
    }
}
