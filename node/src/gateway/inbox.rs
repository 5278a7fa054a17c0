//! What other threads say to this shard, one message at a time.
//!
//! Invariants: exhaustive and short: each message is one call; order of arrival is order of effect.

use std::time::Instant;

use bytestring::ByteString;
use protocol::{
    engine::session::{CloseReason, Refusal, Session},
    sid::Sid,
};
use tokio::sync::oneshot;

use super::{Gateway, Task, drain::Drain, reply};
use crate::{clock, message::Message, peers::note_dropped, transport::PollReply};

impl Gateway {
    /// Handles one message of another thread.
    pub(crate) fn handle(&mut self, message: Message, now: Instant) {
        let now_ms = clock::wall_ms();
        match message {
            Message::Get { sid, reply: to } => self.handle_get(&sid, to, now),
            Message::GetAborted { sid, lost } => {
                self.with_session(&sid, now, |session| {
                    session.handle_get_aborted(now);
                    if lost {
                        session.close(CloseReason::TransportError, now);
                    }
                });
            }
            Message::PostStarted { sid, reply: to } => {
                let started = self.with_session(&sid, now, Session::handle_post_started);
                let started = started.unwrap_or(Err(Refusal::UNKNOWN_SID));
                reply(to, started.map(|()| self.body_max(&sid)).map_err(PollReply::from));
            }
            Message::Post { sid, body, reply: to } => self.handle_post(&sid, body, to, now),
            Message::PostAborted { sid } => {
                self.with_session(&sid, now, |session| session.handle_post_aborted(now));
            }
            Message::Find { sid, reply: to } => {
                reply(to, self.sids.contains_key(&sid));
            }
            Message::Forwarded(forwarded) => self.tasks.push(Task::Serve(forwarded)),
            Message::WebSocket { sid, tcp, rest } => match tcp.attach() {
                Ok(tcp) => self.adopt_websocket(&sid, tcp, rest, now),
                Err(error) => tracing::warn!(%error, "a WebSocket could not be handed to its shard"),
            },
            Message::Publish { publish, ask } => self.slots.handle_publish(publish, ask, now, now_ms),
            Message::Join { room, want, ask } => self.slots.handle_join(&room, want, ask, now, now_ms),
            Message::JoinPresent { room, want, member, ask } => {
                self.slots.handle_join_present(&room, want, member, ask, now, now_ms);
            }
            Message::Depart { room, id } => self.slots.handle_depart(&room, &id, now, now_ms),
            Message::Presence { room, ask } => self.slots.handle_presence(&room, ask),
            Message::Change { room, change } => self.handle_change(&room, &change),
            Message::Leave { room, shard } => self.slots.handle_leave(&room, shard, now),
            Message::History { room, want, ask } => self.slots.handle_history(&room, want, ask, now_ms),
            Message::Deliver { frame } => self.handle_deliver(&frame),
            Message::Gap { room, stamp } => self.handle_gap(&room, stamp),
            Message::Answer { token, answer } => self.handle_answer(token, answer),
            Message::Direct(direct) => self.handle_direct(&direct),
            Message::Answered { ack, args } => self.answer(ack, args),
            Message::Survey(survey) => self.handle_survey(&survey),
            Message::Report { from, survey, report } => self.handle_report(from, survey, report, now),
            Message::Order { order, reply: to } => self.handle_order(&order, to, now),
            Message::PeerOrder { order, responder } => self.handle_peer_order(order, responder),
            Message::Errand { socket, errand } => self.handle_errand(&socket, errand, now),
            Message::Speak { errand } => self.handle_speech(errand, now),
            Message::View(view) => self.slots.handle_view(&view, now, now_ms),
            Message::LinkUp { node, generation } => self.handle_link_up(node, generation, now, now_ms),
            Message::LinkDown(node) => self.handle_link_down(node, now, now_ms),
            Message::PeerFrame { from, frame } => self.handle_peer_frame(from, &frame, now, now_ms),
            Message::PeerRequest { body, responder } => {
                let request = self.requests.insert(responder) as u64;
                self.slots.handle_history_request(request, &body);
            }
            Message::Read { read, found } => {
                self.tally.reads += 1;
                self.slots.handle_read(read, found, now_ms);
            }
            Message::Scanned { scan, scanned } => {
                self.tally.reads += 1;
                self.slots.handle_scanned(scan, scanned, now, now_ms);
            }
            Message::Seats { slot, reply: to } => reply(to, self.slots.seats(slot)),
            Message::Census { reply } => self.census_asked.push(reply),
            Message::Drain { per_second, done } => self.start_drain(Drain::new(per_second, done, now), now),
        }
    }

    fn handle_link_up(&mut self, node: mesh::NodeId, generation: u64, now: Instant, now_ms: u64) {
        self.slots.handle_generation(node, generation, now, now_ms);
        self.slots.handle_link_up(node, generation, now, now_ms);
    }

    fn handle_link_down(&mut self, node: mesh::NodeId, now: Instant, now_ms: u64) {
        self.slots.handle_link_down(node, now, now_ms);
        self.lose_surveyed(node, now);
    }

    fn handle_post(&mut self, sid: &Sid, body: bytes::Bytes, to: oneshot::Sender<PollReply>, now: Instant) {
        self.tally.bytes_received += body.len() as u64;
        let handled = match ByteString::try_from(body) {
            Ok(body) => self.with_session(sid, now, |session| session.handle_post(body, now)),
            Err(_) => self.with_session(sid, now, |session| {
                session.close(CloseReason::ParseError, now);
                Err(Refusal::BAD_REQUEST)
            }),
        };
        reply(to, handled.unwrap_or(Err(Refusal::UNKNOWN_SID)).map_or_else(PollReply::from, |()| PollReply::ok()));
    }

    fn handle_peer_frame(&mut self, from: mesh::NodeId, frame: &bytes::Bytes, now: Instant, now_ms: u64) {
        if let Err(error) = self.slots.handle_frame(from, frame, now, now_ms) {
            note_dropped(&self.context.metrics, from, &error);
        }
        self.tally.published_by_peers += self.slots.take_released_for_peers();
    }

    /// The answer of a peer to `Task::Fetch`.
    pub(crate) fn handle_fetched(&mut self, read: u64, body: Option<bytes::Bytes>) {
        self.slots.handle_fetched(read, body, clock::wall_ms());
    }
}
