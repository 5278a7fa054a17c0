//! What this worker's members received in one phase.
//!
//! Every message is counted exactly once: delivered (new to its member), duplicated, or foreign. Latency runs from the
//! intended send time; it is kept apart for members on their publisher's own server and on another one.

use std::collections::BTreeMap;

use crate::marker::{Finder, Marker};
use crate::stats::Latency;
use crate::tracker::{Sighting, Tracker};
use crate::wire::{Account, Settled, Spec};

/// Messages of one publisher whose slowest delivery is remembered.
const SLOWEST_MAX: u32 = 1_000_000;

/// Where a member is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Its room.
    pub(super) room: u32,
    /// Its server.
    pub(super) target: usize,
}

/// The receiving half of a phase.
#[derive(Debug)]
pub(super) struct Receiving {
    run: Option<u32>,
    finder: Finder,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
    disconnects: u64,
    last_ns: u64,
    local: Latency,
    remote: Latency,
    recent: Latency,
    slowest: BTreeMap<u16, Vec<u32>>,
    keeps_slowest: bool,
}

impl Receiving {
    /// Counts messages of `run` from now on; without a run, every message is foreign.
    pub(super) fn new(run: Option<u32>, keeps_slowest: bool) -> Receiving {
        Receiving {
            run,
            finder: Finder::default(),
            delivered: 0,
            duplicated: 0,
            reordered: 0,
            foreign: 0,
            disconnects: 0,
            last_ns: 0,
            local: Latency::new(),
            remote: Latency::new(),
            recent: Latency::new(),
            slowest: BTreeMap::new(),
            keeps_slowest,
        }
    }

    /// Takes an event packet that reached the member at `seat` at `now_ns`. The marker, if this was a new message.
    pub(super) fn handle_message(
        &mut self,
        spec: &Spec,
        seat: Seat,
        tracker: &mut Tracker,
        packet: &[u8],
        now_ns: u64,
    ) -> Option<Marker> {
        let Some(marker) = self.finder.find(packet).filter(|marker| self.is_for(spec, seat, marker)) else {
            self.foreign += 1;
            return None;
        };
        self.last_ns = now_ns;
        match tracker.observe(spec.rank_in_room(marker.publisher), marker.publisher, marker.seq) {
            Some(Sighting::Duplicate) => {
                self.duplicated += 1;
                return None;
            }
            None => {
                self.foreign += 1;
                return None;
            }
            Some(Sighting::Late) => self.reordered += 1,
            Some(Sighting::InOrder | Sighting::Ahead) => {}
        }
        self.delivered += 1;
        let latency = now_ns.saturating_sub(marker.intended_ns);
        let is_local = spec.target(u32::from(marker.publisher)) == seat.target;
        let series = if is_local { &mut self.local } else { &mut self.remote };
        series.record_ns(latency);
        if self.keeps_slowest {
            self.recent.record_ns(latency);
            self.keep_slowest(&marker, latency);
        }
        Some(marker)
    }

    /// A member or publisher that was there at the beginning has gone.
    pub(super) fn handle_disconnect(&mut self) {
        self.disconnects += 1;
    }

    /// The phase that is counted, if any.
    pub(super) fn run(&self) -> Option<u32> {
        self.run
    }

    /// New messages so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Messages so far that were not new.
    pub(super) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Messages so far that came late.
    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// When the last message of this run came.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Latencies since this was last asked; empty in a closed loop, where they measure only the queue it makes.
    pub(super) fn take_recent(&mut self) -> Latency {
        std::mem::replace(&mut self.recent, Latency::new())
    }

    /// The books of the phase, given everyone who stayed and what was sent.
    pub(super) fn settle<'a>(
        self,
        spec: &Spec,
        stayed: impl Iterator<Item = (Seat, &'a Tracker)>,
        accounts: &[Account],
    ) -> Settled {
        let (mut members, mut lost) = (0, 0);
        let mut orders: BTreeMap<u32, BTreeMap<u64, u32>> = BTreeMap::new();
        for (seat, tracker) in stayed {
            members += 1;
            lost += owed(spec, seat, tracker, accounts);
            *orders.entry(seat.room).or_default().entry(tracker.order()).or_default() += 1;
        }
        Settled {
            members,
            delivered: self.delivered,
            lost,
            duplicated: self.duplicated,
            reordered: self.reordered,
            foreign: self.foreign,
            disconnects: self.disconnects,
            local: self.local,
            remote: self.remote,
            orders,
            slowest: self.slowest,
        }
    }

    fn is_for(&self, spec: &Spec, seat: Seat, marker: &Marker) -> bool {
        self.run == Some(marker.run)
            && marker.publisher < spec.publishers
            && spec.room_of_publisher(marker.publisher) == seat.room
    }

    fn keep_slowest(&mut self, marker: &Marker, latency_ns: u64) {
        if marker.seq >= SLOWEST_MAX {
            return;
        }
        let microseconds = u32::try_from(latency_ns / 1000).unwrap_or(u32::MAX);
        let messages = self.slowest.entry(marker.publisher).or_default();
        let index = marker.seq as usize;
        if messages.len() <= index {
            messages.resize(index + 1, 0);
        }
        messages[index] = messages[index].max(microseconds);
    }
}

/// How many messages the member at `seat` is still owed.
pub(super) fn owed(spec: &Spec, seat: Seat, tracker: &Tracker, accounts: &[Account]) -> u64 {
    let of_room = accounts.iter().filter(|account| spec.room_of_publisher(account.publisher) == seat.room);
    of_room.map(|account| tracker.lost(spec.rank_in_room(account.publisher), account.sent, &account.refused)).sum()
}

#[cfg(test)]
mod tests;
