//! Trials: two promises of a server that no steady load shows, each measured from outside.
//!
//! `joins` joins a room while it is published to as fast as the server is promised to take it; `stalled` lets most members
//! of a room stop reading. Both print what they saw as one JSON object on stdout and a sentence on stderr.
//!
//! Invariant: one process and one clock, so that no figure is a difference of two clocks.

mod joins;
mod peer;
mod publisher;
mod stalled;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use joins::JoinsArgs;
pub(crate) use stalled::StalledArgs;

/// The event that carries a number and the time it was to be sent.
const EVENT: &str = "m";
/// The one room.
const ROOM: &str = "trial";
/// How long a server may say nothing at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a trial came to no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrialError {
    /// The socket.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Frames that no server of this protocol writes.
    #[error("frames: {0}")]
    Frame(#[from] protocol::engine::frame::FrameError),
    /// The server said something that fits nowhere.
    #[error("wanted {wanted}, saw {seen}")]
    Unexpected {
        /// What should have come.
        wanted: &'static str,
        /// The beginning of what came.
        seen: String,
    },
    /// Nothing came for [`PATIENCE`].
    #[error("the server said nothing for {} s", PATIENCE.as_secs())]
    Silent,
    /// The server cannot be looked into.
    #[error(transparent)]
    Server(#[from] crate::server::ServerError),
}

/// Runs a trial; whether the promise held.
///
/// # Errors
/// It came to no result.
pub(crate) fn joins(args: &JoinsArgs) -> anyhow::Result<bool> {
    let report = run(joins::run(args))?;
    eprintln!("{report}");
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.holds())
}

/// Runs a trial; whether the promise held.
///
/// # Errors
/// It came to no result.
pub(crate) fn stalled(args: &StalledArgs) -> anyhow::Result<bool> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let report = run(stalled::run(args))?;
    eprintln!("{report}");
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.holds())
}

fn run<T>(trial: impl Future<Output = Result<T, TrialError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, trial)?)
}

/// A server to try.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// Client port of the server.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) target: SocketAddr,
}
