//! The start of a node, step by step.
//!
//! Invariants: every listener is bound before any thread runs, so that a taken port is one clear error; clients are
//! accepted last, when the node knows which slots it owns.

mod mesh_thread;

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use http::HeaderName;
use mesh::{
    ClusterKeys, Mesh, NodeId, SLOTS,
    slot::{self, Resume, Retention, Slots},
};
use persistence::{Kind, Opened};
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
use crate::gateway::Gateway;
use crate::{
    addresses::Addresses,
    api::Health,
    assets::{Assets, Options},
    builtin::Builtin,
    clock, cluster_key, conduct,
    config::{Config, Log, LogFormat, StoreKind, TlsFiles},
    context::{Context, STORE_QUEUE_BYTES, decoder_limits, session_config},
    handler::Handler,
    mailbox::{self, mailbox},
    message::Message,
    metrics::Metrics,
    names::Names,
    policy::Policy,
    pressure::Pressure,
    run::{self, Kept},
    sid_keys::SidKeys,
    tls::Tls,
};

/// Signal number of SIGXFSZ on Linux.
pub(super) const SIGXFSZ: i32 = 25;
/// Connections the kernel may hold before a shard accepts them.
const BACKLOG: i32 = 4_096;

/// A node whose listeners are bound and whose mesh runs.
pub(super) struct Begun {
    pub(super) node: Node,
    pub(super) admin: tokio::net::TcpListener,
    /// The cluster keys it started with.
    pub(super) keys: Option<ClusterKeys>,
}

/// Everything that clients wait for.
pub(super) struct Node {
    pub(super) context: Arc<Context>,
    opened: Opened,
    inboxes: Inboxes,
    listeners: Vec<std::net::TcpListener>,
    pub(super) mesh: Option<JoinHandle<anyhow::Result<()>>>,
    end: Ends,
    /// Cancelled when the mesh ended by itself.
    pub(super) ended: CancellationToken,
}

/// Ends threads when cancelled: shards first, the mesh when it has said goodbye.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) shards: CancellationToken,
    pub(super) mesh: CancellationToken,
}

/// A node that serves clients.
pub(super) struct Serving {
    pub(super) shards: Vec<JoinHandle<std::io::Result<Kept>>>,
    pub(super) mesh: Option<JoinHandle<anyhow::Result<()>>>,
    pub(super) end: Ends,
    /// Cancelled when a thread ended, asked or not.
    pub(super) ended: CancellationToken,
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

/// Opens the store, binds every listener and starts the mesh.
pub(super) async fn begin(config: Config, handler: Arc<dyn Handler>) -> anyhow::Result<Begun> {
    rlimit::increase_nofile_limit(u64::MAX).context("the limit of open files could not be raised")?;
    let opened = open_store(&config)?;
    let listeners = listen(config.server.listen, config.server.shards)?;
    let admin = tokio::net::TcpListener::bind(config.server.admin_listen)
        .await
        .with_context(|| format!("cannot listen on {} for the admin port", config.server.admin_listen))?;
    let keys = cluster_keys(&config)?;
    let (end, ended) = (Ends::default(), CancellationToken::new());
    let bound = match &keys {
        Some(keys) => Some(mesh_thread::bind(&config, keys, opened.generation, &end.mesh, &ended)?),
        None => None,
    };
    let mesh = bound.as_ref().map(|(mesh, _)| mesh.clone());
    let (context, inboxes) = context(config, handler, &opened, mesh, keys.as_ref())?;
    context.note_store();
    let mesh = bound.map(|(_, thread)| thread.run(context.clone()));
    Ok(Begun { node: Node { context, opened, inboxes, listeners, mesh, end, ended }, admin, keys })
}

/// Starts the shards.
pub(super) fn serve_clients(node: Node) -> anyhow::Result<Serving> {
    let Node { context, opened, inboxes, listeners, mesh, end, ended } = node;
    let mut shards = Vec::with_capacity(inboxes.len());
    let missing = Arc::new(AtomicUsize::new(inboxes.len()));
    for (number, (inbox, listener)) in inboxes.into_iter().zip(listeners).enumerate() {
        // `server.shards` is at most 64.
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let slots = Slots::new(slots_config(&context, &opened, number)?);
        let (context, end, missing) = (context.clone(), end.shards.clone(), missing.clone());
        let start = run::Start { number, context, slots, inbox, listener, end, missing };
        let ended = ended.clone().drop_guard();
        shards.push(thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            let _ended = ended;
            run::run(start)
        })?);
    }
    announce(&context);
    Ok(Serving { shards, mesh, end, ended })
}

/// One shard's gateway with a store in memory, and nothing around it: no thread, no listener, no mesh.
#[cfg(test)]
pub(crate) fn gateway_alone(settings: &str, handler: impl Handler) -> anyhow::Result<Gateway> {
    gateway_with_inbox(settings, handler).map(|(gateway, _)| gateway)
}

/// As `gateway_alone`, with what other threads say to its shard.
#[cfg(test)]
pub(crate) fn gateway_with_inbox(
    settings: &str,
    handler: impl Handler,
) -> anyhow::Result<(Gateway, mailbox::Receiver<Message>)> {
    use crate::config::{Facts, File, Sources, load};
    let allowed =
        ["join", "publish", "history", "presence", "broadcast"].map(|what| format!("allow_{what} = \"anonymous\"\n"));
    let namespaces = ["/", "/chat", "/open", "/closed", "/panic", "/panics-at-the-end"]
        .map(|name| format!("[[namespace]]\nname = \"{name}\"\n{}", allowed.concat()));
    let text = format!("store.kind = \"memory\"\nserver.shards = 1\n{settings}\n{}", namespaces.concat());
    let file = Some(File { name: "test".to_owned(), text: Ok(text) });
    let facts = Facts { host_name: "test".to_owned(), cores: 1 };
    let loaded = load(&Sources { file, environment: Vec::new(), flags: Vec::new(), facts });
    let config = loaded.map_err(|problems| anyhow::anyhow!("{problems:?}"))?.config;
    let opened = open_store(&config)?;
    let (context, mut inboxes) = context(config, Arc::new(handler), &opened, None, None)?;
    let slots = Slots::new(slots_config(&context, &opened, 0)?);
    Ok((Gateway::new(context, 0, slots), inboxes.remove(0)))
}

fn open_store(config: &Config) -> anyhow::Result<Opened> {
    let (retention, max_bytes) = (Policy::new(config).longest_ttl(), config.store.max_bytes.0);
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
        tracing::error!(moved_to = %moved.display(), "the store could not be used and was moved away; history starts empty");
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

fn cluster_keys(config: &Config) -> anyhow::Result<Option<ClusterKeys>> {
    let Some(path) = &config.cluster.key_file else { return Ok(None) };
    let keys = cluster_key::read(path).map_err(|error| anyhow::anyhow!("cluster.key_file: {error}"))?;
    Ok(Some(keys))
}

fn context(
    config: Config,
    handler: Arc<dyn Handler>,
    opened: &Opened,
    mesh: Option<Mesh>,
    keys: Option<&ClusterKeys>,
) -> anyhow::Result<(Arc<Context>, Inboxes)> {
    let shards = config.server.shards;
    let threads = thread_names(shards, mesh.is_some());
    let sid_keys = match keys {
        Some(keys) => SidKeys::new(keys),
        None => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("the system has no randomness")?;
            SidKeys::alone(&random)
        }
    };
    let assets = Assets::new(&Options {
        path: &config.socketio.path,
        serve_client: config.socketio.serve_client,
        demo: config.server.demo,
        builtin_prefix: &config.socketio.builtin_prefix,
    });
    let metrics = Arc::new(Metrics::new(&threads));
    let tls = tls(&config, &metrics)?;
    let names = Names::new(config.limits.name_bytes, &config.socketio.builtin_prefix);
    let policy = Arc::new(Policy::new(&config));
    let handler: Arc<dyn Handler> = Arc::new(Builtin::new(names.clone(), policy.clone(), handler));
    let headers: Result<Vec<HeaderName>, _> = handler.headers().iter().map(|name| name.parse()).collect();
    let headers = headers.context("the program asks for a header whose name is none")?;
    let (senders, inboxes) = (0..shards).map(|_| mailbox()).unzip();
    let context = Context {
        session: Arc::new(session_config(&config)),
        decoder: decoder_limits(&config),
        metrics,
        health: Arc::new(Health::new(&threads, clock::now())),
        assets,
        tls,
        names,
        policy,
        layer: handler.layer(),
        headers,
        handler,
        node: NodeId(config.cluster.ordinal),
        generation: opened.generation,
        sid_keys,
        shards: senders,
        store: opened.store.clone(),
        mesh,
        stop_accepting: CancellationToken::new(),
        pressure: Pressure::default(),
        conduct: conduct::Limits::new(&config),
        addresses: Addresses::new(&config.limits),
        connections: AtomicUsize::new(0),
        config,
    };
    Ok((Arc::new(context), inboxes))
}

fn tls(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Tls>> {
    let TlsFiles { cert: Some(cert), key: Some(key) } = &config.server.tls else { return Ok(None) };
    let tls = Tls::new(cert, key, metrics).map_err(|error| anyhow::anyhow!("server.tls: {error}"))?;
    Ok(Some(tls))
}

/// Threads that show that they live, in the order of their indices (`Context::admin_thread`, `Context::mesh_thread`).
fn thread_names(shards: usize, mesh: bool) -> Vec<String> {
    let shards = (0..shards).map(|shard| format!("shard-{shard}"));
    shards.chain(["admin".to_owned()]).chain(mesh.then(|| "mesh".to_owned())).collect()
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
        retention: context.policy.differs().then(|| context.policy.clone() as Arc<dyn Retention>),
        cold: if context.config.cluster.seeds.is_empty() { Duration::ZERO } else { slot::Limits::default().cold },
        ghost: context.config.cluster.presence_ghost,
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
        started_ms: clock::wall_ms(),
        heads: heads(opened).into_iter().filter(|(slot, _)| mine(slot)).collect(),
    })
}

/// Where new lineages count on from. A disk that cannot be read yet may hold any number: then from the microseconds of the
/// clock, which no slot's counter reaches, and which stay below 2^53 until the year 2255.
fn heads(opened: &Opened) -> BTreeMap<u16, u64> {
    let unknown = || (0..SLOTS).map(|slot| (slot, clock::wall_ms().saturating_mul(1_000))).collect();
    opened.heads.clone().unwrap_or_else(unknown)
}

fn announce(context: &Context) {
    let config = &context.config;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.cluster.node,
        generation = context.generation,
        clients = %config.server.listen,
        admin = %config.server.admin_listen,
        shards = config.server.shards,
        "serving"
    );
    if config.server.demo {
        // The one line a newcomer looks for; standard output, since it is the answer to the command.
        println!("Starling serves. Open http://{}/ for the demo chat.", config.server.listen);
    }
}
