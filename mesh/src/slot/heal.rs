//! Two lineages of one slot meet: one stays, and the owner of the other brings it what it stamped before it steps down.
//!
//! Who gives way asks (`Say::Yield`); who stays raises its term above the other's, so that it can be followed, and says
//! `Say::Welcome`. What was stamped in the lineage that ends is published to the one that stays like any other message, as of
//! an origin of its own: each once, in order, at the time it had. Members of the side that stays get it as something new;
//! members of the other are told of the new epoch.
//!
//! Invariants: nobody leaves a lineage with frames that the other lacks, also those of lineages that ended before; who gives way neither stamps nor shows; both sides
//! judge alike who stays (`Term::outranks`), by what the question says and not by what was heard before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{Output, Scanned, Slot, Slots, book::MERGED, copying::Scanner};
use crate::{
    NodeId,
    wire::{
        message::{Frame, Origin, Refusal},
        triple::{Known, Life, Say, Term},
    },
};

/// Frames that are on their way at a time.
const WINDOW: usize = 256;
/// Frames of one merge have names of their own up to two to this.
const MERGE_BITS: u32 = 32;

/// What is brought to the lineage that stays.
#[derive(Debug)]
pub(crate) struct Merge {
    into: Term,
    /// What it has already.
    known: Known,
    /// How many frames were read so far.
    read: u64,
    /// Where the store is read on; `None` = it was read to its end.
    after: Option<u64>,
    reading: bool,
    waiting: VecDeque<Frame>,
    /// Sent and not answered, by `oseq`.
    sent: BTreeMap<u64, Frame>,
    /// The last one that was answered at the last look.
    looked: usize,
}

/// Who first published a merged frame, in two fields that an unstamped frame has no use for: the lineage that stays may have
/// it already. An `oseq` counts the publishes of one shard of one life: 40 bits last for ever.
fn pack(origin: Origin) -> (u64, u64) {
    (origin.generation, (origin.oseq << 24) | (u64::from(origin.node.0) << 8) | u64::from(origin.shard))
}

/// Reads `pack`'s fields.
pub(super) fn unpack(frame: &Frame) -> Origin {
    let [.., high, low, shard] = frame.n.to_be_bytes();
    let node = NodeId(u16::from_be_bytes([high, low]));
    Origin { node, generation: frame.lineage, shard, oseq: frame.n >> 24 }
}

impl Slots {
    /// Another lineage of a slot that this node leads is known: the one that does not stay asks to come over.
    pub(super) fn heal(&mut self, number: u16) {
        let (Some(seat), Some(foreign)) = (self.seats.get(&number), self.foreign.get(&number).copied()) else { return };
        let term = seat.term;
        if self.is_gone(foreign.triple.owner) {
            self.foreign.remove(&number);
        } else if seat.lead().is_some_and(|lead| lead.merge.is_none()) {
            let owner = foreign.triple.owner;
            let say = if foreign.outranks(&term) { Say::Yield { term } } else { Say::Exists(term) };
            self.say(number, owner, say);
        }
    }

    /// Another owner wants to give way to us.
    pub(super) fn handle_yield(&mut self, number: u16, from: Life, theirs: &Term, now: Instant, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        let (term, leads) = (seat.term, seat.lead().is_some_and(|lead| lead.merge.is_none()));
        if !leads || seat.is_handing_over() || theirs.id.lineage == term.id.lineage {
            return self.say(number, from, Say::Exists(term));
        }
        self.foreign.insert(number, *theirs);
        if !term.outranks(theirs) {
            return;
        }
        if term.id.number > theirs.id.number {
            let Some(Slot::Owner(book)) = self.slots.get(&number) else { return };
            let known = book.starts.known(book.n);
            self.say(number, from, Say::Welcome { term, known });
        } else {
            self.ask_above(number, term.triple, theirs.id.number, now, now_ms);
        }
    }

    /// The owner of the lineage that stays is ready for what this one has.
    pub(super) fn handle_welcome(
        &mut self,
        number: u16,
        from: Life,
        (into, known): (Term, Known),
        now: Instant,
        now_ms: u64,
    ) {
        let base = (self.merges + 1) << MERGE_BITS;
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let (term, voted) = (seat.term, seat.voted.is_some());
        let Some(lead) = seat.lead_mut().filter(|lead| lead.merge.is_none() && !voted) else { return };
        let other = into.triple.owner == from && into.id.lineage != term.id.lineage;
        if other && into.id.number > term.id.number && into.outranks(&term) {
            if lead.merge_base == 0 {
                lead.merge_base = base;
                self.merges += 1;
            }
            let merge = Merge {
                into,
                known,
                read: 0,
                after: Some(0),
                reading: false,
                waiting: VecDeque::new(),
                sent: BTreeMap::new(),
                looked: 0,
            };
            lead.merge = Some(merge);
            self.merge(number, now, now_ms);
        }
    }

    fn merging(&mut self, number: u16) -> Option<&mut Merge> {
        self.seats.get_mut(&number)?.lead_mut()?.merge.as_mut()
    }

    /// Goes on with what is being brought over.
    pub(super) fn merge(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(merge) = self.merging(number) else { return };
        let into = merge.into;
        let mut batch = Vec::new();
        while merge.sent.len() < WINDOW
            && let Some(frame) = merge.waiting.pop_front()
        {
            let before = merge.sent.last_key_value().map_or(0, |(oseq, _)| *oseq);
            batch.push(Frame { prev: before, ..frame.clone() }.encode());
            merge.sent.insert(frame.origin.oseq, frame);
        }
        let read_on = merge.after.filter(|_| !merge.reading && merge.waiting.len() < WINDOW);
        merge.reading |= read_on.is_some();
        let done = merge.after.is_none() && merge.waiting.is_empty() && merge.sent.is_empty();
        for frame in batch {
            self.send(into.triple.owner.node, number, frame);
        }
        if let Some(after) = read_on {
            self.scan(number, after, Scanner::Merge(number));
        }
        if done {
            // All of it is there now, under other names.
            self.outputs.push_back(Output::Forget { slot: number });
            self.enter(number, into, now, now_ms);
        }
    }

    /// Looks whether anything was lost on the way, or the other side is gone.
    pub(super) fn merge_again(&mut self, number: u16, now: Instant, now_ms: u64) {
        let Some(into) = self.merging(number).map(|merge| merge.into) else { return };
        if self.is_gone(into.triple.owner) {
            if let Some(lead) = self.seats.get_mut(&number).and_then(|seat| seat.lead_mut()) {
                lead.merge = None;
            }
            self.publish_held(number, now, now_ms);
            return self.release_tail(number, now_ms);
        }
        let Some(merge) = self.merging(number) else { return };
        let progress = merge.sent.len() + merge.waiting.len();
        let stands = std::mem::replace(&mut merge.looked, progress) == progress;
        let mut again = Vec::new();
        if stands {
            let mut before = 0;
            for (oseq, frame) in &merge.sent {
                again.push(Frame { prev: before, ..frame.clone() }.encode());
                before = *oseq;
            }
        }
        for frame in again {
            self.send(into.triple.owner.node, number, frame);
        }
        self.merge(number, now, now_ms);
    }

    /// A part of what this node stored of the slot.
    pub(super) fn handle_merge_scanned(&mut self, number: u16, scanned: Option<Scanned>, now: Instant, now_ms: u64) {
        let me = self.me();
        let base = self.seats.get(&number).and_then(|seat| seat.lead()).map_or(0, |lead| lead.merge_base);
        let Some(merge) = self.merging(number) else { return };
        merge.reading = false;
        if let Some(Scanned { frames, next }) = scanned {
            merge.after = Some(next).filter(|next| *next != 0);
            for frame in frames {
                // Counted whether it is brought or not: whoever it is brought to, it has one name.
                merge.read += 1;
                if merge.known.iter().any(|(lineage, last)| frame.lineage == *lineage && frame.n <= *last) {
                    continue;
                }
                let oseq = base + merge.read;
                let origin = Origin { node: me.node, generation: me.generation, shard: MERGED, oseq };
                let (lineage, n) = pack(frame.origin);
                let unstamped = Frame { origin, lineage, term: 0, n, prev: 0, ..(*frame).clone() };
                merge.waiting.push_back(unstamped);
            }
            self.merge(number, now, now_ms);
        }
    }

    /// The owner that stays has taken a frame, or will not.
    pub(super) fn handle_merged(
        &mut self,
        number: u16,
        from: NodeId,
        oseq: u64,
        refused: Option<Refusal>,
        now: Instant,
        now_ms: u64,
    ) {
        let Some(merge) = self.merging(number).filter(|merge| merge.into.triple.owner.node == from) else { return };
        if refused.is_none() {
            merge.sent.remove(&oseq);
            self.merge(number, now, now_ms);
        }
    }
}
