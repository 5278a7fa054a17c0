//! The background copy: what a new replica lacks of a slot, asked for page by page.
//!
//! First the rooms with what memory has of them, who published what lately and under which ids; then what is on disk. Frames
//! that are stamped meanwhile come by the lane, so a page needs to be true only for the moment in which it was made, room by
//! room.
//!
//! Invariants: the replica asks, at most [`RUNNING_MAX`] questions at a time and shard, so a change of many slots is paced;
//! nothing of the owner's tail is in a page; a page that cannot be read is asked for again.

use std::time::Instant;

use bytes::Bytes;

use super::{
    Output, Scanned, Slot, Slots,
    book::Book,
    seat::{Hole, Role, Seat, Source},
};
use crate::{
    NodeId,
    wire::{request::Request, triple::TermId},
};
use page::{Page, RoomsPage, encode_disk};

mod page;
#[cfg(fuzzing)]
pub(crate) use page::assert_one_page;

/// The key before all rooms.
pub(super) const AGREED: Bytes = Bytes::from_static(b"");
/// Questions of one shard under way.
const RUNNING_MAX: usize = 8;
/// The answer of who cannot lend.
const REFUSED: [u8; 1] = [0];

/// Who waits for a part of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scanner {
    /// A replica, by the driver's name for its request.
    Peer(u64),
    /// This node, which brings another lineage its frames.
    Merge(u16),
}

impl Slots {
    /// Asks for the next pages that this shard's replicas lack.
    pub(super) fn ask_for_copies(&mut self) {
        let question = |(number, seat): (&u16, &Seat)| {
            let Role::Copies(copy) = &seat.role else { return None };
            let book = copy.book.as_ref().filter(|_| copy.met && copy.hole != Hole::Closed)?;
            let from = match copy.source {
                Source::Owner => seat.term.triple.owner,
                Source::Witness => seat.term.triple.witness?,
                Source::Nobody => return None,
            };
            let fence = (copy.fence, book.starts.of(copy.fence).unwrap_or_default());
            Some((*number, from.node, copy.hole.encode(fence)))
        };
        let wanting: Vec<(u16, NodeId, Bytes)> = self
            .seats
            .iter()
            .filter(|(number, _)| !self.copying.values().any(|running| running == *number))
            .filter_map(question)
            .take(RUNNING_MAX.saturating_sub(self.copying.len()))
            .collect();
        for (slot, from, after) in wanting {
            if self.links.contains(&from) {
                self.next_read += 1;
                let (read, request) = (self.next_read, Request::Copy { slot, after: &after }.encode());
                self.copying.insert(read, slot);
                self.outputs.push_back(Output::Fetch { read, from, request });
            }
        }
    }

    /// Another node's replica asks for a page.
    pub(super) fn handle_copy_request(&mut self, request: u64, slot: u16, after: &[u8]) {
        let Some((hole, fence)) = Hole::decode(after) else { return self.refuse(request) };
        let Some(book) = self.lendable(slot, fence) else { return self.refuse(request) };
        match hole {
            Hole::Rooms(after) => {
                let body = RoomsPage::of(book, &after).encode();
                self.outputs.push_back(Output::Respond { request, body });
            }
            Hole::Disk(after) => self.scan(slot, after, Scanner::Peer(request)),
            Hole::Closed => self.refuse(request),
        }
    }

    /// What this node has of a slot, if that is all up to the fence: as its owner, or as who was the replica before. Nothing
    /// up to there is held back: whoever asks knows that it was shown.
    fn lendable(&mut self, slot: u16, (fence, stamped): (u64, TermId)) -> Option<&Book> {
        if !matches!(self.slots.get(&slot), Some(Slot::Owner(_))) {
            let agrees = |book: &&Book| book.n >= fence && book.starts.of(fence) == Some(stamped);
            self.seats.get(&slot).and_then(Seat::kept).filter(agrees)?;
            let now = self.now?;
            self.note_shown(slot, fence, now, self.now_ms);
        }
        match self.slots.get(&slot) {
            Some(Slot::Owner(book)) => Some(book),
            Some(Slot::Follower(_)) | None => self.seats.get(&slot).and_then(Seat::kept),
        }
    }

    /// Whoever lent the pages so far is silent: the copy begins anew with another's.
    pub(super) fn turn_to(&mut self, number: u16, source: Source) {
        let Some(copy) = self.seats.get_mut(&number).and_then(Seat::copy_mut) else { return };
        if copy.source != source && copy.hole != Hole::Closed {
            copy.hole = Hole::Rooms(AGREED);
            self.copying.retain(|_, running| *running != number);
        }
        copy.source = source;
    }

    fn refuse(&mut self, request: u64) {
        self.outputs.push_back(Output::Respond { request, body: Bytes::from_static(&REFUSED) });
    }

    pub(super) fn scan(&mut self, slot: u16, after: u64, scanner: Scanner) {
        self.next_read += 1;
        self.scans.insert(self.next_read, scanner);
        self.outputs.push_back(Output::Scan { scan: self.next_read, slot, after });
    }

    /// The store's answer to `Output::Scan`; `None` = it could not read.
    pub fn handle_scanned(&mut self, scan: u64, scanned: Option<Scanned>, now: Instant, now_ms: u64) {
        match (self.scans.remove(&scan), scanned) {
            (Some(Scanner::Peer(request)), Some(scanned)) => {
                let body = encode_disk(&scanned);
                self.outputs.push_back(Output::Respond { request, body });
            }
            (Some(Scanner::Peer(request)), None) => self.refuse(request),
            (Some(Scanner::Merge(number)), scanned) => self.handle_merge_scanned(number, scanned, now, now_ms),
            (None, _) => {}
        }
    }

    /// The lender's answer; `false` if the question was not one for a copy.
    pub(super) fn handle_copied(&mut self, read: u64, body: Option<&Bytes>, now: Instant) -> bool {
        let Some(number) = self.copying.remove(&read) else { return false };
        if body.is_some_and(|body| body[..] == REFUSED)
            && let Some(copy) = self.seats.get_mut(&number).and_then(Seat::copy_mut)
            && copy.source == Source::Witness
        {
            copy.source = Source::Nobody;
        }
        if let Some(page) = body.and_then(|body| Page::decode(body.clone(), number).ok()) {
            let limits = self.config.limits.clone();
            let Some(seat) = self.seats.get_mut(&number) else { return true };
            let Some(copy) = seat.copy_mut() else { return true };
            let Some(book) = &mut copy.book else { return true };
            match (page, &copy.hole) {
                (Page::Rooms(page), Hole::Rooms(_)) => {
                    let more = page.more.clone();
                    page.merge_into(book, copy.fence, &limits, now);
                    copy.hole = if more.is_empty() { Hole::Disk(0) } else { Hole::Rooms(more) };
                }
                (Page::Disk(scanned), Hole::Disk(_)) => {
                    copy.hole = if scanned.next == 0 { Hole::Closed } else { Hole::Disk(scanned.next) };
                    for frame in scanned.frames.into_iter().filter(|frame| frame.n <= copy.fence) {
                        let bytes = frame.encode();
                        self.outputs.push_back(Output::Append { frame, bytes });
                    }
                }
                // The hole was begun anew meanwhile.
                (Page::Rooms(_), _) | (Page::Disk(_), _) => {}
            }
            copy.look();
            self.due_acks.insert(number);
            self.ask_for_copies();
        }
        true
    }
}
