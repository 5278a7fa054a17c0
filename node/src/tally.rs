//! Counts of one turn, added to the shared metrics once at its end.
//!
//! Invariants: hot paths touch only these plain integers; `flush` leaves all of them at zero.

use crate::metrics::{DropReason, Metrics, PacketType, RejectReason, Source};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) writes: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) published_by_clients: u64,
    pub(crate) published_by_peers: u64,
    pub(crate) events: u64,
    pub(crate) appends: u64,
    pub(crate) reads: u64,
    pub(crate) memberships: i64,
    pub(crate) sockets: i64,
    pub(crate) lagging: i64,
    pub(crate) rooms: i64,
    pub(crate) interest: i64,
    pub(crate) rejected: Vec<RejectReason>,
    pub(crate) dropped: Vec<DropReason>,
    /// Volatile events that did not go to a node.
    pub(crate) unreached: u64,
}

impl Tally {
    /// Adds everything to the metrics.
    pub(crate) fn flush(&mut self, metrics: &Metrics) {
        let turn = std::mem::take(self);
        metrics.deliveries.inc_by(turn.deliveries);
        metrics.fanout_writes.inc_by(turn.writes);
        metrics.bytes_sent.inc_by(turn.bytes_sent);
        metrics.bytes_received.inc_by(turn.bytes_received);
        metrics.events_published.of(Source::Client).inc_by(turn.published_by_clients);
        metrics.events_published.of(Source::Mesh).inc_by(turn.published_by_peers);
        metrics.packets_received.of(PacketType::Event).inc_by(turn.events);
        metrics.history_appends.inc_by(turn.appends);
        metrics.history_reads.inc_by(turn.reads);
        metrics.room_memberships.inc_by(turn.memberships);
        metrics.sockets.inc_by(turn.sockets);
        metrics.lagging_members.inc_by(turn.lagging);
        metrics.rooms.inc_by(turn.rooms);
        metrics.interest_rooms.inc_by(turn.interest);
        metrics.dropped.of(DropReason::Unreached).inc_by(turn.unreached);
        for reason in turn.rejected {
            metrics.rejected.of(reason).inc();
        }
        for reason in turn.dropped {
            metrics.dropped.of(reason).inc();
        }
    }
}
