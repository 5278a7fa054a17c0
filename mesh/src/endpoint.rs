//! The UDP socket and the QUIC endpoint on it.
//!
//! Invariants: windows are small because each is a promise of memory per peer (`mesh.md` 2.2, `reliability.md` 4.1): a
//! peer can pin at most the connection window; socket buffers are asked for, and what was granted is known.
//!
//! Who gets the line, and why nobody waits for ever: datagrams (gossip) are packed before stream frames; then streams by
//! priority (`priority`), and streams of one priority in turn, packet by packet (`send_fairness`: without it a stream with
//! data keeps the line until it has none, whatever waits with a higher priority). The four lanes can fill [`LANE_WINDOWS`],
//! at the receiver when no lane is ready and at the sender when the path is slow; both [`CONNECTION_WINDOW`] and
//! [`SEND_WINDOW`] are larger, so a question always finds room.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    BindError, ClusterKeys, Config, LANES, NodeId, Timings, pipe,
    tls::{self, Crypto, Trust},
};

/// Buffer asked for in each direction of the socket.
const SOCKET_BUFFER: usize = 8 << 20;
/// Bytes one stream may have in flight towards us: the credit of a lane.
const STREAM_WINDOW: u32 = 512 << 10;
/// What the lanes together may have in flight.
const LANE_WINDOWS: u32 = STREAM_WINDOW * LANES as u32;
/// What pipes may have in flight at worst: it comes on top of both windows, so that they take nothing from the lanes.
#[expect(clippy::cast_possible_truncation, reason = "a few megabytes")]
const PIPE_WINDOWS: u32 = pipe::WORST as u32;
/// Bytes one peer may have in flight towards us: half of what is not for pipes is beyond the reach of the lanes.
const CONNECTION_WINDOW: u32 = (4 << 20) + PIPE_WINDOWS;
/// Bytes we keep for one peer until it acknowledged them: a third of what is not for pipes is beyond the reach of the lanes.
const SEND_WINDOW: u64 = (3 << 20) + PIPE_WINDOWS as u64;
/// Streams of each kind a peer may have open: five lanes, gossip, and questions.
const STREAMS: u32 = 16;
/// Streams with two directions: questions and pipes.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
const TWO_WAY_STREAMS: u32 = STREAMS + pipe::PIPES as u32;
/// Gossip packets waiting to be read; the oldest are dropped beyond it.
const DATAGRAM_BUFFER: usize = 64 << 10;
/// First congestion window: a data centre's.
const INITIAL_WINDOW: u64 = 96 << 10;
/// Handshakes under way before newcomers must prove their address.
const HALF_OPEN: usize = 100;

const _: () = assert!(
    CONNECTION_WINDOW >= 2 * LANE_WINDOWS + PIPE_WINDOWS
        && SEND_WINDOW >= LANE_WINDOWS as u64 + PIPE_WINDOWS as u64 + (1 << 20)
);

/// What a stream carries, as QUIC orders streams: the higher goes first.
pub(crate) mod priority {
    /// Greetings and what links say about themselves.
    pub(crate) const CONTROL: i32 = 10;
    /// Questions and answers of at most `request::URGENT` bytes, and rosters.
    pub(crate) const QUESTION: i32 = 5;
    /// Room frames; QUIC's default.
    pub(crate) const LANE: i32 = 0;
    /// Pipes: what they carry, clients wait for, but rooms go first.
    pub(crate) const PIPE: i32 = -5;
    /// Larger questions and answers: they take what the lanes leave.
    pub(crate) const BULK: i32 = -10;
}

/// The endpoint, and whom it lets in.
pub(crate) struct Gate {
    endpoint: Endpoint,
    trust: Trust,
    node: NodeId,
    timings: Timings,
    segmentation_offload: bool,
}

/// A bound endpoint.
pub(crate) struct Bound {
    pub(crate) gate: Gate,
    pub(crate) address: SocketAddr,
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
    pub(crate) half_open_limit: usize,
}

/// Binds the socket and starts the endpoint on the current runtime.
pub(crate) fn bind(config: &Config) -> Result<Bound, BindError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(BindError::NoRuntime);
    }
    let failed = |source| BindError::Socket { address: config.listen, source };
    let socket = socket(config.listen).map_err(failed)?;
    let receive_buffer = socket.recv_buffer_size().map_err(failed)?;
    let send_buffer = socket.send_buffer_size().map_err(failed)?;
    let Crypto { server, client, trust } = tls::crypto(&config.keys, config.node).map_err(BindError::Certificate)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket.into(), Arc::new(TokioRuntime));
    let endpoint = endpoint.map_err(failed)?;
    let address = endpoint.local_addr().map_err(failed)?;
    let (timings, segmentation_offload) = (config.timings.clone(), config.segmentation_offload);
    let mut gate = Gate { endpoint, trust, node: config.node, timings, segmentation_offload };
    gate.show(server, client);
    Ok(Bound { gate, address, receive_buffer, send_buffer, half_open_limit: HALF_OPEN })
}

impl Gate {
    /// To dial and accept by.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether a connection made a moment ago, or long ago, would still be made.
    pub(crate) fn accepts(&self, connection: &Connection) -> bool {
        self.trust.accepts(connection)
    }

    /// From now on handshakes are made with these keys. On an error nothing changed.
    pub(crate) fn rotate(&mut self, keys: &ClusterKeys) -> Result<(), String> {
        let Crypto { server, client, trust } = tls::crypto(keys, self.node)?;
        self.trust = trust;
        self.show(server, client);
        Ok(())
    }

    fn show(&mut self, server: Arc<QuicServerConfig>, client: Arc<QuicClientConfig>) {
        let mut accepting = ServerConfig::with_crypto(server);
        accepting.transport_config(Arc::new(self.transport())).migration(false).max_incoming(2 * HALF_OPEN);
        self.endpoint.set_server_config(Some(accepting));
        let mut dialling = ClientConfig::new(client);
        let mut transport = self.transport();
        transport.keep_alive_interval(Some(self.timings.keep_alive));
        dialling.transport_config(Arc::new(transport));
        self.endpoint.set_default_client_config(dialling);
    }

    fn transport(&self) -> TransportConfig {
        let mut congestion = quinn::congestion::CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW);
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(SEND_WINDOW)
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
            .max_concurrent_bidi_streams(VarInt::from_u32(TWO_WAY_STREAMS))
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .initial_rtt(Duration::from_millis(2))
            .send_fairness(true)
            .congestion_controller_factory(Arc::new(congestion))
            .enable_segmentation_offload(self.segmentation_offload)
            // A timeout beyond what a variable-length integer holds means none.
            .max_idle_timeout(IdleTimeout::try_from(self.timings.idle).ok());
        transport
    }
}

fn socket(listen: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel grants what its limits allow; asking for more is no error.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket)
}
