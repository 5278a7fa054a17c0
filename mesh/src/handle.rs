//! The mesh as the rest of the process holds it: send, ask, look.
//!
//! Invariants: usable from any thread; sending never blocks and never waits; what it shows may be a moment old.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    BatchError, ClusterKeys, LANES, NodeId, Pipe, PipeError, PipeUse, RefusalReason, RequestError, RotateError,
    SendError, View, driver::Input, greeting::Speaker, lane::Lane, link::Link, membership::Identity, pipe,
    refusals::Refusals,
};

/// Sends and asks; a cheap clone for every thread.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// What driver, tasks and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: ArcSwap<Identity>,
    pub(crate) links: ArcSwap<BTreeMap<NodeId, Arc<Link>>>,
    pub(crate) view: ArcSwap<View>,
    pub(crate) address: SocketAddr,
    pub(crate) buffers: (usize, usize),
    pub(crate) counters: Counters,
    pub(crate) refusals: Refusals,
}

/// Whether frames can be sent to a member.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// They can.
    Up,
    /// The member is known and alive, but there is no link to it now.
    Missing,
}

/// One lane of a link, our half of it. Counters start at zero with every new link.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LaneInfo {
    /// Bytes waiting, at most [`crate::LANE_HARD_BYTES`].
    pub queued_bytes: usize,
    /// Frames refused because it was full.
    pub refused: u64,
    /// Application frames handed to QUIC.
    pub sent_frames: u64,
    /// Their bytes, without headers.
    pub sent_bytes: u64,
    /// Application frames received.
    pub received_frames: u64,
    /// Their bytes, without headers.
    pub received_bytes: u64,
}

impl LaneInfo {
    fn of(lane: &Lane) -> LaneInfo {
        let ((sent_frames, sent_bytes), (received_frames, received_bytes)) = (lane.sent.read(), lane.received.read());
        let (queued_bytes, refused) = (lane.queued_bytes(), lane.refused());
        LaneInfo { queued_bytes, refused, sent_frames, sent_bytes, received_frames, received_bytes }
    }
}

/// The link to one member. Counters start at zero with every new link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// The peer.
    pub node: NodeId,
    /// Whether the link is there; everything below is zero if not.
    pub state: LinkState,
    /// Where the peer is reached.
    pub addr: SocketAddr,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Each lane, by its number.
    pub lanes: [LaneInfo; LANES as usize],
    /// UDP datagrams sent for this link, everything included.
    pub sent_packets: u64,
    /// UDP datagrams received for this link.
    pub received_packets: u64,
    /// QUIC packets counted as lost.
    pub lost_packets: u64,
}

impl LinkInfo {
    /// One figure of all lanes together.
    pub fn sum(&self, figure: impl Fn(&LaneInfo) -> u64) -> u64 {
        self.lanes.iter().map(figure).sum()
    }
}

/// Counters of the whole mesh since start, for metrics.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Links that came up.
    pub links_up: u64,
    /// Links that broke or were replaced.
    pub links_down: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Inbound connections that came to nothing.
    pub accepts_failed: u64,
    /// Inbound connections turned away because too many were half open.
    pub accepts_refused: u64,
    /// Gossip packets sent.
    pub gossip_sent: u64,
    /// Gossip packets received.
    pub gossip_received: u64,
    /// Gossip packets that had no link to go by.
    pub gossip_unsent: u64,
    /// Gossip packets or rosters that could not be read.
    pub gossip_malformed: u64,
    /// Rosters exchanged.
    pub rosters: u64,
    /// Views published.
    pub views: u64,
    /// Times the cluster declared us down and we came back.
    pub renewals: u64,
    /// Milliseconds our timers were late when they last were so late that we stopped judging others; zero while in time.
    pub lag_ms: u64,
    /// Frames refused because a lane was full.
    pub frames_refused: u64,
    /// Frames of a kind or version we do not know, which their sender allowed to skip.
    pub frames_skipped: u64,
    /// Bytes sent through pipes.
    pub pipe_bytes_sent: u64,
    /// Bytes received through pipes.
    pub pipe_bytes_received: u64,
    /// What was refused of peers and strangers, in the order of [`RefusalReason::ALL`].
    pub refused: [u64; RefusalReason::ALL.len()],
    /// Receive buffer the kernel granted, in bytes.
    pub receive_buffer: u64,
    /// Send buffer the kernel granted, in bytes.
    pub send_buffer: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// The changing part of [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Relaxed),)* ..Stats::default() }
            }
        }
    };
}

counters!(
    links_up,
    links_down,
    dials,
    dials_failed,
    accepts_failed,
    accepts_refused,
    gossip_sent,
    gossip_received,
    gossip_unsent,
    gossip_malformed,
    rosters,
    views,
    renewals,
    lag_ms,
    frames_refused,
    frames_skipped,
    pipe_bytes_sent,
    pipe_bytes_received
);

/// So many more.
pub(crate) fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(u64::try_from(number).unwrap_or(0), Relaxed);
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Stats {
    /// How often something was refused for this reason.
    pub fn refused_for(&self, reason: RefusalReason) -> u64 {
        self.refused[reason as usize]
    }
}

impl Shared {
    /// So many frames were skipped.
    pub(crate) fn skipped(&self, frames: u64) {
        self.counters.frames_skipped.fetch_add(frames, Relaxed);
    }

    /// Ourselves, as we greet now.
    pub(crate) fn speaker(&self) -> Speaker {
        Speaker { me: Identity::clone(&self.me.load()), linked: !self.links.load().is_empty() }
    }
}

impl Mesh {
    /// Queues a frame for a lane of a node; on an error nothing was queued.
    pub fn send(&self, to: NodeId, lane: u8, frame: Bytes) -> Result<(), SendError> {
        let links = self.shared.links.load();
        self.noted(links.get(&to).ok_or(SendError::NoLink).and_then(|link| link.send(lane, frame)))
    }

    /// Queues many frames, in order, looking the links up once. Frames of one lane leave together.
    pub fn send_batch(&self, batch: Vec<(NodeId, u8, Bytes)>) -> Result<(), BatchError> {
        let links = self.shared.links.load();
        let mut failures = Vec::new();
        for (index, (to, lane, frame)) in batch.into_iter().enumerate() {
            let sent = links.get(&to).ok_or(SendError::NoLink).and_then(|link| link.send(lane, frame));
            if let Err(error) = self.noted(sent) {
                failures.push((index, error));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(BatchError { failures }) }
    }

    /// As `send_batch`, for frames that may be lost: only lanes with room to spare ([`crate::LANE_SPARE_BYTES`]) take them.
    /// How many were not queued.
    pub fn send_spare(&self, batch: Vec<(NodeId, u8, Bytes)>) -> usize {
        let links = self.shared.links.load();
        let lost = |(to, lane, frame): (NodeId, u8, Bytes)| {
            let sent = links.get(&to).ok_or(SendError::NoLink).and_then(|link| link.send_spare(lane, frame));
            self.noted(sent).is_err()
        };
        batch.into_iter().map(lost).filter(|lost| *lost).count()
    }

    /// Asks a node and waits for its answer. Dropping the future withdraws the question, which the peer may have seen.
    pub fn request(
        &self,
        to: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, RequestError>> + Send + use<> {
        let links = self.shared.links.load();
        let asked = links.get(&to).ok_or(RequestError::NoLink).and_then(|link| link.ask(body, timeout));
        async move { asked?.await.unwrap_or(Err(RequestError::LinkLost)) }
    }

    /// The life of a node that we have a link to.
    pub fn generation(&self, node: NodeId) -> Option<u64> {
        self.shared.links.load().get(&node).map(|link| link.peer.generation)
    }

    /// Opens a pipe to a node, whose handler hears `head`. Dropping the future withdraws it, which the peer may have seen.
    pub fn open_pipe(
        &self,
        to: NodeId,
        what: PipeUse,
        head: Bytes,
    ) -> impl Future<Output = Result<Pipe, PipeError>> + Send + use<> {
        let (link, shared) = (self.shared.links.load().get(&to).cloned(), self.shared.clone());
        async move { pipe::open(link.ok_or(PipeError::NoLink)?, shared, what, head).await }
    }

    /// The cluster as we last saw it.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// The link to every other member, ascending by node.
    pub fn links(&self) -> Vec<LinkInfo> {
        let links = self.shared.links.load();
        let me = self.shared.me.load().node;
        let view = self.shared.view.load();
        let mut infos: BTreeMap<NodeId, LinkInfo> = view
            .members
            .iter()
            .filter(|member| member.node != me)
            .map(|member| (member.node, missing(member.node, member.addr)))
            .collect();
        infos.extend(links.values().map(|link| (link.node(), info(link))));
        infos.into_values().collect()
    }

    /// The address the mesh is bound to, with the port the kernel gave.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Announces that this node is going: it owns no slots in any new view, and stays linked. Ends with the process only.
    pub async fn drain(&self) {
        // Without a driver there is nobody to tell.
        let _ = self.inputs.send(Input::Drain).await;
    }

    /// Tells everyone that this node leaves the cluster, and closes the links `Timings::leave` later. Returns at once if the
    /// driver has ended; a driver that never runs never leaves.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.inputs.send(Input::Leave(done)).await.is_ok() {
            // An error means that the driver ended, and so we left.
            let _ = left.await;
        }
    }

    /// Changes the cluster keys while everything runs. Links whose peer proved a key that is not among them are closed, and
    /// made anew at once with one that both sides know; the others stay. On an error nothing changed.
    ///
    /// To change the key of a cluster: every node gets the new key with the old one as `previous`, in any order; when all
    /// have both, every node gets the new one alone. A node started later needs only what the others accept.
    pub async fn rotate(&self, keys: ClusterKeys) -> Result<(), RotateError> {
        let (done, rotated) = oneshot::channel();
        self.inputs.send(Input::Rotate { keys: Box::new(keys), done }).await.map_err(|_| RotateError::Ended)?;
        rotated.await.unwrap_or(Err(RotateError::Ended))
    }

    /// Counters for metrics.
    pub fn stats(&self) -> Stats {
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let (receive, send) = self.shared.buffers;
        let (receive_buffer, send_buffer) = (bytes(receive), bytes(send));
        Stats { receive_buffer, send_buffer, refused: self.shared.refusals.read(), ..self.shared.counters.read() }
    }

    fn noted(&self, sent: Result<(), SendError>) -> Result<(), SendError> {
        if sent == Err(SendError::Full) {
            count(&self.shared.counters.frames_refused);
        }
        sent
    }
}

fn missing(node: NodeId, addr: SocketAddr) -> LinkInfo {
    LinkInfo {
        node,
        state: LinkState::Missing,
        addr,
        rtt: Duration::ZERO,
        lanes: Default::default(),
        sent_packets: 0,
        received_packets: 0,
        lost_packets: 0,
    }
}

fn info(link: &Link) -> LinkInfo {
    let stats = link.connection.stats();
    let mut info = LinkInfo {
        state: LinkState::Up,
        rtt: stats.path.rtt,
        sent_packets: stats.udp_tx.datagrams,
        received_packets: stats.udp_rx.datagrams,
        lost_packets: stats.path.lost_packets,
        ..missing(link.node(), link.remote())
    };
    for (info, lane) in info.lanes.iter_mut().zip(link.lanes()) {
        *info = LaneInfo::of(lane);
    }
    info
}
