//! From foca's list to published views: who owns slots, who is outside, and when a change has settled.
//!
//! Invariants: a view is published only if something in it changed, one settle time after the last change, at the latest
//! [`MAX_UNSETTLED`] settle times after the first; a node leaves the ring when it is down or draining, never when it is
//! only suspected (`mesh.md` 3a); the table is rebuilt only when the set of owners changed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use foca::{Member as Record, State};

use super::Identity;
use crate::{Member, MemberState, NodeId, Table, View};

/// Publication is put off by further changes for at most this many settle times.
const MAX_UNSETTLED: u32 = 5;

/// The published view and what waits to change it.
#[derive(Debug)]
pub(super) struct Roster {
    view: Arc<View>,
    settle: Duration,
    /// First and last change that is not published yet.
    unsettled: Option<(Instant, Instant)>,
}

impl Roster {
    /// Ourselves alone.
    pub(super) fn new(me: &Identity, settle: Duration) -> Roster {
        let (members, outside) = split(me, std::iter::empty());
        let table = Arc::new(Table::build(&owners(&members)));
        Roster { view: Arc::new(View { version: 1, members, outside, table }), settle, unsettled: None }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Something changed.
    pub(super) fn touch(&mut self, now: Instant) {
        let (first, _) = self.unsettled.unwrap_or((now, now));
        self.unsettled = Some((first, now));
    }

    /// When the changes will have settled.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.unsettled.map(|(first, last)| (last + self.settle).min(first + self.settle * MAX_UNSETTLED))
    }

    pub(super) fn differs<'a>(&self, me: &Identity, records: impl Iterator<Item = &'a Record<Identity>>) -> bool {
        let (members, outside) = split(me, records);
        members != self.view.members || outside != self.view.outside
    }

    /// The changes have settled: a new view, if one is due.
    pub(super) fn settle<'a>(
        &mut self,
        me: &Identity,
        records: impl Iterator<Item = &'a Record<Identity>>,
    ) -> Option<Arc<View>> {
        self.unsettled = None;
        let (members, outside) = split(me, records);
        if members == self.view.members && outside == self.view.outside {
            return None;
        }
        let nodes = owners(&members);
        let table =
            if nodes == owners(&self.view.members) { self.view.table.clone() } else { Arc::new(Table::build(&nodes)) };
        self.view = Arc::new(View { version: self.view.version + 1, members, outside, table });
        Some(self.view())
    }
}

fn owners(members: &[Member]) -> Vec<NodeId> {
    members.iter().map(|member| member.node).collect()
}

/// Members that own slots, and the others.
fn split<'a>(me: &Identity, records: impl Iterator<Item = &'a Record<Identity>>) -> (Vec<Member>, Vec<Member>) {
    let others = records.filter(|record| record.id().node != me.node);
    let mut all: Vec<Member> = others.map(|record| record.id().to_member(state(record))).collect();
    all.push(me.to_member(state(&Record::alive(me.clone()))));
    all.sort_unstable_by_key(|member| member.node);
    all.into_iter().partition(|member| matches!(member.state, MemberState::Alive | MemberState::Suspect))
}

fn state(record: &Record<Identity>) -> MemberState {
    match record.state() {
        State::Down => MemberState::Down,
        State::Alive | State::Suspect if record.id().draining => MemberState::Draining,
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
    }
}
