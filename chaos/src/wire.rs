//! One WebSocket connection that speaks Socket.IO in `/`: packets in, packets out.
//!
//! Invariants: a packet is handed out whole; pings are answered by whoever waits for the next packet; everything that waits
//! is cancel safe, so that a session can wait for a packet and for its clock at once.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use protocol::engine::frame::{FrameError, Opcode, next_frame, put_masked_text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Any mask will do: masking protects proxies from browsers' scripts, and here is neither.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x3c, 0xa5];
/// How long a server may take to let a client in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may say nothing: it pings every `cluster::PING_INTERVAL`.
const SILENCE: Duration = Duration::from_secs(5);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("frames: {0}")]
    Frame(#[from] FrameError),
    #[error("closed")]
    Closed,
    #[error("silent")]
    Silent,
    #[error("wanted {wanted}, saw {seen}")]
    Unexpected { wanted: &'static str, seen: String },
}

/// See the module.
pub(crate) struct Wire {
    tcp: TcpStream,
    rest: BytesMut,
    out: BytesMut,
    heard: Instant,
}

impl Wire {
    /// Connects to a node and to its `/`.
    pub(crate) async fn connect(to: SocketAddr) -> Result<Wire, WireError> {
        timeout(CONNECT_PATIENCE, Wire::enter(to)).await.unwrap_or(Err(WireError::Silent))
    }

    async fn enter(to: SocketAddr) -> Result<Wire, WireError> {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let mut wire = Wire { tcp, rest: BytesMut::new(), out: BytesMut::new(), heard: Instant::now() };
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3Qta2V5LTAwMQ==\r\n\r\n"
        );
        wire.tcp.write_all(request.as_bytes()).await?;
        wire.upgraded().await?;
        wire.expect("0{", "an open packet").await?;
        wire.say("40");
        wire.expect("40{", "a welcome to the namespace").await?;
        Ok(wire)
    }

    async fn upgraded(&mut self) -> Result<(), WireError> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.rest.split_to(end + 4);
                if head.starts_with(b"HTTP/1.1 101 ") {
                    return Ok(());
                }
                return Err(unexpected("an upgrade", &String::from_utf8_lossy(&head)));
            }
            if self.tcp.read_buf(&mut self.rest).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    async fn expect(&mut self, start: &str, wanted: &'static str) -> Result<(), WireError> {
        let packet = self.packet().await?;
        if packet.starts_with(start) { Ok(()) } else { Err(unexpected(wanted, &packet)) }
    }

    /// Queues a packet; it leaves while somebody waits for the next one.
    pub(crate) fn say(&mut self, packet: &str) {
        let mut frame = Vec::new();
        put_masked_text(&mut frame, &[packet.as_bytes()], MASK);
        self.out.extend_from_slice(&frame);
    }

    /// The next packet that is no heartbeat; writes what is queued meanwhile. Cancel safe.
    pub(crate) async fn packet(&mut self) -> Result<String, WireError> {
        loop {
            while let Some(packet) = self.whole()? {
                match packet.as_str() {
                    "2" => self.say("3"),
                    _ => return Ok(packet),
                }
            }
            let (mut reader, mut writer) = self.tcp.split();
            let step = async {
                tokio::select! {
                    read = reader.read_buf(&mut self.rest) => read.map(Some),
                    wrote = writer.write_buf(&mut self.out), if !self.out.is_empty() => wrote.map(|_| None),
                }
            };
            match timeout_at(self.heard + SILENCE, step).await.map_err(|_| WireError::Silent)?? {
                Some(0) => return Err(WireError::Closed),
                Some(_) => self.heard = Instant::now(),
                None => {}
            }
        }
    }

    fn whole(&mut self) -> Result<Option<String>, WireError> {
        while let Some((opcode, payload, length)) = next_frame(&self.rest)? {
            let packet = match opcode {
                Opcode::Text => Some(String::from_utf8_lossy(&self.rest[payload]).into_owned()),
                Opcode::Close => return Err(WireError::Closed),
                Opcode::Binary | Opcode::Ping | Opcode::Pong => None,
            };
            self.rest.advance(length);
            if packet.is_some() {
                return Ok(packet);
            }
        }
        Ok(None)
    }
}

fn unexpected(wanted: &'static str, seen: &str) -> WireError {
    WireError::Unexpected { wanted, seen: seen.chars().take(120).collect() }
}
