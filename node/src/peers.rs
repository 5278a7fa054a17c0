//! What the mesh tells this node, sorted to the shards whose slots it is about.
//!
//! Invariants: runs on the mesh thread and never waits; a slot's frames reach its shard in the order of their lane; a lane
//! is read no further while a shard that has some of its slots is behind (`ready`): the next frame may be for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::{
    Event, Handler, LANES, Pipe, Responder, SLOTS,
    room::RoomKey,
    wire::{
        address::{Address, Purpose},
        direct::Direct,
        forward::Errand,
        message::DecodeError,
        request::Request,
        survey::{self, Said},
    },
};
use protocol::{sid::Sid, socketio::Args};

use crate::{
    api::Fact,
    clock,
    cluster::figures,
    context::Context,
    forward::Forwarded,
    gateway::{Back, Report, Survey},
    handler::Audience,
    message::Message,
    metrics::{self, DropReason, Metrics},
    orders::Order,
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

    /// A question to clients of this node, or what became of one.
    fn survey(&self, from: mesh::NodeId, frame: Bytes) {
        match Said::decode(frame) {
            Ok(Said::Survey(survey)) => {
                let survey = Arc::new(asked_by(from, survey));
                self.everybody(|| Message::Survey(survey.clone()));
            }
            Ok(Said::Report(survey::Report { shard, survey, what })) => {
                let report = match what {
                    survey::What::Asked { clients, shards } => {
                        Report::Asked { clients: usize::try_from(clients).unwrap_or(usize::MAX), shards }
                    }
                    survey::What::Answer { json, attachments } => Report::Answer(Args { json, attachments }),
                    survey::What::Silence => Report::Silence,
                };
                if let Some(shard) = self.context.shards.get(usize::from(shard)) {
                    shard.send(Message::Report { from, survey, report });
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
        if let Some(purpose) = Purpose::peek(&frame) {
            let purpose = match purpose {
                Purpose::Publish => metrics::Purpose::Publish,
                Purpose::Keep => metrics::Purpose::Keep,
                Purpose::Show => metrics::Purpose::Show,
            };
            self.context.metrics.mesh_room_frames.of(purpose).inc();
        }
        if Said::is(&frame) {
            return self.survey(from, frame);
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
            Ok(Request::Copy { slot, .. } | Request::Seats { slot }) if slot < SLOTS => {
                self.to_slot(slot, Message::PeerRequest { body: body.clone(), responder });
            }
            Ok(Request::Copy { slot, .. } | Request::Seats { slot }) => {
                tracing::debug!(slot, "refused a peer's question about a slot that is none");
            }
            Ok(Request::Sockets { audience, deed }) => {
                let order = Order::from_wire(&audience, &deed);
                // Whichever shard: it only collects what all of them do.
                if let (Some(order), Some(shard)) = (order, self.context.shards.first()) {
                    shard.send(Message::PeerOrder { order, responder });
                }
            }
            Err(error) => tracing::debug!(%error, "refused a question of a peer"),
        }
    }

    /// A client of a session of this node, which came to another. One that is not ours is refused by dropping its pipe.
    fn pipe(&self, from: mesh::NodeId, head: &[u8], pipe: Box<Pipe>) {
        let errand = match Errand::decode(head) {
            Ok(errand) => errand,
            Err(error) => return tracing::debug!(%from, %error, "refused a pipe of a peer"),
        };
        let sid = self.context.sid_keys.find(|key| Sid::parse(errand.sid, key).ok());
        let shard = sid.and_then(|sid| Some((sid, self.context.shard_of(&sid)?)));
        if let Some((sid, shard)) = shard {
            let forwarded = Forwarded { what: errand.what, sid, pipe };
            self.context.shards[usize::from(shard)].send(Message::Forwarded(forwarded));
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

/// A question as the shards of this node get it.
fn asked_by(from: mesh::NodeId, survey: survey::Survey) -> Survey {
    let survey::Survey { shard, survey, id, timeout_ms, namespace, rooms, except, payload } = survey;
    Survey {
        audience: Audience { namespace, rooms: rooms.into(), except },
        id,
        payload,
        due: clock::now() + Duration::from_millis(timeout_ms.into()),
        back: Back { node: from, shard, survey },
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
            Event::Pipe { from, head, pipe } => self.pipe(from, &head, pipe),
        }
    }

    async fn ready(&self, lane: u8) {
        let shards = self.context.shards.len();
        for (_, shard) in self.context.shards.iter().enumerate().filter(|(shard, _)| meets(lane, *shard, shards)) {
            shard.ready().await;
        }
    }
}

/// Whether a lane can carry something for a shard: it has the slots that are `lane` modulo the lanes, the shard those that are
/// `shard` modulo the shards, and some slot is both exactly if the two agree modulo what divides both numbers.
fn meets(lane: u8, shard: usize, shards: usize) -> bool {
    let lanes = usize::from(LANES);
    let common = [4, 2, 1].into_iter().find(|by| lanes.is_multiple_of(*by) && shards.is_multiple_of(*by)).unwrap_or(1);
    usize::from(lane) % common == shard % common
}

#[cfg(test)]
mod tests {
    use mesh::SLOTS;

    use super::*;

    #[test]
    fn a_lane_waits_for_the_shards_of_its_slots_and_for_no_other() {
        for shards in 1..=64 {
            for lane in 0..LANES {
                for shard in 0..shards {
                    let mut slots = (0..SLOTS).filter(|slot| slot % u16::from(LANES) == u16::from(lane));
                    let has = slots.any(|slot| usize::from(slot) % shards == shard);
                    assert_eq!(meets(lane, shard, shards), has, "lane {lane}, shard {shard} of {shards}");
                }
                // What is meant for one shard travels in the lane of its number.
                assert!(
                    (0..shards).filter(|shard| shard % 4 == usize::from(lane)).all(|shard| meets(lane, shard, shards))
                );
            }
        }
    }
}
