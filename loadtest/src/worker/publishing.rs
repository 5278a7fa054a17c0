//! When to publish what, and what became of it, as a value: one measured phase of this worker's publishers.
//!
//! - Open loop: message `j` of the whole test is due at `start + j / rate`, whatever the server does; a late generator
//!   catches up, and its lateness is recorded as slip.
//! - Closed loop: a message is *released*, and the next one sent, once its publisher has the answer (if the dialect has
//!   one) **and** every member of this worker in that room has the message. So the number outstanding bounds what is on
//!   the way to the slowest member, not to a lucky one. A message not released within [`STALL_NS`] is given up, counted.
//! - Memory is bounded: at most [`FLYING_MAX`] messages of a publisher wait for their answer.

use std::collections::{BTreeMap, VecDeque};

use crate::client::Answer;
use crate::stats::Latency;
use crate::wire::{Account, Pace, Phase, Published, Spec};

/// After this long a closed loop gives a message up.
const STALL_NS: u64 = 2_000_000_000;
/// How long answers are waited for after the last message.
const ANSWER_PATIENCE_NS: u64 = 5_000_000_000;
/// Messages of one publisher without an answer; the oldest beyond it count as unanswered.
const FLYING_MAX: usize = 65_536;

/// A message to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    /// Which of this worker's publishers, from 0.
    pub(super) slot: usize,
    /// Its number in the whole test.
    pub(super) publisher: u16,
    /// The message's number.
    pub(super) seq: u32,
    /// When it should leave.
    pub(super) intended_ns: u64,
}

/// One phase of publishing.
#[derive(Debug)]
pub(super) struct Publishing {
    phase: Phase,
    start_ns: u64,
    end_ns: u64,
    workers: u32,
    worker: u32,
    publishers: u16,
    answered: bool,
    slots: Vec<Slot>,
    /// Open loop: how many messages this worker has been due to send.
    due: u64,
    /// Closed loop: publishers that may send, once per free place.
    free: VecDeque<usize>,
    published: u64,
    slip: Latency,
    publish: Latency,
    unanswered: u64,
    offsets_back: u64,
    epochs_changed: u64,
    stalls: u64,
    codes: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Slot {
    publisher: u16,
    /// Members of this worker in its room.
    audience: u32,
    sent: u32,
    /// Consecutive messages; the first one is not done.
    flying: VecDeque<Flying>,
    refused: Vec<u32>,
    position: Option<(String, u64)>,
}

#[derive(Debug)]
struct Flying {
    seq: u32,
    intended_ns: u64,
    unanswered: bool,
    /// Members that still have to get it; 0 in an open loop, which does not wait for them.
    awaited: u32,
    released: bool,
}

impl Publishing {
    /// The publishers of the worker that `spec` names; `audience` counts its members in a room, `answered` says whether
    /// publishes get answers. Nothing is due before [`Publishing::start`].
    pub(super) fn new(spec: &Spec, phase: Phase, answered: bool, audience: impl Fn(u32) -> u32) -> Publishing {
        let own = (0..spec.publishers).filter(|id| u32::from(*id) % spec.workers == spec.worker);
        let slot = |publisher| Slot {
            publisher,
            audience: audience(spec.room_of_publisher(publisher)),
            sent: 0,
            flying: VecDeque::new(),
            refused: Vec::new(),
            position: None,
        };
        Publishing {
            phase,
            start_ns: u64::MAX,
            end_ns: u64::MAX,
            workers: spec.workers,
            worker: spec.worker,
            publishers: spec.publishers,
            answered,
            slots: own.map(slot).collect(),
            due: 0,
            free: VecDeque::new(),
            published: 0,
            slip: Latency::new(),
            publish: Latency::new(),
            unanswered: 0,
            offsets_back: 0,
            epochs_changed: 0,
            stalls: 0,
            codes: BTreeMap::new(),
        }
    }

    /// The first message is due at `start_ns`.
    pub(super) fn start(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        self.end_ns = start_ns.saturating_add(self.phase.duration_ns);
        if let Pace::Closed { outstanding } = self.phase.pace {
            // A publisher that nobody here hears and nobody answers has nothing to be paced by, so it stays silent.
            let paced: Vec<usize> =
                (0..self.slots.len()).filter(|slot| self.answered || self.slots[*slot].audience > 0).collect();
            self.free = (0..outstanding).flat_map(|_| paced.iter().copied()).collect();
        }
    }

    /// Nothing more is due after `now`.
    pub(super) fn halt(&mut self, now_ns: u64) {
        self.start_ns = self.start_ns.min(now_ns);
        self.end_ns = self.end_ns.min(now_ns);
    }

    /// Messages sent so far.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// Whether deliveries have to be reported to [`Publishing::handle_delivery`].
    pub(super) fn awaits_deliveries(&self) -> bool {
        matches!(self.phase.pace, Pace::Closed { .. })
    }

    /// When [`Publishing::poll_publish`] will have something; `u64::MAX` if only an answer or delivery can bring it.
    pub(super) fn next_due(&self) -> u64 {
        let due = match self.phase.pace {
            Pace::Open { per_second } => self.next_scheduled(per_second).map_or(u64::MAX, |(_, due)| due),
            Pace::Closed { .. } if self.free.is_empty() => u64::MAX,
            Pace::Closed { .. } => self.start_ns,
        };
        if due < self.end_ns { due } else { u64::MAX }
    }

    /// The next message, if one is due at `now_ns`.
    pub(super) fn poll_publish(&mut self, now_ns: u64) -> Option<Publication> {
        if self.next_due() > now_ns {
            return None;
        }
        let (slot, intended_ns) = match self.phase.pace {
            Pace::Open { per_second } => self.next_scheduled(per_second)?,
            Pace::Closed { .. } if now_ns >= self.end_ns => return None,
            Pace::Closed { .. } => (self.free.pop_front()?, now_ns),
        };
        self.due += 1;
        self.published += 1;
        self.slip.record_ns(now_ns - intended_ns);
        let (answered, awaits) = (self.answered, self.awaits_deliveries());
        let entry = &mut self.slots[slot];
        let publication = Publication { slot, publisher: entry.publisher, seq: entry.sent, intended_ns };
        entry.sent += 1;
        if answered || awaits {
            let awaited = if awaits { entry.audience } else { 0 };
            let flying = Flying { seq: publication.seq, intended_ns, unanswered: answered, awaited, released: false };
            entry.flying.push_back(flying);
            self.release(slot, publication.seq);
            self.forget_oldest(slot);
        }
        Some(publication)
    }

    /// A message could not be sent: its publisher has gone. Nobody is owed it, and in a closed loop its place stays empty.
    pub(super) fn handle_unsent(&mut self, publication: &Publication) {
        let Some(entry) = self.slots.get_mut(publication.slot) else { return };
        if let Some(flying) = entry.find(publication.seq) {
            *flying = Flying { unanswered: false, awaited: 0, released: true, ..*flying };
            entry.forget_released();
        }
        entry.refused.push(publication.seq);
        self.unanswered += 1;
    }

    /// The server answered publisher `slot` about message `seq`.
    pub(super) fn handle_answer(&mut self, slot: usize, seq: u64, answer: Answer, now_ns: u64) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let Some(flying) = u32::try_from(seq).ok().and_then(|seq| entry.find(seq)) else { return };
        if !std::mem::take(&mut flying.unanswered) {
            return;
        }
        let seq = flying.seq;
        self.publish.record_ns(now_ns.saturating_sub(flying.intended_ns));
        match answer.refusal {
            Some(code) => {
                flying.awaited = 0;
                entry.refused.push(seq);
                *self.codes.entry(code).or_default() += 1;
            }
            None => self.check_position(slot, answer.epoch, answer.offset),
        }
        self.release(slot, seq);
    }

    /// A member of this worker received message `seq` of `publisher` for the first time.
    pub(super) fn handle_delivery(&mut self, publisher: u16, seq: u32) {
        if u32::from(publisher) % self.workers != self.worker {
            return;
        }
        let slot = (u32::from(publisher) / self.workers) as usize;
        let Some(flying) = self.slots.get_mut(slot).and_then(|entry| entry.find(seq)) else { return };
        flying.awaited = flying.awaited.saturating_sub(1);
        if flying.awaited == 0 {
            self.release(slot, seq);
        }
    }

    /// Gives up what has been on the way for too long.
    pub(super) fn handle_timeout(&mut self, now_ns: u64) {
        if !self.awaits_deliveries() {
            return;
        }
        for slot in 0..self.slots.len() {
            while let Some(oldest) = self.slots[slot].flying.front_mut() {
                if now_ns.saturating_sub(oldest.intended_ns) < STALL_NS {
                    break;
                }
                self.stalls += 1;
                oldest.awaited = 0;
                let seq = oldest.seq;
                self.give_up_answer(slot);
                self.release(slot, seq);
            }
        }
    }

    /// Whether the phase has ended and nothing is waited for any more.
    pub(super) fn is_finished(&self, now_ns: u64) -> bool {
        let ended = now_ns >= self.end_ns;
        let patience = self.end_ns.saturating_add(ANSWER_PATIENCE_NS);
        ended && (now_ns >= patience || self.slots.iter().all(|slot| slot.flying.is_empty()))
    }

    /// The books of the phase, at `now_ns`. `cpu_ns` and `delivered` are the worker's own figures since the start.
    pub(super) fn finish(mut self, cpu_ns: u64, delivered: u64, now_ns: u64) -> Published {
        for slot in 0..self.slots.len() {
            while !self.slots[slot].flying.is_empty() {
                self.give_up_answer(slot);
                self.slots[slot].flying.pop_front();
            }
        }
        let account = |mut slot: Slot| {
            slot.refused.sort_unstable();
            Account { publisher: slot.publisher, sent: slot.sent, refused: slot.refused }
        };
        Published {
            accounts: self.slots.into_iter().map(account).collect(),
            slip: self.slip,
            publish: self.publish,
            unanswered: self.unanswered,
            offsets_back: self.offsets_back,
            epochs_changed: self.epochs_changed,
            stalls: self.stalls,
            codes: self.codes,
            cpu_ns,
            window_ns: now_ns.saturating_sub(self.start_ns),
            delivered,
        }
    }

    /// Publisher and time of the next message of the open-loop schedule.
    fn next_scheduled(&self, per_second: f64) -> Option<(usize, u64)> {
        let own = self.slots.len() as u64;
        let slot = usize::try_from(self.due.checked_rem(own)?).ok()?;
        let message = self.due / own * u64::from(self.publishers) + u64::from(self.slots[slot].publisher);
        Some((slot, self.start_ns.saturating_add(nanoseconds(message as f64 / per_second))))
    }

    /// If message `seq` is done, lets its publisher send the next one.
    fn release(&mut self, slot: usize, seq: u32) {
        let entry = &mut self.slots[slot];
        let Some(flying) = entry.find(seq).filter(|flying| flying.is_done() && !flying.released) else { return };
        flying.released = true;
        entry.forget_released();
        if self.awaits_deliveries() {
            self.free.push_back(slot);
        }
    }

    fn forget_oldest(&mut self, slot: usize) {
        if self.slots[slot].flying.len() > FLYING_MAX {
            self.give_up_answer(slot);
            self.slots[slot].flying.pop_front();
        }
    }

    /// The oldest message of `slot` will not be answered: nobody knows whether members are owed it.
    fn give_up_answer(&mut self, slot: usize) {
        let entry = &mut self.slots[slot];
        let Some(oldest) = entry.flying.front_mut() else { return };
        if std::mem::take(&mut oldest.unanswered) {
            let seq = oldest.seq;
            self.unanswered += 1;
            entry.refused.push(seq);
        }
    }

    fn check_position(&mut self, slot: usize, epoch: Option<String>, offset: Option<u64>) {
        let (Some(epoch), Some(offset)) = (epoch, offset) else { return };
        let position = &mut self.slots[slot].position;
        match position {
            Some((last_epoch, last_offset)) if *last_epoch == epoch => {
                self.offsets_back += u64::from(offset <= *last_offset);
            }
            Some(_) => self.epochs_changed += 1,
            None => {}
        }
        *position = Some((epoch, offset));
    }
}

impl Slot {
    fn find(&mut self, seq: u32) -> Option<&mut Flying> {
        let first = self.flying.front()?.seq;
        self.flying.get_mut(seq.checked_sub(first)? as usize)
    }

    fn forget_released(&mut self) {
        while self.flying.front().is_some_and(|flying| flying.released) {
            self.flying.pop_front();
        }
    }
}

impl Flying {
    fn is_done(&self) -> bool {
        !self.unanswered && self.awaited == 0
    }
}

/// Schedules are far shorter than the 2^53 nanoseconds (104 days) that a float holds exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and far below 2^63")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests;
