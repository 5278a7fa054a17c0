//! The table of keys: each with its path, its meaning, and how to set and show it.
//!
//! Invariants: sorted by section in the order of the example file; paths are unique; a field of `Config` without a row
//! here cannot be configured, and a row without a field does not compile.

use super::value::{Raw, Setting};
use super::{Config, Problem};

/// One key of the configuration.
pub struct Key {
    /// Dotted path, for example `store.history.size`.
    pub path: &'static str,
    /// What it means, for the example file and `config env`; lines are parted by `\n`.
    pub doc: &'static str,
    pub(super) set: fn(&mut Config, &Raw) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("STARLING_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// The value in `config` as a TOML literal; the empty text when an optional value is not set.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The section of this key.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    /// The path inside the section.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// Finds a key by its path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a section, or a table inside one, that holds keys.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// A path that an unknown one was probably meant to be, as short as it is clear.
pub(super) fn suggestion(unknown: &str) -> Option<String> {
    let (parent, name) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
    let neighbours = KEYS.iter().filter_map(|key| key.path.strip_prefix(&prefix)?.split('.').next());
    let (score, nearest) = neighbours
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    if score >= SIMILAR {
        return Some(nearest.to_owned());
    }
    KEYS.iter().find(|key| key.path.ends_with(&format!(".{name}"))).map(|key| key.path.to_owned())
}

/// Below this Jaro–Winkler similarity a suggestion confuses more than it helps.
const SIMILAR: f64 = 0.85;

/// Sets one key; the error says what was expected.
pub(super) fn set(config: &mut Config, key: &Key, raw: &Raw) -> Result<(), Problem> {
    (key.set)(config, raw)
        .map_err(|expected| Problem::new(super::Code::Value, format!("\"{}\" {expected}, found {raw}", key.path)))
}

macro_rules! keys {
    ($($section:ident $(. $field:ident)+ : $doc:literal;)*) => {
        /// Every key of this version.
        pub const KEYS: &[Key] = &[$(Key {
            path: concat!(stringify!($section) $(, ".", stringify!($field))+),
            doc: $doc,
            set: |config, raw| {
                config.$section $(.$field)+ = Setting::read(raw)?;
                Ok(())
            },
            show: |config| config.$section $(.$field)+.literal(),
        }),*];
    };
}

keys! {
    server.listen: "Address of the client port. A non-loopback address demands an explicit [auth].";
    server.admin_listen: "Address of the admin port: probes, metrics, API. Beyond loopback only probes and metrics answer.";
    server.demo: "Demo chat page on `/`. True only without a configuration file, on loopback.";
    server.allowed_origins: "Origins of other sites whose pages may connect, as \"https://chat.example.com\", or \"*\" for all.\nPages of the same host and clients without Origin may always connect.";
    server.shards: "Threads that serve clients, 1-64. Default: one per core.";

    socketio.path: "Path of the Socket.IO endpoint; begins and ends with a slash.";
    socketio.ping_interval: "Time between a pong and the next ping.";
    socketio.ping_timeout: "How long a pong may take before the connection counts as dead.";
    socketio.upgrade_timeout: "How long a WebSocket may probe before the upgrade is given up.";
    socketio.connect_timeout: "How long a connection may live without joining a namespace.";
    socketio.max_payload: "Largest message, all attachments counted.";
    socketio.transports: "Transports that are offered: \"polling\", \"websocket\" or both.";
    socketio.builtin_prefix: "Prefix of the built-in events join, leave, publish and history.";
    socketio.serve_client: "Serve the stock client bundle below `path`.";

    cluster.node: "Name of this node, unique in the cluster. Default: the host name.";
    cluster.ordinal: "Number of this node, unique in the cluster. Default: a trailing `-N` of the name.";
    cluster.mesh_listen: "UDP address for the other nodes.";
    cluster.advertise: "Address that the other nodes are told to use, when it differs from `mesh_listen`.";
    cluster.seeds: "Nodes to join, as HOST:PORT. Names are resolved again and again.";
    cluster.key_file: "File with the secret that all nodes of the cluster share, at least 32 bytes. Without it the node stays alone.";

    store.kind: "Where recent history lives: \"sled\" (on disk) or \"memory\" (gone at restart).";
    store.dir: "Directory of the embedded store.";
    store.max_bytes: "Budget of stored payload; the oldest history goes first.";
    store.history.size: "Newest messages kept per room.";
    store.history.ttl: "Oldest age kept.";

    auth.anonymous: "Everybody may connect and use every room: the only way in that this version has.\nA public address demands that it is written here.";

    limits.connections: "Open connections of this node.";
    limits.rooms_per_socket: "Rooms one socket may be in.";
    limits.namespaces: "Namespaces one connection may join.";
    limits.name_bytes: "Longest room, event or namespace name in bytes.";
    limits.queue_bytes: "Bytes that may wait for one connection before it is closed as a slow consumer.";
    limits.header_bytes: "Largest block of HTTP request headers.";

    drain.window: "Time over which open connections are closed at a stop, evenly. One second without a configuration file.";

    log.format: "Lines for people (\"text\") or for machines (\"json\"), on standard error.";
    log.filter: "Level, or directives such as \"info,mesh=debug\".";
}
