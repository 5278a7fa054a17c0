//! What waits to be written to one WebSocket: nothing, own bytes, or a stretch of a room's shared log.
//!
//! Invariants:
//! - bytes leave in the order they were given, whole frames only: a partial write is finished before anything else;
//! - while the kernel takes everything, nothing is kept: the turn's bytes are written from the room's buffer itself;
//! - a connection that lags holds a cursor into each room's log, not a copy, and its own bytes in as few stretches as their
//!   place between those of rooms allows: however small an answer is, it costs its bytes;
//! - every byte that left is counted once (`take_sent`), and no other;
//! - what it is behind in rooms and what it has not read of its own answers are bounded apart (`is_over`): a large answer
//!   over a slow line is no reason to cut anybody off.

use std::{collections::VecDeque, io};

use bytes::{Buf, BytesMut};

use crate::{
    room::{Rooms, StreamId},
    transport::tcp::Tcp,
};

/// Answers that may wait for one connection: two of the largest histories. Beyond it, or beyond what it may be
/// behind in rooms if that is more, the connection is cut off.
const OWN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Capacity for own bytes that is kept when all have left: most clients are idle most of the time.
const OWN_BYTES_KEPT: usize = 512;
/// Bytes handed to the kernel in one call while catching up.
const CATCH_UP_BYTES: usize = 256 * 1024;

/// One stretch of what a lagging connection is behind.
#[derive(Debug)]
enum Segment {
    /// Bytes only this connection gets.
    Own(BytesMut),
    /// The room's log from one position to another.
    Room { stream: StreamId, from: u64, to: u64 },
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything left.
    Done,
    /// The kernel takes no more; somebody must wait until it does.
    Blocked,
    /// The log no longer has what the peer needs next.
    Behind,
    /// The peer is gone.
    Broken,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    own: Vec<u8>,
    backlog: VecDeque<Segment>,
    /// Bytes of `backlog` that stand in rooms' logs.
    room_bytes: usize,
    /// Bytes of `backlog` that only this connection gets.
    own_bytes: usize,
    /// Bytes that left and were not asked for.
    sent: u64,
}

impl Outbox {
    /// Room for bytes that only this connection gets; they leave with the next `flush`.
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Whether the connection is too far behind to be kept.
    pub(crate) fn is_over(&self, room_bytes_max: usize) -> bool {
        self.room_bytes > room_bytes_max || self.own_bytes > OWN_BYTES_MAX.max(room_bytes_max)
    }

    /// Bytes that wait.
    pub(crate) fn behind(&self) -> usize {
        self.room_bytes + self.own_bytes
    }

    /// Whether the connection lags.
    pub(crate) fn is_lagging(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Bytes that left since the last call.
    pub(crate) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Writes the own bytes, or queues them behind the backlog.
    pub(crate) fn flush(&mut self, tcp: &Tcp) -> Progress {
        if self.own.is_empty() {
            return if self.is_lagging() { Progress::Blocked } else { Progress::Done };
        }
        if self.is_lagging() {
            self.queue_own(0);
            return Progress::Blocked;
        }
        match write(tcp, &self.own, &mut self.sent) {
            Ok(written) if written == self.own.len() => {
                self.forget_own();
                Progress::Done
            }
            Ok(written) => {
                self.queue_own(written);
                Progress::Blocked
            }
            Err(error) => lost(&error),
        }
    }

    /// Writes a stream's turn (`turn` stands in its log from `start` on), or notes that this connection is behind.
    ///
    /// The flag says whether a cursor into the log was made: the log must then be kept (`Rooms::release` ends it).
    pub(crate) fn write_turn(&mut self, tcp: &Tcp, stream: StreamId, start: u64, turn: &[u8]) -> (Progress, bool) {
        if let ended @ (Progress::Broken | Progress::Behind) = self.flush(tcp) {
            return (ended, false);
        }
        let to = start + turn.len() as u64;
        if self.is_lagging() {
            return (Progress::Blocked, self.queue_room(stream, start, to));
        }
        match write(tcp, turn, &mut self.sent) {
            Ok(written) if written == turn.len() => (Progress::Done, false),
            Ok(written) => (Progress::Blocked, self.queue_room(stream, start + written as u64, to)),
            Err(error) => (lost(&error), false),
        }
    }

    /// Catches up as far as the kernel lets it. Call when the socket is writable.
    pub(crate) fn catch_up(&mut self, tcp: &Tcp, rooms: &mut Rooms) -> Progress {
        while let Some(segment) = self.backlog.front_mut() {
            let (written, offered) = match segment {
                Segment::Own(bytes) => (write(tcp, bytes, &mut self.sent), bytes.len()),
                Segment::Room { stream, from, to } => match rooms.log(*stream, *from, *to) {
                    Some(chunk) => {
                        let chunk = &chunk[..chunk.len().min(CATCH_UP_BYTES)];
                        (write(tcp, chunk, &mut self.sent), chunk.len())
                    }
                    None => return Progress::Behind,
                },
            };
            let written = match written {
                Ok(written) => written,
                Err(error) => return lost(&error),
            };
            let finished = match segment {
                Segment::Own(bytes) => {
                    self.own_bytes -= written;
                    bytes.advance(written);
                    bytes.is_empty()
                }
                Segment::Room { from, to, .. } => {
                    self.room_bytes -= written;
                    *from += written as u64;
                    from == to
                }
            };
            if finished && let Some(Segment::Room { stream, .. }) = self.backlog.pop_front() {
                rooms.release(stream);
            }
            if written < offered {
                return Progress::Blocked;
            }
        }
        self.flush(tcp)
    }

    /// Gives up everything that waits.
    pub(crate) fn abandon(&mut self, rooms: &mut Rooms) {
        for segment in self.backlog.drain(..) {
            if let Segment::Room { stream, .. } = segment {
                rooms.release(stream);
            }
        }
        *self = Outbox::default();
    }

    fn queue_own(&mut self, written: usize) {
        let rest = &self.own[written..];
        self.own_bytes += rest.len();
        match self.backlog.back_mut() {
            Some(Segment::Own(bytes)) => bytes.extend_from_slice(rest),
            Some(Segment::Room { .. }) | None => self.backlog.push_back(Segment::Own(BytesMut::from(rest))),
        }
        self.forget_own();
    }

    fn forget_own(&mut self) {
        self.own.clear();
        self.own.shrink_to(OWN_BYTES_KEPT);
    }

    /// Notes a stretch of a room's log; whether that made a new cursor.
    fn queue_room(&mut self, stream: StreamId, from: u64, to: u64) -> bool {
        self.room_bytes += usize::try_from(to - from).unwrap_or(usize::MAX);
        match self.backlog.back_mut() {
            Some(Segment::Room { stream: last, to: end, .. }) if *last == stream && *end == from => {
                *end = to;
                false
            }
            Some(Segment::Own(_) | Segment::Room { .. }) | None => {
                self.backlog.push_back(Segment::Room { stream, from, to });
                true
            }
        }
    }
}

/// What a failed write says of the peer: it is gone, unless it took nothing for as long as the kernel was told to be patient.
fn lost(error: &io::Error) -> Progress {
    if error.kind() == io::ErrorKind::TimedOut { Progress::Behind } else { Progress::Broken }
}

/// A non-blocking write, counted in `sent`; 0 when the kernel takes nothing now.
fn write(tcp: &Tcp, bytes: &[u8], sent: &mut u64) -> io::Result<usize> {
    match tcp.try_write(bytes) {
        Ok(written) => {
            *sent += written as u64;
            Ok(written)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mesh::room::RoomKey;
    use protocol::socketio::Parser;
    use socket2::SockRef;
    use tokio::{
        io::{AsyncRead, AsyncReadExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::key::ConnKey;

    /// Two ends of a connection whose kernel takes little.
    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        SockRef::from(&near).set_send_buffer_size(8 * 1024).unwrap();
        near.writable().await.unwrap();
        (near, far)
    }

    async fn pair() -> (Tcp, TcpStream) {
        let (near, far) = sockets().await;
        (Tcp::plain(near), far)
    }

    /// Gives a turn to the one member, as `fanout` does.
    fn turn(outbox: &mut Outbox, tcp: &Tcp, rooms: &mut Rooms, stream: StreamId, bytes: &[u8]) -> Progress {
        rooms.append(stream.room, &Bytes::copy_from_slice(bytes), &[]).unwrap();
        let (turn, start) = rooms.take_turn(stream).unwrap();
        let (progress, cursor) = outbox.write_turn(tcp, stream, start, &turn.bytes);
        rooms.end_turn(stream, turn, start, usize::from(cursor));
        progress
    }

    const MEMBER: ConnKey = ConnKey { index: 0, serial: 0 };

    /// The stream for JSON of a room with one member.
    fn stream(rooms: &mut Rooms, name: &str) -> StreamId {
        let room = rooms.find_or_create(&RoomKey::new("/", name));
        rooms.get_mut(room).unwrap().insert(MEMBER, Parser::Json);
        StreamId { room, parser: Parser::Json }
    }

    #[tokio::test]
    async fn a_laggard_gets_every_byte_in_order_once_it_reads() {
        let (near, far) = pair().await;
        catches_up(near, far).await;
    }

    #[tokio::test]
    async fn a_laggard_behind_tls_gets_every_byte_in_order_once_it_reads() {
        let (near, far) = sockets().await;
        let (near, far) = crate::transport::tcp::tests::encrypted(near, far).await;
        catches_up(near, far).await;
    }

    async fn catches_up(near: Tcp, mut far: impl AsyncRead + Unpin) {
        let (mut outbox, mut rooms) = (Outbox::default(), Rooms::new(usize::MAX / 4));
        let (a, b) = (stream(&mut rooms, "a"), stream(&mut rooms, "b"));
        let mut expected = Vec::new();
        for n in 0..4_000u32 {
            let bytes = format!("<{n:0>400}>").into_bytes();
            expected.extend_from_slice(&bytes);
            if n % 7 == 0 {
                outbox.own().extend_from_slice(&bytes);
                outbox.flush(&near);
            } else {
                turn(&mut outbox, &near, &mut rooms, if n % 3 == 0 { a } else { b }, &bytes);
            }
        }
        assert!(outbox.is_lagging(), "the kernel took everything: nothing was tested");
        let read = async {
            let mut got = vec![0; expected.len()];
            far.read_exact(&mut got).await.unwrap();
            got
        };
        let write = async {
            while outbox.catch_up(&near, &mut rooms) == Progress::Blocked {
                near.writable().await.unwrap();
            }
        };
        let (got, ()) = tokio::join!(read, write);
        assert!(got == expected, "bytes were lost, repeated or reordered");
        assert_eq!(outbox.take_sent(), expected.len() as u64);
        rooms.get_mut(a.room).unwrap().remove(&MEMBER);
        rooms.remove_if_unused(a.room);
        assert!(!outbox.is_over(0) && rooms.find(&RoomKey::new("/", "a")).is_none(), "something is still held");
    }

    #[tokio::test]
    async fn a_laggard_that_fell_out_of_the_log_is_told_so() {
        let (near, _far) = pair().await;
        let (mut outbox, mut rooms) = (Outbox::default(), Rooms::new(1_024));
        let room = stream(&mut rooms, "a");
        while turn(&mut outbox, &near, &mut rooms, room, &[0; 4_096]) == Progress::Done {}
        for _ in 0..1_000 {
            turn(&mut outbox, &near, &mut rooms, room, &[0; 4_096]);
        }
        assert!(outbox.is_over(1_024));
        assert_eq!(outbox.catch_up(&near, &mut rooms), Progress::Behind);
    }
    #[tokio::test]
    async fn many_small_answers_wait_in_one_stretch() {
        let (near, _far) = pair().await;
        let mut outbox = Outbox::default();
        outbox.own().resize(16 << 20, 0);
        assert_eq!(outbox.flush(&near), Progress::Blocked);
        for _ in 0..1_000 {
            outbox.own().extend_from_slice(&[0x8a, 0]);
            outbox.flush(&near);
        }
        assert_eq!(outbox.backlog.len(), 1);
        assert_eq!(outbox.take_sent() + outbox.own_bytes as u64, (16 << 20) + 2_000);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_not_taken_for_one_that_is_behind() {
        let (near, far) = pair().await;
        let (mut outbox, mut rooms) = (Outbox::default(), Rooms::new(usize::MAX / 4));
        let room = stream(&mut rooms, "a");
        while turn(&mut outbox, &near, &mut rooms, room, &[0; 4_096]) == Progress::Done {}
        drop(far);
        let mut progress = Progress::Blocked;
        while progress == Progress::Blocked {
            near.writable().await.unwrap();
            progress = outbox.catch_up(&near, &mut rooms);
        }
        assert_eq!(progress, Progress::Broken);
    }
}
