//! A copy that goes on alone though its past did not come whole.
//!
//! Invariant: it passes for having only what it can show, so that whoever has the rest brings it at the heal.

use std::sync::Arc;

use super::{super::starts::Starts, Book, Stamp};
use crate::wire::{message::Frame, triple::TermId};

impl Book {
    /// Forgets the answers to publishes up to `fence` whose frames are not here, and which terms stamped what. Gives back the
    /// frames up to there that memory has, in order: they may not be on disk.
    pub(crate) fn tear(&mut self, fence: u64) -> Vec<Arc<Frame>> {
        let mut here: Vec<Arc<Frame>> =
            self.rooms.values().flat_map(|room| room.log.range(0, fence).cloned()).collect();
        here.sort_unstable_by_key(|frame| frame.n);
        let has = |stamp: Stamp| stamp.n > fence || here.binary_search_by_key(&stamp.n, |frame| frame.n).is_ok();
        self.origins.retain(has);
        self.ids.retain(has);
        self.starts = Starts::new(TermId::default());
        here
    }
}
