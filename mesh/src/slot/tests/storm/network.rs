//! Links between processes: four reliable lanes in order, which break at both ends at different times.
//!
//! Invariants: what one process sends in one lane arrives in order or, behind some frame, not at all; each side is told of a
//! link and of its end strictly in turn; nothing of an older link arrives through a later one; the rng is asked in the order
//! of events only, so a seed says it all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Ms;

/// One connection between two nodes; `0` is the lower of them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    /// The processes at its ends.
    pub(super) lives: [u64; 2],
    /// Whether each side was told of it, and of its end.
    pub(super) told: [Told; 2],
    /// When it broke; what a side sends from then on arrives nowhere.
    pub(super) broke: Option<Ms>,
    /// Until when what was sent to a side before may still arrive there.
    pub(super) drains: [Ms; 2],
    /// What is on its way, by sender and lane.
    pub(super) wires: [[VecDeque<Bytes>; 4]; 2],
    /// When the last of it arrives.
    pub(super) last: [[Ms; 4]; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Up,
    Down,
}

/// All links, and who cannot reach whom.
#[derive(Default)]
pub(super) struct Network {
    links: BTreeMap<(usize, usize), Link>,
    /// Pairs that cannot reach each other, and since when.
    pub(super) cuts: BTreeMap<(usize, usize), Ms>,
    /// Pairs that dial each other already.
    pub(super) dialling: BTreeSet<(usize, usize)>,
    ids: u64,
}

/// The pair of two nodes and which side the first is.
pub(super) fn pair(a: usize, b: usize) -> ((usize, usize), usize) {
    if a < b { ((a, b), 0) } else { ((b, a), 1) }
}

impl Network {
    pub(super) fn open(&mut self, (a, b): (usize, usize), lives: [u64; 2]) -> u64 {
        self.ids += 1;
        let link = Link {
            id: self.ids,
            lives,
            told: [Told::Nothing; 2],
            broke: None,
            drains: [Ms::MAX; 2],
            wires: Default::default(),
            last: [[0; 4]; 2],
        };
        self.links.insert((a, b), link);
        self.ids
    }

    pub(super) fn link(&mut self, a: usize, b: usize) -> Option<(&mut Link, usize)> {
        let (pair, side) = pair(a, b);
        self.links.get_mut(&pair).map(|link| (link, side))
    }

    /// The link of that name, seen from `a`.
    pub(super) fn named(&mut self, a: usize, b: usize, id: u64) -> Option<(&mut Link, usize)> {
        self.link(a, b).filter(|(link, _)| link.id == id)
    }

    pub(super) fn close(&mut self, pair: (usize, usize)) {
        self.links.remove(&pair);
    }

    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        self.links.keys().copied().collect()
    }

    /// Whether `a` was told of a link to `b` and of nothing since.
    pub(super) fn is_up(&mut self, a: usize, b: usize) -> bool {
        self.link(a, b).is_some_and(|(link, side)| link.told[side] == Told::Up)
    }

    /// Whether the node cannot reach somebody.
    pub(super) fn is_cut_off(&self, at: usize) -> bool {
        self.cuts.keys().any(|(a, b)| *a == at || *b == at)
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains_key(&pair(a, b).0)
    }
}
