//! Questions to a new owner that has not shown again what its predecessor may have shown: they wait, a round trip long.
//!
//! Who was shown a frame must not be told of a room that ends before it: he would be given it again as something new.
//!
//! Invariants: nothing is answered out of a room before all that may have been shown in an earlier term was shown in this
//! one; what waits is bounded, and is asked anew where the slot changes hands.

use std::time::Instant;

use super::{Slot, Slots, history::Range, reading::Asker, seat::Seat};
use crate::{NodeId, room::RoomKey};

/// Questions of one slot that may wait.
const EARLY_MAX: usize = 4_096;

/// A question that came early.
#[derive(Debug)]
pub(crate) enum Early {
    /// A node has members of the room.
    Interest(NodeId, RoomKey),
    /// Somebody of this node joins or reads.
    Asked(RoomKey, Asker),
    /// Another node reads, by the driver's name for its request.
    Read(u64, RoomKey, Range),
}

impl Slots {
    /// Whether frames that may have been shown by an earlier owner were not shown by this one yet.
    fn inherits(&self, number: u16) -> bool {
        let base = self.seats.get(&number).and_then(|seat| seat.lead()).map_or(0, |lead| lead.base);
        matches!(self.slots.get(&number), Some(Slot::Owner(book)) if book.shown < base)
    }

    /// Keeps a question that comes early, and says whether it was one.
    pub(super) fn defers(&mut self, number: u16, question: impl FnOnce() -> Early) -> bool {
        if !self.inherits(number) {
            return false;
        }
        let Some(lead) = self.seats.get_mut(&number).and_then(|seat| seat.lead_mut()) else { return false };
        if lead.early.len() < EARLY_MAX {
            lead.early.push(question());
            return true;
        }
        match question() {
            // It is said again.
            Early::Interest(..) => {}
            Early::Asked(_, asker) => self.cannot_ask(asker),
            Early::Read(request, ..) => self.cannot_read(request),
        }
        true
    }

    /// Answers what came early, if it is early no more.
    pub(super) fn answer_early(&mut self, number: u16) {
        let waits = |seat: &Seat| seat.lead().is_some_and(|lead| !lead.early.is_empty());
        if !self.seats.get(&number).is_some_and(waits) || self.inherits(number) {
            return;
        }
        let (Some(lead), Some(now)) = (self.seats.get_mut(&number).and_then(|seat| seat.lead_mut()), self.now) else {
            return;
        };
        for early in std::mem::take(&mut lead.early) {
            match early {
                Early::Interest(node, room) => {
                    if self.links.contains(&node) {
                        self.handle_interest(node, &room);
                    }
                }
                Early::Asked(room, asker) => self.read_again(&room, asker, now, self.now_ms),
                Early::Read(request, room, range) => self.read_for(request, room, range),
            }
        }
    }

    /// The slot is another's: what this node's own clients asked is asked there.
    pub(super) fn ask_elsewhere(&mut self, early: Vec<Early>, now: Instant, now_ms: u64) {
        for early in early {
            match early {
                // Whoever hears of the new owner says it again.
                Early::Interest(..) => {}
                Early::Asked(room, asker) => self.read_again(&room, asker, now, now_ms),
                Early::Read(request, ..) => self.cannot_read(request),
            }
        }
    }
}
