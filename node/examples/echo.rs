//! An echo server with a node embedded: what the official protocol test suites are run against, on 127.0.0.1:3000.
//!
//! Invariants: with `--engine` it returns bare Engine.IO messages on `/engine.io/`; without, it speaks Socket.IO on `/`
//! and `/custom`. One shard, since the suites expect requests on different TCP connections to be served as they were sent.
//! `--large` and a port are for the WebSocket cases of Autobahn, which send 16 MiB at once and know no heartbeat.

use std::time::Duration;

use starling::{
    app,
    config::{self, Facts, Size, Sources},
    handler::{Ack, Args, Event, Handled, Handler, Layer, Message, Socket},
};

/// Without a configuration file and on loopback this is development: every origin and every namespace is welcome.
const SETTINGS: [(&str, &str); 6] = [
    ("STARLING_SERVER__SHARDS", "1"),
    ("STARLING_SOCKETIO__PING_INTERVAL", "300ms"),
    ("STARLING_SOCKETIO__PING_TIMEOUT", "200ms"),
    ("STARLING_SOCKETIO__CONNECT_TIMEOUT", "1s"),
    ("STARLING_STORE__KIND", "memory"),
    ("STARLING_LOG__FILTER", "warn"),
];

struct Echo(Layer);

impl Handler for Echo {
    fn layer(&self) -> Layer {
        self.0
    }

    fn accepts(&self, namespace: &str) -> bool {
        matches!(namespace, "/" | "/custom")
    }

    fn on_connect(&self, socket: &mut Socket<'_>, auth: Option<&str>) {
        // What a client sent as JSON can be sent back.
        let _ = socket.emit("auth", &Args::text(format!("[{}]", auth.unwrap_or("{}"))));
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let said = match (event.name(), ack) {
            ("message", _) => socket.emit("message-back", &event.args()),
            ("message-with-ack", Some(ack)) => socket.ack(ack, &event.args()),
            (_, ack) => return Handled::No(ack),
        };
        said.map_or_else(|_| Handled::No(None), |()| Handled::Yes)
    }

    fn on_message(&self, message: Message) -> Option<Message> {
        Some(message)
    }
}

fn main() -> anyhow::Result<()> {
    let environment = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let facts = Facts { host_name: "echo".to_owned(), cores: 1 };
    let loaded = config::load(&Sources { file: None, environment, flags: Vec::new(), facts });
    let mut config = loaded.map_err(|problems| anyhow::anyhow!("{problems:?}"))?.config;
    let engine = std::env::args().any(|argument| argument == "--engine");
    if engine {
        config.socketio.path = "/engine.io/".to_owned();
    }
    if std::env::args().any(|argument| argument == "--large") {
        config.socketio.max_payload = Size(17 << 20);
        config.limits.queue_bytes = Size(64 << 20);
        // 4 MiB come in pieces of 64 bytes.
        config.limits.fragments = 1 << 17;
        config.socketio.ping_interval = Duration::from_secs(600);
    }
    if let Some(port) = std::env::args().find_map(|argument| argument.parse().ok()) {
        config.server.listen.set_port(port);
        config.server.admin_listen.set_port(0);
    }
    app::serve_with(config, Echo(if engine { Layer::EngineIo } else { Layer::SocketIo }))
}
