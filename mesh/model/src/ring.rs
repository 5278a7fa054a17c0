//! Which triples a member wants next, and under which number: the ones `semantics.md` names, with the nodes in the order of the ring.
//!
//! Invariant: a wish names different nodes, each in the life it has now.

use crate::{
    rules::{Bounds, Changes},
    state::{NONE, OWNER, REPLICA, State, Triple, WITNESS},
};

/// What `node`, a member of `term`, may propose instead of its triple. A replica that `lets` cannot take over and lets the
/// witness do it.
pub(crate) fn wanted(state: &State, term: u8, node: u8, lets: bool, bounds: &Bounds) -> Vec<Triple> {
    let nodes = bounds.nodes;
    let triple = state.term(term).triple;
    let at = |seat: usize| triple[seat].map_or(NONE, |member| member.node);
    let (owner, replica, witness) = (at(OWNER), at(REPLICA), at(WITNESS));
    // The next on the ring that has no seat.
    let spare = (1..nodes).map(|step| (owner + step) % nodes).find(|node| ![owner, replica, witness].contains(node));
    let or = |other: u8| spare.unwrap_or(other);
    let mut wanted = if replica == NONE {
        let after = |step: u8| if step < nodes { (node + step) % nodes } else { NONE };
        vec![[node, after(1), after(2)]]
    } else if lets {
        vec![[witness, replica, or(owner)]]
    } else if node == replica {
        vec![[replica, witness, or(owner)]]
    } else {
        vec![
            // The replica is silent: the witness becomes the replica.
            [owner, witness, or(replica)],
            // The witness is gone, or came back in a new life.
            [owner, replica, or(witness)],
            // Handing over: to the replica, to the witness, and to a node that joined.
            [replica, witness, or(owner)],
            [witness, owner, replica],
            [spare.unwrap_or(NONE), owner, replica],
        ]
    };
    wanted.retain(|nodes| nodes[OWNER] != NONE && nodes[REPLICA] != NONE);
    if bounds.changes == Changes::Failover {
        wanted.retain(|nodes| nodes[OWNER] == node || lets);
    }
    let seated = |nodes: [u8; 3]| nodes.map(|node| (node != NONE).then(|| state.member(node)));
    wanted.into_iter().map(seated).collect()
}

/// The numbers a new term may bear: the next one, or one above all that was heard of other lineages.
pub(crate) fn numbers(state: &State, number: u8, lineage: u8) -> impl Iterator<Item = u8> {
    let next = number + 1;
    let foreign = state.terms().iter().filter(move |term| term.lineage != lineage).map(|term| term.number + 1).max();
    std::iter::once(next).chain(foreign.filter(|number| *number > next))
}
