//! Time: what waits is tried again or given up, what lingers ends, what is past retention is forgotten.
//!
//! Invariants: one deadline for all (`poll_timeout`), none is cancelled; a tick touches only slots where something waits,
//! and one sixteenth of the others per second.

use std::time::{Duration, Instant};

use super::{Answer, Ask, PendingJoin, Slot, Slots, follower::Follower, history::UNREACHABLE, volatile};
use crate::{room::RoomKey, wire::message::Control};

/// How soon what waits in a slot is looked at again.
const RETRY: Duration = Duration::from_millis(250);
/// How often a share of the slots is swept.
const SWEEP: Duration = Duration::from_secs(1);
/// Shares of the slots; all are swept once in so many seconds.
const SWEEP_TURNS: u16 = 16;

impl Slots {
    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries = self.attention.iter().filter_map(|number| match self.slots.get(number) {
            Some(Slot::Follower(follower)) => follower.retry_at,
            Some(Slot::Owner(_)) | None => None,
        });
        retries.chain(self.sweep_at).chain(self.presence.poll_timeout()).chain(self.tick_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, now_ms: u64) {
        self.tick(now, now_ms);
        let numbers: Vec<u16> = self.attention.iter().copied().collect();
        for number in numbers {
            self.retry(number, now, now_ms);
        }
        self.wake_presence(now, now_ms);
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = Some(now + SWEEP);
            self.sweep_turn = (self.sweep_turn + 1) % SWEEP_TURNS;
            self.sweep(now, now_ms);
            self.tell_resync();
        }
    }

    /// Something waits in this slot from now on.
    pub(super) fn attend(&mut self, number: u16, now: Instant) {
        if let Some(Slot::Follower(follower)) = self.slots.get_mut(&number) {
            follower.retry_at.get_or_insert(now + RETRY);
            self.attention.insert(number);
        }
    }

    /// Makes sure the next sweep comes.
    pub(super) fn sweep_soon(&mut self, now: Instant) {
        self.sweep_at.get_or_insert(now + RETRY);
    }

    fn retry(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&number) else {
            self.attention.remove(&number);
            return;
        };
        if follower.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let given_up = give_up(follower, now);
        let dropped = end_lingers(follower, now);
        let all = std::mem::take(&mut follower.again);
        let asking = follower.due_to_ask(all, now);
        follower.retry_at = None;
        for (ask, answer) in given_up {
            self.answer(ask, answer);
        }
        for room in dropped {
            if let Some((owner, _)) = self.reachable(number) {
                self.send(owner, number, Control::InterestDrop { room: room.as_bytes() }.encode());
            }
        }
        for room in asking {
            self.announce(number, &room, now);
        }
        self.resend(number, all, now);
        for (room, joins) in self.ready_joins(number) {
            for join in joins {
                self.join(&room, join, now, now_ms);
            }
        }
        self.settle(number, now);
    }

    /// Keeps the slot under attention as long as something waits in it.
    fn settle(&mut self, number: u16, now: Instant) {
        let waiting = match self.slots.get(&number) {
            Some(Slot::Follower(follower)) => {
                follower.is_waiting() || follower.rooms.values().any(|room| room.linger_until.is_some())
            }
            Some(Slot::Owner(_)) | None => false,
        };
        self.attention.remove(&number);
        if waiting {
            self.attend(number, now);
        }
    }

    fn sweep(&mut self, now: Instant, now_ms: u64) {
        let turn = self.sweep_turn;
        let shards = u16::from(self.config.shards.max(1));
        for (number, slot) in &mut self.slots {
            match slot {
                _ if (number / shards) % SWEEP_TURNS != turn => {}
                Slot::Owner(owner) => owner.sweep(&self.config.limits, now, now_ms),
                Slot::Follower(follower) => volatile::expire(&mut follower.leases, now),
            }
        }
        self.tell_digests(|number| (number / shards) % SWEEP_TURNS == turn);
    }

    /// Peers that lost frames are told in the lane that was full, until one telling gets through.
    fn tell_resync(&mut self) {
        let (shard, of) = (self.config.shard, self.config.shards);
        for (node, lane) in std::mem::take(&mut self.resync) {
            self.send(node, u16::from(lane), Control::Resync { shard, of, lane }.encode());
        }
    }
}

/// Publishes and joins whose patience is over.
fn give_up(follower: &mut Follower, now: Instant) -> Vec<(Ask, Answer)> {
    let publishes = follower.overdue(now).into_iter();
    let mut answers: Vec<(Ask, Answer)> =
        publishes.map(|unanswered| (unanswered.ask, Answer::Published(Err(unanswered.refusal())))).collect();
    for room in follower.rooms.values_mut() {
        let (over, waiting): (Vec<PendingJoin>, Vec<PendingJoin>) =
            std::mem::take(&mut room.joins).into_iter().partition(|join| join.deadline <= now);
        room.joins = waiting;
        answers.extend(over.into_iter().map(|join| (join.ask, Answer::Joined(Err(UNREACHABLE)))));
    }
    answers
}

/// Rooms nobody came back to.
fn end_lingers(follower: &mut Follower, now: Instant) -> Vec<RoomKey> {
    let over = follower.rooms.iter().filter(|(_, room)| {
        room.shards.is_empty() && room.joins.is_empty() && room.linger_until.is_some_and(|until| until <= now)
    });
    let over: Vec<RoomKey> = over.map(|(key, _)| key.clone()).collect();
    for room in &over {
        follower.rooms.remove(room);
    }
    over
}
