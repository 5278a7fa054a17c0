//! Rules that need more than one key, and bounds of single ones.
//!
//! Invariants: no rule changes a value; a rule that refuses says what to set; what is refused as unsafe can always be
//! had by saying so explicitly.

mod namespaces;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::secret::{is_world_readable, read_key_file};
use super::settle::ordinal_of;
use super::value::{Setting, quote};
use super::{Code, Config, Origin, Problem, Size};
use crate::tls::Pair;

const HOUR: Duration = Duration::from_secs(3600);
const HISTORY_TTL_MIN: Duration = Duration::from_secs(1);
const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const HISTORY_SIZE_MAX: usize = 100_000;

/// Appends every rule that `config` breaks, and what it had better not do.
pub(super) fn check(config: &Config, origins: &BTreeMap<String, Origin>, problems: &mut Vec<Problem>) {
    let mut checker = Checker { config, origins, problems };
    checker.times();
    checker.amounts();
    checker.names();
    checker.exposure();
    checker.listeners();
    checker.tls();
    checker.cluster();
    namespaces::check(&mut checker);
}

struct Checker<'a> {
    config: &'a Config,
    origins: &'a BTreeMap<String, Origin>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn refuse(&mut self, code: Code, path: &str, message: impl Into<String>, hint: &str) {
        let problem = Problem::new(code, message).at(self.origins.get(path));
        self.problems.push(if hint.is_empty() { problem } else { problem.hint(hint) });
    }

    /// The path of `key` in the row `at`, or of the row where the key is missing.
    fn nearest(&self, at: &str, key: &str) -> String {
        let path = format!("{at}.{key}");
        if self.origins.contains_key(&path) { path } else { at.to_owned() }
    }

    fn within<T: Setting + PartialOrd>(&mut self, path: &str, value: &T, min: &T, max: &T) {
        if value < min || value > max {
            let (value, min, max) = (value.literal(), min.literal(), max.literal());
            self.refuse(Code::Range, path, format!("\"{path}\" must lie between {min} and {max}, found {value}"), "");
        }
    }

    fn times(&mut self) {
        const MIN: Duration = Duration::from_millis(50);
        let (socketio, store) = (&self.config.socketio, &self.config.store);
        self.within("socketio.ping_interval", &socketio.ping_interval, &MIN, &HOUR);
        self.within("socketio.ping_timeout", &socketio.ping_timeout, &MIN, &HOUR);
        self.within("socketio.upgrade_timeout", &socketio.upgrade_timeout, &MIN, &HOUR);
        self.within("socketio.connect_timeout", &socketio.connect_timeout, &MIN, &HOUR);
        self.within("store.history.ttl", &store.history.ttl, &HISTORY_TTL_MIN, &HISTORY_TTL_MAX);
        self.within("drain.window", &self.config.drain.window, &Duration::ZERO, &HOUR);
        let limits = &self.config.limits;
        self.within("limits.assembly_timeout", &limits.assembly_timeout, &MIN, &HOUR);
        self.within("limits.lag_timeout", &limits.lag_timeout, &MIN, &HOUR);
        self.within("limits.header_timeout", &limits.header_timeout, &MIN, &HOUR);
        self.within("limits.body_timeout", &limits.body_timeout, &MIN, &HOUR);
        self.within("limits.tls_timeout", &limits.tls_timeout, &MIN, &HOUR);
    }

    fn amounts(&mut self) {
        const KIB: u64 = 1 << 10;
        const GIB: u64 = 1 << 30;
        // A message travels between nodes in one frame of at most 2 MiB, names included, and names are keys of the store.
        let (limits, store) = (&self.config.limits, &self.config.store);
        self.within("server.shards", &self.config.server.shards, &1, &64);
        self.within("socketio.max_payload", &self.config.socketio.max_payload, &Size(KIB), &Size(1536 * KIB));
        self.within("store.max_bytes", &store.max_bytes, &Size(1 << 20), &Size(1024 * GIB));
        self.within("store.history.size", &store.history.size, &0, &HISTORY_SIZE_MAX);
        self.within("limits.connections", &limits.connections, &1, &1_000_000);
        self.within("limits.rooms_per_socket", &limits.rooms_per_socket, &1, &100_000);
        self.within("limits.namespaces", &limits.namespaces, &1, &1_000);
        self.within("limits.name_bytes", &limits.name_bytes, &1, &1_024);
        self.within("limits.queue_bytes", &limits.queue_bytes, &Size(16 * KIB), &Size(GIB));
        self.within("limits.attachments", &limits.attachments, &0, &1_000);
        self.within("limits.json_depth", &limits.json_depth, &1, &128);
        self.within("limits.packets_per_poll", &limits.packets_per_poll, &1, &100_000);
        self.within("limits.fragments", &limits.fragments, &1, &1_000_000);
        self.within("limits.connect_bytes", &limits.connect_bytes, &Size(KIB), &Size(1536 * KIB));
        self.within("limits.headers", &limits.headers, &16, &1_000);
        self.within("limits.header_bytes", &limits.header_bytes, &Size(8 * KIB), &Size(256 * KIB));
    }

    fn names(&mut self) {
        let socketio = &self.config.socketio;
        let segment = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let path = &socketio.path;
        if !(path.len() >= 3 && path.starts_with('/') && path.ends_with('/') && path.bytes().all(segment)) {
            let message = format!("\"socketio.path\" must begin and end with a slash, found {}", quote(path));
            self.refuse(Code::Value, "socketio.path", message, "for example \"/socket.io/\"");
        }
        let prefix = &socketio.builtin_prefix;
        if prefix.is_empty() || prefix.len() > 32 || prefix.chars().any(char::is_control) || prefix.starts_with("auth:")
        {
            let message = format!("\"socketio.builtin_prefix\" needs 1 to 32 bytes of text, found {}", quote(prefix));
            self.refuse(Code::Value, "socketio.builtin_prefix", message, "for example \"room:\"");
        }
        let filter = &self.config.log.filter;
        if tracing_subscriber::EnvFilter::try_new(filter).is_err() {
            let message = format!("\"log.filter\" needs a level or directives, found {}", quote(filter));
            self.refuse(Code::Value, "log.filter", message, "for example \"info,mesh=debug\"");
        }
        let node = &self.config.cluster.node;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if node.is_empty() || node.len() > 63 || !node.bytes().all(letter) {
            let message =
                format!("\"cluster.node\" needs 1 to 63 letters, digits, dots and hyphens, found {}", quote(node));
            self.refuse(Code::Value, "cluster.node", message, "");
        }
    }

    /// Who can reach us, and has somebody said that they may?
    fn exposure(&mut self) {
        let listen = self.config.server.listen;
        let anonymous_is_explicit = self.origins.contains_key("auth.anonymous");
        if !self.config.auth.anonymous {
            let message = "\"auth.anonymous\" = false would let nobody in: this version has no other way to connect";
            self.refuse(Code::Conflict, "auth.anonymous", message, "remove it, and listen on loopback");
        } else if !listen.ip().is_loopback() && !anonymous_is_explicit {
            let message = format!("\"server.listen\" = \"{listen}\" is public and would let everybody in");
            let hint = "set auth.anonymous = true to allow that, or listen on 127.0.0.1";
            self.refuse(Code::Unsafe, "server.listen", message, hint);
        }
        if self.config.server.demo && !self.config.socketio.serve_client {
            let message = "\"server.demo\" = true needs \"socketio.serve_client\" = true: the page loads the bundle";
            self.refuse(Code::Conflict, "server.demo", message, "");
        }
    }

    fn listeners(&mut self) {
        let server = &self.config.server;
        let (a, b) = (server.listen, server.admin_listen);
        let overlapping = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        if a.port() != 0 && a.port() == b.port() && overlapping {
            let message = format!("\"server.admin_listen\" and \"server.listen\" are both port {}", a.port());
            self.refuse(Code::Conflict, "server.admin_listen", message, "");
        }
    }

    fn tls(&mut self) {
        match (&self.config.server.tls.cert, &self.config.server.tls.key) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                if let Err(reason) = Pair::read(cert, key) {
                    let hint = "give a PEM chain and the key it was made with";
                    self.refuse(Code::Tls, "server.tls.cert", format!("\"server.tls\": {reason}"), hint);
                }
                self.secret_of_all("server.tls.key", key);
            }
            (Some(_), None) => {
                let message = "\"server.tls.cert\" needs \"server.tls.key\"";
                self.refuse(Code::Tls, "server.tls.cert", message, "set both, or none to serve without TLS");
            }
            (None, Some(_)) => {
                let message = "\"server.tls.key\" needs \"server.tls.cert\"";
                self.refuse(Code::Tls, "server.tls.key", message, "set both, or none to serve without TLS");
            }
        }
    }

    fn cluster(&mut self) {
        let cluster = &self.config.cluster;
        if let Some(file) = &cluster.key_file {
            self.key_file("cluster.key_file", file);
        } else if !cluster.seeds.is_empty() {
            let message = "\"cluster.seeds\" needs \"cluster.key_file\": nodes know each other by it";
            self.refuse(
                Code::Cluster,
                "cluster.seeds",
                message,
                "set it to a file with the same 32 random bytes on every node",
            );
        }
        let numbered = self.origins.contains_key("cluster.ordinal") || ordinal_of(&cluster.node).is_some();
        if !cluster.seeds.is_empty() && !numbered {
            let message = format!("the node name {} does not end in its number", quote(&cluster.node));
            self.refuse(Code::Cluster, "cluster.node", message, "set cluster.ordinal, unique in the cluster");
        }
        if let Some(advertise) =
            cluster.advertise.filter(|address| address.ip().is_unspecified() || address.port() == 0)
        {
            let message = format!("\"cluster.advertise\" = \"{advertise}\" is not an address that others can dial");
            self.refuse(Code::Cluster, "cluster.advertise", message, "");
        }
        for seed in &cluster.seeds {
            self.seed(seed);
        }
    }

    /// A file with a secret: what is in it, and who can read it.
    fn key_file(&mut self, path: &str, file: &Path) {
        if let Err(reason) = read_key_file(file) {
            let hint = "make one: head -c 32 /dev/urandom | base64";
            self.refuse(Code::Cluster, path, format!("\"{path}\": {reason}"), hint);
        } else {
            self.secret_of_all(path, file);
        }
    }

    fn secret_of_all(&mut self, path: &str, file: &Path) {
        if is_world_readable(file) {
            let message = format!("\"{path}\": every user of this machine can read {}", file.display());
            self.refuse(Code::Readable, path, message, "chmod o-rwx");
        }
    }

    fn seed(&mut self, seed: &str) {
        let parts = seed.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
        let Some((host, _)) = parts.filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0)) else {
            let message = format!("\"cluster.seeds\" needs HOST:PORT, found {}", quote(seed));
            return self.refuse(Code::Value, "cluster.seeds", message, "for example \"starling-0.starling:3002\"");
        };
        let host: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if self.config.cluster.mesh_listen.ip().is_loopback() && host.is_some_and(|ip| !ip.is_loopback()) {
            let message = format!("seed {} cannot be reached from a loopback \"cluster.mesh_listen\"", quote(seed));
            self.refuse(Code::Cluster, "cluster.seeds", message, "set cluster.mesh_listen to an address of this host");
        }
    }
}
