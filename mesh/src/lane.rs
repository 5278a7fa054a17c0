//! One lane of a link: a bounded queue that any thread fills, and the stream that carries it.
//!
//! Invariants: frames leave in the order they were queued and arrive in that order; a push never blocks; bytes count as
//! queued until QUIC took them. Full policy: a lane with [`LANE_SOFT_BYTES`] or more refuses (`SendError::Full`) and counts
//! it, so it never holds more than [`LANE_HARD_BYTES`]; the sender slows down or drops, nothing is dropped here. What may be
//! lost is refused at a quarter of that ([`LANE_SPARE_BYTES`]), so that it never keeps out what may not.
//!
//! Credits (`mesh.md` 3 j) are QUIC's own stream windows: a reader asks `ready` before it takes bytes off the stream, and only
//! bytes taken widen the window again, so the credit of a lane is what its handler took, not what the kernel received. A lane
//! whose handler is not ready therefore costs the receiver one stream window and stops at the sender, alone: the numbers, and
//! why no lane waits for another, stand in `endpoint`.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;

use crate::{
    SendError,
    wire::header::{Decoder, FrameError, HEADER, Kind, frame, put_header},
};

/// Largest frame a lane takes.
pub const MAX_FRAME: usize = 2 << 20;
/// A lane holding this many bytes refuses more.
pub const LANE_SOFT_BYTES: usize = 2 << 20;
/// And from here on it has no room to spare for what may be lost.
pub const LANE_SPARE_BYTES: usize = LANE_SOFT_BYTES / 4;
/// No lane ever holds more: the soft bound and one frame.
pub const LANE_HARD_BYTES: usize = LANE_SOFT_BYTES + MAX_FRAME;
/// Bytes joined into one write; cost follows packets, not frames (`mesh.md` 1.3).
const BATCH: usize = 32 << 10;
/// Frames from this size on are handed to QUIC as they are, smaller ones are copied together.
const LARGE: usize = 4 << 10;
/// Block the reader asks for; frames of a block share it.
const READ_BLOCK: usize = 64 << 10;
/// Least room for a read, so that reads do not dwindle at the end of a block.
const READ_LEAST: usize = 4 << 10;

/// The sending half: the queue and its counters.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    queue: Mutex<Queue>,
    wake: Notify,
    pub(crate) sent: Traffic,
    pub(crate) received: Traffic,
    refused: AtomicU64,
}

/// Frames and their bytes, counted since the link came up.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    fn add(&self, frames: usize, bytes: usize) {
        self.frames.fetch_add(u64::try_from(frames).unwrap_or(0), Relaxed);
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.frames.load(Relaxed), self.bytes.load(Relaxed))
    }
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// Of the queued frames and of the batch being written.
    bytes: usize,
}

/// What one write carries.
#[derive(Debug, Default)]
struct Batch {
    chunks: Vec<Bytes>,
    frames: usize,
    bytes: usize,
}

impl Lane {
    /// Queues a frame, or says why not.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        self.push_below(LANE_SOFT_BYTES, frame)
    }

    /// As `push`, if the lane has room to spare.
    pub(crate) fn push_spare(&self, frame: Bytes) -> Result<(), SendError> {
        self.push_below(LANE_SPARE_BYTES, frame)
    }

    fn push_below(&self, most: usize, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > MAX_FRAME {
            return Err(SendError::TooLarge);
        }
        let mut queue = self.lock();
        if queue.bytes >= most {
            self.refused.fetch_add(1, Relaxed);
            return Err(SendError::Full);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        let first = queue.frames.len() == 1;
        drop(queue);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Frames it did not take for being full.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Takes frames worth one write, joined under their headers; `None` when there are none.
    fn take(&self) -> Option<Batch> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut queue = self.lock();
        while bytes < BATCH
            && let Some(frame) = queue.frames.pop_front()
        {
            bytes += frame.len();
            frames.push(frame);
        }
        drop(queue);
        if frames.is_empty() { None } else { Some(join(&frames, bytes)) }
    }

    fn written(&self, batch: &Batch) {
        self.lock().bytes -= batch.bytes;
        self.sent.add(batch.frames, batch.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere cannot leave the queue half changed: every change is one push or pop with its count.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn join(frames: &[Bytes], bytes: usize) -> Batch {
    let copied = frames.iter().map(|frame| HEADER + if frame.len() < LARGE { frame.len() } else { 0 }).sum();
    let mut joined = BytesMut::with_capacity(copied);
    let mut chunks = Vec::new();
    for frame in frames {
        put_header(&mut joined, Kind::Application, frame.len());
        if frame.len() < LARGE {
            joined.put_slice(frame);
        } else {
            chunks.push(joined.split().freeze());
            chunks.push(frame.clone());
        }
    }
    if !joined.is_empty() {
        chunks.push(joined.freeze());
    }
    Batch { chunks, frames: frames.len(), bytes }
}

/// Writes lane `number` to its stream until the link breaks.
pub(crate) async fn write(lane: &Lane, number: u8, mut stream: SendStream) -> Result<(), quinn::WriteError> {
    stream.write_chunk(frame(Kind::Lane, &[number])).await?;
    loop {
        lane.wake.notified().await;
        // Whoever runs in this turn of the loop may add to the first write.
        tokio::task::yield_now().await;
        while let Some(mut batch) = lane.take() {
            let mut chunks = std::mem::take(&mut batch.chunks);
            stream.write_all_chunks(&mut chunks).await?;
            lane.written(&batch);
        }
    }
}

/// Why a lane is no longer read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What came is no frame of a lane; the link must be closed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The link broke, or the peer ended the stream, which it never does on purpose.
    #[error("the stream ended")]
    Ended,
}

/// Reads frames until the link breaks; waits for `ready` before every read. `deliver` says whether to go on, `skipped` is told
/// how many frames were of a kind we need not know.
pub(crate) async fn read<F: Future<Output = ()>>(
    lane: &Lane,
    mut stream: RecvStream,
    mut decoder: Decoder,
    mut ready: impl FnMut() -> F,
    mut deliver: impl FnMut(Bytes) -> bool,
    skipped: impl Fn(u64),
) -> Result<(), ReadError> {
    loop {
        while let Some((kind, body)) = decoder.poll_frame()? {
            match kind {
                Kind::Application => {
                    lane.received.add(1, body.len());
                    if !deliver(body) {
                        return Ok(());
                    }
                }
                Kind::Hello
                | Kind::Open
                | Kind::Lane
                | Kind::Gossip
                | Kind::Request
                | Kind::Answer
                | Kind::Refused
                | Kind::PushPull
                | Kind::Pipe
                | Kind::Piece
                | Kind::Took => return Err(FrameError::Malformed("lane").into()),
            }
        }
        skipped(decoder.take_skipped());
        ready().await;
        fill(&mut stream, &mut decoder).await?;
    }
}

/// Reads what is there, at most to the end of a block.
pub(crate) async fn fill(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<(), ReadError> {
    let buffer = decoder.buffer(READ_LEAST, READ_BLOCK);
    let room = buffer.capacity() - buffer.len();
    match stream.read_chunk(room, true).await {
        Ok(Some(chunk)) => {
            buffer.extend_from_slice(&chunk.bytes);
            Ok(())
        }
        Ok(None) | Err(_) => Err(ReadError::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[Bytes]) -> Vec<Bytes> {
        let mut decoder = Decoder::new(MAX_FRAME);
        decoder.buffer(0, 0).extend_from_slice(&chunks.concat());
        std::iter::from_fn(|| decoder.poll_frame().unwrap()).map(|(_, body)| body).collect()
    }

    #[test]
    fn frames_leave_in_order_and_whole_whatever_their_size() {
        let lane = Lane::default();
        let sizes = [0, 10, LARGE - 1, LARGE, 3 * BATCH, 1, LARGE, LARGE];
        let frames: Vec<Bytes> = (0..).zip(sizes).map(|(n, size)| vec![n; size].into()).collect();
        for frame in &frames {
            lane.push(frame.clone()).unwrap();
        }
        let mut sent = Vec::new();
        while let Some(batch) = lane.take() {
            sent.extend(decode(&batch.chunks));
            lane.written(&batch);
        }
        assert_eq!(sent, frames);
        assert_eq!(lane.queued_bytes(), 0);
        assert_eq!(lane.sent.read(), (8, sizes.iter().sum::<usize>() as u64));
    }

    #[test]
    fn small_frames_share_one_write_and_large_ones_are_not_copied() {
        let lane = Lane::default();
        let large = Bytes::from(vec![7; LARGE]);
        for frame in [Bytes::from_static(b"a"), Bytes::from_static(b"b"), large.clone()] {
            lane.push(frame).unwrap();
        }
        let batch = lane.take().unwrap();
        assert_eq!(batch.chunks.len(), 2);
        assert_eq!(batch.chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn what_may_be_lost_leaves_room_for_what_may_not() {
        let lane = Lane::default();
        while lane.push_spare(Bytes::from(vec![0; 64 << 10])).is_ok() {}
        assert_eq!(lane.queued_bytes(), LANE_SPARE_BYTES);
        lane.push(Bytes::from(vec![0; MAX_FRAME])).unwrap();
    }

    #[test]
    fn a_lane_refuses_beyond_its_bound_and_takes_again_after_a_write() {
        let lane = Lane::default();
        let frame = Bytes::from(vec![0; MAX_FRAME - 1]);
        assert_eq!(lane.push(Bytes::from(vec![0; MAX_FRAME + 1])), Err(SendError::TooLarge));
        lane.push(frame.clone()).unwrap();
        lane.push(frame.clone()).unwrap();
        assert_eq!(lane.push(Bytes::from_static(b"x")), Err(SendError::Full));
        assert_eq!(lane.refused(), 1, "only what a later push may take is counted");
        assert!(lane.queued_bytes() <= LANE_HARD_BYTES);
        let batch = lane.take().unwrap();
        assert_eq!(lane.push(frame.clone()), Err(SendError::Full), "a batch counts until it is written");
        lane.written(&batch);
        assert_eq!(lane.queued_bytes(), frame.len());
        lane.push(frame).unwrap();
    }
}
