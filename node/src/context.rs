//! What every shard of a node shares: configuration, handles to the other threads, and the numbers.
//!
//! Invariants: built once before the first thread starts and never changed; everything in it may be used from any thread
//! without waiting.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use http::HeaderName;
use mesh::{Mesh, NodeId};
use persistence::{Status, Store};
use protocol::{engine::session::SessionConfig, sid::Sid, socketio::DecoderLimits};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::Addresses,
    api::Health,
    assets::Assets,
    conduct,
    config::Config,
    handler::{Handler, Layer},
    mailbox,
    message::Message,
    metrics::Metrics,
    names::Names,
    policy::Policy,
    pressure::Pressure,
    sid_keys::SidKeys,
    tls::Tls,
};

/// Bytes of history that may wait for the disk. New messages are refused from half of it on.
pub(crate) const STORE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Time a closing polling session waits for a poll to put its last packets in (`protocol.md` 6); less where a client that
/// does not poll is given up sooner.
const POLLING_CLOSE_WAIT_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) session: Arc<SessionConfig>,
    pub(crate) decoder: DecoderLimits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) assets: Assets,
    /// TLS on the client port, if it is configured.
    pub(crate) tls: Option<Tls>,
    /// The rules of names.
    pub(crate) names: Names,
    /// Who may do what, and what rooms keep.
    pub(crate) policy: Arc<Policy>,
    /// The built-in events, and the embedding program behind them.
    pub(crate) handler: Arc<dyn Handler>,
    /// What the handler said when the node started.
    pub(crate) layer: Layer,
    /// The headers of a connection's first request that it wants to know.
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    pub(crate) sid_keys: SidKeys,
    pub(crate) shards: Vec<mailbox::Sender<Message>>,
    pub(crate) store: Store,
    pub(crate) mesh: Option<Mesh>,
    /// Cancelled when the node stops taking connections.
    pub(crate) stop_accepting: CancellationToken,
    /// How short memory is.
    pub(crate) pressure: Pressure,
    /// What a client may do.
    pub(crate) conduct: conduct::Limits,
    /// What each client address has.
    pub(crate) addresses: Addresses,
    /// Open connections of all shards, the ones being opened included; moved by `admission` only.
    pub(crate) connections: AtomicUsize,
}

impl Context {
    /// The shard that serves this session; `None` if it is another node's or another life's.
    pub(crate) fn shard_of(&self, sid: &Sid) -> Option<u8> {
        let alive = sid.node() == self.node.0 && sid.generation() == low_generation(self.generation);
        (alive && usize::from(sid.shard()) < self.shards.len()).then(|| sid.shard())
    }

    /// The shard that a slot belongs to.
    pub(crate) fn shard_of_slot(&self, slot: u16) -> u8 {
        let shards = u16::try_from(self.shards.len()).unwrap_or(1).max(1);
        u8::try_from(slot % shards).unwrap_or(0)
    }

    /// Tells health how the store is.
    pub(crate) fn note_store(&self) {
        match self.store.status() {
            Status::Ok => self.health.set_store(None),
            Status::Degraded(why) => self.health.set_store(Some(&why)),
        }
    }

    /// Index of the admin thread among those that show that they live; the shards come before it.
    pub(crate) fn admin_thread(&self) -> usize {
        self.shards.len()
    }

    /// Index of the mesh thread among those that show that they live.
    pub(crate) fn mesh_thread(&self) -> usize {
        self.shards.len() + 1
    }
}

/// What a session id carries of a generation: the low 24 bits.
pub(crate) fn low_generation(generation: u64) -> u32 {
    // The rest is cut off on purpose.
    u32::try_from(generation & 0xff_ffff).unwrap_or(0)
}

/// The Engine.IO side of a configuration.
pub(crate) fn session_config(config: &Config) -> SessionConfig {
    SessionConfig {
        ping_interval: config.socketio.ping_interval,
        ping_timeout: config.socketio.ping_timeout,
        upgrade_timeout: config.socketio.upgrade_timeout,
        max_payload: config.socketio.max_payload.bytes(),
        packets_per_payload: config.limits.packets_per_poll,
        websocket_upgrade: config.socketio.transports.websocket,
        polling_close_wait: POLLING_CLOSE_WAIT_MAX.min(config.socketio.ping_interval + config.socketio.ping_timeout),
    }
}

/// The Socket.IO side of a configuration.
pub(crate) fn decoder_limits(config: &Config) -> DecoderLimits {
    DecoderLimits {
        attachments: config.limits.attachments,
        bytes: config.socketio.max_payload.bytes(),
        name_bytes: config.limits.name_bytes,
        json_depth: config.limits.json_depth,
    }
}
