//! Who has which part in a room's slot: asked of all nodes, because only those with a seat know.
//!
//! Invariants: as `cluster`; where the ring would have a slot is said beside who has it, and never instead of it.

use mesh::{
    NodeId, View,
    wire::{
        request::{Part, Request, Seats},
        triple::Term,
    },
};
use tokio::{sync::oneshot, time::timeout};

use super::{Cluster, FIGURES_TIMEOUT, name};
use crate::{
    api::{PlacementReport, SeatsReport},
    context::Context,
    envelope,
    message::Message,
};

impl Cluster {
    /// Never waits longer than for `FIGURES_TIMEOUT`.
    pub(super) async fn place(&self, namespace: &str, room: &str) -> PlacementReport {
        let slot = mesh::slot_of(namespace, room);
        let mut report = PlacementReport {
            namespace: namespace.to_owned(),
            room: room.to_owned(),
            slot,
            ..PlacementReport::default()
        };
        let Some(mesh) = &self.context.mesh else {
            let me = self.context.config.cluster.node.clone();
            report.ring.owner = Some(me.clone());
            let seats = own(&self.context, slot).await;
            return tell(report, seats.unwrap_or_default(), |_| me.clone());
        };
        let view = mesh.view();
        let [owner, replica, witness] = view.table.triple(slot).map(|node| node.map(|node| name(&view, node)));
        report.ring = SeatsReport { owner, replica, witness };
        let asked: Vec<_> = others(&view, self.context.node)
            .map(|(node, name)| (name, mesh.request(node, Request::Seats { slot }.encode(), FIGURES_TIMEOUT)))
            .collect();
        let mut known = Vec::new();
        match own(&self.context, slot).await {
            Some(seats) => known.push(seats),
            None => report.silent.push(self.context.config.cluster.node.clone()),
        }
        for (name, answer) in asked {
            match answer.await.ok().and_then(|body| Seats::decode(&body).ok()) {
                Some(seats) => known.push(seats),
                None => report.silent.push(name),
            }
        }
        report.partial = !report.silent.is_empty();
        tell(report, Seats::best(known), |node| name(&view, node))
    }
}

/// All nodes but this one that may have a seat, by name.
fn others(view: &View, me: NodeId) -> impl Iterator<Item = (NodeId, String)> {
    let members = view.members.iter().chain(&view.outside).filter(move |member| member.node != me);
    members.filter(|member| member.state != mesh::MemberState::Down).map(|member| (member.node, member.name.clone()))
}

/// What this node knows; `None` if the slot's shard does not say so in time.
async fn own(context: &Context, slot: u16) -> Option<Seats> {
    let (reply, told) = oneshot::channel();
    let shard = context.shard_of_slot(slot);
    context.shards.get(usize::from(shard))?.send(Message::Seats { slot, reply });
    timeout(FIGURES_TIMEOUT, told).await.ok()?.ok()
}

/// The report with what is known of the seats.
fn tell(report: PlacementReport, seats: Seats, name: impl Fn(NodeId) -> String) -> PlacementReport {
    let Some(Term { id, triple, .. }) = seats.term else { return report };
    let replica_whole = match seats.part {
        Part::Owner { copied } => Some(copied),
        Part::Replica { whole } => Some(whole),
        Part::Witness | Part::None => None,
    };
    PlacementReport {
        owner: Some(name(triple.owner.node)),
        replica: triple.replica.map(|life| name(life.node)),
        witness: triple.witness.map(|life| name(life.node)),
        leads: seats.leads(),
        term: Some(id.number),
        epoch: Some(envelope::epoch(id.lineage)),
        replica_whole: replica_whole.filter(|_| triple.replica.is_some()),
        ..report
    }
}
