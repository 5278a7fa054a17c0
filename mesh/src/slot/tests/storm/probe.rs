//! The one look into the machine: which frames it holds that are on no disk yet, because nobody was shown them there.
//!
//! Invariant: nothing here changes anything.

use super::judge::Place;
use crate::{
    slot::{Slot, Slots, book::Book, seat::Role},
    wire::triple::Term,
};

/// Whether the frame is in the tail of what this node holds of the slot.
pub(super) fn is_in_tail(slots: &Slots, slot: u16, place: Place) -> bool {
    tails(slots, slot).flat_map(|book| &book.tail).any(|tailed| (tailed.frame.lineage, tailed.frame.n) == place)
}

/// The terms that this node leads.
pub(super) fn led(slots: &Slots) -> impl Iterator<Item = (u16, Term)> {
    slots.seats.iter().filter(|(_, seat)| seat.lead().is_some()).map(|(slot, seat)| (*slot, seat.term))
}

/// A term in a few characters: number, lineage, seats.
pub(super) fn in_short(term: &Term) -> String {
    let seats: Vec<String> =
        term.triple.members().map(|life| format!("N{}.{}", life.node.0, life.generation)).collect();
    format!("{} of {:x} after {} ({})", term.id.number, term.id.lineage, term.parent.number, seats.join(" "))
}

/// Whether this node orders the slot in a term that has a replica.
pub(super) fn leads_with_replica(slots: &Slots, slot: u16) -> bool {
    slots.seats.get(&slot).is_some_and(|seat| seat.lead().is_some() && seat.term.triple.replica.is_some())
}

/// The newest frame that this node keeps for the slot's owner.
pub(super) fn kept(slots: &Slots, slot: u16) -> Option<bytes::Bytes> {
    let newest = tails(slots, slot).last()?.tail.back()?;
    Some(newest.frame.payload.clone())
}

/// Payloads of all frames in the tails of this node.
pub(super) fn tailed(slots: &Slots) -> Vec<bytes::Bytes> {
    let numbers = slots.slots.keys().chain(slots.seats.keys()).copied();
    numbers
        .flat_map(|slot| tails(slots, slot))
        .flat_map(|book| &book.tail)
        .map(|tailed| tailed.frame.payload.clone())
        .collect()
}

fn tails(slots: &Slots, slot: u16) -> impl Iterator<Item = &Book> {
    let owned = match slots.slots.get(&slot) {
        Some(Slot::Owner(book)) => Some(book),
        Some(Slot::Follower(_)) | None => None,
    };
    let copied = match slots.seats.get(&slot).map(|seat| &seat.role) {
        Some(Role::Copies(copy)) => copy.book.as_ref(),
        Some(Role::Leads(_) | Role::Watches(_)) | None => None,
    };
    [owned, copied].into_iter().flatten()
}
