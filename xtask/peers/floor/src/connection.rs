//! One connection: the HTTP upgrade, masked frames in, whole frames out.
//!
//! What the socket does not take at once waits in `pending` and leaves when the socket can be written again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use memchr::memmem;

use crate::room::put_text;

/// A client of the load test sends far less than this at a time.
const REST_MAX: usize = 1 << 20;
/// A member this far behind is cut.
const PENDING_MAX: usize = 64 << 20;

/// The answer to every upgrade, with the open packet behind it. The load test does not check the key, so none is made.
const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const OPEN: &[u8] = br#"0{"sid":"floor","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `42<id>["join","<room>"]`
    Join {
        /// Room name.
        room: String,
        /// Ack id, as digits.
        id: String,
    },
    /// `42["publish","<room>","<payload>"]`
    Publish {
        /// Room name.
        room: String,
        /// Payload, raw.
        payload: Vec<u8>,
    },
}

/// One client.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    upgraded: bool,
    rest: Vec<u8>,
    pending: Vec<u8>,
    broken: bool,
}

impl Connection {
    /// A fresh non-blocking connection.
    pub fn new(stream: TcpStream) -> Connection {
        Connection { stream, upgraded: false, rest: Vec::new(), pending: Vec::new(), broken: false }
    }

    /// Everything the client asked for since the last time; `None` when it has gone.
    pub fn read(&mut self, scratch: &mut [u8]) -> Option<Vec<Request>> {
        let mut requests = Vec::new();
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return None,
                Ok(length) => {
                    self.rest.extend_from_slice(&scratch[..length]);
                    self.parse(&mut requests)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        (!self.broken).then_some(requests)
    }

    /// Sends one packet in a frame of its own.
    pub fn send(&mut self, packet: &[u8]) {
        let mut frame = Vec::new();
        put_text(&mut frame, &[packet]);
        self.write(&frame);
    }

    /// Writes bytes, keeping what the socket does not take.
    pub fn write(&mut self, bytes: &[u8]) {
        if !self.pending.is_empty() {
            self.broken |= self.pending.len() > PENDING_MAX;
            return self.pending.extend_from_slice(bytes);
        }
        match self.stream.write(bytes) {
            Ok(length) => self.pending.extend_from_slice(&bytes[length..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.pending.extend_from_slice(bytes),
            Err(_) => self.broken = true,
        }
    }

    /// The socket can be written again.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    fn parse(&mut self, requests: &mut Vec<Request>) -> Option<()> {
        let rest = std::mem::take(&mut self.rest);
        let mut used = 0;
        if !self.upgraded {
            let Some(end) = memmem::find(&rest, b"\r\n\r\n") else {
                self.rest = rest;
                return (self.rest.len() < REST_MAX).then_some(());
            };
            used = end + 4;
            self.upgraded = true;
            self.write(WELCOME);
            self.send(OPEN);
        }
        while let Some((packet, length)) = unmask(&rest[used..]) {
            used += length;
            match packet.as_slice() {
                b"40" => self.send(br#"40{"sid":"floor"}"#),
                packet => requests.extend(request(packet)),
            }
        }
        self.rest = rest[used..].to_vec();
        (self.rest.len() < REST_MAX).then_some(())
    }
}

/// The payload of the masked frame at the beginning, and the frame's length.
fn unmask(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (start, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let mask: [u8; 4] = *bytes.get(start..)?.first_chunk()?;
    let end = start.checked_add(4)?.checked_add(length)?;
    let masked = bytes.get(start + 4..end)?;
    Some((masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(), end))
}

/// The load test escapes nothing, so quotes are all there is to look for.
fn request(packet: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(packet).ok()?.strip_prefix("42")?;
    let fields: Vec<&str> = text.split('"').collect();
    match fields.as_slice() {
        [id, "join", ",", room, "]"] => {
            Some(Request::Join { room: (*room).to_owned(), id: id.trim_end_matches('[').to_owned() })
        }
        ["[", "publish", ",", room, ",", payload, "]"] => {
            Some(Request::Publish { room: (*room).to_owned(), payload: payload.as_bytes().to_vec() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_requests_are_understood_and_nothing_else() {
        let join = Request::Join { room: "a".to_owned(), id: "0".to_owned() };
        assert_eq!(request(br#"420["join","a"]"#), Some(join));
        let publish = Request::Publish { room: "a".to_owned(), payload: b"xyz".to_vec() };
        assert_eq!(request(br#"42["publish","a","xyz"]"#), Some(publish));
        for other in [&b"3"[..], b"42", b"42[]", br#"42["other","a"]"#, b"\xff"] {
            assert_eq!(request(other), None);
        }
    }

    #[test]
    fn a_masked_frame_is_read_once_it_is_whole() {
        let frame = [0x81, 0x82, 1, 2, 3, 4, b'4' ^ 1, b'0' ^ 2];
        assert_eq!(unmask(&frame), Some((b"40".to_vec(), 8)));
        for length in 0..frame.len() {
            assert_eq!(unmask(&frame[..length]), None);
        }
    }
}
