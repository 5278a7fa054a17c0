//! What slots answer, turned into memberships, acks and calls; and what they say unasked.
//!
//! Invariants: a join makes its member exactly here, between the frames before its answer (history) and those after it
//! (live); a socket that left meanwhile is answered and does not become a member; an answer reaches the socket that asked
//! or nobody, even if another socket of its connection has its namespace now.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use mesh::{
    room::RoomKey,
    slot::{Answer, History, Stamp},
    wire::message::{Frame, Refusal},
};
use serde_json::json;

use super::{Asker, Gateway, JoinQuestion, Pending, Question};
use crate::{
    clock, envelope,
    handler::{Ack, Joined, Outcome, Refused, Shows, Then},
    metrics::DropReason,
    room::RoomId,
};

impl Gateway {
    /// The answer to the question `token` of this shard.
    pub(super) fn handle_answer(&mut self, token: u64, answer: Answer) {
        let Some(Pending { asker, then, question }) = self.take_pending(token) else { return };
        match (question, answer) {
            (Question::Publish, Answer::Published(result)) => {
                self.tally.published_by_clients += u64::from(result.is_ok());
                self.resolve(asker, then, result.map(Outcome::Published).map_err(Refused::from));
            }
            (Question::History, Answer::History(result)) => {
                self.resolve(asker, then, result.map(Outcome::History).map_err(Refused::from));
            }
            (Question::Join(question), Answer::Joined(result)) => {
                self.handle_joined(asker, then, token, question, result);
            }
            (Question::Presence, Answer::Presence(roster)) => self.resolve(asker, then, Ok(Outcome::Presence(roster))),
            // A slot answers what was asked; anything else is a bug that must not look like success.
            (
                Question::Publish
                | Question::History
                | Question::Presence
                | Question::Sockets
                | Question::Reach
                | Question::Join(_)
                | Question::Union { .. }
                | Question::Decided,
                Answer::Published(_) | Answer::History(_) | Answer::Joined(_) | Answer::Presence(_),
            ) => self.resolve(asker, then, Err(Refusal::Internal.into())),
        }
    }

    /// Tells what needed nobody's answer.
    pub(super) fn tell_decided(&mut self) {
        for (token, outcome) in std::mem::take(&mut self.decided) {
            if let Some(Pending { asker, then, .. }) = self.take_pending(token) {
                self.resolve(asker, then, outcome.map(Outcome::Published));
            }
        }
    }

    pub(super) fn take_pending(&mut self, token: u64) -> Option<Pending> {
        let pending = usize::try_from(token).ok().and_then(|token| self.pending.try_remove(token))?;
        self.close_question(pending.asker.key, &pending.question);
        Some(pending)
    }

    fn handle_joined(
        &mut self,
        asker: Asker,
        then: Then,
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
        if let Some(socket) = self.socket_of_mut(&asker) {
            socket.joining.retain(|(_, asked)| *asked != token);
        }
        match result {
            Err(why) => {
                if question.present && !question.cancelled {
                    self.forget_if_not_shown(&asker, id);
                }
                let unasked = matches!(then, Then::Nothing) && !question.cancelled;
                if !(unasked && self.enter_again(&asker, id, clock::now())) {
                    self.resolve(asker, then, Err(why.into()));
                }
            }
            Ok(history) => {
                if !question.cancelled {
                    self.add_member(&asker, id);
                }
                if question.present && !question.cancelled {
                    self.add_onlooker(&asker, id);
                }
                self.tell_joined(&asker, then, question, history);
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

    fn tell_joined(&mut self, asker: &Asker, then: Then, question: JoinQuestion, history: History) {
        let Some(room) = self.rooms.get(question.room).map(|room| room.key.clone()) else { return };
        let replay = match question {
            JoinQuestion { replay: true, cancelled: false, .. } => history.frames.clone(),
            JoinQuestion { .. } => Vec::new(),
        };
        let shows = match question {
            JoinQuestion { replay: true, .. } => Shows::Replay(replay.len()),
            JoinQuestion { history: true, .. } => Shows::History,
            JoinQuestion { .. } => Shows::Nothing,
        };
        self.resolve(asker.clone(), then, Ok(Outcome::Joined(Joined { room, history, shows })));
        self.replay(asker, &replay);
    }

    /// Sends old events as the events they were.
    fn replay(&mut self, asker: &Asker, frames: &[Arc<Frame>]) {
        if frames.is_empty() || self.socket_of(asker).is_none() {
            return;
        }
        let Some(connection) = self.connections.get_mut(asker.key) else { return };
        for frame in frames {
            if let Err(error) = connection.send_payload(&frame.payload) {
                tracing::warn!(%error, "left out a message of a history that cannot be read");
            }
        }
        self.tally.deliveries += frames.len() as u64;
        self.touch(asker.key);
    }

    /// Tells whoever wants to know what became of a question.
    pub(super) fn resolve(&mut self, asker: Asker, then: Then, outcome: Result<Outcome, Refused>) {
        if let (Err(refused), false) = (&outcome, matches!(then, Then::Part(_))) {
            self.tally.rejected.push(refused.code.reason());
        }
        match (then, outcome) {
            (Then::Nothing, _) => {}
            (Then::Ack(ack), Ok(outcome)) => {
                let args = outcome.answer(self.parser_of(&ack));
                self.answer(ack, args);
            }
            (Then::Ack(ack), Err(refused)) => self.answer(ack, envelope::answer(&refused.answer(), Vec::new())),
            (Then::Call(call), outcome) => {
                self.call(asker, clock::now(), |_, socket| call(socket, outcome));
            }
            (Then::Part(union), outcome) => self.handle_part(union, outcome.err()),
            (Then::Order(order), outcome) => self.handle_ordered_join(order, outcome.is_err()),
        }
    }

    /// One of the questions that `token` is the union of is answered.
    fn handle_part(&mut self, token: u64, why: Option<Refused>) {
        let pending = usize::try_from(token).ok().and_then(|token| self.pending.get_mut(token));
        let Some(Question::Union { left, refused }) = pending.map(|pending| &mut pending.question) else { return };
        *left = left.saturating_sub(1);
        *refused = refused.take().or(why);
        if *left > 0 {
            return;
        }
        let outcome = refused.take().map_or(Ok(Outcome::Published(Stamp { lineage: 0, n: 0 })), Err);
        if let Some(Pending { asker, then, .. }) = self.take_pending(token) {
            self.resolve(asker, then, outcome);
        }
    }

    /// Tells an event's sender why it has no effect, and counts it.
    pub(crate) fn refuse(&mut self, ack: Option<Ack>, why: &Refused) {
        self.tally.rejected.push(why.code.reason());
        if let Some(ack) = ack {
            self.answer(ack, envelope::answer(&why.answer(), Vec::new()));
        }
    }

    /// A frame for the members on this shard.
    pub(super) fn handle_deliver(&mut self, frame: &Frame) {
        let Some(id) = self.rooms.find(&frame.room) else { return };
        if let Some(notices) = self.rooms.notices_of(id) {
            self.deliver_room(notices);
        }
        self.append(id, &frame.payload, &frame.except);
    }

    /// Adds a payload to a room's turn.
    pub(super) fn append(&mut self, id: RoomId, payload: &Bytes, except: &[ByteString]) {
        if let Err(error) = self.rooms.append(id, payload, except) {
            tracing::warn!(%error, "left out a message that msgpack members could not have read");
            self.tally.dropped.push(DropReason::Mesh);
        }
    }

    /// Continuity was lost for the members on this shard: they are told with `room:gap`.
    pub(super) fn handle_gap(&mut self, room: &RoomKey, stamp: Stamp) {
        let Some(id) = self.rooms.find(room) else { return };
        let body = json!({"room": room.room(), "epoch": envelope::epoch(stamp.lineage), "offset": stamp.n});
        let notice = envelope::notice(room.namespace(), &self.context.names.notice("gap"), &body);
        self.append(id, &notice, &[]);
    }
}
