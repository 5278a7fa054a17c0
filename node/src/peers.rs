//! What the mesh tells this node, sorted to the shards whose slots it is about.
//!
//! Invariants: runs on the mesh thread and never waits; a slot's frames reach its shard in the order of their lane; a lane
//! is read no further while a shard of this node is behind (`ready`): any of its slots may be meant by the next frame.

use std::sync::Arc;

use bytes::Bytes;
use mesh::{
    Event, Handler, Responder, SLOTS,
    room::RoomKey,
    wire::{
        direct::Direct,
        message::{Address, DecodeError, Errand},
        request::Request,
    },
};

use crate::{
    api::Fact,
    cluster::figures,
    context::Context,
    message::Message,
    metrics::{self, DropReason, Metrics},
};

/// See the module.
pub(crate) struct Peers {
    context: Arc<Context>,
}

impl Peers {
    /// Sorts for the shards of `context`.
    pub(crate) fn new(context: Arc<Context>) -> Peers {
        Peers { context }
    }

    fn everybody(&self, message: impl Fn() -> Message) {
        for shard in &self.context.shards {
            shard.send(message());
        }
    }

    fn to_slot(&self, slot: u16, message: Message) {
        let shard = self.context.shard_of_slot(slot);
        self.context.shards[usize::from(shard)].send(message);
    }

    /// An event for one socket of this node.
    fn direct(&self, from: mesh::NodeId, frame: Bytes) {
        match Direct::decode(frame) {
            Ok(direct) => {
                if let Some(shard) = self.context.shards.get(usize::from(direct.shard)) {
                    shard.send(Message::Direct(direct));
                }
            }
            Err(error) => self.drop(from, &error),
        }
    }

    fn drop(&self, from: mesh::NodeId, error: &DecodeError) {
        note_dropped(&self.context.metrics, from, error);
    }

    fn frame(&self, from: mesh::NodeId, frame: Bytes) {
        if Direct::is(&frame) {
            return self.direct(from, frame);
        }
        if let Some(errand) = Errand::peek(&frame) {
            let errand = match errand {
                Errand::Publish => metrics::Errand::Publish,
                Errand::Keep => metrics::Errand::Keep,
                Errand::Show => metrics::Errand::Show,
            };
            self.context.metrics.mesh_room_frames.of(errand).inc();
        }
        match Address::peek(&frame) {
            Ok(Address::Slot(slot)) => self.to_slot(slot, Message::PeerFrame { from, frame }),
            Ok(Address::Everybody) => self.everybody(|| Message::PeerFrame { from, frame: frame.clone() }),
            Err(error) => self.drop(from, &error),
        }
    }

    /// A question; one that cannot be read is refused by dropping its responder.
    fn request(&self, body: &Bytes, responder: Responder) {
        match Request::decode(body) {
            Ok(Request::Figures) => {
                responder.answer(figures(&self.context).encode());
            }
            Ok(Request::History { room, .. } | Request::Presence { room }) => {
                if let Some(room) = RoomKey::from_bytes(Bytes::copy_from_slice(room)) {
                    self.to_slot(room.slot(), Message::PeerRequest { body: body.clone(), responder });
                }
            }
            Ok(Request::Copy { slot, .. }) if slot < SLOTS => {
                self.to_slot(slot, Message::PeerRequest { body: body.clone(), responder });
            }
            Ok(Request::Copy { slot, .. }) => {
                tracing::debug!(slot, "refused a peer's question about a slot that is none");
            }
            Err(error) => tracing::debug!(%error, "refused a question of a peer"),
        }
    }
}

/// Counts a frame of a peer that cannot be read: one of a later version is skipped, any other is dropped. A peer could send
/// many: they are counted, and only those who ask for it are told of each.
pub(crate) fn note_dropped(metrics: &Metrics, from: mesh::NodeId, error: &DecodeError) {
    tracing::debug!(%from, %error, "dropped a frame of a peer");
    if error.is_newer() {
        metrics.mesh_skipped.inc();
    } else {
        metrics.dropped.of(DropReason::Mesh).inc();
    }
}

impl Handler for Peers {
    fn handle(&self, event: Event) {
        match event {
            Event::View(view) => {
                tracing::info!(view = view.version, members = view.members.len(), "the cluster changed");
                if view.members.len() > 1 {
                    self.context.health.set(Fact::Joined, true);
                }
                self.everybody(|| Message::View(view.clone()));
            }
            Event::LinkUp { node, generation } => {
                tracing::info!(%node, generation, "link up");
                self.everybody(|| Message::LinkUp { node, generation });
            }
            Event::LinkDown { node, generation, reason } => {
                tracing::warn!(%node, generation, reason, "link down");
                self.everybody(|| Message::LinkDown(node));
            }
            Event::Frame { from, lane: _, frame } => self.frame(from, frame),
            Event::Request { from: _, body, responder } => self.request(&body, responder),
        }
    }

    async fn ready(&self, _lane: u8) {
        for shard in &self.context.shards {
            shard.ready().await;
        }
    }
}
