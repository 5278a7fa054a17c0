//! Which terms stamped which frames of a slot: two books that agree on the term of a frame agree on all before it.
//!
//! An owner takes the whole log before it stamps, so the first `n` of each term says it for every frame
//! (`docs/explanation/one-slot.md`).
//!
//! Invariant: the first numbers rise; only the newest [`MAX`] terms are remembered, and what is older is known to nobody.

use std::collections::VecDeque;

use crate::wire::triple::{Known, TermId};

/// Terms whose beginnings are remembered; a copy that ends before all of them is made anew.
const MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Starts(VecDeque<(u64, TermId)>);

impl Starts {
    /// Everything so far is of one term.
    pub(crate) fn new(term: TermId) -> Starts {
        Starts(VecDeque::from([(0, term)]))
    }

    /// The term that stamped `n`, as far as it is remembered.
    pub(crate) fn of(&self, n: u64) -> Option<TermId> {
        self.0.iter().rev().find(|(first, _)| *first <= n).map(|(_, term)| *term)
    }

    /// `term` stamps from `n` on, unless it did before.
    pub(crate) fn note(&mut self, n: u64, term: TermId) {
        if self.0.back().is_none_or(|(_, last)| *last != term) {
            self.0.push_back((n, term));
        }
        if self.0.len() > MAX {
            self.0.pop_front();
        }
    }

    /// What was stamped from `n` on is of `term` now.
    pub(crate) fn begin_again(&mut self, n: u64, term: TermId) {
        self.0.retain(|(first, _)| *first < n);
        self.note(n, term);
    }

    /// What a book that ends with `end` has of which lineages.
    pub(crate) fn known(&self, end: u64) -> Known {
        let mut known: Vec<(u64, u64)> = Vec::new();
        let ends = self.0.iter().skip(1).map(|(first, _)| first.saturating_sub(1)).chain([end]);
        for ((_, term), end) in self.0.iter().zip(ends) {
            match known.last_mut() {
                Some((lineage, last)) if *lineage == term.lineage => *last = end,
                Some(_) | None => known.push((term.lineage, end)),
            }
        }
        let mut newest = Known::default();
        let skip = known.len().saturating_sub(newest.len());
        newest.iter_mut().zip(known.into_iter().skip(skip)).for_each(|(place, lineage)| *place = lineage);
        newest
    }

    /// The first `n` of each term.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, TermId)> {
        self.0.iter().copied()
    }

    /// For a copy that begins behind `fence`: what its owner remembers of terms before that.
    pub(crate) fn recall(&mut self, starts: &[(u64, TermId)], fence: u64) {
        let newer: Vec<(u64, TermId)> = self.iter().filter(|(n, _)| *n > fence).collect();
        let older = starts.iter().copied().filter(|(n, _)| *n <= fence);
        self.0 = older.chain(newer).collect();
    }
}
