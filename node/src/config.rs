//! The configuration of one node: a typed tree, read once from a TOML file, the environment and flags, in this order.
//!
//! Invariants:
//! - A `Config` that left [`load`] is complete and checked: no reader validates again, nothing is optional by accident.
//! - Every key exists once, in [`KEYS`] (how to add one: `key`): parsing, `config show`, `config env` and the example file are made from that table.
//! - A key this version does not implement is refused as unknown; nothing is accepted and then ignored.
//! - All problems are reported together, one line each, and none of them has a side effect.
//!
//! Rules: interface.md 3 and 4.

mod check;
mod key;
mod limits;
mod namespace;
mod problem;
mod render;
mod secret;
mod settle;
mod source;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use source::Notes;

pub use key::{KEYS, Key};
pub use limits::Limits;
pub use namespace::{Class, HistoryRule, Namespace, Relay, RoomRule, Who};
pub use problem::{Code, Origin, Problem};
pub use render::{environment, environment_json, example, show, show_json};
pub use secret::{KEY_BYTES_MIN, read_key_file};
pub use source::{Facts, File, Flag, Sources};
pub use value::{LogFormat, Networks, Origins, Raw, Size, StoreKind, Transports};

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// True without a configuration file while clients are served on loopback only: the defaults then favour trying out.
    pub development: bool,
    /// `[server]`
    pub server: Server,
    /// `[socketio]`
    pub socketio: SocketIo,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[store]`
    pub store: Store,
    /// `[auth]`
    pub auth: Auth,
    /// `[limits]`
    pub limits: Limits,
    /// `[drain]`
    pub drain: Drain,
    /// `[log]`
    pub log: Log,
    /// Every `[[namespace]]`, in the order of the file. Empty exactly in development: then every one exists and allows
    /// everything.
    pub namespaces: Vec<Namespace>,
}

/// `[server]`: listeners, threads and who may call from a browser.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Address of the client port.
    pub listen: SocketAddr,
    /// Address of the admin port. On a non-loopback address only probes and metrics answer.
    pub admin_listen: SocketAddr,
    /// Whether `/` serves the demo chat page.
    pub demo: bool,
    /// Origins of other sites whose pages may connect.
    pub allowed_origins: Origins,
    /// Networks whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Networks,
    /// Number of shard threads, 1–64.
    pub shards: usize,
    /// TLS on the client port.
    pub tls: TlsFiles,
}

/// `server.tls`: where the certificate of the client port is. Both files or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsFiles {
    /// PEM file with the certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
}

/// `[socketio]`: the wire as clients see it (protocol.md 1–7).
#[derive(Clone, Debug, PartialEq)]
pub struct SocketIo {
    /// Path of every request; begins and ends with `/`.
    pub path: String,
    /// Time between a pong and the next ping.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// How long a WebSocket may probe before it is given up.
    pub upgrade_timeout: Duration,
    /// How long a connection may live without a namespace.
    pub connect_timeout: Duration,
    /// Largest message in bytes, all attachments counted.
    pub max_payload: Size,
    /// Transports that are offered.
    pub transports: Transports,
    /// Prefix of the built-in events, `room:` by default.
    pub builtin_prefix: String,
    /// Whether the client bundle is served below `path`.
    pub serve_client: bool,
}

/// `[cluster]`: who this node is and whom it joins.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Name of this node, unique in the cluster.
    pub node: String,
    /// Number of this node, unique in the cluster; from a trailing `-N` of the name unless given.
    pub ordinal: u16,
    /// UDP address of the mesh.
    pub mesh_listen: SocketAddr,
    /// Address that peers are told to dial, when it differs from `mesh_listen`.
    pub advertise: Option<SocketAddr>,
    /// `HOST:PORT` of nodes to join; names are resolved again and again.
    pub seeds: Vec<String>,
    /// File with the secret all nodes share. The mesh runs exactly when it is set.
    pub key_file: Option<PathBuf>,
    /// How long members of a node that cannot be reached stay present.
    pub presence_ghost: Duration,
}

/// `[store]`: recent history on disk or in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Where history lives.
    pub kind: StoreKind,
    /// Directory of the embedded store and of this node's identity.
    pub dir: PathBuf,
    /// Budget of live payload bytes; the oldest history goes first.
    pub max_bytes: Size,
    /// What each room keeps.
    pub history: History,
}

/// `store.history`: what each room keeps; whichever bound is reached first counts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Newest messages kept per room.
    pub size: usize,
    /// Oldest age kept.
    pub ttl: Duration,
}

/// `[auth]`: who is let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Everybody may connect. The only way in that this version has.
    pub anonymous: bool,
}

/// `[drain]`: how a stop goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Time over which open connections are closed, evenly.
    pub window: Duration,
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// Level, or directives such as `info,mesh=debug`.
    pub filter: String,
}

impl Config {
    /// Whether this node runs the mesh: exactly when it has a cluster key.
    pub fn is_clustered(&self) -> bool {
        self.cluster.key_file.is_some()
    }
}

/// A checked configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Origin by path of key, rows of repeated tables counted (`namespace[0].name`); what is absent has its default.
    pub origins: BTreeMap<String, Origin>,
    /// What a node can start with, but should not.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a configuration. Pure: all that is looked at besides `sources` are the files of keys that they name.
///
/// # Errors
/// Every problem found, in the order file, environment, flags, rules across keys. Nothing was changed; the caller
/// prints one line per problem and ends with exit code 78. Warnings alone are no error.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut config = settle::defaults(&sources.facts);
    let file_is_readable = source::apply(sources, &mut config, &mut notes);
    let Notes { origins, mut problems } = notes;
    settle::settle(&mut config, &origins, sources.file.is_some());
    // A file that is not TOML hides every value it holds: rules across keys would accuse the wrong ones.
    if file_is_readable {
        check::check(&config, &origins, &mut problems);
    }
    if problems.iter().all(|problem| problem.code.is_warning()) {
        Ok(Loaded { config, origins, warnings: problems })
    } else {
        Err(problems)
    }
}
