//! What a slot's nodes know and what they ever said, small enough that tens of millions of it fit into memory.
//!
//! Invariants:
//! - a message that was sent stays in flight for ever: the facts in [`Term`] are the messages, and any receiver may read any
//!   of them late, twice, out of order or never. Loss, delay, repetition and every kind of cut are therefore in every run;
//! - a fact is written only by who would send it, and read only as who would receive it;
//! - a node's own memory is in [`Node`] and is gone after a crash; what it had sent before is not.

/// Nodes at most.
pub(crate) const NODES: u8 = 4;
/// Messages at most; each stands in a log at most once.
pub(crate) const MESSAGES: usize = 3;
/// Terms at most that are ever proposed.
pub(crate) const TERMS: usize = 7;
/// No term, no candidate, no hole.
pub(crate) const NONE: u8 = u8::MAX;

/// One life of a node: what holds a seat and casts a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: u8,
    pub(crate) generation: u8,
}

/// The seats of a term.
pub(crate) const OWNER: usize = 0;
/// The one that must hold a frame before anyone is shown it.
pub(crate) const REPLICA: usize = 1;
/// The one that only votes.
pub(crate) const WITNESS: usize = 2;

/// Who holds the seats.
pub(crate) type Triple = [Option<Member>; 3];

/// One message in a log: which, and the term whose owner stamped it. Its `n` is its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) message: u8,
    pub(crate) stamped: u8,
}

/// A log from its first frame on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    frames: [Frame; MESSAGES],
    len: u8,
}

impl Log {
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames[..usize::from(self.len)]
    }

    pub(crate) fn len(&self) -> u8 {
        self.len
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.frames[usize::from(self.len)] = frame;
        self.len += 1;
    }

    pub(crate) fn has(&self, message: u8) -> bool {
        self.frames().iter().any(|frame| frame.message == message)
    }

    /// How many frames the two have in common from the first on.
    pub(crate) fn common(&self, other: &Log) -> u8 {
        let same = self.frames().iter().zip(other.frames()).take_while(|(one, two)| one == two).count();
        u8::try_from(same).unwrap_or(NONE)
    }

    /// Up to where the two agree from place `from` on.
    pub(crate) fn agrees(&self, other: &Log, from: u8) -> u8 {
        let pairs = self.frames().iter().zip(other.frames()).skip(usize::from(from));
        from + u8::try_from(pairs.take_while(|(one, two)| one == two).count()).unwrap_or(NONE)
    }

    pub(crate) fn truncated(&self, len: u8) -> Log {
        let mut log = Log::default();
        self.frames().iter().take(usize::from(len)).for_each(|frame| log.push(*frame));
        log
    }
}

/// A term: a proposal for the next triple until it has its votes, then the triple, then what its owner and its replica said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    /// Rises along a lineage; a node never goes back to a lower one.
    pub(crate) number: u8,
    pub(crate) lineage: u8,
    /// The term whose members vote for this one; [`NONE`] begins a lineage.
    pub(crate) parent: u8,
    pub(crate) triple: Triple,
    /// Seats of the parent that voted for it, as bits.
    pub(crate) votes: u8,
    /// The old owner stopped for it, and `log` and `base` are what it handed over.
    pub(crate) sealed: bool,
    /// The owner began: what follows was said by it, but for `acked`.
    pub(crate) active: bool,
    /// What the owner stamped and sent, from the first frame of the slot on.
    pub(crate) log: Log,
    /// Frames up to here may have been shown before the term.
    pub(crate) base: u8,
    /// Frames up to here are known to have been; later ones go to the replica one by one.
    pub(crate) from: u8,
    /// The replica said it holds the frames after `from` up to here.
    pub(crate) acked: u8,
    /// The owner showed the frames up to here.
    pub(crate) released: u8,
}

impl Term {
    /// A term that nobody has voted for.
    pub(crate) fn proposed(number: u8, lineage: u8, parent: u8, triple: Triple) -> Term {
        Term {
            number,
            lineage,
            parent,
            triple,
            votes: 0,
            sealed: false,
            active: false,
            log: Log::default(),
            base: 0,
            from: 0,
            acked: 0,
            released: 0,
        }
    }

    /// Up to where its owner knows that frames were shown.
    pub(crate) fn told(&self) -> u8 {
        self.from.max(self.released)
    }

    /// Up to where frames may have been shown by now, in this term or before it.
    pub(crate) fn shown(&self) -> u8 {
        self.base.max(self.released)
    }
}

/// The frames a node holds: a beginning of the log of term `of`, perhaps with a hole in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) of: u8,
    pub(crate) len: u8,
    /// Where the hole begins; [`NONE`] = there is no hole.
    pub(crate) hole: u8,
    /// Where it ends.
    pub(crate) end: u8,
}

impl Held {
    pub(crate) const NOTHING: Held = Held { of: NONE, len: 0, hole: NONE, end: NONE };

    pub(crate) fn whole(of: u8, len: u8) -> Held {
        Held { of, len, hole: NONE, end: NONE }
    }
}

/// One node's memory of the slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) generation: u8,
    /// The newest term it knows and takes part in; [`NONE`] after a start.
    pub(crate) at: u8,
    /// The proposal it voted for in that term.
    pub(crate) voted: u8,
    /// It began its term as the owner and has not stopped.
    pub(crate) leading: bool,
    /// It holds every frame that was shown in its lineage before its term (and, as replica, what it acked since).
    pub(crate) complete: bool,
    pub(crate) held: Held,
}

impl Node {
    /// A node that just started.
    pub(crate) const EMPTY: Node =
        Node { generation: 0, at: NONE, voted: NONE, leading: false, complete: false, held: Held::NOTHING };

    /// Goes over to a term: whatever it was before, it no longer is.
    pub(crate) fn enter(&mut self, term: u8, complete: bool) {
        (self.at, self.voted, self.leading, self.complete) = (term, NONE, false, complete);
    }
}

/// One moment of the slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) nodes: [Node; NODES as usize],
    terms: [Term; TERMS],
    count: u8,
    /// Messages that somebody published.
    pub(crate) published: u8,
    pub(crate) crashes: u8,
    pub(crate) forks: u8,
}

impl State {
    /// No term yet.
    pub(crate) fn new(nodes: [Node; NODES as usize]) -> State {
        let nothing = Term::proposed(0, 0, NONE, [None; 3]);
        State { nodes, terms: [nothing; TERMS], count: 0, published: 0, crashes: 0, forks: 0 }
    }

    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms[..usize::from(self.count)]
    }

    pub(crate) fn count(&self) -> u8 {
        self.count
    }

    pub(crate) fn term(&self, index: u8) -> &Term {
        &self.terms[usize::from(index)]
    }

    pub(crate) fn term_mut(&mut self, index: u8) -> &mut Term {
        &mut self.terms[usize::from(index)]
    }

    pub(crate) fn node(&self, node: u8) -> &Node {
        &self.nodes[usize::from(node)]
    }

    pub(crate) fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// Puts a term behind the others; its index.
    pub(crate) fn add(&mut self, term: Term) -> u8 {
        let index = self.count;
        self.terms[usize::from(index)] = term;
        self.count += 1;
        index
    }

    /// The seat of `node` in the term, if this life of it has one.
    pub(crate) fn seat(&self, term: u8, node: u8) -> Option<usize> {
        let member = self.member(node);
        self.term(term).triple.iter().position(|seat| *seat == Some(member))
    }

    pub(crate) fn member(&self, node: u8) -> Member {
        Member { node, generation: self.node(node).generation }
    }

    /// Two of the three must agree; a term of one member is followed on that member's word.
    pub(crate) fn quorum(&self, term: u8) -> u32 {
        let seats = self.term(term).triple.iter().flatten().count();
        if seats == 1 { 1 } else { 2 }
    }

    /// Whether the term is more than a proposal.
    pub(crate) fn decided(&self, term: u8) -> bool {
        let Term { parent, votes, .. } = *self.term(term);
        parent == NONE || votes.count_ones() >= self.quorum(parent)
    }

    /// The frames a node holds, each at its place.
    pub(crate) fn held(&self, node: u8) -> impl Iterator<Item = Frame> {
        let Held { of, len, hole, end } = self.node(node).held;
        let log = if of == NONE { Log::default() } else { self.term(of).log };
        let frames = (0..len).filter(move |n| hole == NONE || *n < hole || *n >= end);
        frames.map(move |n| log.frames()[usize::from(n)])
    }

    /// The frames a node holds from the first on, up to its hole.
    pub(crate) fn contiguous(&self, node: u8) -> Log {
        let Held { of, len, hole, end: _ } = self.node(node).held;
        if of == NONE { Log::default() } else { self.term(of).log.truncated(len.min(hole)) }
    }

    /// Forgets what nobody can tell any more, so that moments that differ in nothing else are one.
    pub(crate) fn settle(&mut self) {
        for index in 0..self.count {
            let term = *self.term(index);
            let led = self.nodes.iter().any(|node| node.at == index && node.leading);
            let heard = (0..NODES).any(|node| self.node(node).at == index && self.seat(index, node) == Some(REPLICA));
            if term.active && !led {
                self.term_mut(index).acked = 0;
                if !heard {
                    let held = self.nodes.iter().filter(|node| node.held.of == index).map(|node| node.held.len).max();
                    let lineage = self.terms().iter().filter(|other| other.lineage == term.lineage);
                    let shown = lineage.map(Term::shown).max();
                    let len = held.max(shown).unwrap_or(0);
                    self.term_mut(index).log = term.log.truncated(len);
                }
            }
            if term.parent != NONE && !self.decided(index) && !self.electable(index) {
                let forgotten = Term::proposed(term.number, term.lineage, term.parent, [None; 3]);
                *self.term_mut(index) = Term { sealed: term.sealed, ..forgotten };
            }
        }
    }

    /// Whether somebody may still vote for the proposal.
    fn electable(&self, term: u8) -> bool {
        let Term { parent, votes, .. } = *self.term(term);
        let open = |node: u8| {
            let Node { at, voted, .. } = *self.node(node);
            let seat = self.seat(parent, node);
            let may = if at == parent {
                voted == NONE
            } else {
                at == NONE || self.term(at).number < self.term(parent).number
            };
            may && seat.is_some_and(|seat| votes & (1 << seat) == 0)
        };
        (0..NODES).any(open)
    }

    /// A name of the state: equal states have equal names, and 64 bits tell tens of millions apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([self.published, self.crashes, self.forks]);
        for node in &self.nodes {
            let flags = u8::from(node.leading) | u8::from(node.complete) << 1;
            bytes.extend([flags | node.generation << 2, node.at, node.voted]);
            bytes.extend([node.held.of, node.held.len, node.held.hole, node.held.end]);
        }
        for term in self.terms() {
            let flags = u8::from(term.active) | u8::from(term.sealed) << 1;
            bytes.extend([term.number, term.lineage, term.parent, term.votes, flags]);
            bytes.extend([term.base, term.from, term.acked, term.released, term.log.len]);
            bytes.extend(term.triple.map(|seat| seat.map_or(NONE, |member| member.node << 4 | member.generation)));
            bytes.extend(term.log.frames().iter().map(|frame| frame.message << 4 | frame.stamped));
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}
