//! Defaults, and those of them that depend on what else was said.
//!
//! Invariants: a value with an origin is never touched here; the defaults of a node without a file serve loopback only.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Auth, Cluster, Config, Drain, Facts, History, Limits, Log, LogFormat, Networks, Origin, Origins, Server, Size,
    SocketIo, Store, StoreKind, TlsFiles, Transports,
};

const MIB: u64 = 1 << 20;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The configuration of a node that was told nothing. Ports: interface.md 1–3; limits: reliability.md 4.4.
pub(super) fn defaults(facts: &Facts) -> Config {
    Config {
        development: false,
        server: Server {
            listen: loopback(3000),
            admin_listen: loopback(3001),
            demo: false,
            allowed_origins: Origins::default(),
            trusted_proxies: Networks::default(),
            shards: facts.cores.clamp(1, 64),
            tls: TlsFiles::default(),
        },
        socketio: SocketIo {
            path: "/socket.io/".to_owned(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            max_payload: Size(1_000_000),
            transports: Transports { polling: true, websocket: true },
            builtin_prefix: "room:".to_owned(),
            serve_client: true,
        },
        cluster: Cluster {
            node: facts.host_name.clone(),
            ordinal: 0,
            mesh_listen: loopback(3002),
            advertise: None,
            seeds: Vec::new(),
            key_file: None,
            presence_ghost: Duration::from_secs(10),
        },
        store: Store {
            kind: StoreKind::Sled,
            dir: PathBuf::from("./starling-data"),
            max_bytes: Size(512 * MIB),
            history: History { size: 1_000, ttl: Duration::from_secs(600) },
        },
        auth: Auth { anonymous: true },
        limits: Limits::defaults(),
        drain: Drain { window: Duration::from_secs(60) },
        namespaces: Vec::new(),
        log: Log { format: LogFormat::Text, filter: "info".to_owned() },
    }
}

/// Fills in what depends on other values.
pub(super) fn settle(config: &mut Config, origins: &BTreeMap<String, Origin>, has_file: bool) {
    let unset = |path: &str| !origins.contains_key(path);
    config.development = !has_file && config.server.listen.ip().is_loopback();
    if config.development {
        if unset("server.demo") {
            config.server.demo = config.socketio.serve_client;
        }
        if unset("server.allowed_origins") {
            config.server.allowed_origins = Origins::any();
        }
        if unset("drain.window") {
            config.drain.window = Duration::from_secs(1);
        }
        config.limits.lift(origins);
    }
    if unset("cluster.ordinal") {
        config.cluster.ordinal = ordinal_of(&config.cluster.node).unwrap_or(0);
    }
}

/// The number at the end of a StatefulSet name: `starling-2` is 2.
pub(super) fn ordinal_of(name: &str) -> Option<u16> {
    let (_, digits) = name.rsplit_once('-')?;
    // `parse` alone would take "+2".
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
