//! What a program is told about sockets wherever they are, and about what was done with them.
//!
//! Invariants: a node that was not heard is named; the JSON of a socket is made on its own node and shown as it is.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::orders::Carried;

/// Part of a list of sockets, in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// At most so many, and never more than 1,000.
    pub limit: u32,
    /// Those behind this id: [`Sockets::next`] of the page before; empty for the first page.
    pub after: &'a str,
}

impl Default for Listing<'_> {
    /// The first thousand.
    fn default() -> Self {
        Listing { limit: crate::orders::PAGE_MAX, after: "" }
    }
}

/// Sockets, wherever they are.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// In the order of their ids.
    pub sockets: Vec<SocketInfo>,
    /// How many there are, on this page or not.
    pub count: u64,
    /// Where the next page begins; `None` = this is the last.
    pub next: Option<String>,
    /// Names of the nodes that did not answer in time: what they have is missing.
    pub unheard: Vec<String>,
}

/// A socket, as its node knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SocketInfo {
    /// The id its client sees.
    pub id: String,
    /// The user its client signed in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What others are shown next to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    /// The rooms it is in; that of its own id is not among them.
    pub rooms: Vec<String>,
}

/// What was done with sockets, wherever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Sockets that were meant.
    pub sockets: u64,
    /// Joins of them that were refused: the socket went, or has too many rooms, or the room could not be reached.
    pub refused: u64,
    /// Names of the nodes that did not answer in time: whether they did it is unknown.
    pub unheard: Vec<String>,
}

impl Sockets {
    pub(super) fn of(carried: &Carried) -> Sockets {
        // Made by `SocketInfo` itself; a later version may show what this one cannot read, and leaves it out.
        let sockets = carried.done.sockets.iter().filter_map(|told| serde_json::from_str(&told.body).ok()).collect();
        let Carried { done, unheard } = carried;
        Sockets { sockets, count: done.count, next: next(carried).map(str::to_owned), unheard: unheard.clone() }
    }
}

impl Reached {
    pub(super) fn of(carried: &Carried) -> Reached {
        let Carried { done, unheard } = carried;
        Reached { sockets: done.count, refused: done.refused, unheard: unheard.clone() }
    }
}

/// Where the next page begins.
fn next(carried: &Carried) -> Option<&str> {
    carried.done.sockets.last().filter(|_| carried.done.more).map(|told| &*told.id)
}

/// A list as an answer shows it: `{ok, sockets: […], count, next?, partial, silent?}`.
pub(super) fn listed(carried: &Carried) -> String {
    let bodies = carried.done.sockets.iter().map(|told| told.body.len() + 1).sum::<usize>();
    let mut out = String::with_capacity(bodies + 128);
    out.push_str(r#"{"ok":true,"sockets":["#);
    for (at, told) in carried.done.sockets.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&told.body);
    }
    // Writing to a string cannot fail.
    let _ = write!(out, r#"],"count":{}"#, carried.done.count);
    if let Some(next) = next(carried) {
        let _ = write!(out, r#","next":"{next}""#);
    }
    put_partial(&mut out, carried);
    out
}

/// What was done, as an answer shows it: `{ok, sockets: n, refused?: n, partial, silent?}`.
pub(super) fn reached(carried: &Carried) -> String {
    let mut out = format!(r#"{{"ok":true,"sockets":{}"#, carried.done.count);
    if carried.done.refused > 0 {
        let _ = write!(out, r#","refused":{}"#, carried.done.refused);
    }
    put_partial(&mut out, carried);
    out
}

fn put_partial(out: &mut String, carried: &Carried) {
    let _ = write!(out, r#","partial":{}"#, !carried.unheard.is_empty());
    if !carried.unheard.is_empty() {
        // Names always serialise.
        let _ = write!(out, r#","silent":{}"#, serde_json::to_string(&carried.unheard).unwrap_or_default());
    }
    out.push('}');
}
