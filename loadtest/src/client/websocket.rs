//! The WebSocket transport: an HTTP upgrade, then frames.

use memchr::memmem;
use protocol::engine::frame::{Opcode, next_frame, put_masked, put_masked_text};

use super::session::{Outbox, Session};
use super::{ClientError, Event, HTTP_HEAD_MAX, PATH};

/// Any mask will do: masking protects proxies from browsers' scripts, and here is neither.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x3c, 0xa5];
/// Any key will do: the answer to it is not checked, because the server is what is measured and not what is doubted.
const KEY: &str = "bG9hZHRlc3Qta2V5LTAwMQ==";

/// One WebSocket connection.
#[derive(Debug)]
pub(super) struct WebSocket {
    upgraded: bool,
    /// Bytes of an unfinished answer or frame; empty nearly always.
    rest: Vec<u8>,
    out: Vec<u8>,
}

impl WebSocket {
    /// A connection whose upgrade request is ready to be written.
    pub(super) fn new(host: &str) -> WebSocket {
        let request = format!(
            "GET {PATH}&transport=websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        WebSocket { upgraded: false, rest: Vec::new(), out: request.into_bytes() }
    }

    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn send(&mut self, parts: &[&[u8]]) {
        put_text(&mut self.out, parts);
    }

    pub(super) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        session: &mut Session,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        if self.rest.is_empty() {
            let used = self.read(bytes, session, on_event)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(bytes);
        let used = self.read(&joined, session, on_event)?;
        // Whatever is left is a part of one frame; a finished buffer is freed and not kept.
        if used < joined.len() {
            joined.drain(..used);
            self.rest = joined;
        }
        Ok(())
    }

    /// Reads everything that is whole; the number of bytes that took.
    fn read(
        &mut self,
        bytes: &[u8],
        session: &mut Session,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, ClientError> {
        let mut used = 0;
        if !self.upgraded {
            match read_upgrade(bytes)? {
                Some(length) => used = length,
                None => return Ok(0),
            }
            self.upgraded = true;
        }
        while let Some((opcode, payload, length)) = next_frame(&bytes[used..])? {
            let payload = &bytes[used..][payload];
            used += length;
            match opcode {
                Opcode::Text => {
                    let outbox = Outbox { out: &mut self.out, put: put_text };
                    session.handle_packet(payload, outbox, on_event)?;
                }
                Opcode::Ping => put_masked(&mut self.out, Opcode::Pong, &[payload], MASK),
                Opcode::Close => return Err(ClientError::Closed),
                Opcode::Binary | Opcode::Pong => {}
            }
        }
        Ok(used)
    }
}

fn put_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    put_masked_text(out, parts, MASK);
}

/// The length of the answer to the upgrade, once it is whole.
fn read_upgrade(bytes: &[u8]) -> Result<Option<usize>, ClientError> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        if bytes.len() > HTTP_HEAD_MAX {
            return Err(ClientError::Http("endless answer".to_owned()));
        }
        return Ok(None);
    };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Ok(Some(end + 4));
    }
    let status = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(ClientError::Http(String::from_utf8_lossy(status).into_owned()))
}
