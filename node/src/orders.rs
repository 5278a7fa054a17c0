//! Orders: something is done with sockets wherever in the cluster they are, or they are told about.
//!
//! Every node does it with the sockets it has; whoever gave the order gets what all of them did. Programs (`handler`) and
//! the HTTP API give the same orders, and get the same answers.
//!
//! Invariants: bounded time: a node that does not answer within the patience is named (`Carried::unheard`), never waited for,
//! and one that is down is not asked; bounded bytes: a node tells at most `PAGE_BYTES_MAX` at once and says that there is
//! more; a page is a prefix of what is left in the order of ids, so that paging skips nobody who stays.

use std::{sync::Arc, time::Duration};

use bytestring::ByteString;
use mesh::{
    MemberState, NodeId,
    wire::{
        request::Request,
        sockets::{self, Done},
    },
};
use protocol::socket_id;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    context::Context,
    gateway::Leaving,
    handler::{Audience, text},
    message::Message,
};

/// Sockets that are told about at once.
pub(crate) const PAGE_MAX: u32 = 1_000;
/// Bytes that are told about them at once, by each node and by all together.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// How long a node works on another's order: whoever gave it has stopped waiting by then.
const PEER_PATIENCE: Duration = Duration::from_secs(10);

/// What is done with each socket.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// It is told about.
    List { after: ByteString, limit: u32 },
    /// It joins rooms; done when it has.
    Join(Vec<ByteString>),
    /// It leaves rooms.
    Leave(Vec<ByteString>),
    /// It is sent away.
    Disconnect(Leaving),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) audience: Audience,
    pub(crate) deed: Deed,
}

/// What came of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// By the nodes that answered.
    pub(crate) done: Done,
    /// Names of those that did not, and are not known to be down.
    pub(crate) unheard: Vec<String>,
}

impl Order {
    fn to_wire(&self) -> Request<'_> {
        let deed = match &self.deed {
            Deed::List { after, limit } => sockets::Deed::List { after: after.as_bytes(), limit: *limit },
            Deed::Join(rooms) => sockets::Deed::Join { rooms: names(rooms) },
            Deed::Leave(rooms) => sockets::Deed::Leave { rooms: names(rooms) },
            Deed::Disconnect(leaving) => sockets::Deed::Disconnect { close: *leaving == Leaving::Connection },
        };
        Request::Sockets { audience: self.audience.to_wire(), deed }
    }

    /// What another node said; `None` if a name is no text.
    pub(crate) fn from_wire(audience: &sockets::Audience<'_>, deed: &sockets::Deed<'_>) -> Option<Order> {
        let names = |rooms: &[&[u8]]| rooms.iter().map(|room| text(room)).collect::<Option<Vec<_>>>();
        let deed = match deed {
            sockets::Deed::List { after, limit } => Deed::List { after: text(after)?, limit: (*limit).min(PAGE_MAX) },
            sockets::Deed::Join { rooms } => Deed::Join(names(rooms)?),
            sockets::Deed::Leave { rooms } => Deed::Leave(names(rooms)?),
            sockets::Deed::Disconnect { close: true } => Deed::Disconnect(Leaving::Connection),
            sockets::Deed::Disconnect { close: false } => Deed::Disconnect(Leaving::Namespace),
        };
        Some(Order { audience: Audience::from_wire(audience)?, deed })
    }

    /// Sockets that may be told about at once.
    fn limit(&self) -> usize {
        match &self.deed {
            Deed::List { limit, .. } => usize::try_from(*limit).unwrap_or(usize::MAX),
            Deed::Join(_) | Deed::Leave(_) | Deed::Disconnect(_) => 0,
        }
    }

    /// Whether sockets of this node may be meant: where all rooms are ids of sockets, only their nodes have any.
    fn concerns(&self, context: &Context, node: NodeId) -> bool {
        let rooms = &self.audience.rooms;
        let elsewhere = |room: &ByteString| {
            let place = context.sid_keys.find(|key| socket_id::place(room, key));
            place.is_some_and(|place| place.node != node.0)
        };
        rooms.is_empty() || !rooms.iter().all(elsewhere)
    }
}

fn names(rooms: &[ByteString]) -> Vec<&[u8]> {
    rooms.iter().map(|room| &room.as_bytes()[..]).collect()
}

/// Carries out an order in the whole cluster, within `patience`.
pub(crate) async fn carry_out(context: &Context, order: Order, patience: Duration) -> Carried {
    let order = Arc::new(order);
    // All are asked before the first answer is awaited: the slowest alone decides how long this takes.
    let asked = ask_others(context, &order, patience);
    let mut carried = Carried::default();
    let mut parts = Vec::new();
    match timeout(patience, carry_out_here(context, &order)).await {
        Ok(done) => parts.push(done),
        Err(_) => carried.unheard.push(context.config.cluster.node.clone()),
    }
    for (name, answer) in asked {
        match answer.await.ok().and_then(|body| Done::decode(body).ok()) {
            Some(done) => parts.push(done),
            None => carried.unheard.push(name),
        }
    }
    carried.done = merged(parts, order.limit());
    carried
}

/// Carries out another node's order; `None` if it took too long.
pub(crate) async fn carry_out_for_peer(context: &Context, order: Order) -> Option<Done> {
    timeout(PEER_PATIENCE, carry_out_here(context, &Arc::new(order))).await.ok()
}

/// Asks the other nodes, by name, for what they can do.
fn ask_others(
    context: &Context,
    order: &Order,
    patience: Duration,
) -> Vec<(String, impl Future<Output = Result<bytes::Bytes, mesh::RequestError>> + use<>)> {
    let Some(mesh) = &context.mesh else { return Vec::new() };
    let view = mesh.view();
    let alive = view.members.iter().chain(&view.outside).filter(|member| member.state != MemberState::Down);
    let others = alive.filter(|member| member.node != context.node && order.concerns(context, member.node));
    let body = order.to_wire().encode();
    others.map(|member| (member.name.clone(), mesh.request(member.node, body.clone(), patience))).collect()
}

/// Has every shard of this node do its part.
async fn carry_out_here(context: &Context, order: &Arc<Order>) -> Done {
    if !order.concerns(context, context.node) {
        return Done::default();
    }
    let mut parts = Vec::with_capacity(context.shards.len());
    for shard in &context.shards {
        let (reply, done) = oneshot::channel();
        shard.send(Message::Order { order: order.clone(), reply });
        parts.push(done);
    }
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        // A shard that ends has no sockets any more.
        all.extend(part.await.ok());
    }
    merged(all, order.limit())
}

/// What several did, as one: of what is told about sockets that which nobody can have more in front of, as far as it fits.
pub(crate) fn merged(parts: Vec<Done>, limit: usize) -> Done {
    merged_within(parts, limit, PAGE_BYTES_MAX)
}

fn merged_within(parts: Vec<Done>, limit: usize, bytes_max: usize) -> Done {
    let horizon =
        parts.iter().filter(|part| part.more).filter_map(|part| part.sockets.last()).map(|told| &told.id).min();
    let horizon = horizon.cloned();
    let mut all = Done { more: horizon.is_some(), ..Done::default() };
    for part in parts {
        all.count += part.count;
        all.refused += part.refused;
        all.sockets.extend(part.sockets);
    }
    all.sockets.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let within = |id: &ByteString| horizon.as_ref().is_none_or(|horizon| id <= horizon);
    let mut bytes = 0;
    let fits = all.sockets.iter().take_while(|told| within(&told.id)).take(limit).take_while(|told| {
        bytes += told.id.len() + told.body.len();
        bytes <= bytes_max
    });
    // At least one is told about, or paging would not go on.
    let fits = fits.count().max(1.min(limit));
    all.more |= all.sockets.len() > fits;
    all.sockets.truncate(fits);
    all
}

#[cfg(test)]
mod tests;
