//! What fails: a node dies, or goes on without two votes.
//!
//! Invariants: a crash forgets all that the node knew and nothing that it said; who goes on alone begins a lineage.

use crate::{
    ring,
    rules::{Action, Rules, Steps},
    state::{Held, NONE, Node, State, Term},
};

impl Rules {
    /// A node dies and starts again with nothing; or it goes on alone, under a new lineage.
    pub(crate) fn fail(&self, state: &State, node: u8, steps: &mut Steps) {
        if state.crashes < self.bounds.crashes {
            let mut next = *state;
            let generation = state.node(node).generation + 1;
            *next.node_mut(node) = Node { generation, ..Node::EMPTY };
            next.crashes += 1;
            steps.push((Action::Crash { node }, next));
        }
        if state.forks < self.bounds.forks && state.count() < self.bounds.terms {
            let at = state.node(node).at;
            let (number, lineage) =
                if at == NONE { (0, NONE) } else { (state.term(at).number, state.term(at).lineage) };
            for number in ring::numbers(state, number, lineage) {
                self.fork(state, node, number, steps);
            }
        }
    }

    /// Goes on alone, in a term of that number: nobody is asked and nothing is proved.
    fn fork(&self, state: &State, node: u8, number: u8, steps: &mut Steps) {
        let mut next = *state;
        next.forks += 1;
        let alone = [Some(state.member(node)), None, None];
        let mut term = Term { active: true, ..Term::proposed(number, next.forks, NONE, alone) };
        state.held(node).for_each(|frame| term.log.push(frame));
        (term.base, term.from, term.acked, term.released) =
            (term.log.len(), term.log.len(), term.log.len(), term.log.len());
        let (len, index) = (term.log.len(), next.add(term));
        let me = next.node_mut(node);
        me.enter(index, true);
        (me.leading, me.held) = (true, Held::whole(index, len));
        steps.push((Action::Fork { node }, next));
    }
}
