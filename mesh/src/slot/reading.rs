//! Joins and history: from memory when it has the answer, else read from the store or from the owner.
//!
//! Invariants: a question is fixed when it is taken: its bounds, and the facts its answer is judged by, are of one moment of
//! the owner. A page answers that moment. A join answers the present: what came after its reading is taken from memory at
//! the moment of the answer, or read too when memory has let it go. A join is a member from its answer on, never before.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Answer, Ask, Found, Output, PendingJoin, Shards, Slot, Slots, Want,
    book::Book,
    early::Early,
    follower::{Followed, Stream},
    history::{Range, Reply, RoomFacts, UNREACHABLE, assemble},
    log::{RoomLog, from_memory},
};
use crate::{
    room::RoomKey,
    wire::{message::Frame, request::Request},
};

/// A room that outruns its reader this often is too busy to be joined with history now.
const ATTEMPTS_MAX: u8 = 8;

/// Who waits for a reading.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A join of this node.
    Join(PendingJoin),
    /// A `room:history` of this node.
    Page(Ask, Want),
    /// Another node, by the driver's name for its request.
    Peer(u64),
    /// A follower whose stream has a gap.
    Stream,
}

impl Asker {
    /// What somebody of this node wants to see.
    fn want(self) -> Option<Want> {
        match self {
            Asker::Join(PendingJoin { want, .. }) | Asker::Page(_, want) => Some(want),
            Asker::Peer(_) | Asker::Stream => None,
        }
    }
}

/// A question to the store or to the owner that has no answer yet.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) room: RoomKey,
    pub(super) asker: Asker,
    /// What is being read.
    range: Range,
    /// The room when the question was taken; `None` = the owner says.
    facts: Option<RoomFacts>,
    found: Found,
    attempts: u8,
}

impl Reading {
    fn new(room: RoomKey, asker: Asker, range: Range, facts: Option<RoomFacts>) -> Reading {
        let range = facts.map_or(range, |facts| range.within(facts));
        Reading { room, asker, range, facts, found: Found::default(), attempts: 0 }
    }
}

impl Slots {
    /// A socket on `ask.shard` joins `room`. Answered by `Answer::Joined`.
    pub fn handle_join(&mut self, room: &RoomKey, want: Want, ask: Ask, now: Instant, now_ms: u64) {
        let deadline = now + self.config.limits.patience;
        self.join(room, PendingJoin::new(ask, want, deadline, false), now, now_ms);
    }

    pub(super) fn join(&mut self, room: &RoomKey, mut join: PendingJoin, now: Instant, now_ms: u64) {
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
            if !join.checked && join.is_ahead_of(followed.lineage, followed.last) {
                // What is on its way here must not be given to it again.
                join.checked = true;
                followed.joins.push(join);
                return self.ask_again_now(room, now);
            }
        }
        if !self.defers(number, || Early::Asked(room.clone(), Asker::Join(join))) {
            self.ask_room(room, Asker::Join(join), join.want, now_ms);
        }
    }

    /// The last member on `shard` left `room`.
    pub fn handle_leave(&mut self, room: &RoomKey, shard: u8, now: Instant) {
        let linger_until = now + self.config.limits.linger;
        let number = room.slot();
        match self.slots.get_mut(&number) {
            Some(Slot::Owner(owner)) => {
                if let Some(room) = owner.rooms.get_mut(room) {
                    room.shards.remove(shard);
                    self.due_leases.insert(number);
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
        if !self.defers(room.slot(), || Early::Asked(room.clone(), Asker::Page(ask, want))) {
            self.ask_room(room, Asker::Page(ask, want), want, now_ms);
        }
    }

    /// Another node reads; `request` is the driver's name for it. Answered by `Output::Respond`.
    pub fn handle_history_request(&mut self, request: u64, body: &[u8]) {
        let parsed = match Request::decode(body) {
            Ok(Request::History { room, after, upto, of, count, newest }) => {
                RoomKey::from_bytes(Bytes::copy_from_slice(room)).map(|room| {
                    let count = count.min(self.config.limits.of(&room).history_size);
                    (room, Range { after, upto, of, count, newest })
                })
            }
            Ok(Request::Presence { room }) => return self.handle_presence_request(request, room),
            Ok(Request::Copy { slot, after }) => return self.handle_copy_request(request, slot, after),
            Ok(Request::Seats { slot }) => {
                let body = self.seats(slot).encode();
                return self.outputs.push_back(Output::Respond { request, body });
            }
            Ok(Request::Figures | Request::Sockets { .. }) | Err(_) => None,
        };
        let Some((room, range)) = parsed else { return self.respond(request, &Reply::Unavailable) };
        if !self.defers(room.slot(), || Early::Read(request, room.clone(), range)) {
            self.read_for(request, room, range);
        }
    }

    /// Reads for another node, as the owner.
    pub(super) fn read_for(&mut self, request: u64, room: RoomKey, range: Range) {
        match self.slot(room.slot()) {
            Slot::Owner(owner) => {
                let facts = owner.facts(&room);
                self.dispatch(Reading::new(room, Asker::Peer(request), range, Some(facts)));
            }
            Slot::Follower(_) => self.cannot_read(request),
        }
    }

    /// Another node is told that this one cannot say.
    pub(super) fn cannot_read(&mut self, request: u64) {
        self.respond(request, &Reply::Unavailable);
    }

    /// The store's answer; `None` = it could not read.
    pub fn handle_read(&mut self, read: u64, found: Option<Found>, now_ms: u64) {
        let Some(mut reading) = self.readings.remove(&read) else { return };
        let (Some(mut found), Some(facts)) = (found, reading.facts) else { return self.fail(&reading) };
        let last = found.frames.last().map(|frame| frame.n);
        found.expire(reading.range.newest, self.config.limits.of(&reading.room).oldest_ms(now_ms));
        if let (true, true, Some(last)) = (found.more, found.frames.is_empty(), last) {
            // All of it is too old: the page begins further on. Each step reads past `last`, so this ends.
            reading.range.after = last;
            return self.dispatch(reading);
        }
        self.handle_found(reading, facts, found, now_ms);
    }

    /// The owner's answer; `None` = it could not be asked.
    pub fn handle_fetched(&mut self, read: u64, body: Option<Bytes>, now_ms: u64) {
        if let Some(now) = self.now
            && self.handle_copied(read, body.as_ref(), now)
        {
            return;
        }
        let Some(reading) = self.readings.remove(&read) else { return self.handle_fetched_presence(read, body) };
        let Some(Ok(Reply::Found(facts, found))) = body.map(Reply::decode) else { return self.fail(&reading) };
        match reading.asker {
            Asker::Stream => self.handle_filled(&reading.room, read, facts, found),
            Asker::Join(_) | Asker::Page(..) | Asker::Peer(_) => self.handle_found(reading, facts, found, now_ms),
        }
    }

    /// Answers from memory if it has everything, else starts reading.
    fn ask_room(&mut self, room: &RoomKey, asker: Asker, want: Want, now_ms: u64) {
        let limits = self.config.limits.of(room);
        let (size, range) = (limits.history_size, want.range(&limits));
        let mut facts = None;
        let owner_says = matches!(asker, Asker::Page(..)) && self.reachable(room.slot()).is_some();
        if let Some((known, log)) = self.known(room) {
            // Who was acked elsewhere a moment ago must find his message: only the owner surely has it (`semantics.md` 2).
            if !owner_says && let Some(found) = from_memory(log, range.within(known), size) {
                return self.finish(room, asker, known, found, now_ms);
            }
            facts = Some(known);
        }
        if matches!((self.slots.get(&room.slot()), asker), (Some(Slot::Follower(_)), Asker::Page(..))) {
            // The owner may be ahead of us, and its answer says where it ends.
            facts = None;
        }
        self.dispatch(Reading::new(room.clone(), asker, range, facts));
    }

    /// Asks the owner for what a stream misses.
    pub(super) fn fetch_missing(&mut self, room: &RoomKey, range: Range) {
        self.dispatch(Reading::new(room.clone(), Asker::Stream, range, None));
    }

    /// Asks the store (when the slot is ours) or the owner.
    fn dispatch(&mut self, reading: Reading) {
        self.next_read += 1;
        let (read, room) = (self.next_read, reading.room.clone());
        let Range { after, upto, of, count, newest } = reading.range;
        let output = match self.slots.get(&room.slot()) {
            Some(Slot::Owner(owner)) => {
                let after = after.max(floor(owner, &room, self.config.limits.of(&room).history_size));
                Output::Read { read, room, after, upto, count, newest }
            }
            Some(Slot::Follower(follower)) => {
                let owner = follower.owner.filter(|owner| self.links.contains(owner));
                let Some(from) = owner else { return self.fail(&reading) };
                let request = Request::History { room: room.as_bytes(), after, upto, of, count, newest }.encode();
                Output::Fetch { read, from, request }
            }
            None => return self.fail(&reading),
        };
        self.outputs.push_back(output);
        self.readings.insert(read, reading);
    }

    fn handle_found(&mut self, reading: Reading, facts: RoomFacts, found: Found, now_ms: u64) {
        match reading.asker {
            Asker::Join(join) => self.handle_join_found(reading, join, facts, found, now_ms),
            Asker::Page(..) => self.finish(&reading.room, reading.asker, facts, found, now_ms),
            Asker::Peer(request) => self.respond(request, &Reply::Found(facts, found)),
            // A stream is filled by its owner, never from a store.
            Asker::Stream => self.fail(&reading),
        }
    }

    /// What a join read in a room of such facts, brought up to the present.
    fn handle_join_found(
        &mut self,
        mut reading: Reading,
        join: PendingJoin,
        read: RoomFacts,
        found: Found,
        now_ms: u64,
    ) {
        let Some(asked) = reading.facts.filter(|asked| asked.lineage == read.lineage) else {
            // The owner began anew and our stream from it has not noticed yet.
            return self.fail(&reading);
        };
        reading.found.more |= found.more;
        reading.found.frames.extend(found.frames);
        if let Some(followed) = self.followed(&reading.room).filter(|followed| !followed.is_following()) {
            // The stream broke meanwhile: the join starts again when the owner has answered.
            return followed.joins.push(join);
        }
        let Some((facts, log)) = self.known(&reading.room) else { return self.fail(&reading) };
        if asked.lineage != facts.lineage {
            // What was read belongs to a past that does not lead here.
            return self.ask_room(&reading.room, reading.asker, join.want, now_ms);
        }
        if facts.last > reading.range.upto {
            if !log.covers(reading.range.upto) {
                return self.read_on(reading, facts);
            }
            let newer: Vec<Arc<Frame>> = log.range(reading.range.upto, u64::MAX).cloned().collect();
            reading.found.frames.extend(newer);
        }
        self.finish(&reading.room, reading.asker, facts, reading.found, now_ms);
    }

    /// Memory let go what came while we read: read that too.
    fn read_on(&mut self, mut reading: Reading, facts: RoomFacts) {
        reading.attempts += 1;
        if reading.attempts > ATTEMPTS_MAX {
            return self.fail(&reading);
        }
        let (after, count) = (reading.range.upto, self.config.limits.of(&reading.room).history_size);
        reading.range = Range { after, upto: facts.last, of: facts.lineage, count, newest: true };
        self.dispatch(reading);
    }

    fn finish(&mut self, room: &RoomKey, asker: Asker, facts: RoomFacts, mut found: Found, now_ms: u64) {
        let Some(want) = asker.want() else { return };
        let limits = &self.config.limits.of(room);
        let Range { count, newest, .. } = want.range(limits);
        found.expire(newest, limits.oldest_ms(now_ms));
        if newest && found.frames.len() > count as usize {
            found.frames.drain(..found.frames.len() - count as usize);
            found.more = true;
        }
        let mut history = assemble(want, facts, found, limits);
        match asker {
            Asker::Join(PendingJoin { ask, present, .. }) => {
                history.members = present.then(|| self.presence.roster(room).members);
                self.add_member_shard(room, ask.shard);
                self.answer(ask, Answer::Joined(Ok(history)));
            }
            Asker::Page(ask, _) => self.answer(ask, Answer::History(Ok(history))),
            Asker::Peer(_) | Asker::Stream => {}
        }
    }

    /// Tells whoever waits that there is no answer.
    fn fail(&mut self, reading: &Reading) {
        match reading.asker {
            Asker::Stream => self.ask_again(&reading.room),
            asker @ (Asker::Join(_) | Asker::Page(..) | Asker::Peer(_)) => self.cannot_ask(asker),
        }
    }

    pub(super) fn cannot_ask(&mut self, asker: Asker) {
        match asker {
            Asker::Join(join) => self.answer(join.ask, Answer::Joined(Err(UNREACHABLE))),
            Asker::Page(ask, _) => self.answer(ask, Answer::History(Err(UNREACHABLE))),
            Asker::Peer(request) => self.cannot_read(request),
            Asker::Stream => {}
        }
    }

    /// Readings of a slot that changed hands; they have to be started again.
    pub(super) fn take_readings(&mut self, number: u16) -> Vec<(RoomKey, Asker)> {
        let of_slot = self.readings.iter().filter(|(_, reading)| reading.room.slot() == number);
        let mut reads: Vec<u64> = of_slot.map(|(read, _)| *read).collect();
        reads.sort_unstable();
        reads.into_iter().filter_map(|read| self.readings.remove(&read)).map(|r| (r.room, r.asker)).collect()
    }

    /// Starts again what was being read when the slot changed hands.
    pub(super) fn read_again(&mut self, room: &RoomKey, asker: Asker, now: Instant, now_ms: u64) {
        match asker {
            Asker::Join(join) => self.join(room, join, now, now_ms),
            Asker::Page(ask, want) => self.handle_history(room, want, ask, now_ms),
            Asker::Peer(request) => self.respond(request, &Reply::Unavailable),
            // The new owner's answer to our interest finds out again what is missing.
            Asker::Stream => {}
        }
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

    fn add_member_shard(&mut self, room: &RoomKey, shard: u8) {
        let shards: Option<&mut Shards> = match self.slots.get_mut(&room.slot()) {
            Some(Slot::Owner(owner)) => {
                self.due_leases.insert(room.slot());
                Some(&mut owner.room(room).shards)
            }
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

/// Where retention by count ends, as far as the owner's memory knows.
fn floor(owner: &Book, room: &RoomKey, size: u32) -> u64 {
    owner.rooms.get(room).map_or(0, |room| room.log.floor(size))
}
