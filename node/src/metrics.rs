//! Every number this node tells about itself.
//!
//! Invariants:
//! - Built once, before any thread starts; handles are shared by `Arc` and touched without a lock.
//! - Every series exists from the start, so that a rate is right from the first event on.
//! - Labels are closed sets of words: never a room, a user, a session, an address (operators.md 3.6).
//! - Base units: seconds, bytes. Names: `starling_` + field, counters end in `_total`; `process_*` as Prometheus has them.

mod by;
mod label;
mod process;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use by::{By, ByThread, ByTwo};
pub use label::{
    CloseReason, Direction, DropReason, ForwardKind, ForwardResult, HandshakeError, Label, Lane, LinkState,
    MemberState, MeshRefusal, PacketType, Purpose, Queue, RejectReason, ReloadResult, SlotRole, Source, Transport,
    UpgradeResult,
};

/// A gauge of seconds.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

/// How the numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

macro_rules! metrics {
    ($($field:ident: $kind:ty = $help:literal;)*) => {
        /// The handles. Gauges are set or moved by their owner; counters only rise.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
            /// How late each thread's loop ran its last tick, in seconds.
            pub event_loop_lag_seconds: ByThread<SecondsGauge>,
        }

        impl Metrics {
            /// Builds all series; `threads` names the threads that report their lag.
            pub fn new(threads: &[String]) -> Metrics {
                let mut registry = Registry::default();
                registry.register_collector(Box::new(process::Process));
                let starling = registry.sub_registry_with_prefix("starling");
                let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
                starling.register("build", "Version of this program", build);
                $(
                    let $field: $kind = Default::default();
                    starling.register(stringify!($field), $help, $field.clone());
                )*
                let event_loop_lag_seconds = ByThread::new(threads);
                let help = "How late each thread ran its last tick";
                starling.register("event_loop_lag_seconds", help, event_loop_lag_seconds.clone());
                Metrics { registry, $($field,)* event_loop_lag_seconds }
            }
        }
    };
}

metrics! {
    connections: By<Transport, Gauge> = "Open connections";
    connections_opened: By<Transport, Counter> = "Connections opened, by their first transport";
    connections_closed: By<CloseReason, Counter> = "Connections closed";
    handshake_errors: By<HandshakeError, Counter> = "Requests refused at the handshake, by Engine.IO code";
    tls_reloads: By<ReloadResult, Counter> = "Changed certificates, taken over or not";
    tls_certificate_expiry_seconds: Gauge = "End of the certificate of the client port, Unix time; 0 without TLS";
    upgrades: By<UpgradeResult, Counter> = "Upgrades from polling to WebSocket";
    forwarded_requests: ByTwo<ForwardKind, ForwardResult, Counter> = "Requests for sessions of other nodes, by what became of them";
    forwarded_upgrades: Gauge = "Open WebSockets here whose session is on another node";
    forwarded_bytes: By<Direction, Counter> = "Bytes of requests and WebSockets carried between nodes";
    sockets: Gauge = "Sockets: one per connection and namespace";
    packets_received: By<PacketType, Counter> = "Socket.IO packets received";
    bytes_received: Counter = "Bytes received from clients";
    bytes_sent: Counter = "Bytes sent to clients";
    events_published: By<Source, Counter> = "Events published";
    deliveries: Counter = "Events handed to clients, one per recipient";
    fanout_writes: Counter = "Write calls made to deliver events";
    lagging_members: Gauge = "Members whose connection takes less than it is given";
    slow_consumers_closed: Counter = "Connections closed because they lagged too far";
    rejected: By<RejectReason, Counter> = "Requests, connections and events refused by a limit or a rule";
    panics: Counter = "Panics of the embedding program's handler; each closed a connection";
    dropped: By<DropReason, Counter> = "Events given up on the way";
    rooms: Gauge = "Rooms with a member on this node";
    room_memberships: Gauge = "Memberships of sockets in rooms";
    mailbox_bytes: By<Queue, Gauge> = "Bytes that wait between threads";
    slots_owned: Gauge = "Slots this node owns";
    slots_open: By<SlotRole, Gauge> = "Slots in use that this node has a part in";
    slots_single_copy: Gauge = "Slots in use and owned here that the loss of this node would damage";
    cluster_members: By<MemberState, Gauge> = "Members of the cluster as this node sees them";
    cluster_key_reloads: By<ReloadResult, Counter> = "Changed cluster keys, taken over or not";
    mesh_refused: By<MeshRefusal, Counter> = "What was refused of peers and of strangers on the mesh port";
    mesh_reconnects: Counter = "Links that ended, for whatever reason";
    mesh_skipped: Counter = "Frames of a later version that may be skipped, and were";
    mesh_links: By<LinkState, Gauge> = "Links to other nodes";
    mesh_frames: By<Direction, Counter> = "Frames over links";
    mesh_room_frames: By<Purpose, Counter> = "Frames of rooms from other nodes";
    mesh_bytes: By<Direction, Counter> = "Bytes over links";
    mesh_queue_bytes: By<Lane, Gauge> = "Bytes that wait in the lanes of all links";
    mesh_lane_frames: By<Lane, Counter> = "Frames sent in a lane of any link";
    mesh_lane_bytes: By<Lane, Counter> = "Bytes sent in a lane of any link";
    mesh_lane_refused: By<Lane, Counter> = "Frames a lane did not take because it was full";
    mesh_rtt_seconds: SecondsGauge = "Largest smoothed round trip of all links";
    interest_rooms: Gauge = "Rooms this node asked other owners for";
    history_appends: Counter = "Messages appended to history";
    history_reads: Counter = "Reads of history";
    history_bytes: Gauge = "Bytes of history that is kept, with its index";
    store_open: Gauge = "1 while the store takes writes";
    store_open_seconds: SecondsGauge = "How long the last open of the store took, verification included";
    store_disk_bytes: Gauge = "Bytes the files of the store take";
    store_errors: Counter = "Store operations that failed";
    store_reopens: Counter = "Times the store was opened again after an error";
    store_quarantines: Counter = "Stores that were damaged and moved aside";
    store_damaged_sections: Counter = "Stored sections that a read could not believe and left out";
    store_queue_bytes: Gauge = "Bytes that wait for the store";
    memory_limit_bytes: Gauge = "Memory this process may use before it takes less; 0 without a limit";
    memory_pressure: Gauge = "What is given up because memory is short: 0 nothing, 1 newcomers, 2 polling sessions, 3 laggards, 4 volatile messages, 5 messages";
    draining: Gauge = "1 while this node gives up its connections";
}

impl Metrics {
    /// All numbers as text.
    pub fn render(&self, format: Format) -> String {
        let mut out = String::new();
        let written = match format {
            Format::Prometheus => prometheus_text::encode(&mut out, &self.registry),
            Format::OpenMetrics => text::encode(&mut out, &self.registry),
        };
        // Writing to a string cannot fail; a collector that did would cut the text, and scrapers notice a missing end.
        debug_assert!(written.is_ok(), "a collector failed");
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
