//! Requests of clients whose session lives on another node, carried there through a pipe.
//!
//! The `edge` is the node that a request came to, the `owner` the one with the session. The id of the session names the owner,
//! so nobody is asked and nothing is looked up. A polling request is one pipe; a WebSocket is one as long as it is open.
//!
//! Invariants:
//! - the edge judges what is the client's (id, origin, headers, body and its pace), the owner what is the session's; each
//!   trusts the other's clock no further than its own deadlines;
//! - nothing is sent to another node for an id that no node of the cluster made;
//! - an answer that the edge did not get whole is lost, and the session hears that as of a client that left;
//! - an owner that is gone, or another life of it, is the protocol's "Session ID unknown", at once.

pub(crate) mod edge;
pub(crate) mod owner;
mod relay;

use std::time::Duration;

use mesh::{Pipe, wire::forward::What};
use protocol::sid::Sid;

/// How long the other node may take for what it can do at once. One that is dead and not known as such is given up then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's wish that an edge brought.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) what: What,
    /// A session of this life of this node, by its id.
    pub(crate) sid: Sid,
    pub(crate) pipe: Box<Pipe>,
}
