//! Joins and history: from memory when it has the answer, else read from the store or from the owner.
//!
//! Invariants: what was read ends at a fixed `upto`; what came after it is taken from memory at the moment of the answer,
//! or read again when memory has let it go, so that an answer always ends at the room's head; a join is a member from its
//! answer on, never before.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Answer, Ask, Found, Output, PendingJoin, Shards, Slot, Slots, Want,
    follower::{Followed, Follower, Stream},
    history::{Range, Reply, RoomFacts, UNREACHABLE, assemble},
    log::RoomLog,
};
use crate::{
    room::RoomKey,
    wire::{message::Frame, request::Request},
};

/// A room that outruns its reader this often is too busy to be joined with history now.
const ATTEMPTS_MAX: u8 = 8;

/// Who waits for a reading.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A join of this node.
    Join(PendingJoin),
    /// A `room:history` of this node.
    Page(Ask, Want),
    /// Another node, by the driver's name for its request.
    Remote(u64),
    /// A follower whose stream has a gap.
    Fill,
}

/// A question to the store or to the owner that has no answer yet.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) room: RoomKey,
    pub(super) purpose: Purpose,
    upto: u64,
    found: Found,
    attempts: u8,
}

impl Slots {
    /// A socket on `ask.shard` joins `room`. Answered by `Answer::Joined`.
    pub fn handle_join(&mut self, room: &RoomKey, want: Want, ask: Ask, now: Instant, now_ms: u64) {
        let deadline = now + self.config.limits.patience;
        self.join(room, PendingJoin { ask, want, deadline }, now, now_ms);
    }

    pub(super) fn join(&mut self, room: &RoomKey, join: PendingJoin, now: Instant, now_ms: u64) {
        let number = room.slot();
        if let Slot::Follower(follower) = self.slot(number) {
            let followed = follower.rooms.entry(room.clone()).or_insert_with(Followed::new);
            followed.linger_until = None;
            if !followed.is_following() {
                followed.joins.push(join);
                if followed.joins.len() == 1 && followed.lineage.is_none() {
                    self.announce(number, room, now);
                }
                return self.attend(number, now);
            }
        }
        self.ask_room(room, Purpose::Join(join), now_ms);
    }

    /// The last member on `shard` left `room`.
    pub fn handle_leave(&mut self, room: &RoomKey, shard: u8, now: Instant) {
        let linger_until = now + self.config.limits.linger;
        let number = room.slot();
        match self.slots.get_mut(&number) {
            Some(Slot::Owner(owner)) => {
                if let Some(room) = owner.rooms.get_mut(room) {
                    room.shards.remove(shard);
                }
            }
            Some(Slot::Follower(follower)) => {
                if let Some(room) = follower.rooms.get_mut(room) {
                    room.shards.remove(shard);
                    if room.shards.is_empty() {
                        room.linger_until = Some(linger_until);
                        self.attend(number, now);
                    }
                }
            }
            None => {}
        }
    }

    /// Somebody on `ask.shard` reads `room`. Answered by `Answer::History`.
    pub fn handle_history(&mut self, room: &RoomKey, want: Want, ask: Ask, now_ms: u64) {
        self.slot(room.slot());
        self.ask_room(room, Purpose::Page(ask, want), now_ms);
    }

    /// Another node reads; `request` is the driver's name for it. Answered by `Output::Respond`.
    pub fn handle_history_request(&mut self, request: u64, body: &[u8]) {
        let parsed = match Request::decode(body) {
            Ok(Request::History { room, after, of, upto, count }) => {
                RoomKey::from_bytes(Bytes::copy_from_slice(room)).map(|room| (room, Range { after, of, count }, upto))
            }
            Ok(Request::Figures) | Err(_) => None,
        };
        let Some((room, range, upto)) = parsed else { return self.respond(request, &Reply::Unavailable) };
        if matches!(self.slot(room.slot()), Slot::Follower(_)) {
            return self.respond(request, &Reply::Unavailable);
        }
        let range = Range { count: range.count.min(self.config.limits.history_size), ..range };
        self.start(room, Purpose::Remote(request), range, upto);
    }

    /// The store's answer; `None` = it could not read.
    pub fn handle_read(&mut self, read: u64, found: Option<Found>, now_ms: u64) {
        let Some(reading) = self.readings.remove(&read) else { return };
        match found {
            Some(found) => {
                let facts = self.facts(&reading.room);
                self.handle_found(reading, facts, found, now_ms);
            }
            None => self.fail(&reading),
        }
    }

    /// The owner's answer; `None` = it could not be asked.
    pub fn handle_fetched(&mut self, read: u64, body: Option<Bytes>, now_ms: u64) {
        let Some(reading) = self.readings.remove(&read) else { return };
        match body.map(Reply::decode) {
            Some(Ok(Reply::Found(facts, found))) => match reading.purpose {
                Purpose::Fill => self.handle_filled(&reading.room, read, facts, found),
                Purpose::Join(..) | Purpose::Page(..) | Purpose::Remote(_) => {
                    let facts = self.facts(&reading.room).or(Some(facts));
                    self.handle_found(reading, facts, found, now_ms);
                }
            },
            Some(Ok(Reply::Unavailable) | Err(_)) | None => self.fail(&reading),
        }
    }

    /// Answers from memory if it has everything, else starts reading.
    fn ask_room(&mut self, room: &RoomKey, purpose: Purpose, now_ms: u64) {
        let (Purpose::Join(PendingJoin { want, .. }) | Purpose::Page(_, want)) = purpose else { return };
        let range = want.range(&self.config.limits);
        if let Some((facts, log)) = self.known(room) {
            if let Some(found) = from_memory(log, range, facts) {
                return self.finish(room, purpose, facts, found, now_ms);
            }
            let upto = facts.last;
            return self.start(room.clone(), purpose, range, upto);
        }
        self.start(room.clone(), purpose, range, u64::MAX);
    }

    /// Asks the store (when the slot is ours) or the owner.
    pub(super) fn start(&mut self, room: RoomKey, purpose: Purpose, range: Range, upto: u64) {
        let reading = Reading { room, purpose, upto, found: Found::default(), attempts: 0 };
        self.dispatch(reading, range);
    }

    fn dispatch(&mut self, reading: Reading, range: Range) {
        self.next_read += 1;
        let read = self.next_read;
        let (room, upto) = (reading.room.clone(), reading.upto);
        match self.slots.get(&room.slot()) {
            Some(Slot::Owner(owner)) => {
                let after = range.after_in(owner.lineage);
                self.outputs.push_back(Output::Read { read, room, after, upto, count: range.count });
            }
            Some(Slot::Follower(Follower { owner: Some(owner), .. })) if self.links.contains(owner) => {
                let Range { after, of, count } = range;
                let request = Request::History { room: room.as_bytes(), after, of, upto, count }.encode();
                self.outputs.push_back(Output::Fetch { read, from: *owner, request });
            }
            Some(Slot::Follower(_)) | None => return self.fail(&reading),
        }
        self.readings.insert(read, reading);
    }

    fn handle_found(&mut self, mut reading: Reading, facts: Option<RoomFacts>, found: Found, now_ms: u64) {
        reading.found.more |= found.more;
        reading.found.frames.extend(found.frames);
        let Some(facts) = facts else { return self.fail(&reading) };
        if let Purpose::Remote(request) = reading.purpose {
            return self.respond(request, &Reply::Found(facts, reading.found));
        }
        if let Purpose::Join(join) = reading.purpose
            && let Some(Slot::Follower(follower)) = self.slots.get_mut(&reading.room.slot())
            && let Some(followed) = follower.rooms.get_mut(&reading.room)
            && !followed.is_following()
        {
            // The stream broke meanwhile: the join starts again when the owner has answered.
            return followed.joins.push(join);
        }
        if let Some((facts, log)) = self.known(&reading.room)
            && facts.last > reading.upto
        {
            if !log.covers(reading.upto) {
                return self.read_on(reading, facts);
            }
            let newer: Vec<Arc<Frame>> = log.range(reading.upto, u64::MAX).cloned().collect();
            reading.found.frames.extend(newer);
        }
        self.finish(&reading.room, reading.purpose, facts, reading.found, now_ms);
    }

    /// Memory let go what came while we read: read that too.
    fn read_on(&mut self, mut reading: Reading, facts: RoomFacts) {
        reading.attempts += 1;
        if reading.attempts > ATTEMPTS_MAX {
            return self.fail(&reading);
        }
        let next = Range { after: reading.upto, of: facts.lineage, count: self.config.limits.history_size };
        reading.upto = facts.last;
        self.dispatch(reading, next);
    }

    fn finish(&mut self, room: &RoomKey, purpose: Purpose, facts: RoomFacts, mut found: Found, now_ms: u64) {
        let (ask, want, joins) = match purpose {
            Purpose::Join(PendingJoin { ask, want, .. }) => (ask, want, true),
            Purpose::Page(ask, want) => (ask, want, false),
            Purpose::Remote(_) | Purpose::Fill => return,
        };
        let limits = &self.config.limits;
        let count = want.range(limits).count as usize;
        if found.frames.len() > count {
            found.frames.drain(..found.frames.len() - count);
            found.more = true;
        }
        let history = assemble(want, facts, found, limits.oldest_ms(now_ms), limits);
        if joins {
            self.add_member_shard(room, ask.shard);
            self.answer(ask, Answer::Joined(Ok(history)));
        } else {
            self.answer(ask, Answer::History(Ok(history)));
        }
    }

    /// Tells whoever waits that there is no answer.
    pub(super) fn fail(&mut self, reading: &Reading) {
        match reading.purpose {
            Purpose::Join(join) => self.answer(join.ask, Answer::Joined(Err(UNREACHABLE))),
            Purpose::Page(ask, _) => self.answer(ask, Answer::History(Err(UNREACHABLE))),
            Purpose::Remote(request) => self.respond(request, &Reply::Unavailable),
            Purpose::Fill => self.ask_again(&reading.room),
        }
    }

    pub(super) fn refuse(&mut self, request: u64) {
        self.respond(request, &Reply::Unavailable);
    }

    fn respond(&mut self, request: u64, reply: &Reply) {
        self.outputs.push_back(Output::Respond { request, body: reply.encode() });
    }

    /// Facts and memory of a room that is owned, or followed without a gap right now.
    fn known(&self, room: &RoomKey) -> Option<(RoomFacts, &RoomLog)> {
        static EMPTY: RoomLog = RoomLog::new();
        match self.slots.get(&room.slot())? {
            Slot::Owner(owner) => Some((owner.facts(room), owner.rooms.get(room).map_or(&EMPTY, |room| &room.log))),
            Slot::Follower(follower) => {
                let room = follower.rooms.get(room).filter(|room| matches!(room.stream, Stream::Following))?;
                Some((room.facts(), &room.log))
            }
        }
    }

    fn facts(&self, room: &RoomKey) -> Option<RoomFacts> {
        self.known(room).map(|(facts, _)| facts)
    }

    fn add_member_shard(&mut self, room: &RoomKey, shard: u8) {
        let shards: Option<&mut Shards> = match self.slots.get_mut(&room.slot()) {
            Some(Slot::Owner(owner)) => Some(&mut owner.room(room).shards),
            Some(Slot::Follower(follower)) => follower.rooms.get_mut(room).map(|room| {
                room.linger_until = None;
                &mut room.shards
            }),
            None => None,
        };
        if let Some(shards) = shards {
            shards.insert(shard);
        }
    }
}

/// The range from memory, if memory can prove that it is all there is or all that was asked for.
fn from_memory(log: &RoomLog, range: Range, facts: RoomFacts) -> Option<Found> {
    let after = range.after_in(facts.lineage);
    if range.count == 0 || facts.last <= after {
        return Some(Found::default());
    }
    let have = log.count_after(after);
    let count = range.count as usize;
    if have < count && !log.covers(after) {
        return None;
    }
    let frames = log.range(after, u64::MAX).skip(have.saturating_sub(count)).cloned().collect();
    Some(Found { frames, more: have > count || !log.covers(after) })
}
