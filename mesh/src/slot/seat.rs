//! One node's part in the terms of one slot (`docs/explanation/one-slot.md`): the newest term it knows, its vote, its role.
//!
//! Invariants (each has a mistake planted in `mesh/model`):
//! - a life votes once in a term; asking is voting; the second vote makes the term, and the voter enters it at once;
//! - a node never goes back to a lower number of a lineage, and is deaf to what is said in one;
//! - only a whole copy takes over; whole stays, from one term to the very next, the old owner and a whole old replica;
//! - who hands over neither stamps nor shows any more.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{Ask, book::Book};
use crate::wire::{
    message::Frame,
    triple::{Life, Term, TermId},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) term: Term,
    /// The next term that it voted for in this one, and when.
    pub(crate) voted: Option<(Term, Instant)>,
    pub(crate) role: Role,
}

/// What a node does in a term.
#[derive(Debug)]
pub(crate) enum Role {
    /// It is the owner; its book stands in `Slot::Owner`.
    Leads(Lead),
    /// It is the replica.
    Copies(Copy),
    /// It votes, or only knows who leads. The witness that was the replica before keeps its copy until the new one is whole.
    Watches(Option<Book>),
}

/// What the owner keeps track of.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    /// What the replica acked in this term; `None` before it has met this owner.
    pub(crate) acked: Option<u64>,
    /// The replica could take over.
    pub(crate) copied: bool,
    pub(crate) witness_met: bool,
    /// The replica took this owner for dead and let the witness take over: it will not answer in this term any more.
    pub(crate) deserted: bool,
    /// Frames up to here may have been shown before the term.
    pub(crate) base: u64,
    /// Since when the replica has not answered to the term.
    pub(crate) unmet_since: Option<Instant>,
    /// What was acked at the last look: no progress since means that something was lost.
    pub(crate) looked: Option<u64>,
    /// Publishes of this node that came while the slot is being handed over.
    pub(crate) held: VecDeque<(Frame, Ask)>,
    /// What was asked before all was shown that may have been shown before.
    pub(crate) early: Vec<super::early::Early>,
    /// The lineage ends: its frames go to the owner of another one first.
    pub(crate) merge: Option<super::heal::Merge>,
    /// The first name of what is brought over; 0 = nothing was yet.
    pub(crate) merge_base: u64,
}

/// A replica's copy.
#[derive(Debug)]
pub(crate) struct Copy {
    /// `None` until the owner was met, or what was held did not agree with it.
    pub(crate) book: Option<Book>,
    /// It heard the owner of this term.
    pub(crate) met: bool,
    /// The owner said that frames up to here may have been shown.
    pub(crate) base: u64,
    pub(crate) hole: Hole,
    /// The copy was begun behind this frame; what is before it comes by pages.
    pub(crate) fence: u64,
    /// Every frame that was shown in this lineage is here.
    pub(crate) whole: bool,
    /// Who is asked for pages.
    pub(crate) source: Source,
    /// The witness knows that this copy is whole.
    pub(crate) told: bool,
}

/// Where a replica has its pages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The owner.
    Owner,
    /// The owner is silent; the witness was the replica before.
    Witness,
    /// The witness has nothing, either.
    Nobody,
}

/// How far the background copy of what was before is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hole {
    /// The rooms behind this key are missing, and all that is on disk.
    Rooms(Bytes),
    /// What is on disk is missing from there on.
    Disk(u64),
    /// Nothing is missing.
    Closed,
}

impl Seat {
    pub(crate) fn new(term: Term, role: Role) -> Seat {
        Seat { term, voted: None, role }
    }

    /// It stamps, or would if it did not give way.
    pub(crate) fn lead(&self) -> Option<&Lead> {
        match &self.role {
            Role::Leads(lead) => Some(lead),
            Role::Copies(_) | Role::Watches(_) => None,
        }
    }

    pub(crate) fn lead_mut(&mut self) -> Option<&mut Lead> {
        match &mut self.role {
            Role::Leads(lead) => Some(lead),
            Role::Copies(_) | Role::Watches(_) => None,
        }
    }

    pub(crate) fn copy_mut(&mut self) -> Option<&mut Copy> {
        match &mut self.role {
            Role::Copies(copy) => Some(copy),
            Role::Leads(_) | Role::Watches(_) => None,
        }
    }

    /// What it holds of frames that another owner stamped, if nothing is missing before the end of it.
    pub(crate) fn kept(&self) -> Option<&Book> {
        match &self.role {
            Role::Copies(copy) => copy.book.as_ref().filter(|_| copy.hole == Hole::Closed),
            Role::Watches(kept) => kept.as_ref(),
            Role::Leads(_) => None,
        }
    }

    /// The same, holes or not.
    pub(crate) fn held_mut(&mut self) -> Option<&mut Book> {
        match &mut self.role {
            Role::Copies(copy) => copy.book.as_mut(),
            Role::Watches(kept) => kept.as_mut(),
            Role::Leads(_) => None,
        }
    }

    /// It never met its owner and said so to the witness, by asking it to take over: it is deaf to that owner from then on.
    pub(crate) fn let_take_over(&self, me: Life) -> bool {
        matches!(self.role, Role::Copies(_)) && self.voted.is_some_and(|(next, _)| next.triple.owner != me)
    }

    /// It asked for a term with another owner: it neither stamps nor shows.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.lead().is_some() && self.voted.is_some_and(|(next, _)| next.triple.owner != self.term.triple.owner)
    }

    /// It takes no publishes for now: another owner will.
    pub(crate) fn gives_way(&self) -> bool {
        self.is_handing_over() || self.lead().is_some_and(|lead| lead.merge.is_some())
    }

    /// Nobody else has to hold a frame before it is shown.
    pub(crate) fn is_alone(&self) -> bool {
        self.term.triple.replica.is_none()
    }
}

impl Copy {
    /// A copy of `book`, if it was one, until the owner is met.
    pub(crate) fn new(book: Option<Book>, whole: bool, (hole, fence): (Hole, u64)) -> Copy {
        Copy { book, met: false, base: 0, hole, fence, whole, source: Source::Owner, told: false }
    }

    /// Looks again whether it could take over.
    pub(crate) fn look(&mut self) {
        let here = self.book.as_ref().is_some_and(|book| book.n >= self.base);
        self.whole |= self.met && here && self.hole == Hole::Closed;
    }
}

impl Term {
    /// The first term of a lineage: nobody was asked.
    pub(crate) fn first(id: TermId, triple: crate::wire::triple::Triple) -> Term {
        Term { id, parent: id, triple }
    }

    /// Which of two lineages of one slot stays: the one that more nodes hold; of equals the one with more changes behind it,
    /// then the lower number. Every node judges alike.
    pub(crate) fn outranks(&self, other: &Term) -> bool {
        let rank = |term: &Term| (term.triple.members().count(), term.id.number, std::cmp::Reverse(term.id.lineage));
        rank(self) > rank(other)
    }
}
