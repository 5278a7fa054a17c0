//! One WebSocket client that reads and writes when it is told to, unlike those of a load, which always do both.
//!
//! Invariants: a packet is handed out whole; a ping is answered by whoever reads; nothing is read ahead of what was asked.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use protocol::engine::frame::{Opcode, next_frame, put_masked_text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{PATIENCE, TrialError};

/// Any mask will do: masking protects proxies from browsers' scripts, and here is neither.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x3c, 0xa5];
/// What of an unexpected packet is shown.
const SHOWN: usize = 120;

/// See the module.
#[derive(Debug)]
pub(super) struct Peer {
    tcp: TcpStream,
    rest: BytesMut,
    out: Vec<u8>,
}

impl Peer {
    /// A client with a socket in `/`. The kernel may be told to hold little for it.
    pub(super) async fn connect(to: SocketAddr, receive_buffer: Option<u32>) -> Result<Peer, TrialError> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let tcp = socket.connect(to).await?;
        tcp.set_nodelay(true)?;
        let mut peer = Peer { tcp, rest: BytesMut::new(), out: Vec::new() };
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3Qta2V5LTAwMQ==\r\n\r\n"
        );
        peer.tcp.write_all(request.as_bytes()).await?;
        peer.upgraded().await?;
        peer.expect("0{", "an open packet").await?;
        peer.say("40").await?;
        peer.expect("40{", "a welcome to the namespace").await?;
        Ok(peer)
    }

    /// Sends one packet.
    pub(super) async fn say(&mut self, packet: &str) -> Result<(), TrialError> {
        self.queue(packet);
        self.flush().await
    }

    /// Adds a packet to what the next `flush` writes.
    pub(super) fn queue(&mut self, packet: &str) {
        put_masked_text(&mut self.out, &[packet.as_bytes()], MASK);
    }

    /// Writes what was queued.
    pub(super) async fn flush(&mut self) -> Result<(), TrialError> {
        self.tcp.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// The next packet, which must begin with `start`.
    pub(super) async fn expect(&mut self, start: &str, wanted: &'static str) -> Result<String, TrialError> {
        let packet = self.packet().await?;
        if packet.starts_with(start) {
            return Ok(packet);
        }
        Err(TrialError::Unexpected { wanted, seen: packet.chars().take(SHOWN).collect() })
    }

    /// The next packet that is no heartbeat. Not cancel safe.
    pub(super) async fn packet(&mut self) -> Result<String, TrialError> {
        loop {
            while let Some(packet) = self.whole()? {
                match packet.as_str() {
                    "2" => self.say("3").await?,
                    _ => return Ok(packet),
                }
            }
            self.read().await?;
        }
    }

    /// Whatever the kernel has of packets, without waiting for more; answers pings with the next `flush`.
    pub(super) fn packets_at_hand(&mut self, mut each: impl FnMut(&str)) -> Result<(), TrialError> {
        loop {
            while let Some(packet) = self.whole()? {
                match packet.as_str() {
                    "2" => self.queue("3"),
                    packet => each(packet),
                }
            }
            match self.tcp.try_read_buf(&mut self.rest) {
                Ok(0) => {
                    return Err(TrialError::Unexpected { wanted: "an open connection", seen: "its end".to_owned() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Throws away whatever the kernel has. From then on no packet can be read any more.
    pub(super) fn discard(&mut self, scratch: &mut [u8]) -> Result<(), TrialError> {
        loop {
            match self.tcp.try_read(scratch) {
                Ok(0) => {
                    return Err(TrialError::Unexpected { wanted: "an open connection", seen: "its end".to_owned() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The packet whose frame has arrived whole.
    fn whole(&mut self) -> Result<Option<String>, TrialError> {
        let Some((opcode, payload, length)) = next_frame(&self.rest)? else { return Ok(None) };
        let packet = String::from_utf8_lossy(&self.rest[payload]).into_owned();
        self.rest.advance(length);
        match opcode {
            Opcode::Text => Ok(Some(packet)),
            Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => {
                Err(TrialError::Unexpected { wanted: "a text", seen: format!("{opcode:?}") })
            }
        }
    }

    async fn upgraded(&mut self) -> Result<(), TrialError> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|end| end == b"\r\n\r\n") {
                let head = self.rest.split_to(end + 4);
                if head.starts_with(b"HTTP/1.1 101 ") {
                    return Ok(());
                }
                let seen = String::from_utf8_lossy(&head).chars().take(SHOWN).collect();
                return Err(TrialError::Unexpected { wanted: "101", seen });
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), TrialError> {
        let read = timeout(PATIENCE, self.tcp.read_buf(&mut self.rest)).await.map_err(|_| TrialError::Silent)??;
        if read == 0 {
            return Err(TrialError::Unexpected { wanted: "an open connection", seen: "its end".to_owned() });
        }
        Ok(())
    }
}
