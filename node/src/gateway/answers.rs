//! What slots answer, turned into acks, memberships and notices.
//!
//! Invariants: a join makes its member exactly here, between the frames before its answer (history) and those after it
//! (live); a socket that left meanwhile is answered and does not become a member; an answer reaches the socket that asked
//! or nobody, even if another socket of its connection has its namespace now.

use std::{fmt::Write as _, sync::Arc};

use mesh::{
    room::RoomKey,
    slot::{Answer, History, Stamp},
    wire::message::{Frame, Refusal},
};
use serde_json::json;

use super::{Asker, Gateway, JoinQuestion, Pending, Question};
use crate::{
    clock,
    connection::Connection,
    envelope::{self, Items},
    key::ConnKey,
    metrics::{DropReason, RejectReason},
    room::{Room, RoomId},
};

impl Gateway {
    /// The answer to the question `token` of this shard.
    pub(super) fn handle_answer(&mut self, token: u64, answer: Answer) {
        let Some(pending) = usize::try_from(token).ok().and_then(|token| self.pending.try_remove(token)) else {
            return;
        };
        let Pending { asker, ack, question } = pending;
        self.close_question(asker.key, question);
        match (question, answer) {
            (Question::Publish, Answer::Published(Ok(stamp))) => self.tell(&asker, ack, &published(stamp)),
            (Question::History, Answer::History(Ok(history))) => self.send_history(&asker, ack, &history),
            (Question::Join(question), Answer::Joined(result)) => {
                self.handle_joined(&asker, ack, token, question, result);
            }
            (Question::Publish | Question::History, Answer::Published(Err(why)) | Answer::History(Err(why))) => {
                self.refuse(&asker, ack, why);
            }
            // A slot answers what was asked; anything else is a bug that must not look like success.
            (Question::Publish | Question::History | Question::Join(_), _) => {
                self.refuse(&asker, ack, Refusal::Internal);
            }
        }
    }

    fn handle_joined(
        &mut self,
        asker: &Asker,
        ack: Option<u64>,
        token: u64,
        question: JoinQuestion,
        result: Result<History, Refusal>,
    ) {
        let id = question.room;
        // What came before the answer is the old members' alone.
        self.deliver_room(id);
        if let Some(room) = self.rooms.get_mut(id) {
            room.joining = room.joining.saturating_sub(1);
        }
        let socket = self.connections.get_mut(asker.key).and_then(|c| c.socket_mut(&asker.namespace));
        if let Some(socket) = socket.filter(|socket| socket.id == asker.socket) {
            socket.joining.retain(|(_, asked)| *asked != token);
        }
        match result {
            // Nobody asked for this one, so nobody would ask again: the owner could not be reached within its patience.
            Err(_) if self.rooms.get(id).is_some_and(Room::is_namespace) => {
                if !question.cancelled {
                    self.enter_namespace(asker.key, &asker.namespace, clock::now());
                }
            }
            Err(why) => self.refuse(asker, ack, why),
            Ok(history) => {
                if !question.cancelled {
                    self.add_member(asker, id);
                }
                self.send_joined(asker, ack, question, &history);
            }
        }
        self.leave_if_empty(id, clock::now());
    }

    fn add_member(&mut self, asker: &Asker, id: RoomId) {
        let Some(connection) = self.connections.get_mut(asker.key) else { return };
        let parser = connection.parser();
        let socket = connection.socket_mut(&asker.namespace).filter(|socket| socket.id == asker.socket);
        let Some(socket) = socket else { return };
        let Some(room) = self.rooms.get_mut(id) else { return };
        if !socket.rooms.contains(&id) {
            socket.rooms.push(id);
        }
        if room.insert(asker.key, parser) && !room.is_namespace() {
            self.tally.memberships += 1;
        }
    }

    fn send_joined(&mut self, asker: &Asker, ack: Option<u64>, question: JoinQuestion, history: &History) {
        let Some(room) = self.rooms.get(question.room) else { return };
        if !self.is_there(asker) || (ack.is_none() && !question.replay) {
            return;
        }
        // A string always serialises.
        let name = serde_json::to_string(room.key.room()).unwrap_or_default();
        let (epoch, offset) = (envelope::epoch(history.lineage), history.head);
        let mut body = format!(r#"{{"ok":true,"room":{name},"epoch":"{epoch}","offset":{offset}"#);
        // Writing to a string cannot fail.
        if let Some(recovered) = history.recovered {
            let _ = write!(body, r#","recovered":{recovered}"#);
        }
        if question.replay {
            let frames: &[Arc<Frame>] = if question.cancelled { &[] } else { &history.frames };
            let _ = write!(body, r#","replayed":{}}}"#, frames.len());
            self.tell(asker, ack, &body);
            return self.replay(asker, frames);
        }
        let mut attachments = Vec::new();
        if question.history {
            let items = self.items(asker.key, history);
            let _ = write!(body, r#","history":{}"#, items.json);
            attachments = items.attachments;
        }
        body.push('}');
        self.acknowledge(asker.key, &asker.namespace, ack, &body, attachments);
    }

    /// Sends old events as the events they were.
    fn replay(&mut self, asker: &Asker, frames: &[Arc<Frame>]) {
        let Some(connection) = self.connections.get_mut(asker.key) else { return };
        for frame in frames {
            if let Err(error) = connection.send_payload(&frame.payload) {
                tracing::warn!(%error, "left out a message of a history that cannot be read");
            }
        }
        self.tally.deliveries += frames.len() as u64;
        self.touch(asker.key);
    }

    fn send_history(&mut self, asker: &Asker, ack: Option<u64>, history: &History) {
        if ack.is_none() || !self.is_there(asker) {
            return;
        }
        let items = self.items(asker.key, history);
        let (epoch, offset, complete) = (envelope::epoch(history.lineage), history.head, history.complete);
        let gap = if history.gap { r#","gap":true"# } else { "" };
        let json = items.json;
        let body =
            format!(r#"{{"ok":true,"epoch":"{epoch}","offset":{offset},"items":{json},"complete":{complete}{gap}}}"#);
        self.acknowledge(asker.key, &asker.namespace, ack, &body, items.attachments);
    }

    fn items(&self, key: ConnKey, history: &History) -> Items {
        let parser = self.connections.get(key).map(Connection::parser).unwrap_or_default();
        envelope::items(history.frames.iter().map(AsRef::as_ref), parser)
    }

    /// Tells an event's sender why it had no effect, or that its effect is unknown.
    fn refuse(&mut self, asker: &Asker, ack: Option<u64>, why: Refusal) {
        let (code, message, reason) = match why {
            Refusal::Overloaded { .. } => ("overloaded", "the room cannot take this now", RejectReason::Overloaded),
            Refusal::StorageFull => ("storage_full", "history cannot be kept now", RejectReason::StorageFull),
            Refusal::Draining => ("draining", "this node is going away; reconnect", RejectReason::Draining),
            Refusal::Internal => ("internal", "nothing is known about the effect", RejectReason::Timeout),
            Refusal::Timeout => ("timeout", "no answer in time; it may have had an effect", RejectReason::Timeout),
        };
        self.tally.rejected.push(reason);
        let mut body = json!({"ok": false, "code": code, "message": message});
        if let Refusal::Overloaded { retry_ms } = why {
            body["retry_ms"] = retry_ms.into();
        }
        self.tell(asker, ack, &body.to_string());
    }

    /// Answers whoever asked, if it is still there.
    fn tell(&mut self, asker: &Asker, ack: Option<u64>, object: &str) {
        if self.is_there(asker) {
            self.acknowledge(asker.key, &asker.namespace, ack, object, Vec::new());
        }
    }

    fn is_there(&self, asker: &Asker) -> bool {
        let socket = self.connections.get(asker.key).and_then(|connection| connection.socket(&asker.namespace));
        socket.is_some_and(|socket| socket.id == asker.socket)
    }

    /// A frame for the members on this shard.
    pub(super) fn handle_deliver(&mut self, frame: &Frame) {
        let Some(id) = self.rooms.find(&frame.room) else { return };
        if let Err(error) = self.rooms.append(id, &frame.payload, &frame.except) {
            tracing::warn!(%error, "left out a message that msgpack members could not have read");
            self.tally.dropped.push(DropReason::Mesh);
        }
    }

    /// Continuity was lost for the members on this shard: they are told with `room:gap`.
    pub(super) fn handle_gap(&mut self, room: &RoomKey, stamp: Stamp) {
        let Some(id) = self.rooms.find(room) else { return };
        let body = json!({"room": room.room(), "epoch": envelope::epoch(stamp.lineage), "offset": stamp.n});
        let event = format!("{}gap", self.context.config.socketio.builtin_prefix);
        let notice = envelope::notice(room.namespace(), &event, &body);
        if let Err(error) = self.rooms.append(id, &notice, &[]) {
            tracing::error!(%error, "a notice that was made here cannot be read");
        }
    }
}

fn published(stamp: Stamp) -> String {
    match stamp.n {
        0 => r#"{"ok":true}"#.to_owned(),
        offset => format!(r#"{{"ok":true,"epoch":"{}","offset":{offset}}}"#, envelope::epoch(stamp.lineage)),
    }
}
