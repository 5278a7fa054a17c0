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

use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{BindError, Config, LANES, Timings, tls};

/// Buffer asked for in each direction of the socket.
const SOCKET_BUFFER: usize = 8 << 20;
/// Bytes one stream may have in flight towards us: the credit of a lane.
const STREAM_WINDOW: u32 = 512 << 10;
/// What the lanes together may have in flight.
const LANE_WINDOWS: u32 = STREAM_WINDOW * LANES as u32;
/// Bytes one peer may have in flight towards us: half of it is beyond the reach of the lanes.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes we keep for one peer until it acknowledged them: a third of it is beyond the reach of the lanes.
const SEND_WINDOW: u64 = 3 << 20;
/// Streams of each kind a peer may have open: five lanes, gossip, and questions.
const STREAMS: u32 = 16;
/// Gossip packets waiting to be read; the oldest are dropped beyond it.
const DATAGRAM_BUFFER: usize = 64 << 10;
/// First congestion window: a data centre's.
const INITIAL_WINDOW: u64 = 96 << 10;
/// Handshakes under way before newcomers must prove their address.
const HALF_OPEN: usize = 100;

const _: () = assert!(CONNECTION_WINDOW >= 2 * LANE_WINDOWS && SEND_WINDOW >= LANE_WINDOWS as u64 + (1 << 20));

/// What a stream carries, as QUIC orders streams: the higher goes first.
pub(crate) mod priority {
    /// Greetings and what links say about themselves.
    pub(crate) const CONTROL: i32 = 10;
    /// Questions and answers of at most `request::URGENT` bytes, and rosters.
    pub(crate) const QUESTION: i32 = 5;
    /// Room frames; QUIC's default.
    pub(crate) const LANE: i32 = 0;
    /// Larger questions and answers: they take what the lanes leave.
    pub(crate) const BULK: i32 = -10;
}

/// A bound endpoint.
pub(crate) struct Bound {
    pub(crate) endpoint: Endpoint,
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
    let crypto = tls::crypto(&config.key, config.node)?;
    let (timings, offload) = (&config.timings, config.segmentation_offload);

    let mut server = ServerConfig::with_crypto(crypto.server);
    server.transport_config(Arc::new(transport(timings, offload))).migration(false).max_incoming(2 * HALF_OPEN);
    let mut client = ClientConfig::new(crypto.client);
    client.transport_config(Arc::new(dialling(timings, offload)));

    let runtime = Arc::new(TokioRuntime);
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), Some(server), socket.into(), runtime).map_err(failed)?;
    endpoint.set_default_client_config(client);
    let address = endpoint.local_addr().map_err(failed)?;
    Ok(Bound { endpoint, address, receive_buffer, send_buffer, half_open_limit: HALF_OPEN })
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

fn transport(timings: &Timings, segmentation_offload: bool) -> TransportConfig {
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .initial_rtt(Duration::from_millis(2))
        .send_fairness(true)
        .congestion_controller_factory(Arc::new(congestion))
        .enable_segmentation_offload(segmentation_offload)
        // A timeout beyond what a variable-length integer holds means none.
        .max_idle_timeout(IdleTimeout::try_from(timings.idle).ok());
    transport
}

fn dialling(timings: &Timings, segmentation_offload: bool) -> TransportConfig {
    let mut transport = transport(timings, segmentation_offload);
    transport.keep_alive_interval(Some(timings.keep_alive));
    transport
}
