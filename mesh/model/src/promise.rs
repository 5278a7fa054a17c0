//! What must hold in every state, and what must be reachable at all.
//!
//! Invariant: promises are judged from what was shown (a term's log up to `released`), for ever: a term's facts stay.

use crate::{
    rules::Action,
    state::{Frame, NODES, NONE, OWNER, REPLICA, State, Term, WITNESS},
};

/// A promise that a state breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Two frames were shown at one (lineage, n).
    TwoFrames,
    /// A frame that was shown is not in the log of a later owner of its lineage.
    NotInherited,
    /// Two terms follow one: two branches that both call themselves whole.
    TwoBranches,
    /// A frame was shown for the first time while the replica lacked it.
    Uncopied,
    /// A frame that two nodes held when it was shown is held by none.
    Lost,
}

/// The first promise that `state` breaks.
pub(crate) fn broken(state: &State) -> Option<Broken> {
    let count = state.count();
    for one in 0..count {
        for two in (0..count).filter(|two| *two != one) {
            let (first, second) = (state.term(one), state.term(two));
            if first.parent != NONE && first.parent == second.parent && state.decided(one) && state.decided(two) {
                return Some(Broken::TwoBranches);
            }
            if first.lineage != second.lineage || !first.active || !second.active {
                continue;
            }
            let common = first.log.common(&second.log);
            if common < first.released.min(second.released) {
                return Some(Broken::TwoFrames);
            }
            if first.number < second.number && common < first.released {
                return Some(Broken::NotInherited);
            }
        }
    }
    if (0..count).any(|term| is_uncopied(state, term)) {
        return Some(Broken::Uncopied);
    }
    (0..count).any(|term| is_lost(state, term)).then_some(Broken::Lost)
}

/// Whether the replica, while it is one, lacks what this term showed and none before it.
fn is_uncopied(state: &State, index: u8) -> bool {
    let term = state.term(index);
    let replica =
        (0..NODES).find(|node| state.node(*node).held.of == index && state.seat(index, *node) == Some(REPLICA));
    let before = (0..state.count()).filter(|other| *other != index).map(|other| state.term(other));
    let before = before.filter(|other| other.lineage == term.lineage).map(|other| other.released).max().unwrap_or(0);
    replica.is_some_and(|node| {
        let held: Vec<Frame> = state.held(node).collect();
        let shown = term.log.frames().iter().take(usize::from(term.released)).skip(usize::from(before));
        shown.into_iter().any(|frame| !held.contains(frame))
    })
}

/// Whether a frame that was shown under this term, by an owner with a replica, is nowhere any more.
fn is_lost(state: &State, index: u8) -> bool {
    let term = state.term(index);
    let shown = term.log.frames().iter().take(usize::from(term.released)).filter(|frame| frame.stamped == index);
    let held = |message: u8| (0..NODES).any(|node| state.held(node).any(|frame| frame.message == message));
    term.triple[REPLICA].is_some() && shown.into_iter().any(|frame| !held(frame.message))
}

/// Something that has to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A replica took over and showed a frame of its own.
    Takeover,
    /// A takeover after the owner died.
    TakeoverAfterCrash,
    /// A new replica never met the owner, and the one before it took over.
    LetTakeOver,
    /// An owner handed over to another node, which showed a frame.
    Handoff,
    /// The node that was handed a slot died before it began, and the lineage went on.
    HandoffSurvived,
    /// The witness became the replica and has the whole log.
    ReplicaChange,
    /// Another witness.
    WitnessChange,
    /// A restarted node is the replica again and has the whole log.
    Return,
    /// A new lineage showed a frame.
    NewLineage,
    /// Who held frames of another lineage went over to the one that has them all.
    Heal,
}

impl Goal {
    /// All of them.
    pub(crate) const ALL: [Goal; 10] = [
        Goal::Takeover,
        Goal::TakeoverAfterCrash,
        Goal::LetTakeOver,
        Goal::Handoff,
        Goal::HandoffSurvived,
        Goal::ReplicaChange,
        Goal::WitnessChange,
        Goal::Return,
        Goal::NewLineage,
        Goal::Heal,
    ];

    /// Whether this step reached it.
    pub(crate) fn reached(self, action: Action, state: &State) -> bool {
        let any = |of: &dyn Fn(&Term, Option<&Term>) -> bool| {
            state.terms().iter().filter(|term| term.active).any(|term| of(term, parent(state, term)))
        };
        let shows = |term: &Term| term.released > term.base;
        match self {
            Goal::Takeover => any(&|term, old| old.is_some_and(|old| took_over(term, old)) && shows(term)),
            Goal::TakeoverAfterCrash => any(&|term, old| {
                old.is_some_and(|old| took_over(term, old) && is_dead(state, old, OWNER)) && shows(term)
            }),
            Goal::LetTakeOver => any(&|term, old| {
                old.is_some_and(|old| {
                    !term.sealed && term.triple[OWNER] == old.triple[WITNESS] && is_dead(state, old, OWNER)
                }) && shows(term)
            }),
            Goal::Handoff => any(&|term, _| term.sealed && shows(term)),
            Goal::HandoffSurvived => any(&|term, old| {
                old.is_some_and(|old| old.sealed && !old.active && is_dead(state, old, OWNER)) && shows(term)
            }),
            Goal::ReplicaChange => any(&|term, old| {
                old.is_some_and(|old| {
                    term.triple[OWNER] == old.triple[OWNER] && term.triple[REPLICA] == old.triple[WITNESS]
                }) && term.triple[REPLICA].is_some_and(|replica| is_whole(state, replica.node))
            }),
            Goal::WitnessChange => any(&|term, old| {
                old.is_some_and(|old| term.triple[..WITNESS] == old.triple[..WITNESS] && old.triple[REPLICA].is_some())
            }),
            Goal::Return => any(&|term, _| {
                term.triple[REPLICA].is_some_and(|replica| replica.generation > 0 && is_whole(state, replica.node))
            }),
            Goal::NewLineage => any(&|term, _| term.lineage > 0 && shows(term)),
            Goal::Heal => match action {
                Action::Enter { node, term } => {
                    let foreign = |frame: Frame| state.term(frame.stamped).lineage != state.term(term).lineage;
                    state.held(node).any(foreign)
                }
                Action::Stamp { .. }
                | Action::Receive { .. }
                | Action::Release { .. }
                | Action::Propose { .. }
                | Action::Vote { .. }
                | Action::Begin { .. }
                | Action::Fill { .. }
                | Action::Crash { .. }
                | Action::Fork { .. } => false,
            },
        }
    }
}

fn parent<'a>(state: &'a State, term: &Term) -> Option<&'a Term> {
    (term.parent != NONE).then(|| state.term(term.parent))
}

fn took_over(term: &Term, old: &Term) -> bool {
    !term.sealed && old.triple[REPLICA].is_some() && term.triple[OWNER] == old.triple[REPLICA]
}

/// Whether the member of that seat has died since.
fn is_dead(state: &State, term: &Term, seat: usize) -> bool {
    term.triple[seat].is_some_and(|member| state.node(member.node).generation > member.generation)
}

/// Whether the replica, as such, has all and has something.
fn is_whole(state: &State, node: u8) -> bool {
    let node = state.node(node);
    node.complete && node.held.of == node.at && node.held.len > 0
}
