//! The tables of keys: each key with its path, its meaning, and how to set and show it.
//!
//! To add a key: a field in the tree (`config.rs`) with its default (`settle.rs`), and one line in [`KEYS`]. Its bounds, if
//! it has any, are one line in `check.rs`; then `starling config init > node/starling.toml`. Parsing, `config show`, the
//! example and the environment variable follow from the line.
//!
//! Invariants: sorted by section in the order of the example file; paths are unique; a field of `Config` without a line
//! here cannot be configured, and a line without a field does not compile. A table that repeats (`[[namespace]]`) is a key
//! whose rows have keys of their own; it is written in the file only and ends its table. Secrets are never values, only
//! paths of files, so nothing that is shown can hold one.

use super::Config;
use super::namespace::{Namespace, RoomRule};
use super::source::{Entry, Notes};
use super::value::Setting;

/// One key of a table that is read into a `T`.
pub struct Key<T: 'static = Config> {
    /// Dotted path, for example `store.history.size`.
    pub path: &'static str,
    /// What it means, for the example file and `config env`; lines are parted by `\n`.
    pub doc: &'static str,
    /// A repeated table, not a value.
    pub repeats: bool,
    pub(super) set: fn(&mut T, &Entry, &mut Notes),
    pub(super) show: fn(&T) -> Shown,
}

/// What a key holds, as text.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    /// A TOML literal; two quotes for an optional value that is not set.
    Value(String),
    /// The rows of a repeated table.
    Rows(Vec<Vec<Line>>),
}

/// A key and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) path: &'static str,
    pub(super) doc: &'static str,
    pub(super) shown: Shown,
}

/// A row of a repeated table.
pub(super) trait Row: Default + 'static {
    /// The keys of a row; a repeated one is the last.
    const KEYS: &'static [Key<Self>];
}

impl Row for Namespace {
    const KEYS: &'static [Key<Namespace>] = NAMESPACE_KEYS;
}

impl Row for RoomRule {
    const KEYS: &'static [Key<RoomRule>] = ROOM_KEYS;
}

impl<T> Key<T> {
    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!("STARLING_{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// Everything that `target` holds.
pub(super) fn lines<T>(keys: &'static [Key<T>], target: &T) -> Vec<Line> {
    keys.iter().map(|key| Line { path: key.path, doc: key.doc, shown: (key.show)(target) }).collect()
}

fn show_rows<R: Row>(rows: &[R]) -> Shown {
    Shown::Rows(rows.iter().map(|row| lines(R::KEYS, row)).collect())
}

/// Finds a key by its path.
pub(super) fn find<T>(keys: &'static [Key<T>], path: &str) -> Option<&'static Key<T>> {
    keys.iter().find(|key| key.path == path)
}

/// Whether `path` is a section, or a table inside one, that holds keys.
pub(super) fn is_section<T>(keys: &[Key<T>], path: &str) -> bool {
    keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// A path that an unknown one was probably meant to be, as short as it is clear.
pub(super) fn suggestion<T>(keys: &[Key<T>], unknown: &str) -> Option<String> {
    let (parent, name) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    let prefix = if parent.is_empty() { String::new() } else { format!("{parent}.") };
    let neighbours = keys.iter().filter_map(|key| key.path.strip_prefix(&prefix)?.split('.').next());
    let nearest = neighbours
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((score, nearest)) if score >= SIMILAR => Some(nearest.to_owned()),
        Some(_) | None => {
            keys.iter().find(|key| key.path.ends_with(&format!(".{name}"))).map(|key| key.path.to_owned())
        }
    }
}

/// Below this Jaro–Winkler similarity a suggestion confuses more than it helps.
const SIMILAR: f64 = 0.85;

macro_rules! keys {
    ($(#[$meta:meta])* $visibility:vis $table:ident: $target:ty {
        $($first:ident $(. $field:ident)* : $doc:literal;)*
        $([[$rows:ident $(. $rows_field:ident)* as $name:literal]]: $rows_doc:literal;)*
    }) => {
        $(#[$meta])*
        $visibility const $table: &[Key<$target>] = &[
            $(Key {
                path: concat!(stringify!($first) $(, ".", stringify!($field))*),
                doc: $doc,
                repeats: false,
                set: |target, entry, notes| notes.set(&mut target.$first $(.$field)*, entry),
                show: |target| Shown::Value(target.$first $(.$field)*.literal()),
            },)*
            $(Key {
                path: $name,
                doc: $rows_doc,
                repeats: true,
                set: |target, entry, notes| notes.set_rows(&mut target.$rows $(.$rows_field)*, entry),
                show: |target| show_rows(&target.$rows $(.$rows_field)*),
            },)*
        ];
    };
}

keys! {
    /// Every key of this version.
    pub KEYS: Config {
        server.listen: "Address of the client port. A non-loopback address demands an explicit [auth].";
        server.admin_listen: "Address of the admin port: probes, metrics, API. Beyond loopback only probes and metrics answer.";
        server.demo: "Demo chat page on `/`. True only without a configuration file, on loopback.";
        server.allowed_origins: "Origins of other sites whose pages may connect, as \"https://chat.example.com\", or \"*\" for all.\nPages of the same host and clients without Origin may always connect.";
        server.trusted_proxies: "Networks of proxies whose X-Forwarded-For, -Proto and -Host are believed, as \"10.0.0.0/8\".\nOf everybody else they are ignored: the client is who connects.";
        server.shards: "Threads that serve clients, 1-64. Default: one per core.";
        server.tls.cert: "PEM file with the certificate chain of the client port, which then speaks TLS only.\nA changed file is taken over within seconds; open connections stay.";
        server.tls.key: "PEM file with the private key of the certificate.";

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
        cluster.key_file: "File with the secret that all nodes of the cluster share, at least 32 bytes. Without it the node stays alone. A file beside it that ends in `.previous` holds a key that is accepted too.";
        cluster.presence_ghost: "How long members of a node that cannot be reached stay present: a cut that heals sooner is seen by nobody.";

        store.kind: "Where recent history lives: \"sled\" (on disk) or \"memory\" (gone at restart).";
        store.dir: "Directory of the embedded store.";
        store.max_bytes: "What the store's files may take (a quarter of it is live); the oldest history goes first.";
        store.history.size: "Newest messages kept per room.";
        store.history.ttl: "Oldest age kept.";

        auth.anonymous: "Everybody may connect and use every room: the only way in that this version has.\nA public address demands that it is written here.";

        limits.connections: "Open connections of this node.";
        limits.per_ip: "Of them, of one client address (IPv6: of one /64), and as many sockets that are no WebSocket (yet). 0: no limit, which is\nthe default without a configuration file. Behind a proxy set server.trusted_proxies, or all clients are one address.";
        limits.per_ip_rate: "Sockets, and sessions, that one client address may open a second, five seconds' worth at once. 0 as above.";
        limits.failed_auth_per_minute: "Times a minute that clients of one address may be refused for who they say they are; then the address is, for a minute.\n0 as above.";
        limits.messages_per_second: "Messages a second of one connection, two seconds' worth at once: an event beyond is refused as `rate_limited`, and ten times\nas many close the connection. 0 as above.";
        limits.bytes_per_second: "Their bytes, likewise. \"0B\" as above.";
        limits.joins_per_second: "Rooms a second that one connection may join, two seconds' worth at once. 0 as above.";
        limits.rooms_per_socket: "Rooms one socket may be in.";
        limits.namespaces: "Namespaces one connection may join.";
        limits.name_bytes: "Longest room, event or namespace name in bytes.";
        limits.attachments: "Attachments of one message.";
        limits.json_depth: "Nested arrays and objects in one message.";
        limits.packets_per_poll: "Messages in one polling body. Stock clients split bodies by bytes only, so that a low number closes busy ones.";
        limits.connect_bytes: "What a connection may send before it joined a namespace.";
        limits.fragments: "WebSocket frames that one message may come in.";
        limits.assembly_timeout: "How long the next attachment of a message, or the rest of its bytes, may take.";
        limits.queue_bytes: "Bytes that may wait for one connection before it is closed as a slow consumer.";
        limits.lag_timeout: "How long a connection may take nothing of what waits for it before it is closed as a slow consumer.";
        limits.headers: "Lines of one block of HTTP request headers.";
        limits.header_bytes: "Largest block of HTTP request headers.";
        limits.header_timeout: "How long a block of HTTP request headers may take.";
        limits.body_timeout: "How long the body of a request may take.";
        limits.tls_timeout: "How long a TLS handshake may take.";
        limits.memory_bytes: "Memory of the process from which on it refuses and gives up, in this order: newcomers, idle polling sessions, slow consumers,\nvolatile messages, messages. Default: four fifths of what the control group allows, if it says. \"0B\": no limit.";

        drain.window: "Time over which open connections are closed at a stop, evenly. One second without a configuration file.";

        log.format: "Lines for people (\"text\") or for machines (\"json\"), on standard error.";
        log.filter: "Level, or directives such as \"info,mesh=debug\".";

    [[namespaces as "namespace"]]: "A namespace that clients may use; repeat it for more. Outside development, which is no file and a loopback address, only\nthose written here exist, and only what they allow is allowed. Whom: \"nobody\", \"anonymous\" (everybody), \"authenticated\",\n\"member\" (of the room).";
    }
}

keys! {
    /// Every key of a `[[namespace]]`.
    NAMESPACE_KEYS: Namespace {
        name: "Name; begins with a slash. Clients that ask for none get \"/\".";
        class: "\"ordered\": one order per room, with history. \"ephemeral\": sent to whoever is there, kept nowhere.";
        presence: "Members can be listed, and announced to each other.";
        history.size: "Newest messages kept per room. Default: what [store] says.";
        history.ttl: "Oldest age kept. Default: what [store] says.";
        allow_join: "Who may join rooms.";
        allow_publish: "Who may publish to a room.";
        allow_history: "Who may read the history of a room.";
        allow_presence: "Who may list the members of a room.";
        allow_broadcast: "Who may publish to the whole namespace.";
        relay: "What happens to an event that nobody handles: \"off\", or \"sender_rooms\": it goes to the rooms of its sender.";

        [[rooms as "rooms"]]: "What differs for some rooms of the namespace above; repeat it for more. What is left out is as the namespace says.";
    }
}

keys! {
    /// Every key of a `[[namespace.rooms]]`.
    ROOM_KEYS: RoomRule {
        pattern: "Names of rooms: `*` is any text, `{user}` the name of the user who asks.";
        allow_join: "Who may join these rooms.";
        allow_publish: "Who may publish to them.";
        allow_history: "Who may read their history.";
        allow_presence: "Who may list their members.";
        history.size: "Newest messages kept in each.";
        history.ttl: "Oldest age kept.";
    }
}
