//! Real meshes in threads for integration tests: each with its own runtime, as in production, and a record of its events.
//!
//! Invariants: every wait has a deadline and says what it waited for; dropping a node stops it and waits for its thread.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; real time is what they wait for"
)]

pub(crate) mod evil;
pub(crate) mod proxy;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::{ClusterKey, Config, Event, Handler, Mesh, NodeId, Pipe, RequestError, Responder, RunError, bind};
use proxy::Proxy;
use tokio_util::sync::CancellationToken;

/// What a node's handler saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Members of each view.
    pub(crate) views: Vec<Vec<u16>>,
    /// `(node, generation, up)` in order.
    pub(crate) links: Vec<(u16, u64, bool)>,
    /// Frames per sender and lane, in order.
    pub(crate) frames: BTreeMap<(u16, u8), Vec<Bytes>>,
    /// Frames that came while no link to their sender was up.
    pub(crate) stray: usize,
    /// Requests that are never answered.
    pub(crate) kept: Vec<Responder>,
    /// Pipes that peers opened, with their heads.
    pub(crate) pipes: Vec<(Bytes, Pipe)>,
}

/// The handler: records, answers `echo…` requests, keeps `keep…` ones, drops others, and is ready unless it is held.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub(crate) seen: Arc<Mutex<Seen>>,
    /// One bit per lane that is not ready for frames.
    pub(crate) held: Arc<AtomicU8>,
    /// Blocks the whole mesh thread at the next readiness question, as a stopped process would.
    pub(crate) frozen: Arc<AtomicBool>,
}

impl Handler for Recorder {
    fn handle(&self, event: Event) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            Event::View(view) => seen.views.push(view.members.iter().map(|member| member.node.0).collect()),
            Event::LinkUp { node, generation } => seen.links.push((node.0, generation, true)),
            Event::LinkDown { node, generation, .. } => seen.links.push((node.0, generation, false)),
            Event::Frame { from, lane, frame } => {
                let up = seen.links.iter().rev().find(|(node, ..)| *node == from.0).is_some_and(|(_, _, up)| *up);
                seen.stray += usize::from(!up);
                seen.frames.entry((from.0, lane)).or_default().push(frame);
            }
            Event::Request { body, responder, .. } => {
                if body.starts_with(b"echo") {
                    responder.answer(body);
                } else if body.starts_with(b"large") {
                    responder.answer(Bytes::from(vec![7; mesh::MAX_ANSWER]));
                } else if body.starts_with(b"keep") {
                    seen.kept.push(responder);
                }
            }
            Event::Pipe { head, pipe, .. } => seen.pipes.push((head, *pipe)),
        }
    }

    fn ready(&self, lane: u8) -> impl Future<Output = ()> + Send {
        let (held, frozen) = (self.held.clone(), self.frozen.clone());
        async move {
            while frozen.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            while held.load(SeqCst) & (1 << lane) != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// One running mesh.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) recorder: Recorder,
    pub(crate) addr: SocketAddr,
    /// Of its thread, in `/proc`.
    task: PathBuf,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

/// The key of the tests' clusters.
pub(crate) fn key() -> ClusterKey {
    ClusterKey::from_bytes(b"a cluster key for tests, 32 bytes or more").unwrap()
}

/// A configuration on a free port of loopback.
pub(crate) fn config(node: u16, generation: u64, seeds: &[SocketAddr]) -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    let seeds = seeds.iter().map(ToString::to_string).collect();
    Config { seeds, ..Config::new(NodeId(node), format!("gw-{node}"), generation, key(), listen) }
}

impl Node {
    /// Starts a mesh in a thread of its own.
    pub(crate) fn start(config: Config) -> Node {
        let (stop, recorder) = (CancellationToken::new(), Recorder::default());
        let (sender, receiver) = mpsc::channel();
        let (stopping, handler) = (stop.clone(), recorder.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let driver = bind(config).unwrap();
                sender.send((driver.handle(), std::fs::read_link("/proc/thread-self").unwrap())).unwrap();
                driver.run(handler, stopping).await
            })
        });
        let (mesh, task) = receiver.recv().unwrap();
        Node { addr: mesh.address(), mesh, recorder, task: Path::new("/proc").join(task), stop, thread: Some(thread) }
    }

    /// A node of a cluster with these seeds.
    pub(crate) fn join(node: u16, generation: u64, seeds: &[SocketAddr]) -> Node {
        Node::start(config(node, generation, seeds))
    }

    /// A node whose peers reach it only through a proxy.
    pub(crate) fn behind(proxy: &Proxy, config: Config) -> Node {
        let node = Node::start(Config { advertise: Some(proxy.addr), ..config });
        proxy.lead_to(node.addr);
        node
    }

    /// Asks a node, and waits for the answer.
    pub(crate) fn ask(&self, to: u16, body: impl Into<Bytes>, within: Duration) -> Result<Bytes, RequestError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.mesh.request(NodeId(to), body.into(), within))
    }

    /// Processor time its thread took so far.
    pub(crate) fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(self.task.join("schedstat")).unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// The nodes of its present view.
    pub(crate) fn members(&self) -> Vec<u16> {
        self.mesh.view().members.iter().map(|member| member.node.0).collect()
    }

    /// Links that came up and went down so far.
    pub(crate) fn links(&self) -> Vec<(u16, u64, bool)> {
        self.recorder.seen.lock().unwrap().links.clone()
    }

    /// Whether the last word about that node is that it is linked with this generation.
    pub(crate) fn linked(&self, node: u16, generation: u64) -> bool {
        self.links().iter().rev().find(|(peer, ..)| *peer == node) == Some(&(node, generation, true))
    }

    /// How many frames came from that node in that lane.
    pub(crate) fn received(&self, from: u16, lane: u8) -> usize {
        self.recorder.seen.lock().unwrap().frames.get(&(from, lane)).map_or(0, Vec::len)
    }

    /// Waits for the driver to end by itself.
    pub(crate) fn ended(&mut self, within: Duration) -> Result<(), RunError> {
        let thread = self.thread.take().unwrap();
        wait("the driver to end", within, || thread.is_finished());
        thread.join().unwrap()
    }

    /// Stops it as a process end by SIGTERM would, without leaving the cluster first.
    pub(crate) fn stop(mut self) -> Recorder {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap();
        self.recorder.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until `done`, and returns how long it took.
pub(crate) fn wait(what: &str, within: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < within, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// Two nodes that see each other and are linked.
pub(crate) fn two() -> [Node; 2] {
    let first = Node::join(0, 1, &[]);
    let second = Node::join(1, 1, &[first.addr]);
    let nodes = [first, second];
    wait("two nodes to form a cluster", Duration::from_secs(3), || formed(&nodes));
    nodes
}

/// Whether these nodes, with the ordinals 0 and up, are one cluster with all its links.
pub(crate) fn formed(nodes: &[Node]) -> bool {
    let all: Vec<u16> = (0..).take(nodes.len()).collect();
    nodes.iter().all(|node| node.members() == all && node.mesh.links().iter().all(is_up))
}

/// Three nodes that see each other and are linked; how long that took.
pub(crate) fn three() -> ([Node; 3], Duration) {
    let start = Instant::now();
    let first = Node::join(0, 1, &[]);
    let seeds = [first.addr];
    let nodes = [first, Node::join(1, 1, &seeds), Node::join(2, 1, &seeds)];
    wait("three nodes to form a cluster", Duration::from_secs(3), || formed(&nodes));
    (nodes, start.elapsed())
}

/// Whether frames can be sent over this link.
pub(crate) fn is_up(link: &mesh::LinkInfo) -> bool {
    link.state == mesh::LinkState::Up
}
