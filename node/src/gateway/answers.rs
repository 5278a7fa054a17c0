//! What slots answer, turned into acks, memberships and notices.
//!
//! Invariants: a join makes its member exactly here, between the frames before its answer (history) and those after it
//! (live); a socket that left or went meanwhile does not become a member.

use std::sync::Arc;

use bytestring::ByteString;
use mesh::{
    room::RoomKey,
    slot::{Answer, History, Stamp},
    wire::message::{Frame, Refusal},
};
use serde_json::{Value, json};

use super::{Gateway, Pending, Question};
use crate::{
    clock, envelope,
    key::ConnKey,
    metrics::RejectReason,
    room::{Room, RoomId},
};

impl Gateway {
    /// The answer to the question `token` of this shard.
    pub(super) fn handle_answer(&mut self, token: u64, answer: Answer) {
        let Some(pending) = usize::try_from(token).ok().and_then(|token| self.pending.try_remove(token)) else {
            return;
        };
        let Pending { key, namespace, ack, question } = pending;
        match (question, answer) {
            (Question::Publish, Answer::Published(Ok(stamp))) => {
                self.acknowledge(key, &namespace, ack, &published(stamp), Vec::new());
            }
            (Question::History, Answer::History(Ok(history))) => self.send_history(key, &namespace, ack, &history),
            (Question::Join { room, history, replay, cancelled }, Answer::Joined(result)) => {
                let asked = Asked { key, namespace, ack, token, history, replay };
                self.handle_joined(&asked, room, cancelled, result);
            }
            (Question::Publish | Question::History, Answer::Published(Err(why)) | Answer::History(Err(why))) => {
                self.refuse(key, &namespace, ack, why);
            }
            // A slot answers what was asked; anything else is a bug that must not look like success.
            (Question::Publish | Question::History | Question::Join { .. }, _) => {
                self.refuse(key, &namespace, ack, Refusal::Internal);
            }
        }
    }

    fn handle_joined(&mut self, asked: &Asked, id: RoomId, cancelled: bool, result: Result<History, Refusal>) {
        let now = clock::now();
        // What came before the answer is the old members' alone.
        self.deliver_room(id);
        if let Some(room) = self.rooms.get_mut(id) {
            room.joining = room.joining.saturating_sub(1);
        }
        if let Some(socket) = self.connections.get_mut(asked.key).and_then(|c| c.socket_mut(&asked.namespace)) {
            socket.joining.retain(|(_, token)| *token != asked.token);
        }
        match result {
            Err(_) if cancelled => {}
            // Nobody asked for this one, so nobody would ask again: the owner could not be reached within its patience.
            Err(_) if self.rooms.get(id).is_some_and(Room::is_namespace) => {
                self.enter_namespace(asked.key, &asked.namespace, now);
            }
            Err(why) => self.refuse(asked.key, &asked.namespace, asked.ack, why),
            Ok(_) if cancelled => {}
            Ok(history) => self.add_member(asked, id, &history),
        }
        self.leave_if_empty(id, now);
    }

    fn add_member(&mut self, asked: &Asked, id: RoomId, history: &History) {
        let Some(socket) = self.connections.get_mut(asked.key).and_then(|c| c.socket_mut(&asked.namespace)) else {
            return;
        };
        if !socket.rooms.contains(&id) {
            socket.rooms.push(id);
        }
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.members.insert(asked.key) && !room.is_namespace() {
            self.tally.memberships += 1;
        }
        if asked.ack.is_none() && history.frames.is_empty() {
            return;
        }
        let mut body = json!({
            "ok": true,
            "room": room.key.room(),
            "epoch": envelope::epoch(history.lineage),
            "offset": history.head,
        });
        if let Some(recovered) = history.recovered {
            body["recovered"] = Value::Bool(recovered);
        }
        if asked.replay {
            body["replayed"] = history.frames.len().into();
            self.acknowledge(asked.key, &asked.namespace, asked.ack, &body, Vec::new());
            return self.replay(asked.key, &history.frames);
        }
        let (items, attachments) = envelope::items(history.frames.iter().map(AsRef::as_ref));
        if asked.history {
            body["history"] = items;
        }
        self.acknowledge(asked.key, &asked.namespace, asked.ack, &body, attachments);
    }

    /// Sends old events as the events they were.
    fn replay(&mut self, key: ConnKey, frames: &[Arc<Frame>]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        for frame in frames {
            for message in envelope::messages(&frame.payload) {
                connection.send(message);
            }
        }
        self.tally.deliveries += frames.len() as u64;
        self.touch(key);
    }

    fn send_history(&mut self, key: ConnKey, namespace: &ByteString, ack: Option<u64>, history: &History) {
        let (items, attachments) = envelope::items(history.frames.iter().map(AsRef::as_ref));
        let mut body = json!({
            "ok": true,
            "epoch": envelope::epoch(history.lineage),
            "offset": history.head,
            "items": items,
            "complete": history.complete,
        });
        if history.gap {
            body["gap"] = Value::Bool(true);
        }
        self.acknowledge(key, namespace, ack, &body, attachments);
    }

    /// Tells an event's sender why it had no effect.
    fn refuse(&mut self, key: ConnKey, namespace: &ByteString, ack: Option<u64>, why: Refusal) {
        let (code, message, reason) = match why {
            Refusal::Overloaded { .. } => ("overloaded", "the room cannot take this now", RejectReason::Overloaded),
            Refusal::StorageFull => ("storage_full", "history cannot be kept now", RejectReason::StorageFull),
            Refusal::Draining => ("draining", "this node is going away; reconnect", RejectReason::Draining),
            Refusal::Internal => ("internal", "nothing is known about the effect", RejectReason::Timeout),
        };
        self.tally.rejected.push(reason);
        let mut body = json!({"ok": false, "code": code, "message": message});
        if let Refusal::Overloaded { retry_ms } = why {
            body["retry_ms"] = retry_ms.into();
        }
        self.acknowledge(key, namespace, ack, &body, Vec::new());
    }

    /// A frame for the members on this shard.
    pub(super) fn handle_deliver(&mut self, frame: &Frame) {
        if let Some(id) = self.rooms.find(&frame.room) {
            self.rooms.append(id, &frame.payload, &frame.except);
        }
    }

    /// Continuity was lost for the members on this shard: they are told with `room:gap`.
    pub(super) fn handle_gap(&mut self, room: &RoomKey, stamp: Stamp) {
        let Some(id) = self.rooms.find(room) else { return };
        let body = json!({"room": room.room(), "epoch": envelope::epoch(stamp.lineage), "offset": stamp.n});
        let event = format!("{}gap", self.context.config.socketio.builtin_prefix);
        let mut frames = Vec::new();
        envelope::notice(room.namespace(), &event, &body).put_frames(&mut frames);
        self.rooms.append(id, &frames, &[]);
    }
}

/// Who joins, and how the answer is to look.
struct Asked {
    key: ConnKey,
    namespace: ByteString,
    ack: Option<u64>,
    token: u64,
    history: bool,
    replay: bool,
}

fn published(stamp: Stamp) -> Value {
    match stamp.n {
        0 => json!({"ok": true}),
        offset => json!({"ok": true, "epoch": envelope::epoch(stamp.lineage), "offset": offset}),
    }
}
