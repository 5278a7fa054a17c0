//! The end of a turn: everything that was decided leaves, in batches.
//!
//! Invariants: slot outputs are performed in order; rooms are delivered before own answers are flushed only where that
//! keeps the order a client can observe; when a turn ends nothing waits that could have left.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use mesh::{
    NodeId, SendError,
    slot::{Census, Output},
};
use persistence::Query;
use prometheus_client::metrics::gauge::Gauge;

use super::{Gateway, Task, reply, store::record};
use crate::{
    clock,
    message::Message,
    metrics::{DropReason, SlotRole},
};

/// Bytes of history one answer may hold. As JSON it stays below what a polling session may have waiting (4 MiB).
pub(super) const READ_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often sizes that are costly to count are counted.
const COUNT: Duration = Duration::from_secs(1);
/// Rounds of one turn: what a round causes is done in the next, and the rest in the next turn.
const ROUNDS_MAX: usize = 8;

/// What the shared gauges already show of this shard.
#[derive(Debug, Default)]
pub(super) struct Counted {
    next: Option<Instant>,
    rooms: i64,
    interest: i64,
    slots: Census,
}

impl Gateway {
    /// Ends a turn; what it returns has to be started.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<Task> {
        self.turned = now;
        if self.slots.poll_timeout().is_none_or(|at| at <= now) {
            self.slots.handle_timeout(now, clock::wall_ms());
        }
        self.handle_timers(now);
        self.give_up_asks(now);
        self.give_up_surveys(now);
        self.drain_some(now);
        self.relieve(now);
        for _ in 0..ROUNDS_MAX {
            self.perform_outputs();
            self.deliver_rooms();
            self.flush_connections(now);
            if !self.is_unfinished() {
                break;
            }
        }
        self.hand_over(now);
        self.answer_census();
        self.count(now);
        self.tally.flush(&self.context.metrics);
        std::mem::take(&mut self.tasks)
    }

    /// Whoever hears that nothing is left here may end this shard: what the slots had to say about it is on its way by then.
    fn answer_census(&mut self) {
        if self.census_asked.is_empty() || self.is_unfinished() {
            return;
        }
        let census = self.slots.census();
        for asked in self.census_asked.drain(..) {
            reply(asked, census);
        }
    }

    /// Gauges that several shards share move by what changed here since they were last moved.
    fn count(&mut self, now: Instant) {
        if self.counted.next.is_some_and(|next| next > now) {
            return;
        }
        self.counted.next = Some(now + COUNT);
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let (rooms, interest) = (size(self.rooms.count()), size(self.slots.followed_rooms()));
        self.tally.rooms += rooms - std::mem::replace(&mut self.counted.rooms, rooms);
        self.tally.interest += interest - std::mem::replace(&mut self.counted.interest, interest);
        self.count_slots();
    }

    fn count_slots(&mut self) {
        let now = self.slots.census();
        let before = std::mem::replace(&mut self.counted.slots, now);
        let metrics = &self.context.metrics;
        let moved = |gauge: &Gauge, now: u32, before: u32| gauge.inc_by(i64::from(now) - i64::from(before));
        moved(metrics.slots_open.of(SlotRole::Owner), now.owned, before.owned);
        moved(metrics.slots_open.of(SlotRole::Replica), now.replica_in_sync, before.replica_in_sync);
        moved(metrics.slots_open.of(SlotRole::Syncing), now.replica_syncing, before.replica_syncing);
        moved(metrics.slots_open.of(SlotRole::Witness), now.witness, before.witness);
        moved(&metrics.slots_single_copy, now.single_copy, before.single_copy);
    }

    /// When the next turn has to happen even if nothing arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let unfinished = self.is_unfinished().then_some(self.turned);
        let waiting = [self.slots.poll_timeout(), self.asks.poll_timeout(), self.surveys.poll_timeout()];
        waiting.into_iter().chain([timer, self.drain_timeout(), unfinished]).flatten().min()
    }

    /// Whether the last turn left something for the next.
    fn is_unfinished(&self) -> bool {
        !(self.dirty.is_empty() && self.broken.is_empty() && self.decided.is_empty()) || self.slots.has_output()
    }

    fn perform_outputs(&mut self) {
        self.tell_decided();
        while let Some(output) = self.slots.poll_output() {
            match output {
                Output::Deliver { shard, frame } if shard == self.shard => self.handle_deliver(&frame),
                Output::Deliver { shard, frame } => self.tell_shard(shard, Message::Deliver { frame }),
                Output::Gap { shard, room, stamp } if shard == self.shard => self.handle_gap(&room, stamp),
                Output::Gap { shard, room, stamp } => self.tell_shard(shard, Message::Gap { room, stamp }),
                Output::Presence { shard, room, change } if shard == self.shard => self.handle_change(&room, &change),
                Output::Presence { shard, room, change } => self.tell_shard(shard, Message::Change { room, change }),
                Output::Answer { ask, answer } if ask.shard == self.shard => self.handle_answer(ask.token, answer),
                Output::Answer { ask, answer } => {
                    self.tell_shard(ask.shard, Message::Answer { token: ask.token, answer });
                }
                Output::Send { to, lane, frame } => self.sends.push((to, lane, frame)),
                Output::Toss { to, lane, frame } => self.tosses.push((to, lane, frame)),
                Output::Append { frame, bytes } => self.appends.push(record(&frame, bytes)),
                Output::Read { read, room, after, upto, count, newest } => {
                    let limit = usize::try_from(count).unwrap_or(usize::MAX);
                    let keep = self.context.policy.history(room.namespace(), room.room()).size;
                    let (slot, room, max_bytes) = (room.slot(), room.as_bytes().clone(), READ_BYTES_MAX);
                    self.read(read, Query { slot, room, after, upto, limit, max_bytes, newest, keep });
                }
                Output::Scan { scan, slot, after } => self.scan(scan, slot, after),
                Output::Forget { slot } => self.forget_slot(slot),
                Output::Fetch { read, from, request } => self.tasks.push(Task::Fetch { read, from, request }),
                Output::Respond { request, body } => {
                    if let Some(responder) = usize::try_from(request).ok().and_then(|r| self.requests.try_remove(r)) {
                        responder.answer(body);
                    }
                }
            }
        }
    }

    pub(super) fn tell_shard(&mut self, shard: u8, message: Message) {
        if let Some(outgoing) = self.outgoing.get_mut(usize::from(shard)) {
            outgoing.push(message);
        }
    }

    /// Gives every batch to its thread.
    fn hand_over(&mut self, now: Instant) {
        self.keep();
        for (shard, outgoing) in self.outgoing.iter_mut().enumerate() {
            if !outgoing.is_empty() {
                self.context.shards[shard].send_all(outgoing.drain(..));
            }
        }
        self.toss();
        if !self.sends.is_empty() {
            self.send(now);
        }
    }

    /// Gives peers what they may miss; what they will miss is counted.
    fn toss(&mut self) {
        let mut unreached = self.slots.take_unreached();
        let tosses = std::mem::take(&mut self.tosses);
        if let (Some(mesh), false) = (&self.context.mesh, tosses.is_empty()) {
            unreached += mesh.send_spare(tosses) as u64;
        }
        self.tally.unreached += unreached;
    }

    fn send(&mut self, now: Instant) {
        let Some(mesh) = &self.context.mesh else { return self.sends.clear() };
        let batch = std::mem::take(&mut self.sends);
        let to: Vec<(NodeId, u8)> = batch.iter().map(|(to, lane, _)| (*to, *lane)).collect();
        let Err(refused) = mesh.send_batch(batch) else { return };
        for (at, error) in refused.failures {
            self.tally.dropped.push(DropReason::Mesh);
            match to.get(at) {
                // Its end is reported by itself, and everything is said again when it is back; what nobody says again is over.
                Some((node, _)) if error == SendError::NoLink => self.lose_surveyed(*node, now),
                Some((node, lane)) => self.slots.handle_send_failed(*node, *lane, now),
                None => {}
            }
        }
    }
}
