//! Pipes: bytes of the application both ways between two nodes, on a stream of their own, below the lanes.
//!
//! Invariants: a pipe has at most [`WINDOW`] bytes on the way in each direction that the other side did not say it took, and
//! all pipes of a link and use together at most their budget (and [`FREE`] each): what pipes carry never fills the windows that
//! lanes and questions live on, whoever stops reading; a pipe dropped before [`Pipe::finish`] is reset, so that the other
//! side never takes a torn stream for a whole one; what a peer sends beyond these rules ends the pipe, not the link.

mod budget;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::{BufMut, Bytes};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::OwnedSemaphorePermit;

use budget::Account;
pub(crate) use budget::{PIPES, Pipes, WORST};

use crate::{
    endpoint::priority,
    handle::{Shared, add},
    link::Link,
    refusals::RefusalReason,
    wire::header::{Decoder, Kind, frame},
};

/// Largest head of a pipe: what its opener says it is for.
pub const MAX_HEAD: usize = 4 << 10;
/// Bytes that travel as one frame; larger ones are cut.
const PIECE: usize = 16 << 10;
/// Bytes one direction may have on the way.
const WINDOW: usize = 32 << 10;
/// Of those, so many cost nothing, and are not reported as taken either: a short question and its answer need no third frame.
const FREE: usize = 1 << 10;
/// What a peer is told whose pipe was given up. Means nothing.
const GIVEN_UP: VarInt = VarInt::from_u32(0);

/// What a pipe is for. Each use has a budget of its own, so that those that last cannot take the place of those that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeUse {
    /// A question and its answer.
    Brief,
    /// Anything that goes on for hours.
    Lasting,
}

impl PipeUse {
    fn from_byte(byte: u8) -> Option<PipeUse> {
        [PipeUse::Brief, PipeUse::Lasting].into_iter().find(|what| *what as u8 == byte)
    }
}

/// A pipe came to nothing, or to its end before it was finished.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum PipeError {
    /// There is no link to that node now; the peer saw nothing.
    #[error("no link to that node")]
    NoLink,
    /// Too many pipes to that node are open; the peer saw nothing.
    #[error("too many pipes to that node are open")]
    Full,
    /// The head is larger than [`MAX_HEAD`]; the peer saw nothing.
    #[error("the head is larger than the limit")]
    TooLarge,
    /// The peer gave it up, or the link broke.
    #[error("the pipe broke")]
    Lost,
    /// The peer sent what is no part of a pipe.
    #[error("the peer broke the rules of a pipe")]
    Malformed,
}

/// See the module. Usable from any thread; [`Pipe::send`] and [`Pipe::recv`] may run side by side, and have to: what the peer
/// took is heard by `recv` alone.
#[derive(Debug)]
pub struct Pipe {
    outlet: tokio::sync::Mutex<SendStream>,
    finished: AtomicBool,
    inlet: tokio::sync::Mutex<Inlet>,
    /// What we sent.
    account: Account,
    /// What we got.
    taken: Mutex<Taken>,
    shared: Arc<Shared>,
    /// One of the pipes that we may open, if we did.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Inlet {
    stream: RecvStream,
    decoder: Decoder,
}

/// Bytes that came and were not reported.
#[derive(Debug, Default)]
struct Taken {
    /// All of them.
    came: usize,
    /// Those that are passed on.
    passed: usize,
}

/// Opens a pipe over a link.
pub(crate) async fn open(link: Arc<Link>, shared: Arc<Shared>, what: PipeUse, head: Bytes) -> Result<Pipe, PipeError> {
    if head.len() > MAX_HEAD {
        return Err(PipeError::TooLarge);
    }
    let place = link.pipes.place(what).ok_or(PipeError::Full)?;
    let (send, recv) = link.connection.open_bi().await.map_err(|_| PipeError::Lost)?;
    let pipe = Pipe::new((send, recv), Decoder::new(PIECE), &link.pipes, what, shared, Some(place));
    let mut body = Vec::with_capacity(1 + head.len());
    body.push(what as u8);
    body.extend_from_slice(&head);
    pipe.write(frame(Kind::Pipe, &body)).await?;
    Ok(pipe)
}

/// The pipe that a peer opened with this frame, and its head. `decoder` has what came behind it.
pub(crate) fn accept(
    link: &Link,
    shared: Arc<Shared>,
    streams: (SendStream, RecvStream),
    mut decoder: Decoder,
    body: &Bytes,
) -> Option<(Bytes, Pipe)> {
    let what = PipeUse::from_byte(*body.first()?)?;
    let head = Some(body.slice(1..)).filter(|head| head.len() <= MAX_HEAD)?;
    decoder.allow(PIECE);
    Some((head, Pipe::new(streams, decoder, &link.pipes, what, shared, None)))
}

impl Pipe {
    fn new(
        (send, stream): (SendStream, RecvStream),
        decoder: Decoder,
        pipes: &Pipes,
        what: PipeUse,
        shared: Arc<Shared>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Pipe {
        // A stream that is closed already says so at the write that follows.
        let _ = send.set_priority(priority::PIPE);
        Pipe {
            outlet: send.into(),
            finished: AtomicBool::new(false),
            inlet: Inlet { stream, decoder }.into(),
            account: Account::new(pipes.budget(what)),
            taken: Mutex::default(),
            shared,
            _place: place,
        }
    }

    /// Sends bytes; waits while the peer has not taken enough of what was sent before, or the budget is spent. Not cancel
    /// safe: after a dropped `send` the pipe can only be dropped too.
    ///
    /// # Errors
    /// The peer gave the pipe up, or the link broke.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), PipeError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.account.owe(piece.len()).await;
            add(&self.shared.counters.pipe_bytes_sent, piece.len());
            self.write(frame(Kind::Piece, &piece)).await?;
        }
        Ok(())
    }

    /// The next bytes; `None` when the peer finished. Whoever has passed them on says so with [`Pipe::took`]. Cancel safe.
    ///
    /// # Errors
    /// The pipe broke, or the peer did not keep to its rules: then it can only be dropped.
    pub async fn recv(&self) -> Result<Option<Bytes>, PipeError> {
        let mut inlet = self.inlet.lock().await;
        let Inlet { stream, decoder } = &mut *inlet;
        loop {
            let polled = decoder.poll_frame();
            self.shared.skipped(decoder.take_skipped());
            match polled {
                Ok(Some((Kind::Piece, piece))) if self.came(piece.len()) => {
                    add(&self.shared.counters.pipe_bytes_received, piece.len());
                    return Ok(Some(piece));
                }
                Ok(Some((Kind::Took, body))) if self.account.settle(&body) => {}
                Ok(Some(_)) | Err(_) => return Err(self.malformed()),
                Ok(None) => match fill(stream, decoder).await {
                    Ok(true) => {}
                    Ok(false) if decoder.is_empty() => return Ok(None),
                    Ok(false) => return Err(self.malformed()),
                    Err(_) => return Err(PipeError::Lost),
                },
            }
        }
    }

    /// So many of the received bytes are passed on: the peer may send as many more. After `finish` nobody is told.
    ///
    /// # Errors
    /// The peer gave the pipe up, or the link broke.
    pub async fn took(&self, bytes: usize) -> Result<(), PipeError> {
        let passed = {
            let mut taken = self.taken();
            taken.passed += bytes;
            if taken.passed < FREE || self.finished.load(Relaxed) {
                return Ok(());
            }
            let passed = std::mem::take(&mut taken.passed);
            taken.came = taken.came.saturating_sub(passed);
            passed
        };
        // At most a window.
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.write(frame(Kind::Took, &passed.to_be_bytes())).await
    }

    /// Tells the peer that nothing follows. What was sent arrives, also when the pipe is dropped then. The peer cannot be told
    /// any more what we took, so that it sends one window at most.
    pub async fn finish(&self) {
        let mut outlet = self.outlet.lock().await;
        // One that is closed already has nobody to tell.
        let _ = outlet.finish();
        self.finished.store(true, Relaxed);
    }

    /// Whether so many more bytes may have come; they have.
    fn came(&self, bytes: usize) -> bool {
        let mut taken = self.taken();
        taken.came += bytes;
        bytes > 0 && taken.came <= WINDOW
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic elsewhere cannot leave two numbers half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn malformed(&self) -> PipeError {
        self.shared.refusals.count(RefusalReason::Question);
        PipeError::Malformed
    }

    async fn write(&self, frame: Bytes) -> Result<(), PipeError> {
        self.outlet.lock().await.write_chunk(frame).await.map_err(|_| PipeError::Lost)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !*self.finished.get_mut() {
            // One that is closed already has nobody to tell.
            let _ = self.outlet.get_mut().reset(GIVEN_UP);
        }
    }
}

/// Reads what is there, into no more room than that; false at the end. Cancel safe.
pub(crate) async fn fill(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<bool, quinn::ReadError> {
    let Some(chunk) = stream.read_chunk(WINDOW, true).await? else { return Ok(false) };
    decoder.buffer(chunk.bytes.len(), chunk.bytes.len()).put_slice(&chunk.bytes);
    Ok(true)
}
