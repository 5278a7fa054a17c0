//! What `GET /api/cluster` answers: the shape of interface.md 2.
//!
//! Invariants: members by ordinal, links by name; a number that could not be heard is `null` and its node is in
//! `silent`, so that nothing unknown looks like zero.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

/// A boxed future, for a trait that is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who can tell about the cluster.
pub trait ClusterInfo: Send + Sync {
    /// The cluster as this node sees it now. Must answer in bounded time, whatever other nodes do.
    fn cluster(&self) -> BoxFuture<'_, ClusterReport>;
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
    /// Slots that one loss would take the history of.
    pub single_copy_slots: u32,
    /// Whether any one node may be lost without loss of acknowledged messages.
    pub safe_to_lose_one: bool,
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
    /// Slots it owns.
    pub slots: u32,
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
