//! Who really has the seats of a slot: what this node knows of it, and what all nodes know together.
//!
//! Invariant: whoever leads a slot knows best; what others have heard of it may be old, and is believed only if nobody leads.

use std::cmp::Reverse;

use super::{Slot, Slots, seat::Role};
use crate::wire::{
    request::{Part, Seats},
    triple::{Life, Term, TermId, Triple},
};

impl Slots {
    /// What this node knows of the seats of a slot, and what it is in them.
    pub fn seats(&self, number: u16) -> Seats {
        let led = match self.slots.get(&number) {
            Some(Slot::Owner(book)) => Some(book.term),
            Some(Slot::Follower(_)) | None => None,
        };
        let Some(seat) = self.seats.get(&number) else {
            // A node that has no others needs no votes.
            let term = led.map(|id| alone(id, self.me()));
            return Seats { term, part: term.map_or(Part::None, |_| Part::Owner { copied: false }) };
        };
        let me = self.me();
        let part = match &seat.role {
            Role::Leads(lead) => Part::Owner { copied: lead.copied },
            Role::Copies(copy) => Part::Replica { whole: copy.whole },
            Role::Watches(_) if seat.term.triple.witness == Some(me) => Part::Witness,
            Role::Watches(_) => Part::None,
        };
        Seats { term: Some(seat.term), part }
    }
}

fn alone(id: TermId, owner: Life) -> Term {
    Term { id, parent: id, triple: Triple { owner, replica: None, witness: None } }
}

impl Seats {
    /// The best of what several nodes know; the default if none knows anything. Of two that lead, it is the one that stays
    /// when they find together.
    pub fn best(known: impl IntoIterator<Item = Seats>) -> Seats {
        known.into_iter().fold(Seats::default(), |best, other| if other.is_better(&best) { other } else { best })
    }

    /// The node that said this leads the slot.
    pub fn leads(&self) -> bool {
        matches!(self.part, Part::Owner { .. })
    }

    fn is_better(&self, other: &Seats) -> bool {
        match (self.term, other.term) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(mine), Some(theirs)) if self.leads() && other.leads() && mine.id.lineage != theirs.id.lineage => {
                mine.outranks(&theirs)
            }
            // The owner knows more of its own term than the others of its triple do.
            (Some(mine), Some(theirs)) => {
                let rank = |seats: &Seats, term: &Term| (seats.leads(), term.id.number, Reverse(part_rank(seats.part)));
                rank(self, &mine) > rank(other, &theirs)
            }
        }
    }
}

/// Who holds a copy knows whether it is whole.
fn part_rank(part: Part) -> u8 {
    match part {
        Part::Owner { .. } => 0,
        Part::Replica { .. } => 1,
        Part::Witness => 2,
        Part::None => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn seats(number: u32, lineage: u64, replica: bool, part: Part) -> Seats {
        let life = |node| Life { node: NodeId(node), generation: 1 };
        let id = TermId { number, lineage };
        let triple = Triple { owner: life(0), replica: replica.then(|| life(1)), witness: None };
        Seats { term: Some(Term { id, parent: id, triple }), part }
    }

    #[test]
    fn who_leads_is_believed_before_who_has_heard_of_more() {
        let leads = seats(3, 7, true, Part::Owner { copied: true });
        let heard = [seats(9, 7, true, Part::None), seats(9, 7, true, Part::Replica { whole: true }), Seats::default()];
        for order in [[leads, heard[0], heard[1]], [heard[0], leads, heard[2]], [heard[2], heard[1], leads]] {
            assert_eq!(Seats::best(order), leads);
        }
        assert_eq!(Seats::best(heard), heard[1], "of those that have heard, the replica knows its copy");
        assert_eq!(Seats::best([]), Seats::default());
    }

    #[test]
    fn an_owner_that_has_not_heard_of_the_next_term_is_not_believed() {
        let (fenced, leads) =
            (seats(3, 7, true, Part::Owner { copied: true }), seats(4, 7, false, Part::Owner { copied: false }));
        assert_eq!((Seats::best([fenced, leads]), Seats::best([leads, fenced])), (leads, leads));
    }

    #[test]
    fn of_two_that_lead_the_one_that_stays_is_said() {
        let alone = seats(9, 7, false, Part::Owner { copied: false });
        let pair = seats(3, 8, true, Part::Owner { copied: true });
        assert_eq!((Seats::best([alone, pair]), Seats::best([pair, alone])), (pair, pair));
    }
}
