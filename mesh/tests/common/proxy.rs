//! A bad line in front of a node: a UDP proxy that cuts, loses, repeats, delays, reorders and is narrow, as it is told.
//!
//! Invariants: seeded, so that a run differs from the next only by scheduling; the two directions are lines of their own; a
//! line that is narrow drops what its buffer does not hold, as a router does.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

/// Bytes that wait at a narrow place before it drops.
const BUFFER: f64 = 32_768.0;

/// Datagrams that are kept for a replay.
const RECORDED: usize = 200;

/// What the line does to datagrams; all zero is a good one.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Line {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// Per mille that are lost.
    pub(crate) lost: u64,
    /// Per mille that arrive twice.
    pub(crate) repeated: u64,
    /// Per mille that arrive `late` after their turn.
    pub(crate) overtaken: u64,
    /// Time on the way.
    pub(crate) delay: Duration,
    /// At most this much more, by chance.
    pub(crate) jitter: Duration,
    /// How late a datagram is that others overtake.
    pub(crate) late: Duration,
    /// Bytes per second, 0 for no limit.
    pub(crate) rate: u64,
}

#[derive(Debug, Default)]
struct Shared {
    line: Mutex<Line>,
    target: Mutex<Option<SocketAddr>>,
    recorded: Mutex<Vec<Vec<u8>>>,
    passed: AtomicU64,
    spoiled: AtomicU64,
}

/// The proxy, running until it is dropped.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A good line that leads nowhere yet.
    pub(crate) fn new(seed: u64) -> Proxy {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (addr, shared, stop) =
            (socket.local_addr().unwrap(), Arc::new(Shared::default()), CancellationToken::new());
        let (for_thread, stopping) = (shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let front = Arc::new(UdpSocket::from_std(socket).unwrap());
                let run = run(front, for_thread, seed);
                stopping.run_until_cancelled(run).await;
            });
        });
        Proxy { addr, shared, stop, thread: Some(thread) }
    }

    /// Where datagrams go.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// Changes the line from now on.
    pub(crate) fn set(&self, line: Line) {
        *self.shared.line.lock().unwrap() = line;
    }

    /// The first datagrams that passed, of both directions.
    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.recorded.lock().unwrap().clone()
    }

    /// Datagrams that passed, and those that were lost, repeated or overtaken.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.shared.passed.load(SeqCst), self.shared.spoiled.load(SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes datagrams of peers; every peer gets a socket of its own towards the node, so that answers find back.
async fn run(front: Arc<UdpSocket>, shared: Arc<Shared>, seed: u64) {
    let mut peers: HashMap<SocketAddr, (Arc<UdpSocket>, Way)> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((len, peer)) = front.recv_from(&mut buffer).await else { continue };
        let Some(target) = *shared.target.lock().unwrap() else { continue };
        if !peers.contains_key(&peer) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let seed = seed.wrapping_add(2 * u64::try_from(peers.len()).unwrap());
            tokio::spawn(answers(back.clone(), front.clone(), peer, Way::new(shared.clone(), seed)));
            peers.insert(peer, (back, Way::new(shared.clone(), seed + 1)));
        }
        let (back, way) = peers.get_mut(&peer).unwrap();
        way.pass(&buffer[..len], back, target);
    }
}

async fn answers(back: Arc<UdpSocket>, front: Arc<UdpSocket>, peer: SocketAddr, mut way: Way) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is a port that was closed for a moment.
        if let Ok((len, _)) = back.recv_from(&mut buffer).await {
            way.pass(&buffer[..len], &front, peer);
        }
    }
}

/// One direction for one peer.
struct Way {
    shared: Arc<Shared>,
    random: u64,
    /// When the narrow place has sent what it holds.
    free_at: Instant,
}

impl Way {
    fn new(shared: Arc<Shared>, seed: u64) -> Way {
        Way { shared, random: seed, free_at: Instant::now() }
    }

    fn pass(&mut self, datagram: &[u8], by: &Arc<UdpSocket>, to: SocketAddr) {
        let shared = self.shared.clone();
        let line = *shared.line.lock().unwrap();
        let spoil = |yes: bool| {
            shared.spoiled.fetch_add(u64::from(yes), SeqCst);
            yes
        };
        let (lost, repeated, overtaken) = (
            happens(&mut self.random, line.lost),
            happens(&mut self.random, line.repeated),
            happens(&mut self.random, line.overtaken),
        );
        if spoil(line.cut || lost) {
            return;
        }
        let Some(queued) = self.queue(datagram.len(), line.rate) else {
            spoil(true);
            return;
        };
        self.shared.passed.fetch_add(1, SeqCst);
        let mut recorded = self.shared.recorded.lock().unwrap();
        if recorded.len() < RECORDED {
            recorded.push(datagram.to_vec());
        }
        drop(recorded);
        let jitter = line.jitter.mul_f64(f64::from(u32::try_from(next(&mut self.random) % 1_000).unwrap()) / 1_000.0);
        let late = if spoil(overtaken) { line.late } else { Duration::ZERO };
        let wait = queued + line.delay + jitter + late;
        let times = 1 + usize::from(spoil(repeated));
        if wait.is_zero() {
            for _ in 0..times {
                let _ = by.try_send_to(datagram, to);
            }
            return;
        }
        let (datagram, by) = (datagram.to_vec(), by.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            for _ in 0..times {
                let _ = by.send_to(&datagram, to).await;
            }
        });
    }

    /// How long a datagram waits at the narrow place; `None` when there is no room.
    fn queue(&mut self, len: usize, rate: u64) -> Option<Duration> {
        if rate == 0 {
            return Some(Duration::ZERO);
        }
        let (now, rate) = (Instant::now(), f64::from(u32::try_from(rate).unwrap()));
        let queued = self.free_at.saturating_duration_since(now);
        if queued.as_secs_f64() * rate > BUFFER {
            return None;
        }
        let takes = Duration::from_secs_f64(f64::from(u32::try_from(len).unwrap()) / rate);
        self.free_at = now + queued + takes;
        Some(queued + takes)
    }
}

fn happens(random: &mut u64, per_mille: u64) -> bool {
    next(random) % 1_000 < per_mille
}

/// `SplitMix64`.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
