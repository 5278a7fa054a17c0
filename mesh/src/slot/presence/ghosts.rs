//! Ghosts: members of a node that cannot be reached. They stay present for a while, since a cut often heals, and nobody is
//! told of a coming and going that was none (`mesh.md` h).
//!
//! Invariants: only the owner lets ghosts go, so everybody sees it in one order; a node that is back is asked for
//! its members, and another process of it has none of them; who has ghosts in sight says so (`Roster::partial`).

use std::{collections::BTreeSet, time::Instant};

use super::{Effect, Member, Presence};
use crate::{NodeId, room::RoomKey, wire::presence::Said};

impl Presence {
    /// The members of this node are ghosts from now on, and have all the time that ghosts have: what was before is over.
    pub(super) fn haunt(&mut self, node: NodeId, now: Instant) {
        self.ghosts.insert(node, now + self.ghost);
    }

    /// So are those of a node that has not spoken, unless they are already and it is not in the view: then it is not slow but
    /// gone, and slots that change hands keep nobody alive.
    pub(super) fn begin_haunting(&mut self, node: NodeId, now: Instant) {
        if self.here.contains(&node) || !self.ghosts.contains_key(&node) {
            self.haunt(node, now);
        }
    }

    /// So are those of nodes that are in the view no more, whether or not their links were seen to break.
    pub(super) fn handle_members(&mut self, here: BTreeSet<NodeId>, now: Instant) {
        let before = std::mem::replace(&mut self.here, here);
        let gone: Vec<NodeId> = before.difference(&self.here).filter(|node| **node != self.me).copied().collect();
        gone.into_iter().for_each(|node| self.haunt(node, now));
    }

    /// The node can be reached again: it is asked about the rooms where its members are ghosts. It may have none there any
    /// more, and then it would not speak of them by itself; or not know yet that we own them, and then it will.
    pub(super) fn ask_ghosts(&mut self, node: NodeId) {
        let me = self.me;
        let owned = self.rolls.iter().filter(|(_, roll)| roll.owner == Some(me));
        let ghosts = owned.filter_map(|(room, roll)| Some((room.clone(), roll.unheard(me).remove(&node)?)));
        for (room, member) in ghosts.collect::<Vec<_>>() {
            self.ask_about(node, &room, &member);
        }
    }

    /// The process that `node` is now: another one than before has none of its members.
    pub(super) fn handle_generation(&mut self, node: NodeId, generation: u64) {
        let before = self.generations.insert(node, generation);
        if before.is_some_and(|before| before != generation) {
            self.ghosts.remove(&node);
            self.dismiss_members(node, true);
        }
    }

    /// A node believes that another owns the room: what it does there from now on is not said to us, until it believes in us
    /// again and says everything.
    pub(super) fn handle_elsewhere(&mut self, node: NodeId, room: &RoomKey, now: Instant) {
        let me = self.me;
        let Some(roll) = self.rolls.get_mut(room).filter(|roll| roll.owner == Some(me)) else { return };
        roll.nodes.remove(&node);
        roll.owed.remove(&node);
        roll.incoming.forget(node);
        if !roll.ids_of(node).is_empty() {
            self.haunt(node, now);
        }
        self.forget_if_unused(room);
    }

    /// Tells a node of one of its own members, as a change that is none: it says again whom it has in the room, if anybody.
    pub(super) fn ask_about(&mut self, node: NodeId, room: &RoomKey, Member { id, body }: &Member) {
        let said = Said::Change { seq: 0, node: node.0, id: id.as_bytes(), body: Some(body.as_bytes()) };
        self.effects.push_back(Effect::Send { to: node, room: room.clone(), bytes: said.encode(room) });
    }

    /// Ghosts whose time is over leave.
    pub(super) fn lay_ghosts(&mut self, now: Instant) {
        if self.settle_at.is_some() {
            // They may be vouched for by then.
            return;
        }
        let over: Vec<NodeId> = self.ghosts.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        for node in over {
            self.ghosts.remove(&node);
            self.dismiss_members(node, false);
        }
    }

    /// A node says, with its own members, ghosts that it lists: a new owner takes those over that it may not know. Who has
    /// spoken for itself needs nobody's word.
    pub(super) fn adopt_ghosts(&mut self, room: &RoomKey, members: Vec<(NodeId, Member)>) {
        if self.settle_at.is_none() {
            return;
        }
        for (node, member) in members {
            let spoke = self.knows(node, room);
            if node != self.me && !spoke && self.ghosts.contains_key(&node) {
                // What does not fit is not listed; it cannot be told.
                let _ = self.list(room, node, member);
            }
        }
    }

    /// Members of `node` leave wherever it has not vouched for them, or (`all`) everywhere.
    fn dismiss_members(&mut self, node: NodeId, all: bool) {
        let me = self.me;
        let owned = self.rolls.iter().filter(|(_, roll)| roll.owner == Some(me));
        let meant = owned.filter(|(_, roll)| all || !roll.nodes.contains(&node));
        let rooms: Vec<RoomKey> = meant.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            if let Some(roll) = self.rolls.get_mut(&room) {
                roll.nodes.remove(&node);
                roll.owed.remove(&node);
            }
            for id in self.rolls.get(&room).map(|roll| roll.ids_of(node)).unwrap_or_default() {
                self.unlist(&room, &id);
            }
            self.forget_if_unused(&room);
        }
    }
}
