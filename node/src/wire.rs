//! The WebSocket of a connection, as a candidate or as its transport: the only thing that writes to it.
//!
//! Invariants:
//! - every write ends in `settle`, which alone counts who lags, starts the wait for the kernel, and says when it is too late;
//! - somebody waits for the kernel (`Next::Await`) exactly while the wire lags;
//! - a wire that is taken out of its connection is ended (`close`, `end`): its cursors are released and its tasks, which
//!   hold the same `Line`, learn of it and stop.

use std::{cell::Cell, io, rc::Rc};

use protocol::engine::frame;
use tokio::sync::Notify;

use crate::{
    outbox::{Outbox, Progress},
    room::{Rooms, StreamId},
    tally::Tally,
    transport::tcp::Tcp,
};

/// What a wire shares with the tasks that wait for its socket.
#[derive(Debug)]
pub(crate) struct Line {
    tcp: Tcp,
    ended: Cell<bool>,
    /// Told once, when it has.
    end: Notify,
}

impl Line {
    /// The socket; only the wire writes to it.
    pub(crate) fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// Whether the wire has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Completes when the wire has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        if !self.has_ended() {
            self.end.notified().await;
        }
    }

    /// Reads until the peer has closed too, and throws it away. Cancel safe.
    pub(crate) async fn discard(&self) {
        while self.tcp.readable().await.is_ok() {
            match discard_some(&self.tcp) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Apart from the task, so that the buffer does not live in it while it waits.
fn discard_some(tcp: &Tcp) -> io::Result<usize> {
    tcp.try_read(&mut [0; 4096])
}

/// What has to follow a write.
#[derive(Debug)]
#[must_use]
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// Somebody has to wait until the kernel takes more, and say so to `catch_up`.
    Await(Rc<Line>),
    /// The peer is too far behind to be kept.
    Behind,
    /// The peer is gone.
    Lost,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    line: Rc<Line>,
    outbox: Outbox,
    /// It is counted among those that lag.
    lags: bool,
}

impl Wire {
    /// A wire that writes to this socket.
    pub(crate) fn new(tcp: Tcp) -> Wire {
        let line = Rc::new(Line { tcp, ended: Cell::new(false), end: Notify::new() });
        Wire { line, outbox: Outbox::default(), lags: false }
    }

    /// What its tasks get.
    pub(crate) fn line(&self) -> &Rc<Line> {
        &self.line
    }

    /// Whether this is its line.
    pub(crate) fn is(&self, line: &Rc<Line>) -> bool {
        Rc::ptr_eq(&self.line, line)
    }

    /// Whether it takes less than it is given.
    pub(crate) fn lags(&self) -> bool {
        self.lags
    }

    /// Room for frames that only this client gets; they leave with the next `flush`.
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        self.outbox.own()
    }

    /// Writes its own frames.
    pub(crate) fn flush(&mut self, behind_max: usize, tally: &mut Tally) -> Next {
        let progress = self.outbox.flush(&self.line.tcp);
        self.settle(progress, behind_max, tally)
    }

    /// Writes a stream's turn (`turn` stands in its log from `start` on).
    ///
    /// The flag says whether a cursor into the log was made: the log must then be kept (`Rooms::end_turn`).
    pub(crate) fn write_turn(
        &mut self,
        (stream, start, turn): (StreamId, u64, &[u8]),
        behind_max: usize,
        tally: &mut Tally,
    ) -> (Next, bool) {
        tally.writes += u64::from(!self.lags);
        let (progress, cursor) = self.outbox.write_turn(&self.line.tcp, stream, start, turn);
        (self.settle(progress, behind_max, tally), cursor)
    }

    /// Catches up as far as the kernel lets it.
    pub(crate) fn catch_up(&mut self, rooms: &mut Rooms, behind_max: usize, tally: &mut Tally) -> Next {
        tally.writes += 1;
        let progress = self.outbox.catch_up(&self.line.tcp, rooms);
        self.settle(progress, behind_max, tally)
    }

    /// Bytes that wait in it.
    pub(crate) fn behind(&self) -> usize {
        self.outbox.behind()
    }

    /// Says goodbye, with a code and a word if there is something to tell, and ends it.
    pub(crate) fn close(mut self, why: Option<(u16, &str)>, rooms: &mut Rooms, tally: &mut Tally) {
        match why {
            Some((code, why)) => frame::put_close(self.own(), code, why),
            None => self.own().extend_from_slice(&[0x88, 0]),
        }
        self.end(rooms, tally);
    }

    /// Ends it: what the kernel takes now still leaves, the rest is given up. The peer is told that nothing follows.
    pub(crate) fn end(mut self, rooms: &mut Rooms, tally: &mut Tally) {
        let _ = self.outbox.flush(&self.line.tcp);
        tally.bytes_sent += self.outbox.take_sent();
        tally.lagging -= i64::from(self.lags);
        self.line.tcp.shut_down_write();
        self.outbox.abandon(rooms);
    }

    fn settle(&mut self, progress: Progress, behind_max: usize, tally: &mut Tally) -> Next {
        tally.bytes_sent += self.outbox.take_sent();
        let lagged = std::mem::replace(&mut self.lags, self.outbox.is_lagging());
        tally.lagging += i64::from(self.lags) - i64::from(lagged);
        match progress {
            Progress::Broken => Next::Lost,
            Progress::Behind => Next::Behind,
            Progress::Blocked if self.outbox.is_over(behind_max) => Next::Behind,
            Progress::Blocked if !lagged => Next::Await(self.line.clone()),
            Progress::Blocked | Progress::Done => Next::Nothing,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.ended.set(true);
        self.line.end.notify_waiters();
    }
}
