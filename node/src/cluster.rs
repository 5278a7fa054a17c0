//! The cluster as the admin port and the metrics show it.
//!
//! Invariants: bounded time: a peer that does not answer is `silent`, never waited for; a node without a mesh is a
//! cluster of one that owns everything.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh::{
    LANES, Mesh, NodeId, SLOTS, View,
    slot::COPIES,
    wire::request::{Figures, OpenSlots, Request},
};

use persistence::Status;
use prometheus_client::metrics::gauge::Gauge;

use crate::{
    api::{
        BoxFuture, ClusterInfo, ClusterReport, Fact, LinkReport, LinkState, MemberReport, MemberState, OpenReport,
        PlacementReport,
    },
    context::Context,
    metrics::{self, Label as _, Lane, MeshRefusal},
};

mod placement;

/// How long a peer may take to tell its figures.
const FIGURES_TIMEOUT: Duration = Duration::from_millis(500);

/// This node's own figures.
pub(crate) fn figures(context: &Context) -> Figures {
    let connections = context.connections.load(Ordering::Relaxed) as u64;
    let slots = context.mesh.as_ref().map_or(u64::from(SLOTS), |mesh| u64::from(slots(&mesh.view(), context.node)));
    Figures { connections, slots, open: open(&context.metrics), version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// What the shards counted of their slots, at most about a second ago.
fn open(metrics: &metrics::Metrics) -> OpenSlots {
    let count = |gauge: &Gauge| u32::try_from(gauge.get()).unwrap_or(0);
    OpenSlots {
        owned: count(metrics.slots_open.of(metrics::SlotRole::Owner)),
        in_sync: count(metrics.slots_open.of(metrics::SlotRole::Replica)),
        syncing: count(metrics.slots_open.of(metrics::SlotRole::Syncing)),
        witness: count(metrics.slots_open.of(metrics::SlotRole::Witness)),
        single_copy: count(&metrics.slots_single_copy),
    }
}

/// See the module.
pub(crate) struct Cluster {
    context: Arc<Context>,
}

impl Cluster {
    /// Tells about the cluster `context` is part of.
    pub(crate) fn new(context: Arc<Context>) -> Cluster {
        Cluster { context }
    }

    fn alone(&self) -> ClusterReport {
        let member = MemberReport {
            node: self.context.config.cluster.node.clone(),
            ordinal: self.context.node.0,
            generation: self.context.generation,
            state: self.own_state(),
            connections: None,
            slots: u32::from(SLOTS),
            address: None,
            version: None,
            open: None,
        };
        let members = vec![heard(member, Some(figures(&self.context)))];
        ClusterReport { members, copies: COPIES, ..ClusterReport::default() }.judge()
    }

    fn own_state(&self) -> MemberState {
        if self.context.health.is(Fact::Draining) { MemberState::Draining } else { MemberState::Alive }
    }

    async fn report(&self, mesh: &Mesh) -> ClusterReport {
        let view = mesh.view();
        let mut asked = Vec::new();
        for member in view.members.iter().chain(&view.outside) {
            // All are asked before the first answer is awaited, so the slowest alone decides how long this takes.
            let answer = (member.node != self.context.node)
                .then(|| mesh.request(member.node, Request::Figures.encode(), FIGURES_TIMEOUT));
            asked.push((member, answer));
        }
        let mut report = ClusterReport { view: view.version, copies: COPIES, ..ClusterReport::default() };
        for (member, answer) in asked {
            let figures = match answer {
                None => Some(figures(&self.context)),
                Some(answer) => answer.await.ok().and_then(|body| Figures::decode(&body).ok()),
            };
            let state = member_state(member.state);
            if figures.is_none() && state != MemberState::Down {
                report.silent.push(member.name.clone());
            }
            let member = MemberReport {
                node: member.name.clone(),
                ordinal: member.node.0,
                generation: member.generation,
                state,
                connections: None,
                slots: slots(&view, member.node),
                address: Some(member.addr.to_string()),
                version: None,
                open: None,
            };
            report.members.push(heard(member, figures));
        }
        report.members.sort_by_key(|member| member.ordinal);
        report.links = links(mesh, &view);
        report.judge()
    }
}

/// The member with what it told about itself.
fn heard(member: MemberReport, figures: Option<Figures>) -> MemberReport {
    let Some(Figures { connections, open, version, .. }) = figures else { return member };
    let OpenSlots { owned, in_sync: replica, syncing, witness, single_copy } = open;
    let open = Some(OpenReport { owned, replica, syncing, witness, single_copy });
    MemberReport { connections: Some(connections), version: Some(version), open, ..member }
}

impl ClusterInfo for Cluster {
    fn cluster(&self) -> BoxFuture<'_, ClusterReport> {
        Box::pin(async move {
            match &self.context.mesh {
                Some(mesh) => self.report(mesh).await,
                None => self.alone(),
            }
        })
    }

    fn placement<'a>(&'a self, namespace: &'a str, room: &'a str) -> BoxFuture<'a, PlacementReport> {
        Box::pin(self.place(namespace, room))
    }
}

fn slots(view: &View, node: NodeId) -> u32 {
    u32::try_from((0..SLOTS).filter(|slot| view.table.owner(*slot) == Some(node)).count()).unwrap_or(0)
}

fn name(view: &View, node: NodeId) -> String {
    let member = view.members.iter().chain(&view.outside).find(|member| member.node == node);
    member.map_or_else(|| node.to_string(), |member| member.name.clone())
}

fn links(mesh: &Mesh, view: &View) -> Vec<LinkReport> {
    let report = |link: mesh::LinkInfo| LinkReport {
        node: name(view, link.node),
        rtt_us: u64::try_from(link.rtt.as_micros()).unwrap_or(u64::MAX),
        state: match link.state {
            mesh::LinkState::Up => LinkState::Up,
            mesh::LinkState::Missing => LinkState::Connecting,
        },
    };
    mesh.links().into_iter().map(report).collect()
}

fn member_state(state: mesh::MemberState) -> MemberState {
    match state {
        mesh::MemberState::Alive => MemberState::Alive,
        mesh::MemberState::Suspect => MemberState::Suspect,
        mesh::MemberState::Draining => MemberState::Draining,
        mesh::MemberState::Down => MemberState::Down,
    }
}

/// Counters of links, which start again with every new link, turned into ones that only rise.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    seen: std::collections::BTreeMap<NodeId, [mesh::LaneInfo; LANES as usize]>,
    store: persistence::Stats,
    mesh: mesh::Stats,
}

impl Sampler {
    /// Brings the metrics up to date that nobody counts as they change. Call before every scrape.
    pub(crate) fn sample(&mut self, context: &Context) {
        let metrics = &context.metrics;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mailboxes: usize = context.shards.iter().map(crate::mailbox::Sender::bytes).sum();
        metrics.mailbox_bytes.of(metrics::Queue::Shard).set(bytes(mailboxes as u64));
        metrics.slots_owned.set(bytes(figures(context).slots));
        self.sample_store(metrics, context);
        if let Some(mesh) = &context.mesh {
            self.sample_mesh(metrics, mesh);
        }
    }

    fn sample_store(&mut self, metrics: &metrics::Metrics, context: &Context) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let now = context.store.stats();
        let before = std::mem::replace(&mut self.store, now.clone());
        metrics.store_open.set(i64::from(context.store.status() == Status::Ok));
        metrics.store_open_seconds.set(Duration::from_micros(now.open_micros).as_secs_f64());
        metrics.history_bytes.set(bytes(now.live_bytes));
        metrics.store_disk_bytes.set(bytes(now.disk_bytes));
        metrics.store_queue_bytes.set(bytes(now.queue_bytes));
        metrics.mailbox_bytes.of(metrics::Queue::Store).set(bytes(now.queue_bytes));
        metrics.store_errors.inc_by(now.errors - before.errors);
        metrics.store_reopens.inc_by(now.reopens - before.reopens);
        metrics.store_quarantines.inc_by(now.quarantines - before.quarantines);
        metrics.store_damaged_sections.inc_by(now.damaged - before.damaged);
    }

    fn sample_refusals(&mut self, metrics: &metrics::Metrics, mesh: &Mesh) {
        let now = mesh.stats();
        let before = std::mem::replace(&mut self.mesh, now.clone());
        for (reason, label) in MeshRefusal::ALL.iter().enumerate() {
            metrics.mesh_refused.of(*label).inc_by(now.refused[reason] - before.refused[reason]);
        }
        metrics.mesh_reconnects.inc_by(now.links_down - before.links_down);
        metrics.mesh_skipped.inc_by(now.frames_skipped - before.frames_skipped);
        metrics.forwarded_bytes.of(metrics::Direction::Out).inc_by(now.pipe_bytes_sent - before.pipe_bytes_sent);
        metrics.forwarded_bytes.of(metrics::Direction::In).inc_by(now.pipe_bytes_received - before.pipe_bytes_received);
    }

    fn sample_mesh(&mut self, metrics: &metrics::Metrics, mesh: &Mesh) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let links = mesh.links();
        let up = links.iter().filter(|link| link.state == mesh::LinkState::Up).count();
        metrics.mesh_links.of(metrics::LinkState::Up).set(count(up));
        metrics.mesh_links.of(metrics::LinkState::Connecting).set(count(links.len() - up));
        for (number, label) in Lane::ALL.iter().enumerate() {
            metrics
                .mesh_queue_bytes
                .of(*label)
                .set(count(links.iter().map(|link| link.lanes[number].queued_bytes).sum()));
        }
        metrics.mesh_rtt_seconds.set(links.iter().map(|link| link.rtt.as_secs_f64()).fold(0.0, f64::max));
        for link in &links {
            let before = self.seen.insert(link.node, link.lanes).unwrap_or_default();
            for ((now, before), lane) in link.lanes.iter().zip(&before).zip(Lane::ALL) {
                // A number that fell belongs to a new link, which began at zero.
                let rise = |figure: fn(&mesh::LaneInfo) -> u64| {
                    figure(now).checked_sub(figure(before)).unwrap_or_else(|| figure(now))
                };
                let (frames, bytes) = (rise(|lane| lane.sent_frames), rise(|lane| lane.sent_bytes));
                metrics.mesh_lane_frames.of(*lane).inc_by(frames);
                metrics.mesh_lane_bytes.of(*lane).inc_by(bytes);
                metrics.mesh_lane_refused.of(*lane).inc_by(rise(|lane| lane.refused));
                metrics.mesh_frames.of(metrics::Direction::Out).inc_by(frames);
                metrics.mesh_bytes.of(metrics::Direction::Out).inc_by(bytes);
                metrics.mesh_frames.of(metrics::Direction::In).inc_by(rise(|lane| lane.received_frames));
                metrics.mesh_bytes.of(metrics::Direction::In).inc_by(rise(|lane| lane.received_bytes));
            }
        }
        self.sample_refusals(metrics, mesh);
        let view = mesh.view();
        for state in [MemberState::Alive, MemberState::Suspect, MemberState::Draining, MemberState::Down] {
            let members = view.members.iter().chain(&view.outside);
            let number = members.filter(|member| member_state(member.state) == state).count();
            metrics.cluster_members.of(label(state)).set(count(number));
        }
    }
}

fn label(state: MemberState) -> metrics::MemberState {
    match state {
        MemberState::Alive => metrics::MemberState::Alive,
        MemberState::Suspect => metrics::MemberState::Suspect,
        MemberState::Draining => metrics::MemberState::Draining,
        MemberState::Down => metrics::MemberState::Down,
    }
}
