//! Terms: asking for the next one, voting, entering it, beginning it.
//!
//! Invariants: see `seat`; every step is one of `mesh/model/src/rules.rs` (`propose`, `vote`, `enter`, `begin`, `fork`).

use std::time::Instant;

use super::{
    Output, Slot, Slots,
    book::Book,
    seat::{Copy, Hole, Lead, Role, Seat},
};
use crate::{
    NodeId,
    wire::{
        message::Control,
        triple::{Life, Say, Term, TermId, Triple},
    },
};

/// A copy lacks nothing before its end.
const NOTHING: (Hole, u64) = (Hole::Closed, u64::MAX);
/// Lineages that are remembered after this node left them, per slot: each one needs a failure of two nodes.
const LEFT_MAX: usize = 8;

impl Slots {
    /// This life of this node.
    pub(super) fn me(&self) -> Life {
        Life { node: self.config.node, generation: self.config.generation }
    }

    /// What another node says about a slot.
    pub(super) fn handle_say(&mut self, from: NodeId, number: u16, say: Say, now: Instant, now_ms: u64) {
        let Some(generation) = self.generations.get(&from) else { return };
        let from = Life { node: from, generation: *generation };
        match say {
            Say::Ask { term, next } => {
                self.hear(number, from, term, now, now_ms);
                self.handle_ask(number, from, next, now, now_ms);
            }
            Say::Exists(term) => self.hear(number, from, term, now, now_ms),
            Say::Began { term, from: after, stamped, base } => {
                self.hear(number, from, term, now, now_ms);
                self.meet(number, from, &term, (after, stamped), base);
                self.handle_shown(number, from, term.id, after, now, now_ms);
            }
            Say::Ack { term, n, whole } => self.handle_ack(number, from, term, (n, whole), now_ms),
            Say::Shown { term, n } => self.handle_shown(number, from, term, n, now, now_ms),
            Say::Yield { term } => self.handle_yield(number, from, &term, now, now_ms),
            Say::Welcome { term, known } => self.handle_welcome(number, from, (term, known), now, now_ms),
        }
    }

    /// A term exists. A newer one of our lineage is entered; of another lineage by who has nothing to lose, or whose owner
    /// went there.
    fn hear(&mut self, number: u16, from: Life, term: Term, now: Instant, now_ms: u64) {
        let enters = match self.seats.get(&number) {
            None => true,
            Some(seat) if seat.term.id.lineage == term.id.lineage => {
                if self.foreign.get(&number).is_some_and(|foreign| foreign.triple.owner == from) {
                    // It came over.
                    self.foreign.remove(&number);
                }
                term.id.number > seat.term.id.number
            }
            Some(seat) => {
                let mine = seat.term;
                let gone = self.is_gone(mine.triple.owner);
                // What it says it is in now has all that it had.
                let gave_way = mine.triple.owner == from;
                let orphaned = gone && mine.triple.replica == Some(from);
                match seat.role {
                    Role::Leads(_) => {
                        if term.triple.owner == from {
                            self.foreign.insert(number, term);
                        }
                        false
                    }
                    // Its frames must not be lost: if nobody leads them any more, it does, and brings them over.
                    Role::Copies(ref copy) => gave_way || (gone && copy.met && copy.book.is_none()),
                    Role::Watches(Some(_)) if orphaned => return self.begin_lineage(number, None, now, now_ms),
                    Role::Watches(Some(_)) => gave_way,
                    Role::Watches(None) => gave_way || gone || term.outranks(&mine),
                }
            }
        };
        if enters && !self.has_left(number, term.id) {
            self.enter(number, term, now, now_ms);
        }
    }

    /// This node was in that term, or in a later one of the same lineage, and went over to another: it never goes back, or
    /// it would vote twice.
    fn has_left(&self, number: u16, id: TermId) -> bool {
        let left = self.left.get(&number).into_iter().flatten();
        left.into_iter().any(|left| left.lineage == id.lineage && id.number <= left.number)
    }

    fn note_left(&mut self, number: u16, id: TermId) {
        let left = self.left.entry(number).or_default();
        left.retain(|other| other.lineage != id.lineage);
        left.push_back(id);
        if left.len() > LEFT_MAX {
            left.pop_front();
        }
    }

    /// A member of our term wants the next one: it gets our vote if nobody has it.
    fn handle_ask(&mut self, number: u16, from: Life, next: Term, now: Instant, now_ms: u64) {
        let me = self.me();
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let (term, voted) = (seat.term, seat.voted);
        if let (true, Some(lead)) = (next.parent == term.id, seat.lead_mut()) {
            lead.deserted |= term.triple.replica == Some(from) && next.triple.owner != from;
        }
        if next.parent != term.id {
            // It asks in a term that is past, or for the one we are in.
            return self.say(number, from, Say::Exists(term));
        }
        let kept = seat.kept().is_some();
        let owner = next.triple.owner;
        // The owner may ask for anything, others to lead themselves, and a replica that who can do it does.
        let proper = term.triple.owner == from || owner == from || (owner == me && kept);
        let may = term.triple.has(me) && term.triple.has(from) && from != me && !self.has_left(number, next.id);
        if may && proper && voted.is_none_or(|(voted, _)| voted == next) {
            // The second vote: the term exists.
            self.enter(number, next, now, now_ms);
            // The asker may be dead by now: who has a seat must hear of it all the same.
            let seated = next.triple.members().filter(|life| *life != from && *life != me);
            for life in std::iter::once(from).chain(seated) {
                self.say(number, life, Say::Exists(next));
            }
        }
    }

    /// Asks for the next term with these seats. Who may: see `wanted`.
    pub(super) fn ask(&mut self, number: u16, triple: Triple, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        self.ask_above(number, triple, seat.term.id.number, now, now_ms);
    }

    /// The same, for a term above that number.
    pub(super) fn ask_above(&mut self, number: u16, triple: Triple, above: u32, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get_mut(&number).filter(|seat| seat.voted.is_none()) else { return };
        let id = TermId { number: above.max(seat.term.id.number) + 1, ..seat.term.id };
        let next = Term { id, parent: seat.term.id, triple };
        seat.voted = Some((next, now));
        if seat.term.triple.quorum() == 1 {
            self.enter(number, next, now, now_ms);
        } else {
            self.say_ask(number);
        }
    }

    pub(super) fn say_ask(&mut self, number: u16) {
        let me = self.me();
        let Some((term, Some((next, _)))) = self.seats.get(&number).map(|seat| (seat.term, seat.voted)) else { return };
        for member in term.triple.members().filter(|member| *member != me) {
            self.say(number, member, Say::Ask { term, next });
        }
    }

    /// Goes over to a term that exists.
    pub(super) fn enter(&mut self, number: u16, next: Term, now: Instant, now_ms: u64) {
        let me = self.me();
        let old = self.seats.remove(&number);
        let follows = old.as_ref().is_some_and(|seat| seat.term.id == next.parent);
        let ended = old.as_ref().map(|seat| seat.term).filter(|term| term.id.lineage != next.id.lineage);
        let copied = old.as_ref().filter(|seat| seat.term.triple.owner == next.triple.owner).map(|seat| &seat.role);
        let keeps = next.triple.witness == Some(me) && matches!(copied, Some(Role::Copies(_)));
        self.foreign.remove(&number);
        if let Some(ended) = ended {
            self.note_left(number, ended.id);
        }
        let (book, whole, missing) = match old.map(|seat| seat.role) {
            Some(Role::Leads(lead)) if next.triple.owner == me => {
                let Lead { held, early, merge, merge_base, base, .. } = lead;
                let lead = Lead { held, early, merge, merge_base, base, ..Lead::default() };
                self.seats.insert(number, Seat::new(next, Role::Leads(lead)));
                self.begin(number, now_ms);
                return self.publish_held(number, now, now_ms);
            }
            Some(Role::Leads(lead)) => {
                self.seats.insert(number, Seat::new(next, Role::Watches(None)));
                let book = self.step_down(number, lead, now, now_ms);
                // What it stamped and nobody acked may be stamped otherwise by now.
                let book = book.filter(|book| book.tail.is_empty());
                let whole = book.is_some() && follows;
                (book, whole, NOTHING)
            }
            Some(Role::Copies(copy)) => (copy.book, copy.whole && follows, (copy.hole, copy.fence)),
            // The replica let it take over: nothing was shown since it was the replica itself.
            Some(Role::Watches(kept)) => (kept, follows && next.triple.owner == me, NOTHING),
            None => (None, false, NOTHING),
        };
        if let Some(ended) = ended.filter(|term| term.triple.owner == me) {
            tracing::info!(slot = number, lineage = next.id.lineage, "a lineage ended; its members go over to another");
            for member in ended.triple.members().chain([next.triple.owner]).filter(|member| *member != me) {
                self.say(number, member, Say::Exists(next));
            }
        }
        if next.triple.owner == me {
            return match book {
                Some(mut book) if whole => {
                    // What is published while it takes over is stamped in this term.
                    book.begin(next.id);
                    let lead = Lead { base: book.n, ..Lead::default() };
                    self.seats.insert(number, Seat::new(next, Role::Leads(lead)));
                    self.take_over(number, book, None, now, now_ms);
                    self.begin(number, now_ms);
                }
                book => {
                    // Nobody asks this of a node that is not whole; if it happens all the same, nothing is proved.
                    self.seats.insert(number, Seat::new(next, Role::Watches(None)));
                    self.begin_lineage(number, book, now, now_ms);
                }
            };
        }
        let role = if next.triple.replica == Some(me) {
            Role::Copies(Copy::new(book, whole, missing))
        } else {
            Role::Watches(book.filter(|_| whole && keeps))
        };
        self.seats.insert(number, Seat::new(next, role));
        if ended.is_some()
            && let Some(Slot::Follower(follower)) = self.slots.get_mut(&number)
        {
            // The owner may be the same node: it is asked anew all the same.
            follower.owner = None;
        }
        self.reassign(number, now);
        self.owners_changed = true;
    }

    /// The owner begins or goes on in a new term: everybody hears of it, and the replica gets the tail.
    pub(super) fn begin(&mut self, number: u16, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        let term = seat.term;
        let Some(Slot::Owner(book)) = self.slots.get_mut(&number) else { return };
        book.begin(term.id);
        self.say_began(number);
        for node in self.links.clone() {
            let member = term.triple.members().any(|life| life.node == node);
            if !member {
                self.say_to(number, node, Say::Exists(term));
            }
        }
        self.send_tail(number);
        self.release_tail(number, now_ms);
        self.owners_changed = true;
    }

    /// Says to those members that have not answered yet that this node leads.
    pub(super) fn say_began(&mut self, number: u16) {
        let (Some(seat), Some(Slot::Owner(book))) = (self.seats.get(&number), self.slots.get(&number)) else { return };
        let (term, Some(lead)) = (seat.term, seat.lead()) else { return };
        let (from, base) = (book.shown, lead.base);
        let stamped = book.starts.of(from).unwrap_or_default();
        let replica = term.triple.replica.filter(|_| lead.acked.is_none());
        let witness = term.triple.witness.filter(|_| !lead.witness_met);
        for member in [replica, witness].into_iter().flatten() {
            self.say(number, member, Say::Began { term, from, stamped, base });
        }
    }

    /// Goes on without two votes, from whatever this node holds: nothing is proved, so it is a new lineage.
    pub(super) fn begin_lineage(&mut self, number: u16, book: Option<Book>, now: Instant, now_ms: u64) {
        let before = self.seats.remove(&number);
        if let Some(seat) = &before {
            self.note_left(number, seat.term.id);
        }
        let foreign = self.foreign.get(&number).map(|term| term.id.number);
        let above = before.as_ref().map(|seat| seat.term.id.number).max(foreign).unwrap_or(0);
        let id = TermId { number: above + 1, lineage: self.mint_lineage() };
        // Where others are in another lineage, this one has to give way or be joined, and asks nobody for copies meanwhile.
        let alone = Triple { owner: self.me(), replica: None, witness: None };
        let term = Term::first(id, if foreign.is_some() { alone } else { self.seats_for(number, now) });
        let (lead, book) = match before.map(|seat| seat.role) {
            Some(Role::Leads(Lead { held, early, .. })) => (Lead { held, early, ..Lead::default() }, None),
            Some(Role::Copies(copy)) => (Lead::default(), book.or_else(|| self.torn(copy))),
            Some(Role::Watches(kept)) => (Lead::default(), book.or(kept)),
            None => (Lead::default(), book),
        };
        self.seats.insert(number, Seat::new(term, Role::Leads(lead)));
        match self.slots.get_mut(&number) {
            Some(Slot::Owner(owned)) => {
                owned.restamp(id, now);
                let mut rooms: Vec<_> = owned.rooms.keys().cloned().collect();
                rooms.sort_unstable();
                rooms.iter().for_each(|room| self.gap(room));
            }
            Some(Slot::Follower(_)) | None => {
                let book = book.unwrap_or_else(|| self.blank(number, id));
                self.take_over(number, book, Some(id), now, now_ms);
            }
        }
        self.begin(number, now_ms);
        self.publish_held(number, now, now_ms);
    }

    /// What a copy is worth that goes on alone. What memory has of its past is history here, if it was not.
    fn torn(&mut self, copy: Copy) -> Option<Book> {
        let mut book = copy.book?;
        if copy.hole != Hole::Closed {
            for frame in book.tear(copy.fence) {
                let bytes = frame.encode();
                self.outputs.push_back(Output::Append { frame, bytes });
            }
        }
        Some(book)
    }

    /// A book of nothing that goes on behind all that the store ever held.
    pub(super) fn blank(&self, number: u16, id: TermId) -> Book {
        let head = self.config.heads.get(&number).copied().unwrap_or(0);
        Book::new(id, head, TermId::default())
    }

    /// A member of slots that this node leads is reached anew: what it may have missed is said again.
    pub(super) fn go_on_with(&mut self, node: NodeId) {
        let seated = |seat: &&Seat| seat.lead().is_some() && seat.term.triple.members().any(|life| life.node == node);
        let numbers: Vec<u16> = self.seats.iter().filter(|(_, seat)| seated(seat)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.say_began(number);
            self.send_tail(number);
            self.due_shown.insert(number);
        }
    }

    pub(super) fn say(&mut self, number: u16, to: Life, say: Say) {
        if self.generations.get(&to.node) == Some(&to.generation) {
            self.say_to(number, to.node, say);
        }
    }

    pub(super) fn say_to(&mut self, number: u16, to: NodeId, say: Say) {
        self.send(to, number, Control::Slot { slot: number, say }.encode());
    }
}
