//! `loadtest stalled`: most members of a room stop reading; what that costs the server and the others.
//!
//! Invariants: the same members are there all the time, so that only their reading changes; the others are measured for
//! the same time before and after; memory is the server's resident memory, read five times a second.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Peer;
use super::publisher::{self, Pace, Progress};
use super::{EVENT, ROOM, Target, TrialError};
use crate::clock;
use crate::server::Servers;
use crate::stats::{Latency, Summary};

/// How much the kernel holds for a member that will stop reading: as little as it lets us say.
const RECEIVE_BUFFER: u32 = 4_096;
/// How often a member that reads looks, and memory is read.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS_PER_PONG: u32 = 10;
/// Bytes that are thrown away at once.
const SCRATCH: usize = 64 * 1024;
/// Time between changing something and measuring.
const SETTLE: Duration = Duration::from_secs(2);
/// What stalled members may cost.
const MEMORY_MAX_MIB: f64 = 64.0;
/// What they may cost the others.
const LATENCY_RATIO_MAX: f64 = 1.10;

/// What to try.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StalledArgs {
    #[command(flatten)]
    target: Target,
    /// The server's process.
    #[arg(long, value_name = "PID")]
    server_pid: i32,
    /// Members that stop reading.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    members: u32,
    /// Members that go on reading, and are measured.
    #[arg(long, value_name = "N", default_value_t = 50)]
    others: u32,
    /// Messages a second.
    #[arg(long, value_name = "R", default_value_t = 50)]
    rate: u32,
    /// Bytes of filler in a message.
    #[arg(long, value_name = "B", default_value_t = 1_024)]
    payload: usize,
    /// Seconds of measuring, before and after.
    #[arg(long, value_name = "S", default_value_t = 15)]
    seconds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Stalled {
    members: u32,
    /// Members that the server had not cut off at the end.
    kept: u32,
    /// The others, while everybody reads and while the members do not.
    reading: Summary,
    stalled: Summary,
    /// Resident memory before the members stopped, and the most of it since.
    before_mib: f64,
    peak_mib: f64,
    refused: u64,
}

impl Stalled {
    /// Memory that stalled members cost.
    fn cost_mib(&self) -> f64 {
        self.peak_mib - self.before_mib
    }

    fn ratio(&self) -> f64 {
        self.stalled.p99_ms / self.reading.p99_ms
    }

    /// Whether both promises held.
    pub(crate) fn holds(&self) -> bool {
        self.cost_mib() <= MEMORY_MAX_MIB && self.ratio() <= LATENCY_RATIO_MAX && self.refused == 0
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} stalled members ({} of them kept) cost {:.1} MiB ({:.1} to {:.1}); the others' p99 is {:.2} times what it \
             was: p50 {:.2} and p99 {:.2} ms before, p50 {:.2} and p99 {:.2} ms with them",
            self.members,
            self.kept,
            self.cost_mib(),
            self.before_mib,
            self.peak_mib,
            self.ratio(),
            self.reading.p50_ms,
            self.reading.p99_ms,
            self.stalled.p50_ms,
            self.stalled.p99_ms,
        )
    }
}

/// What the tasks share.
struct Stage {
    progress: Progress,
    /// Where what the others see is counted now.
    latency: RefCell<Latency>,
    stalled: Cell<bool>,
    over: CancellationToken,
    scratch: RefCell<Vec<u8>>,
}

/// Runs the trial.
pub(super) async fn run(args: &StalledArgs) -> Result<Stalled, TrialError> {
    let stage = Rc::new(Stage {
        progress: Progress::default(),
        latency: RefCell::new(Latency::new()),
        stalled: Cell::new(false),
        over: CancellationToken::new(),
        scratch: RefCell::new(vec![0; SCRATCH]),
    });
    let tracker = TaskTracker::new();
    let to = args.target.target;
    let (mut members, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..args.members {
        let (peer, stage) = (joined(to, Some(RECEIVE_BUFFER)).await?, stage.clone());
        members.push(tracker.spawn_local(async move { member(peer, &stage).await }));
    }
    for _ in 0..args.others {
        let (peer, stage) = (joined(to, None).await?, stage.clone());
        tasks.push(tracker.spawn_local(async move { other(peer, &stage).await }));
    }
    let (shared, pace) = (stage.clone(), Pace { rate: args.rate, payload: args.payload });
    tasks.push(tracker.spawn_local(async move { publisher::publish(to, pace, &shared.progress).await }));

    let server = Servers::new(vec![args.server_pid], Vec::new());
    let measured = Duration::from_secs(args.seconds);
    tokio::time::sleep(SETTLE).await;
    stage.latency.replace(Latency::new());
    let before_mib = watch(&server, measured).await?;
    let reading = stage.latency.borrow().summary();
    stage.stalled.set(true);
    let settling = watch(&server, SETTLE).await?;
    stage.latency.replace(Latency::new());
    let peak_mib = watch(&server, measured).await?.max(settling);
    let stalled = stage.latency.borrow().summary();

    stage.progress.stop.set(true);
    stage.over.cancel();
    let mut kept = 0;
    for member in members {
        kept += u32::from(member.await.is_ok_and(|lived| lived.is_ok()));
    }
    for task in tasks {
        task.await.unwrap_or(Ok(()))?;
    }
    let (members, refused) = (args.members, stage.progress.refused.get());
    Ok(Stalled { members, kept, reading, stalled, before_mib, peak_mib, refused })
}

/// The most memory the server had in that time, in MiB.
async fn watch(server: &Servers, time: Duration) -> Result<f64, TrialError> {
    let end = tokio::time::Instant::now() + time;
    let mut most = 0.0_f64;
    while tokio::time::Instant::now() < end {
        let bytes = server.usage()?.unwrap_or_default().rss_bytes;
        most = most.max(bytes as f64 / f64::from(1 << 20));
        tokio::time::sleep(LOOK).await;
    }
    Ok(most)
}

async fn joined(to: std::net::SocketAddr, receive_buffer: Option<u32>) -> Result<Peer, TrialError> {
    let mut peer = Peer::connect(to, receive_buffer).await?;
    peer.say(&format!(r#"420["room:join",{{"room":"{ROOM}"}}]"#)).await?;
    loop {
        // The room is being published to by then.
        let packet = peer.packet().await?;
        if packet.starts_with("430[") {
            return Ok(peer);
        }
    }
}

/// Takes what comes, unread, until it is told to stop, and then nothing until the end, when it looks whether it is still
/// connected. It answers pings it does not see: a pong that nobody asked for means nothing.
async fn member(mut peer: Peer, stage: &Stage) -> Result<(), TrialError> {
    let mut looks = 0_u32;
    while !stage.over.is_cancelled() {
        if !stage.stalled.get() {
            peer.discard(&mut stage.scratch.borrow_mut())?;
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_PONG) {
                peer.say("3").await?;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    peer.discard(&mut stage.scratch.borrow_mut())
}

/// Reads and measures.
async fn other(mut peer: Peer, stage: &Stage) -> Result<(), TrialError> {
    let start = format!(r#"42["{EVENT}","#);
    loop {
        let packet = tokio::select! {
            () = stage.over.cancelled() => return Ok(()),
            packet = peer.packet() => packet?,
        };
        if let Some((_, due)) = packet.strip_prefix(&start).and_then(publisher::stamp) {
            stage.latency.borrow_mut().record_ns(clock::now_ns().saturating_sub(due));
        }
    }
}
