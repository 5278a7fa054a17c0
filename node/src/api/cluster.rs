//! What `GET /api/cluster` and `GET /api/rooms/{room}` answer: the shape of interface.md 2.
//!
//! Invariants: members by ordinal, links by name; a number that could not be heard is `null` and its node is in
//! `silent`, so that nothing unknown looks like zero; a cluster of which anything is unknown is not safe.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

/// A boxed future, for a trait that is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who can tell about the cluster.
pub trait ClusterInfo: Send + Sync {
    /// The cluster as this node sees it now. Must answer in bounded time, whatever other nodes do.
    fn cluster(&self) -> BoxFuture<'_, ClusterReport>;

    /// Who has which part in a room's slot now. Must answer in bounded time, whatever other nodes do.
    fn placement<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, PlacementReport>;
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Everybody this node knows, itself included, by ordinal.
    pub members: Vec<MemberReport>,
    /// Links of this node to others.
    pub links: Vec<LinkReport>,
    /// Version of the view of members; rises with every change.
    pub view: u64,
    /// Slots that one loss would damage.
    pub single_copy_slots: u32,
    /// Whether any one node may be lost without loss of acknowledged messages and without a new epoch.
    pub safe_to_lose_one: bool,
    /// Why not; `None` if it is safe.
    #[serde(default)]
    pub unsafe_because: Option<String>,
    /// Nodes that hold each frame before anybody sees it, where there are so many.
    #[serde(default)]
    pub copies: u8,
    /// True if some node did not answer in time.
    pub partial: bool,
    /// Those that did not.
    pub silent: Vec<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub node: String,
    /// Its number.
    pub ordinal: u16,
    /// Its start; higher is later.
    pub generation: u64,
    /// How it is.
    pub state: MemberState,
    /// Its open connections; `None` if it did not answer.
    pub connections: Option<u64>,
    /// Slots it owns by the table of the answering node.
    pub slots: u32,
    /// Where its mesh listens.
    #[serde(default)]
    pub address: Option<String>,
    /// Its program; `None` if it did not answer.
    #[serde(default)]
    pub version: Option<String>,
    /// Slots in use that it has a part in; `None` if it did not answer.
    #[serde(default)]
    pub open: Option<OpenReport>,
}

/// Slots in use by what a member is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReport {
    /// It orders them.
    pub owned: u32,
    /// It is the replica and holds everything that anybody has seen.
    pub replica: u32,
    /// It is the replica and still lacks something.
    pub syncing: u32,
    /// It votes on them.
    pub witness: u32,
    /// Of the owned ones, those that its loss would damage.
    pub single_copy: u32,
}

/// Who has which part in a room's slot. Nodes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// The namespace.
    pub namespace: String,
    /// The room.
    pub room: String,
    /// Its slot.
    pub slot: u16,
    /// Who orders it; `None` if no node that answered knows that anybody does: nobody has used it yet.
    pub owner: Option<String>,
    /// Who holds the second copy.
    pub replica: Option<String>,
    /// Who votes on it.
    pub witness: Option<String>,
    /// The owner says so itself; else it is what others last heard.
    pub leads: bool,
    /// The number of the term that gave them their seats.
    pub term: Option<u32>,
    /// The room's epoch.
    pub epoch: Option<String>,
    /// The replica has all that anybody has seen; `None` if there is none, or nobody who knows answered.
    pub replica_whole: Option<bool>,
    /// Who should have the seats.
    pub ring: SeatsReport,
    /// Somebody did not answer.
    pub partial: bool,
    /// Who.
    pub silent: Vec<String>,
}

/// The seats of a slot. Nodes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatsReport {
    /// Orders it.
    pub owner: Option<String>,
    /// Holds the second copy.
    pub replica: Option<String>,
    /// Votes on it.
    pub witness: Option<String>,
}

impl ClusterReport {
    /// Fills in from the rest of the report what it means for the loss of a node.
    pub(crate) fn judge(mut self) -> ClusterReport {
        self.partial = !self.silent.is_empty();
        self.single_copy_slots = self.open().map(|open| open.single_copy).sum();
        self.unsafe_because = self.risk();
        self.safe_to_lose_one = self.unsafe_because.is_none();
        self
    }

    /// Whether the cluster has enough members that a loss could be harmless.
    pub(crate) fn could_lose_one(&self) -> bool {
        self.copies >= 2 && self.count(MemberState::Alive) >= 3
    }

    fn open(&self) -> impl Iterator<Item = OpenReport> {
        self.members.iter().filter_map(|member| member.open)
    }

    fn count(&self, state: MemberState) -> usize {
        self.members.iter().filter(|member| member.state == state).count()
    }

    /// The first reason why the loss of one more node could be noticed.
    fn risk(&self) -> Option<String> {
        let alive = self.count(MemberState::Alive);
        if alive < 3 {
            return Some(format!("it takes three nodes, and {alive} answer"));
        }
        if let Some(suspect) = self.members.iter().find(|member| member.state == MemberState::Suspect) {
            return Some(format!("{} is suspect", suspect.node));
        }
        if let Some(silent) = self.silent.first() {
            return Some(format!("{silent} did not answer"));
        }
        if let Some(link) = self.links.iter().find(|link| link.state != LinkState::Up && self.is_alive(&link.node)) {
            return Some(format!("the link to {} is {}", link.node, link.state.as_str()));
        }
        let syncing: u32 = self.open().map(|open| open.syncing).sum();
        match (self.single_copy_slots, syncing) {
            (0, 0) => None,
            (0, syncing) => Some(format!("replicas of {syncing} slots are still being filled")),
            (single, _) => Some(format!("{single} slots have a single copy")),
        }
    }

    fn is_alive(&self, node: &str) -> bool {
        self.members.iter().any(|member| member.node == node && member.state == MemberState::Alive)
    }
}

/// One link of the answering node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The node at the other end.
    pub node: String,
    /// Smoothed round trip in microseconds.
    pub rtt_us: u64,
    /// How it is.
    pub state: LinkState,
}

/// State of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Does not answer, not yet given up.
    Suspect,
    /// Announced its leave.
    Draining,
    /// Given up.
    Down,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Carries frames.
    Up,
    /// Being dialled.
    Connecting,
    /// Lost.
    Down,
}

impl MemberState {
    /// The word in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Draining => "draining",
            MemberState::Down => "down",
        }
    }
}

impl LinkState {
    /// The word in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Up => "up",
            LinkState::Connecting => "connecting",
            LinkState::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> ClusterReport {
        let member = |ordinal: u16| MemberReport {
            node: format!("gw-{ordinal}"),
            ordinal,
            generation: 1,
            state: MemberState::Alive,
            connections: Some(0),
            slots: 1365,
            address: None,
            version: None,
            open: Some(OpenReport::default()),
        };
        let link = |ordinal: u16| LinkReport { node: format!("gw-{ordinal}"), rtt_us: 200, state: LinkState::Up };
        let (members, links) = ((0..3).map(member).collect(), vec![link(1), link(2)]);
        ClusterReport { members, links, copies: 2, ..ClusterReport::default() }
    }

    #[test]
    fn three_nodes_that_hold_two_copies_of_everything_can_lose_one() {
        let report = three().judge();
        assert_eq!((report.safe_to_lose_one, report.unsafe_because, report.partial), (true, None, false));
    }

    #[test]
    fn whatever_is_missing_or_unknown_makes_a_cluster_unsafe_and_is_said() {
        type Change = fn(&mut ClusterReport);
        let cases: [(Change, &str); 7] = [
            (|report| report.members.truncate(2), "it takes three nodes, and 2 answer"),
            (|report| report.members[1].state = MemberState::Draining, "it takes three nodes, and 2 answer"),
            (|report| report.silent = vec!["gw-1".to_owned()], "gw-1 did not answer"),
            (|report| report.links[1].state = LinkState::Connecting, "the link to gw-2 is connecting"),
            (
                |report| report.members[2].open = Some(OpenReport { single_copy: 7, ..OpenReport::default() }),
                "7 slots have a single copy",
            ),
            (
                |report| report.members[0].open = Some(OpenReport { syncing: 9, ..OpenReport::default() }),
                "replicas of 9 slots are still being filled",
            ),
            (
                |report| {
                    let suspect = MemberReport { state: MemberState::Suspect, ..report.members[0].clone() };
                    report.members.push(suspect);
                },
                "gw-0 is suspect",
            ),
        ];
        for (change, why) in cases {
            let mut report = three();
            change(&mut report);
            let report = report.judge();
            assert_eq!((report.safe_to_lose_one, report.unsafe_because.as_deref()), (false, Some(why)));
        }
    }

    #[test]
    fn a_link_to_a_node_that_is_gone_does_not_matter() {
        let mut report = three();
        report.members.push(MemberReport {
            node: "gw-3".to_owned(),
            state: MemberState::Down,
            ..report.members[0].clone()
        });
        report.links.push(LinkReport { node: "gw-3".to_owned(), rtt_us: 0, state: LinkState::Connecting });
        assert!(report.judge().safe_to_lose_one);
    }
}
