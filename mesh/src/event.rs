//! Upcalls from the mesh to the gateway.
//!
//! Invariants: all come from the mesh thread; per peer they are in order; `LinkUp` and `LinkDown` of a node alternate strictly,
//! beginning with `LinkUp`; no `Frame`, `Request` or `Pipe` of a link comes before its `LinkUp` or after its `LinkDown`.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{NodeId, Pipe, View};

/// Something happened in the cluster.
#[derive(Debug)]
pub enum Event {
    /// The cluster as we see it changed (after 300 ms without further change); the first comes at the start of `run`.
    View(Arc<View>),
    /// Frames can be sent to this process of the node. It may come before the view that has the node, and after one that
    /// has it.
    LinkUp {
        /// The peer.
        node: NodeId,
        /// Its process start.
        generation: u64,
    },
    /// The link is gone and with it every frame that was queued or in flight. The node may be alive nevertheless.
    LinkDown {
        /// The peer.
        node: NodeId,
        /// The generation told at `LinkUp`.
        generation: u64,
        /// Why, for the log.
        reason: String,
    },
    /// A frame as the peer gave it to `send`. The bytes share a block of up to 64 KiB with their neighbours: copy what
    /// shall be kept for long alone.
    Frame {
        /// The sender.
        from: NodeId,
        /// The lane it was sent in.
        lane: u8,
        /// The frame.
        frame: Bytes,
    },
    /// A question. Drop the responder to refuse it.
    Request {
        /// The asker.
        from: NodeId,
        /// The question.
        body: Bytes,
        /// Takes the answer.
        responder: Responder,
    },
    /// A pipe that the peer opened. Drop it to refuse it.
    Pipe {
        /// Who opened it.
        from: NodeId,
        /// What the peer says it is for, at most [`crate::MAX_HEAD`] bytes.
        head: Bytes,
        /// The pipe. It may be used on any thread.
        pipe: Box<Pipe>,
    },
}

/// What the gateway implements to hear from the mesh.
pub trait Handler: Send + Sync + 'static {
    /// Takes one event. Called on the mesh thread: must not block.
    fn handle(&self, event: Event);

    /// Completes when frames of `lane` can be taken. While it is pending the lane is not read and QUIC's flow control slows
    /// the senders down. Cancel safe: it is dropped when the link breaks.
    fn ready(&self, lane: u8) -> impl Future<Output = ()> + Send;
}

/// Answers one request, from any thread. Dropped without an answer, the asker gets `Refused`.
#[derive(Debug)]
pub struct Responder {
    pub(crate) answer: oneshot::Sender<Bytes>,
}

impl Responder {
    /// Sends the answer, at most [`crate::MAX_ANSWER`] bytes (a larger one refuses). If the asker is gone nothing happens.
    pub fn answer(self, body: Bytes) {
        // The asker may have given up; that is its right and no error of ours.
        let _ = self.answer.send(body);
    }
}
