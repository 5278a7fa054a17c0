//! The rules of a slot, as every step that any node may take at any moment.
//!
//! Invariants: a step reads one node's memory and messages that were sent, never another node's memory (the two exceptions
//! read what can no longer change and say so); no step waits for a clock, so a time-out may strike whenever it likes and a
//! pause is a node that takes no steps.

use crate::{
    flaw::Flaw,
    ring,
    state::{Frame, Held, Log, MESSAGES, NODES, NONE, Node, OWNER, REPLICA, State, TERMS, Term, Triple, WITNESS},
};

/// What is searched: how many nodes, and how often each thing may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) nodes: u8,
    /// Different messages; each may be published again and again by a publisher that got no answer.
    pub(crate) messages: u8,
    /// Terms, the first one and those that are only proposed included.
    pub(crate) terms: u8,
    pub(crate) crashes: u8,
    /// Times that somebody goes on without two votes.
    pub(crate) forks: u8,
    pub(crate) changes: Changes,
}

/// Which changes of the triple are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Those that a failure calls for: takeover, another replica, another witness.
    Failover,
    /// Handing over as well.
    All,
}

/// The rules, or the rules with one mistake in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) bounds: Bounds,
    pub(crate) flaw: Option<Flaw>,
}

/// Where a new owner has its log from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Its own copy.
    Own,
    /// What the old owner sent it when it stopped.
    Sealed,
    /// The copy of another member, which had entered the term.
    Member(u8),
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Stamp { node: u8, message: u8 },
    Receive { node: u8, term: u8 },
    Release { node: u8 },
    Propose { node: u8, term: u8 },
    Vote { node: u8, term: u8 },
    Enter { node: u8, term: u8 },
    Begin { node: u8, source: Source },
    Fill { node: u8, from: u8 },
    Crash { node: u8 },
    Fork { node: u8 },
}

/// The steps of one state are collected here.
pub(crate) type Steps = Vec<(Action, State)>;

impl Rules {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Term 0 has the first three nodes in its seats and has begun; nothing is published.
    pub(crate) fn initial(&self) -> State {
        let mut state = State::new([Node::EMPTY; NODES as usize]);
        let mut triple: Triple = [None; 3];
        for (seat, node) in triple.iter_mut().zip(0..self.bounds.nodes) {
            *seat = Some(state.member(node));
        }
        state.add(Term { active: true, ..Term::proposed(0, 0, NONE, triple) });
        for node in 0..self.bounds.nodes.min(3) {
            state.node_mut(node).enter(0, node < 2);
            state.node_mut(node).held = Held::whole(0, 0);
        }
        state.node_mut(0).leading = true;
        state
    }

    /// Every step that can be taken in `state`, with where it leads.
    pub(crate) fn steps(&self, state: &State, steps: &mut Steps) {
        steps.clear();
        for node in 0..self.bounds.nodes {
            self.lead(state, node, steps);
            self.receive(state, node, steps);
            self.fill(state, node, steps);
            self.propose(state, node, steps);
            self.vote(state, node, steps);
            self.enter(state, node, steps);
            self.begin(state, node, steps);
            self.fail(state, node, steps);
        }
        // With some mistakes nothing that was ever said is past.
        if !self.flaw.is_some_and(Flaw::heeds_the_past) {
            steps.iter_mut().for_each(|(_, next)| next.settle());
        }
    }

    /// The seat of a node in a term; a restarted node has none (unless that is the mistake).
    fn seat(&self, state: &State, term: u8, node: u8) -> Option<usize> {
        if term == NONE {
            return None;
        }
        if self.has(Flaw::RestartedVotes) {
            let seats = state.term(term).triple;
            return seats.iter().position(|seat| seat.is_some_and(|member| member.node == node));
        }
        state.seat(term, node)
    }

    /// An owner stamps what is published to it, and shows what its replica holds.
    fn lead(&self, state: &State, node: u8, steps: &mut Steps) {
        let Node { at, voted, leading, .. } = *state.node(node);
        let sealed = voted != NONE && state.term(voted).sealed && !self.has(Flaw::SealedGoesOn);
        if !leading || sealed {
            return;
        }
        let term = state.term(at);
        for message in 0..self.bounds.messages.min(state.published + 1) {
            if !term.log.has(message) {
                let mut next = *state;
                next.term_mut(at).log.push(Frame { message, stamped: at });
                next.node_mut(node).held = Held::whole(at, term.log.len() + 1);
                next.published = next.published.max(message + 1);
                steps.push((Action::Stamp { node, message }, next));
            }
        }
        let mut acked = if term.triple[REPLICA].is_some() { term.acked } else { term.log.len() };
        if self.has(Flaw::OldAckCounts) && term.parent != NONE {
            acked = acked.max(state.term(term.parent).acked).min(term.log.len());
        }
        if self.has(Flaw::ReleasedBeforeAck) {
            acked = term.log.len();
        }
        if term.released < acked {
            let mut next = *state;
            next.term_mut(at).released += 1;
            steps.push((Action::Release { node }, next));
        }
    }

    /// The replica takes what its owner sent, in order, and says so; not any more once it let the witness take over.
    fn receive(&self, state: &State, node: u8, steps: &mut Steps) {
        if self.has(Flaw::FencedIsAcked) {
            self.receive_stale(state, node, steps);
        }
        let Node { at, voted, held, .. } = *state.node(node);
        let let_take_over = voted != NONE && state.term(voted).triple[OWNER] != Some(state.member(node));
        let deaf = let_take_over && !self.has(Flaw::LetGoesOn);
        if self.seat(state, at, node) != Some(REPLICA) || !state.term(at).active || deaf {
            return;
        }
        let (term, mut next) = (state.term(at), *state);
        if held.of != at {
            self.meet(&mut next, node);
        } else if held.len < term.log.len() {
            next.node_mut(node).held.len += 1;
        } else {
            return;
        }
        let Node { held, .. } = *next.node(node);
        if held.hole == NONE && held.len >= term.base {
            next.node_mut(node).complete = true;
        }
        let len = next.node(node).held.len;
        next.term_mut(at).acked = term.acked.max(len);
        steps.push((Action::Receive { node, term: at }, next));
    }

    /// The first that a replica hears of its owner: how much of the owner's log its own copy is. What agrees is kept.
    fn meet(&self, state: &mut State, node: u8) {
        let Node { at, held, .. } = *state.node(node);
        let (log, from) = (state.term(at).log, state.term(at).from);
        let common = state.contiguous(node).common(&log);
        let behind =
            if held.hole == NONE { 0 } else { state.term(held.of).log.truncated(held.len).agrees(&log, held.end) };
        let me = state.node_mut(node);
        me.held = if common >= from {
            Held::whole(at, common)
        } else if common == held.hole && behind >= from && !self.has(Flaw::TailDropped) {
            Held { of: at, len: behind, ..held }
        } else {
            Held { of: at, len: from, hole: common, end: from }
        };
        // Who was whole before still is: nothing after `from` is shown before it has it.
        me.complete &= me.held.hole == NONE;
    }

    /// The mistake of a replica that has left a term and still says yes to its owner.
    fn receive_stale(&self, state: &State, node: u8, steps: &mut Steps) {
        for index in 0..state.count() {
            let term = state.term(index);
            let left = state.node(node).at != index && self.seat(state, index, node) == Some(REPLICA);
            if left && term.active && term.acked < term.log.len() {
                let mut next = *state;
                next.term_mut(index).acked = term.log.len();
                steps.push((Action::Receive { node, term: index }, next));
            }
        }
    }

    /// A replica gets what it lacks from anyone whose log agrees with its owner's where the hole ends. Logs that agree there
    /// agree before it and never change there, so reading the other's memory is reading an old message of it.
    fn fill(&self, state: &State, node: u8, steps: &mut Steps) {
        let Held { of, hole, end, .. } = state.node(node).held;
        if hole == NONE {
            return;
        }
        let term = state.term(of);
        for from in (0..self.bounds.nodes).filter(|from| *from != node) {
            if state.contiguous(from).common(&term.log) >= end {
                let mut next = *state;
                (next.node_mut(node).held.hole, next.node_mut(node).held.end) = (NONE, NONE);
                let replica = self.seat(state, of, node) == Some(REPLICA) && state.node(node).at == of;
                next.node_mut(node).complete |= replica && next.node(node).held.len >= term.base;
                steps.push((Action::Fill { node, from }, next));
            }
        }
    }

    /// An owner or a whole replica asks for the next term, or a replica that never met its owner: it lets the witness take
    /// over, which may have been the replica before. Asking is voting.
    fn propose(&self, state: &State, node: u8, steps: &mut Steps) {
        let Node { at, voted, leading, complete, .. } = *state.node(node);
        let Some(seat) = self.seat(state, at, node) else { return };
        if voted != NONE || state.count() >= self.bounds.terms || usize::from(state.count()) >= TERMS {
            return;
        }
        let unmet = !complete && (state.node(node).held.of != at || self.has(Flaw::MetLetsTakeOver));
        let may = match seat {
            OWNER => leading,
            REPLICA => complete || unmet || self.has(Flaw::SyncingTakesOver),
            _ => false,
        };
        if !may {
            return;
        }
        let lets = seat == REPLICA && unmet && !self.has(Flaw::SyncingTakesOver);
        let (old, wanted) = (*state.term(at), ring::wanted(state, at, node, lets, &self.bounds));
        for triple in wanted {
            for number in ring::numbers(state, old.number, old.lineage) {
                let mut next = *state;
                let mut term = Term { votes: 1 << seat, ..Term::proposed(number, old.lineage, at, triple) };
                if seat == OWNER && triple[OWNER] != old.triple[OWNER] {
                    // The owner hands over: it stops for good, and this message carries its log.
                    (term.sealed, term.log, term.base) = (true, old.log, old.shown());
                    if self.has(Flaw::InheritanceForgotten) {
                        term.base = old.released;
                    }
                }
                if seat == REPLICA && self.has(Flaw::TakeoverAlone) {
                    term.votes |= 1 << WITNESS;
                }
                let term = next.add(term);
                next.node_mut(node).voted = term;
                if self.has(Flaw::SyncingTakesOver) {
                    next.node_mut(node).complete = true;
                }
                steps.push((Action::Propose { node, term }, next));
            }
        }
    }

    /// A member that has not voted votes for the first who asks. That is the second vote: it enters the new term at once.
    fn vote(&self, state: &State, node: u8, steps: &mut Steps) {
        let Node { at, voted, .. } = *state.node(node);
        for index in 0..state.count() {
            let term = state.term(index);
            let twice =
                self.has(Flaw::VotesTwice) && at != NONE && term.parent != NONE && state.term(at).parent == term.parent;
            if term.parent == NONE || state.decided(index) || !((term.parent == at && voted == NONE) || twice) {
                continue;
            }
            let Some(seat) = self.seat(state, term.parent, node) else { continue };
            if term.votes & (1 << seat) == 0 {
                let mut next = *state;
                next.term_mut(index).votes |= 1 << seat;
                self.go_over(&mut next, node, index);
                steps.push((Action::Vote { node, term: index }, next));
            }
        }
    }

    /// Whoever hears of a newer term enters it: in its own lineage always, in another when nothing it holds would be lost.
    fn enter(&self, state: &State, node: u8, steps: &mut Steps) {
        let at = state.node(node).at;
        for index in (0..state.count()).filter(|index| *index != at && state.decided(*index)) {
            let term = state.term(index);
            let newer = at == NONE || term.number > state.term(at).number;
            let same = at != NONE && term.lineage == state.term(at).lineage;
            let shown = term.log.truncated(term.released);
            let nothing_lost =
                term.active && (self.has(Flaw::HealForgets) || state.held(node).all(|frame| shown.has(frame.message)));
            if newer && (same || nothing_lost) {
                let mut next = *state;
                self.go_over(&mut next, node, index);
                steps.push((Action::Enter { node, term: index }, next));
            }
        }
    }

    /// The owner and a whole replica hold all that was shown when they go on to the very next term; and a witness that was
    /// one of the two, if the replica says by asking that nothing was shown since.
    fn go_over(&self, state: &mut State, node: u8, term: u8) {
        let Node { at, complete, .. } = *state.node(node);
        let Term { sealed, triple, .. } = *state.term(term);
        let held_all = complete
            && match self.seat(state, at, node) {
                Some(OWNER | REPLICA) => true,
                Some(WITNESS) => !sealed && triple[OWNER] == Some(state.member(node)),
                Some(_) | None => false,
            };
        let complete = held_all && (state.term(term).parent == at || self.has(Flaw::SkippedCountsAsWhole));
        state.node_mut(node).enter(term, complete);
    }

    /// The owner of a new term takes its log and begins.
    fn begin(&self, state: &State, node: u8, steps: &mut Steps) {
        let Node { at, complete, .. } = *state.node(node);
        if self.seat(state, at, node) != Some(OWNER) || state.term(at).active {
            return;
        }
        let term = state.term(at);
        let mut begin = |source, log: Log, from, base| {
            let mut next = *state;
            let begun = next.term_mut(at);
            // Nothing is shown before the replica has met this owner: until then it may take over from an older copy.
            let shown = if self.has(Flaw::ShownBeforeMet) { base } else { 0 };
            (begun.active, begun.log, begun.base, begun.released, begun.acked) = (true, log, base, shown, 0);
            begun.from = if self.has(Flaw::ShownUncopied) { base } else { from };
            let me = next.node_mut(node);
            (me.leading, me.complete, me.held) = (true, true, Held::whole(at, log.len()));
            steps.push((Action::Begin { node, source }, next));
        };
        if complete || self.has(Flaw::NewOwnerWithoutLog) {
            let log = state.contiguous(node);
            let before = term.parent;
            let led = before != NONE && self.seat(state, before, node) == Some(OWNER);
            // Who led before knows what it showed; anyone else has to take all it holds for shown.
            let base = if led { state.term(before).shown().min(log.len()) } else { log.len() };
            for from in told(state, before, base).filter(|from| !led || *from == state.term(before).told().min(base)) {
                begin(Source::Own, log, from, base);
            }
        }
        if term.sealed {
            for from in told(state, term.parent, term.base) {
                begin(Source::Sealed, term.log, from, term.base);
            }
        }
        for from in (0..self.bounds.nodes).filter(|from| *from != node) {
            // A complete member of this term has left the one before, and its copy stays as it is until the term begins.
            let member = state.node(from);
            let led = term.parent != NONE && self.seat(state, term.parent, from) == Some(OWNER);
            if member.at == at && member.complete && !led {
                let log = state.contiguous(from);
                begin(Source::Member(from), log, 0, log.len());
            }
        }
    }
}

/// Up to where a new owner may know that frames were shown in the term before: nothing, or all that was.
fn told(state: &State, before: u8, base: u8) -> impl Iterator<Item = u8> {
    let all = if before == NONE { 0 } else { state.term(before).told().min(base) };
    std::iter::once(0).chain((all > 0).then_some(all))
}

const _: () = assert!(MESSAGES <= 8 && TERMS <= 16, "fingerprints pack a message and a term into one byte");
