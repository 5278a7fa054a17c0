//! The store's thread: takes commands, commits in groups, retains, and comes back after an error.
//!
//! Invariants:
//! - One thread owns the disk. Commands are served in order; a read sees what was pushed before it, durable or not.
//! - What was accepted stays in `pending` until a sync after its writes succeeded. While the disk is away it waits there,
//!   bounded by the reservations of the handle, and the disk is tried when the back-off says, not when something arrives.
//! - A commit begins at most once per interval; what was accepted waits for the one that is under way and then no longer
//!   than the interval.
//! - The clean marker is written only after a commit of everything, as the last write of this process.

use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crate::{
    CloseError, ReadError, Status, clock,
    disk::Disk,
    error::EngineError,
    pending::Pending,
    store::{Command, Scan, Shared, Wanted},
    supervisor::{Backoff, Opener, State, open_again},
};

/// Pending bytes that do not wait for the interval: one commit stays short.
const COMMIT_BYTES: usize = 1024 * 1024;

/// The thread's state.
pub(crate) struct Worker {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    state: State,
    opener: Box<dyn Opener>,
    backoff: Backoff,
    pending: Pending,
    commit_interval: Duration,
    commit_began: Instant,
    commit_due: Option<Instant>,
    retain_due: Instant,
}

impl Worker {
    pub(crate) fn new(
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        state: State,
        opener: Box<dyn Opener>,
        commit_interval: Duration,
    ) -> Worker {
        let (pending, mut backoff, now) = (Pending::default(), Backoff::new(), clock::now());
        if let State::Away { reason, .. } = &state {
            shared.counters.errors.fetch_add(1, Relaxed);
            shared.set_status(Status::Degraded(Arc::clone(reason)));
            backoff.handle_failure(now);
        }
        Worker {
            commands,
            shared,
            state,
            opener,
            backoff,
            pending,
            commit_interval,
            commit_began: now,
            commit_due: None,
            retain_due: now,
        }
    }

    /// Runs until the store is closed or every handle is gone.
    pub(crate) fn run(mut self) {
        loop {
            let wait = self.poll_timeout().saturating_duration_since(clock::now());
            match self.commands.recv_timeout(wait) {
                Ok(Command::Close(done)) => {
                    let outcome = self.close();
                    // The files and the lock are free before the caller hears of it.
                    drop(self);
                    drop(done.send(outcome));
                    return;
                }
                Ok(command) => self.handle_command(command, clock::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit(clock::now(), clock::wall_ms());
                    return;
                }
            }
            self.handle_timeout(clock::now(), clock::wall_ms());
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Append(records) => records.into_iter().for_each(|record| self.pending.push(record)),
            Command::PutMeta(slot, value) => self.pending.put_meta(slot, value),
            Command::Forget(slot, room) => self.pending.forget(slot, room),
            Command::ForgetSlot(slot) => self.pending.forget_slot(slot),
            Command::Read(query, reply) => {
                let answer = self.answer(now, |disk, pending| {
                    let page = disk.read(&query, pending.room(query.slot, &query.room))?;
                    Ok((page.damaged, page))
                });
                reply(answer);
            }
            Command::Scan(scan) => self.scan(scan, now),
            Command::Close(_) => {} // taken out by `run`
        }
        if self.commit_due.is_none() && !self.pending.is_empty() && self.backoff.poll_timeout().is_none() {
            // Counted from the commit before: what waited while that one was slow does not wait once more.
            self.commit_due = Some((self.commit_began + self.commit_interval).max(now));
        }
    }

    fn handle_timeout(&mut self, now: Instant, wall_ms: u64) {
        if self.backoff.poll_timeout().is_some_and(|due| due <= now) {
            self.try_again(now, wall_ms);
        }
        let much = self.pending.cost() >= COMMIT_BYTES && self.backoff.poll_timeout().is_none();
        if much || self.commit_due.is_some_and(|due| due <= now) {
            self.commit(now, wall_ms);
        }
        if self.retain_due <= now {
            self.retain(now, wall_ms);
        }
    }

    fn poll_timeout(&self) -> Instant {
        let others = [self.commit_due, self.backoff.poll_timeout()];
        others.into_iter().flatten().fold(self.retain_due, Instant::min)
    }

    /// Writes and syncs everything pending; on success it is durable and its reservation is given back.
    fn commit(&mut self, now: Instant, wall_ms: u64) {
        (self.commit_due, self.commit_began) = (None, now);
        let State::Open(disk) = &mut self.state else { return };
        match disk.commit(&self.pending, wall_ms) {
            Ok(()) => {
                let counters = &self.shared.counters;
                counters.commit_took(clock::now().saturating_duration_since(now));
                counters.live_bytes.store(disk.live_bytes(), Relaxed);
                if disk.is_over_budget() {
                    self.retain_due = now;
                }
                let records = self.pending.sections().flat_map(|section| section.records());
                let bodies = records.map(|record| record.body.len());
                let bytes = u64::try_from(bodies.sum::<usize>()).unwrap_or(u64::MAX);
                counters.appended_bytes.fetch_add(bytes, Relaxed);
                counters.appended_records.fetch_add(u64::try_from(self.pending.records()).unwrap_or(0), Relaxed);
                counters.queue_bytes.fetch_sub(self.pending.clear(), Relaxed);
                self.backoff.handle_commit();
                self.shared.set_status(Status::Ok);
            }
            Err(EngineError::Full) => self.pause(now),
            Err(error) => self.fail(&error, now),
        }
    }

    /// Writes what waits, and answers from the disk alone.
    fn scan(&mut self, scan: Scan, now: Instant) {
        if !self.pending.is_empty() && self.backoff.poll_timeout().is_none() {
            self.commit(now, clock::wall_ms());
        }
        let Scan { wanted, after, max_bytes, reply } = scan;
        let answer = self.answer(now, |disk, pending| {
            if !pending.is_empty() {
                return Ok((0, None));
            }
            let page = match wanted {
                Wanted::Slot(slot) => disk.scan_slot(slot, after, max_bytes)?,
                Wanted::Slots(wanted) => disk.scan(&wanted, after, max_bytes)?,
            };
            Ok((page.damaged, Some(page)))
        });
        // Without what cannot be written, the answer would lack it, and show what it forgets.
        let unwritten = || ReadError::Failed { reason: EngineError::Full.to_string().into() };
        reply(answer.and_then(|page| page.ok_or_else(unwritten)));
    }

    /// Answers a question to the disk, which also says how much it met that was damaged.
    fn answer<T>(
        &mut self,
        now: Instant,
        ask: impl FnOnce(&Disk, &Pending) -> Result<(u64, T), EngineError>,
    ) -> Result<T, ReadError> {
        self.shared.queued_reads.fetch_sub(1, Relaxed);
        self.shared.counters.reads.fetch_add(1, Relaxed);
        let disk = match &self.state {
            State::Away { reason, .. } => return Err(ReadError::Failed { reason: Arc::clone(reason) }),
            State::Open(disk) => disk,
        };
        match ask(disk, &self.pending) {
            Ok((damaged, answer)) => {
                if damaged > 0 {
                    tracing::error!(damaged, "history on disk is damaged; what it held is left out");
                    self.shared.counters.damaged.fetch_add(damaged, Relaxed);
                }
                Ok(answer)
            }
            Err(error) => {
                self.fail(&error, now);
                Err(ReadError::Failed { reason: error.to_string().into() })
            }
        }
    }

    fn retain(&mut self, now: Instant, wall_ms: u64) {
        let State::Open(disk) = &mut self.state else {
            self.retain_due = now + Duration::from_secs(1);
            return;
        };
        self.retain_due = now + disk.retain_interval();
        match disk.retain(wall_ms) {
            Ok(dropped) => {
                let counters = &self.shared.counters;
                counters.dropped_buckets.fetch_add(u64::try_from(dropped).unwrap_or(0), Relaxed);
                counters.live_bytes.store(disk.live_bytes(), Relaxed);
                counters.disk_bytes.store(disk.disk_bytes(), Relaxed);
            }
            Err(error) => self.fail(&error, now),
        }
    }

    /// The disk has no room: serve reads, and try the commit again later.
    fn pause(&mut self, now: Instant) {
        self.commit_due = None;
        let reason: Arc<str> = EngineError::Full.to_string().into();
        if self.shared.status() == Status::Ok {
            tracing::error!(pending = self.pending.records(), "{reason}: nothing becomes durable");
            self.shared.counters.errors.fetch_add(1, Relaxed);
        }
        self.shared.set_status(Status::Degraded(reason));
        self.backoff.handle_failure(now);
    }

    /// Lets go of a disk that failed and plans the reopen.
    fn fail(&mut self, error: &EngineError, now: Instant) {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(%error, pending = self.pending.records(), "store failed, will reopen");
        self.shared.counters.errors.fetch_add(1, Relaxed);
        self.shared.set_status(Status::Degraded(Arc::clone(&reason)));
        self.backoff.handle_failure(now);
        let lost = match &self.state {
            State::Open(disk) => disk.ledger_of_loss(),
            State::Away { lost, .. } => lost.clone(),
        };
        if let State::Open(disk) = std::mem::replace(&mut self.state, State::Away { lost, reason }) {
            disk.discard();
        }
    }

    /// After a failure: opens again if the disk was let go, says what was lost if the directory had to be moved aside,
    /// and writes what waited. The commit sets the status.
    fn try_again(&mut self, now: Instant, wall_ms: u64) {
        self.backoff.handle_attempt();
        if let State::Away { lost, .. } = &self.state {
            let start = clock::now();
            match open_again(self.opener.as_mut(), lost) {
                Ok((disk, quarantined)) => {
                    tracing::info!(quarantined, "store is open again");
                    let counters = &self.shared.counters;
                    counters.open_took(clock::now().saturating_duration_since(start));
                    counters.reopens.fetch_add(1, Relaxed);
                    counters.quarantines.fetch_add(u64::from(quarantined), Relaxed);
                    self.state = State::Open(disk);
                }
                Err(error) => return self.fail(&error, now),
            }
        }
        self.commit(now, wall_ms);
    }

    fn close(&mut self) -> Result<(), CloseError> {
        let (now, wall_ms) = (clock::now(), clock::wall_ms());
        self.try_again(now, wall_ms);
        if let (State::Open(disk), Status::Ok) = (&mut self.state, self.shared.status())
            && let Err(error) = disk.finish()
        {
            self.fail(&error, now);
        }
        match self.shared.status() {
            Status::Ok => Ok(()),
            Status::Degraded(reason) => Err(CloseError::Unwritten { records: self.pending.records(), reason }),
        }
    }
}

impl Drop for Worker {
    /// However the thread ends, handles learn that nothing is taken any more.
    fn drop(&mut self) {
        self.shared.set_status(Status::Degraded("the store is closed".into()));
    }
}

#[cfg(test)]
mod tests;
