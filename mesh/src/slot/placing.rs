//! Who should hold the seats: what a node does about silence, empty seats and the ring, a few times a second.
//!
//! Invariants: what failed is mended before anything is moved; a slot is moved only while its copy is whole, a few slots at a
//! time, and one step after the other: another replica first, then the owner; the lineage ends only where two votes cannot be
//! had any more.

use std::time::{Duration, Instant};

use super::{
    Answer, Slot, Slots,
    seat::{Hole, Role, Source},
};
use crate::{
    NodeId,
    wire::{
        message::Refusal,
        triple::{Life, Triple},
    },
};

/// How often the seats are looked at.
const TICK: Duration = Duration::from_millis(100);
/// An owner silent for so long is followed by its replica (`semantics.md` 3).
const OWNER_SILENT: Duration = Duration::from_secs(1);
/// A replica silent for so long is replaced.
const REPLICA_SILENT: Duration = Duration::from_millis(750);
/// And a witness.
const WITNESS_SILENT: Duration = Duration::from_millis(1_500);
/// How long votes are waited for before a node goes on without.
const VOTE_PATIENCE: Duration = Duration::from_secs(5);
/// In every so many looks it is made sure that presence has the right owners: what is known of nodes may change by itself.
const PRESENCE_TICKS: u32 = 5;
/// In every so many looks a replica says where it stands, though nothing happened: an owner that is none any more answers.
const ACK_TICKS: u32 = 50;
/// Slots of this shard that are being moved at a time.
const MOVES_MAX: usize = 16;

impl Slots {
    /// When the seats want to be looked at.
    pub(super) fn tick_timeout(&self) -> Option<Instant> {
        self.table.is_some().then(|| self.ticked.map(|at| at + TICK)).flatten()
    }

    /// Looks at all seats.
    pub(super) fn tick(&mut self, now: Instant, now_ms: u64) {
        (self.now, self.now_ms) = (Some(now), now_ms);
        if self.table.is_none() || self.ticked.is_some_and(|at| at + TICK > now) {
            return;
        }
        self.note_tick(now);
        self.look_settled(now);
        let numbers: Vec<u16> = self.seats.keys().copied().collect();
        for number in numbers {
            self.tend(number, now, now_ms);
        }
        let unled: Vec<u16> =
            self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Follower(_))).map(|(n, _)| *n).collect();
        for number in unled {
            self.open_or_follow(number);
        }
        self.ask_for_copies();
        self.ticks = self.ticks.wrapping_add(1);
        let look = std::mem::take(&mut self.owners_changed) || self.ticks.is_multiple_of(PRESENCE_TICKS);
        if look && self.presence_is_misled() {
            self.reassign_presence(now, now_ms);
        }
    }

    fn tend(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        match &seat.role {
            Role::Leads(_) => self.tend_led(number, now, now_ms),
            Role::Copies(_) => self.tend_copied(number, now, now_ms),
            Role::Watches(Some(_)) => {
                let Triple { owner, replica, .. } = seat.term.triple;
                if self.is_gone(owner) && replica.is_none_or(|replica| self.is_gone(replica)) {
                    // Nobody else has these frames.
                    self.begin_lineage(number, None, now, now_ms);
                }
            }
            Role::Watches(None) => {}
        }
    }

    fn tend_led(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let (term, voted) = (seat.term, seat.voted);
        if seat.lead().is_some_and(|lead| lead.merge.is_some()) {
            return self.merge_again(number, now, now_ms);
        }
        let n = match self.slots.get(&number) {
            Some(Slot::Owner(book)) => book.n,
            Some(Slot::Follower(_)) | None => return,
        };
        let Some(lead) = seat.lead_mut() else { return };
        let stands = std::mem::replace(&mut lead.looked, lead.acked) == lead.acked;
        let acked = lead.acked.unwrap_or(0);
        let unmet = (term.triple.replica.is_some() && lead.acked.is_none())
            || (term.triple.witness.is_some() && !lead.witness_met);
        let nobody_keeps = term.triple.replica.is_some() && lead.acked.is_none();
        lead.unmet_since = nobody_keeps.then(|| lead.unmet_since.unwrap_or(now));
        let unmet_since = lead.unmet_since;
        let other = self.foreign.get(&number).map(|foreign| foreign.triple.owner);
        // Two that began the slot at once, each with the other as its replica, know it sooner.
        let patience = if other == term.triple.replica { REPLICA_SILENT } else { VOTE_PATIENCE };
        if other.is_some() && unmet_since.is_some_and(|since| since + patience <= now) {
            // Its members are in the other lineage by now.
            return self.begin_lineage(number, None, now, now_ms);
        }
        if unmet {
            self.say_began(number);
        }
        if stands && acked < n && term.triple.replica.is_some() {
            self.send_tail(number);
        }
        if let Some(Slot::Owner(book)) = self.slots.get_mut(&number) {
            for ask in book.overdue(now) {
                self.answer(ask, Answer::Published(Err(Refusal::Timeout)));
            }
        }
        if let Some((_, since)) = voted {
            let nobody = term.triple.members().all(|life| life == self.me() || self.is_gone(life));
            if nobody || since + VOTE_PATIENCE <= now {
                return self.begin_lineage(number, None, now, now_ms);
            }
            return self.say_ask(number);
        }
        self.heal(number);
        // Nobody is there who could vote.
        let silent = |life: Life| life == self.me() || self.is_silent(life, VOTE_PATIENCE, now);
        if term.triple.quorum() > 1 && term.triple.members().all(silent) {
            return self.begin_lineage(number, None, now, now_ms);
        }
        if let Some(triple) = self.wanted(number, now) {
            self.ask(number, triple, now, now_ms);
        }
    }

    fn tend_copied(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        let Role::Copies(copy) = &seat.role else { return };
        let (term, voted, whole) = (seat.term, seat.voted, copy.whole);
        if (self.ticks.wrapping_add(u32::from(number))).is_multiple_of(ACK_TICKS) {
            self.due_acks.insert(number);
        }
        let Triple { owner, witness, .. } = term.triple;
        if !self.is_silent(owner, OWNER_SILENT, now) {
            self.turn_to(number, Source::Owner);
            if voted.is_some() {
                self.say_ask(number);
            }
            return;
        }
        let helped = whole || self.seek_help(number, now, now_ms);
        let helpless = !helped || witness.is_none_or(|witness| self.is_gone(witness));
        let over = self.is_gone(owner) || self.is_silent(owner, VOTE_PATIENCE, now);
        let unheard = voted.is_some_and(|(_, since)| since + VOTE_PATIENCE <= now);
        if (helpless && over) || unheard {
            return self.begin_lineage(number, None, now, now_ms);
        }
        if voted.is_some() {
            return self.say_ask(number);
        }
        if whole {
            let others = self.candidates(number, now);
            let others = || others.iter().copied().filter(|life| *life != owner);
            // Whoever votes is there to keep what comes.
            let replica = witness.filter(|witness| !self.is_gone(*witness)).or_else(|| others().next());
            let spare = others().find(|life| Some(*life) != replica);
            self.ask(number, Triple { owner: self.me(), replica, witness: spare }, now, now_ms);
        }
    }

    /// The owner is silent and this copy is not whole: the witness may have what it lacks, if it was the replica before. Says
    /// whether that is still open.
    fn seek_help(&mut self, number: u16, now: Instant, now_ms: u64) -> bool {
        let Some(seat) = self.seats.get(&number) else { return false };
        let Role::Copies(copy) = &seat.role else { return false };
        let (Triple { owner, witness, .. }, met, source) = (seat.term.triple, copy.met, copy.source);
        let lacks = copy.hole != Hole::Closed;
        let Some(witness) = witness.filter(|witness| !self.is_silent(*witness, VOTE_PATIENCE, now)) else {
            return false;
        };
        if !met {
            // Nothing was shown in this term, and nothing will be: the witness may go on with what it has.
            let others = self.candidates(number, now);
            let spare = others.into_iter().find(|life| *life != owner && *life != witness);
            self.ask(number, Triple { owner: witness, replica: Some(self.me()), witness: spare }, now, now_ms);
        } else if lacks && source == Source::Owner {
            self.turn_to(number, Source::Witness);
        }
        !met || (lacks && source != Source::Nobody)
    }

    /// The seats that the owner should ask for, if others than now.
    fn wanted(&self, number: u16, now: Instant) -> Option<Triple> {
        let seat = self.seats.get(&number)?;
        let (lead, Triple { owner, replica, witness }) = (seat.lead()?, seat.term.triple);
        let others = self.candidates(number, now);
        let other_than = |not: Option<Life>| others.iter().copied().find(|life| Some(*life) != not);
        let staying = |life: Life| self.members.get(&life.node) == Some(&life.generation);
        if self.foreign.contains_key(&number) || (replica.is_none() && !self.settled) {
            // Another lineage may be the one that stays: this one does not grow meanwhile.
            return None;
        }
        if lead.deserted || replica.is_none_or(|replica| self.is_silent(replica, REPLICA_SILENT, now)) {
            let fresh = witness.filter(|witness| others.contains(witness)).or_else(|| other_than(replica))?;
            let spare = others.iter().copied().find(|life| *life != fresh && Some(*life) != replica);
            let witness = spare.or(replica.filter(|replica| !self.is_gone(*replica)));
            return Some(Triple { owner, replica: Some(fresh), witness });
        }
        if witness.is_none_or(|witness| self.is_silent(witness, WITNESS_SILENT, now))
            && let Some(spare) = others.iter().copied().find(|life| Some(*life) != replica && Some(*life) != witness)
        {
            return Some(Triple { owner, replica, witness: Some(spare) });
        }
        let replica = replica?;
        if !lead.copied && staying(replica) {
            return None;
        }
        self.moved(number, (owner, replica, witness), &others)
    }

    /// What the ring wants otherwise: an owner, a replica, a witness. `lead.copied` holds, or the replica leaves.
    fn moved(
        &self,
        number: u16,
        (owner, replica, witness): (Life, Life, Option<Life>),
        others: &[Life],
    ) -> Option<Triple> {
        let ring = self.table.as_ref()?.triple(number);
        let life = |node: NodeId| others.iter().copied().find(|life| life.node == node);
        let lead = self.seats.get(&number)?.lead()?;
        let first = ring[0].filter(|node| *node != owner.node).and_then(life);
        if let Some(first) = first {
            if first == replica {
                let Some(Slot::Owner(book)) = self.slots.get(&number) else { return None };
                let ready = lead.copied && book.tail.is_empty() && lead.acked == Some(book.n);
                let witness = witness.filter(|witness| *witness != replica);
                return ready.then_some(Triple { owner: first, replica: Some(owner), witness });
            }
            return self.may_move().then_some(Triple { owner, replica: Some(first), witness: Some(replica) });
        }
        let second = ring.into_iter().flatten().find(|node| *node != owner.node);
        match second.map(life) {
            Some(Some(second)) if second != replica => {
                self.may_move().then_some(Triple { owner, replica: Some(second), witness: Some(replica) })
            }
            // Nobody is there but this node and one that leaves.
            None if self.leaving.get(&replica.node) == Some(&replica.generation) => {
                Some(Triple { owner, replica: None, witness: None })
            }
            Some(_) | None => {
                let third = ring.into_iter().flatten().filter(|node| *node != owner.node && *node != replica.node);
                let third = third.filter_map(life).next().filter(|third| Some(*third) != witness)?;
                Some(Triple { owner, replica: Some(replica), witness: Some(third) })
            }
        }
    }

    /// Whether another slot may be moved now: each costs a copy.
    fn may_move(&self) -> bool {
        let copying = |seat: &&super::seat::Seat| match &seat.role {
            Role::Leads(lead) => !seat.is_alone() && !lead.copied,
            Role::Copies(copy) => copy.hole != Hole::Closed,
            Role::Watches(_) => false,
        };
        self.seats.values().filter(copying).count() < MOVES_MAX
    }

    /// A slot that is wanted here and led by nobody we know: the ring's owner begins it when everybody was heard.
    pub(super) fn open_or_follow(&mut self, number: u16) {
        let Some(now) = self.now else { return };
        let now_ms = self.now_ms;
        let ours = self.table.as_ref().is_some_and(|table| table.owner(number) == Some(self.config.node));
        let free = match self.seats.get(&number) {
            None => true,
            Some(seat) => match seat.role {
                Role::Watches(_) => {
                    let Triple { owner, replica, .. } = seat.term.triple;
                    self.is_gone(owner) && replica.is_none_or(|replica| self.is_gone(replica))
                }
                Role::Leads(_) | Role::Copies(_) => false,
            },
        };
        if ours && free && self.settled {
            self.begin_lineage(number, None, now, now_ms);
        } else {
            self.reassign(number, now);
        }
    }
}
