//! The start of a node, step by step.
//!
//! Invariants: every listener is bound before any thread runs, so that a taken port is one clear error; clients are
//! accepted last, when the node knows which slots it owns.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use mesh::{
    ClusterKey, Mesh, NodeId,
    slot::{self, Resume, Slots},
};
use persistence::{Kind, Opened};
use protocol::sid::SidKey;
use socket2::{Domain, Socket, Type};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Fact, Health},
    assets::{Assets, Options},
    clock,
    config::{Config, Log, LogFormat, StoreKind, read_key_file},
    context::{Context, decoder_limits, session_config},
    mailbox::{self, mailbox},
    message::Message,
    metrics::Metrics,
    peers::Peers,
    shard::{self, Kept},
};

/// Signal number of SIGXFSZ on Linux.
pub(super) const SIGXFSZ: i32 = 25;
/// Connections the kernel may hold before a shard accepts them.
const BACKLOG: i32 = 4_096;
/// Bytes of history that may wait for the disk.
const STORE_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// A node that serves.
pub(super) struct Started {
    pub(super) context: Arc<Context>,
    pub(super) shards: Vec<JoinHandle<std::io::Result<Kept>>>,
    pub(super) mesh: Option<JoinHandle<anyhow::Result<()>>>,
    pub(super) admin: tokio::net::TcpListener,
}

type Inboxes = Vec<mailbox::Receiver<Message>>;

/// Writes logs to standard error, for people on a terminal and for machines if asked.
pub(super) fn log(log: &Log) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter).context("log.filter is not a filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be set up: {error}"))
}

/// Starts everything.
pub(super) async fn start(config: Config, end: &CancellationToken) -> anyhow::Result<Started> {
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    let opened = open_store(&config)?;
    let listeners = listen(config.server.listen, config.server.shards)?;
    let admin = tokio::net::TcpListener::bind(config.server.admin_listen)
        .await
        .with_context(|| format!("cannot listen on {} for the admin port", config.server.admin_listen))?;
    let key = cluster_key(&config)?;
    let (mesh, mesh_thread) = match &key {
        Some(key) => bind_mesh(&config, key, opened.generation, end)?,
        None => (None, None),
    };
    let (context, inboxes) = context(config, &opened, mesh, key.as_ref())?;
    context.health.set(Fact::StoreOpen, true);
    let mesh = mesh_thread.map(|thread| thread.run(Peers::new(context.clone())));
    super::joined(&context).await;
    let shards = start_shards(&context, &opened, inboxes, listeners, end)?;
    context.health.set(Fact::Listening, true);
    announce(&context, open_files);
    Ok(Started { context, shards, mesh, admin })
}

fn open_store(config: &Config) -> anyhow::Result<Opened> {
    let (retention, max_bytes) = (config.store.history.ttl, config.store.max_bytes.0);
    let kind = match config.store.kind {
        StoreKind::Memory => Kind::Memory { retention, max_bytes, queue_bytes: STORE_QUEUE_BYTES },
        StoreKind::Sled => Kind::Sled(persistence::Config {
            retention,
            max_bytes,
            queue_bytes: STORE_QUEUE_BYTES,
            ..persistence::Config::new(&config.store.dir)
        }),
    };
    let opened = persistence::open(kind, clock::wall_ms())
        .with_context(|| format!("the store in {} could not be opened", config.store.dir.display()))?;
    if let Some(moved) = &opened.quarantined {
        tracing::error!(moved_to = %moved.display(), "the store was damaged and was moved away; history starts empty");
    }
    Ok(opened)
}

/// One listener per shard on the same address; the kernel spreads connections over them.
fn listen(address: SocketAddr, shards: usize) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(shards);
    // Without this probe a second process could share the port silently: SO_REUSEPORT is for our own shards only.
    if address.port() != 0 {
        std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address} for clients"))?;
    }
    for _ in 0..shards {
        let listener = listen_once(address).with_context(|| format!("cannot listen on {address} for clients"))?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen_once(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn cluster_key(config: &Config) -> anyhow::Result<Option<ClusterKey>> {
    let Some(path) = &config.cluster.key_file else { return Ok(None) };
    let bytes = read_key_file(path).map_err(|error| anyhow::anyhow!("cluster.key_file: {error}"))?;
    let key = ClusterKey::from_bytes(&bytes).with_context(|| format!("{} is no cluster key", path.display()))?;
    Ok(Some(key))
}

/// The mesh thread, bound and waiting for whom to tell.
struct MeshThread {
    handler: mpsc::Sender<Peers>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl MeshThread {
    fn run(self, peers: Peers) -> JoinHandle<anyhow::Result<()>> {
        // If the thread is gone its error is found when it is joined.
        let _ = self.handler.send(peers);
        self.thread
    }
}

fn bind_mesh(
    config: &Config,
    key: &ClusterKey,
    generation: u64,
    end: &CancellationToken,
) -> anyhow::Result<(Option<Mesh>, Option<MeshThread>)> {
    let cluster = &config.cluster;
    let node = NodeId(cluster.ordinal);
    let mut settings = mesh::Config::new(node, &cluster.node, generation, key.clone(), cluster.mesh_listen);
    settings.advertise = cluster.advertise;
    settings.seeds.clone_from(&cluster.seeds);
    let (bound, binding) = mpsc::channel();
    let (handler, handlers) = mpsc::channel::<Peers>();
    let stop = end.clone();
    let thread = thread::Builder::new().name("mesh".into()).spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let driver = mesh::bind(settings)?;
            let _ = bound.send(driver.handle());
            let Ok(handler) = handlers.recv() else { return Ok(()) };
            driver.run(handler, stop).await?;
            Ok(())
        })
    })?;
    match binding.recv() {
        Ok(mesh) => Ok((Some(mesh), Some(MeshThread { handler, thread }))),
        Err(_) => match thread.join() {
            Ok(result) => {
                result.with_context(|| format!("the mesh could not be bound to {}", cluster.mesh_listen))?;
                anyhow::bail!("the mesh thread ended before it began")
            }
            Err(_) => anyhow::bail!("the mesh thread ended by a panic"),
        },
    }
}

fn context(
    config: Config,
    opened: &Opened,
    mesh: Option<Mesh>,
    key: Option<&ClusterKey>,
) -> anyhow::Result<(Arc<Context>, Inboxes)> {
    let shards = config.server.shards;
    let mut names: Vec<String> = (0..shards).map(|shard| format!("shard-{shard}")).collect();
    names.push("admin".into());
    let secret = match key {
        Some(key) => key.derive("sid"),
        None => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("the system has no randomness")?;
            random
        }
    };
    let assets = Assets::new(&Options {
        path: &config.socketio.path,
        serve_client: config.socketio.serve_client,
        demo: config.server.demo,
        builtin_prefix: &config.socketio.builtin_prefix,
    });
    let (senders, inboxes) = (0..shards).map(|_| mailbox()).unzip();
    let context = Context {
        session: Arc::new(session_config(&config)),
        decoder: decoder_limits(&config),
        metrics: Arc::new(Metrics::new(&names)),
        health: Arc::new(Health::new(&names, clock::now())),
        assets,
        node: NodeId(config.cluster.ordinal),
        generation: opened.generation,
        sid_key: SidKey::new(&secret),
        shards: senders,
        store: opened.store.clone(),
        mesh,
        stop_accepting: CancellationToken::new(),
        connections: AtomicUsize::new(0),
        config,
    };
    Ok((Arc::new(context), inboxes))
}

fn start_shards(
    context: &Arc<Context>,
    opened: &Opened,
    inboxes: Inboxes,
    listeners: Vec<std::net::TcpListener>,
    end: &CancellationToken,
) -> anyhow::Result<Vec<JoinHandle<std::io::Result<Kept>>>> {
    let mut shards = Vec::with_capacity(inboxes.len());
    for (number, (inbox, listener)) in inboxes.into_iter().zip(listeners).enumerate() {
        // `server.shards` is at most 64.
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let slots = Slots::new(slots_config(context, opened, number)?);
        let start = shard::Start { number, context: context.clone(), slots, inbox, listener, end: end.clone() };
        let name = format!("shard-{number}");
        shards.push(thread::Builder::new().name(name).spawn(move || shard::run(start))?);
    }
    Ok(shards)
}

fn slots_config(context: &Context, opened: &Opened, shard: u8) -> anyhow::Result<slot::Config> {
    let shards = u8::try_from(context.shards.len()).unwrap_or(u8::MAX);
    let mine = |slot: &u16| context.shard_of_slot(*slot) == shard;
    // A clean stop of a node that was its own cluster proves that nobody stamped anything since.
    let goes_on = opened.clean && context.mesh.is_none();
    let resume = opened.meta.iter().filter(|(slot, _)| goes_on && mine(slot));
    let resume = resume.filter_map(|(slot, meta)| Some((*slot, Resume::decode(meta.clone())?))).collect();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("the system has no randomness")?;
    let history = &context.config.store.history;
    let limits = slot::Limits {
        history_size: u32::try_from(history.size).unwrap_or(u32::MAX),
        history_ttl: history.ttl,
        ..slot::Limits::default()
    };
    Ok(slot::Config {
        node: context.node,
        generation: context.generation,
        shard,
        shards,
        limits,
        seed: u64::from_ne_bytes(seed),
        resume,
        heads: opened.heads.iter().filter(|(slot, _)| mine(slot)).map(|(slot, head)| (*slot, *head)).collect(),
    })
}

fn announce(context: &Context, open_files: u64) {
    let config = &context.config;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.cluster.node,
        generation = context.generation,
        clients = %config.server.listen,
        admin = %config.server.admin_listen,
        shards = config.server.shards,
        open_files,
        "serving"
    );
    if config.server.demo {
        // The one line a newcomer looks for; standard output, since it is the answer to the command.
        println!("Starling serves. Open http://{}/ for the demo chat.", config.server.listen);
    }
}
