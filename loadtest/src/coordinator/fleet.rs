//! The worker processes: starting them, giving orders, hearing notices.
//!
//! Workers live in a process group of their own, so that an interrupt at the terminal reaches only the coordinator,
//! which lets them finish; they end when their stdin does, so none outlives it.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::wire::{Notice, Order, Spec};

/// Notices not yet looked at; a reader waits when it is full, and then so does its worker.
const NOTICES_MAX: usize = 256;

/// All workers of a run.
#[derive(Debug)]
pub(super) struct Fleet {
    workers: Vec<Worker>,
    notices: mpsc::Receiver<(usize, Heard)>,
}

#[derive(Debug)]
struct Worker {
    /// Kills the process when dropped.
    _child: Child,
    stdin: ChildStdin,
}

/// Something from a worker.
#[derive(Debug)]
enum Heard {
    Notice(Notice),
    /// Its stdout ended or carried something else.
    Gone(String),
}

/// A worker failed; the run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    /// The process could not be started.
    #[error("cannot start a worker: {0}")]
    Start(std::io::Error),
    /// It does not take orders any more.
    #[error("cannot reach worker {worker}: {error}")]
    Order {
        /// Its number.
        worker: usize,
        /// What happened.
        error: std::io::Error,
    },
    /// It has ended by itself.
    #[error("worker {worker} failed: {reason}")]
    Gone {
        /// Its number.
        worker: usize,
        /// What it said, if it did.
        reason: String,
    },
}

impl Fleet {
    /// Starts one process per spec, each with its setup.
    ///
    /// # Errors
    /// A process cannot be started; those that were are gone.
    pub(super) async fn start(specs: Vec<Spec>, tasks: &TaskTracker) -> Result<Fleet, FleetError> {
        let program = std::env::current_exe().map_err(FleetError::Start)?;
        let (heard, notices) = mpsc::channel(NOTICES_MAX);
        let mut fleet = Fleet { workers: Vec::new(), notices };
        for (index, spec) in specs.into_iter().enumerate() {
            let mut command = std::process::Command::new(&program);
            command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(FleetError::Start)?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(FleetError::Start(std::io::ErrorKind::BrokenPipe.into()));
            };
            tasks.spawn(listen(index, BufReader::new(stdout).lines(), heard.clone()));
            fleet.workers.push(Worker { _child: child, stdin });
            fleet.order_one(index, &Order::Setup(Box::new(spec))).await?;
        }
        Ok(fleet)
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Gives the same order to all.
    ///
    /// # Errors
    /// A worker has gone.
    pub(super) async fn order(&mut self, order: &Order) -> Result<(), FleetError> {
        for worker in 0..self.workers.len() {
            self.order_one(worker, order).await?;
        }
        Ok(())
    }

    /// The next thing any worker says. Cancel-safe.
    ///
    /// # Errors
    /// A worker has gone.
    pub(super) async fn next(&mut self) -> Result<(usize, Notice), FleetError> {
        match self.notices.recv().await {
            Some((worker, Heard::Notice(Notice::Fatal(reason)) | Heard::Gone(reason))) => {
                Err(FleetError::Gone { worker, reason })
            }
            Some((worker, Heard::Notice(notice))) => Ok((worker, notice)),
            None => Err(FleetError::Gone { worker: 0, reason: "all have ended".to_owned() }),
        }
    }

    async fn order_one(&mut self, worker: usize, order: &Order) -> Result<(), FleetError> {
        let failed = |error| FleetError::Order { worker, error };
        let mut line = serde_json::to_vec(order).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.workers[worker].stdin.write_all(&line).await.map_err(failed)
    }
}

/// Passes a worker's lines on until they end, the fleet is gone, or one makes no sense.
async fn listen(worker: usize, mut lines: Lines<BufReader<ChildStdout>>, heard: mpsc::Sender<(usize, Heard)>) {
    loop {
        let next = match lines.next_line().await {
            Ok(Some(line)) => {
                serde_json::from_str(&line).map_or_else(|error| Heard::Gone(error.to_string()), Heard::Notice)
            }
            Ok(None) => Heard::Gone("it ended".to_owned()),
            Err(error) => Heard::Gone(error.to_string()),
        };
        let last = matches!(next, Heard::Gone(_));
        if heard.send((worker, next)).await.is_err() || last {
            return;
        }
    }
}
