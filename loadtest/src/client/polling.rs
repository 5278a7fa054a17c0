//! The long-polling transport: one connection always waits with a GET, the other posts, one body at a time.
//!
//! Packets to send are joined in one body while a POST is under way, as the official client does. Only answers with a
//! `Content-Length` are understood; that is what a server of whole bodies sends.

use memchr::memmem;
use serde::Deserialize;

use super::session::{Outbox, Session};
use super::{Channel, ClientError, Event, HTTP_HEAD_MAX, PATH};

/// Stands between the packets of one body.
const SEPARATOR: u8 = 0x1E;
/// A body longer than this is refused.
const BODY_MAX: usize = 16 << 20;

/// A session over two HTTP connections.
#[derive(Debug)]
pub(super) struct Polling {
    host: String,
    sid: Option<String>,
    poll: Exchange,
    post: Exchange,
    posting: bool,
    /// The next body to post.
    pending: Vec<u8>,
}

/// One connection: bytes to write, bytes of an unfinished answer.
#[derive(Debug, Default)]
struct Exchange {
    out: Vec<u8>,
    rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Open {
    sid: String,
}

impl Polling {
    /// A session whose handshake is ready to be written.
    pub(super) fn new(host: &str) -> Polling {
        let mut polling = Polling {
            host: host.to_owned(),
            sid: None,
            poll: Exchange::default(),
            post: Exchange::default(),
            posting: false,
            pending: Vec::new(),
        };
        polling.ask();
        polling
    }

    pub(super) fn output(&mut self, channel: Channel) -> &mut Vec<u8> {
        match channel {
            Channel::Main => &mut self.poll.out,
            Channel::Post => &mut self.post.out,
        }
    }

    pub(super) fn send(&mut self, parts: &[&[u8]]) {
        put_packet(&mut self.pending, parts);
        self.tell();
    }

    pub(super) fn handle_end(&mut self, channel: Channel) -> Result<(), ClientError> {
        match channel {
            Channel::Post if !self.posting => Ok(()),
            Channel::Main | Channel::Post => Err(ClientError::Closed),
        }
    }

    pub(super) fn handle_bytes(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        session: &mut Session,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        match channel {
            Channel::Main => {
                if let Some(body) = self.poll.answer(bytes)? {
                    self.handle_body(&body, session, on_event)?;
                    self.ask();
                }
            }
            Channel::Post => {
                if self.post.answer(bytes)?.is_some() {
                    self.posting = false;
                }
            }
        }
        self.tell();
        Ok(())
    }

    fn handle_body(
        &mut self,
        body: &[u8],
        session: &mut Session,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        for packet in body.split(|byte| *byte == SEPARATOR) {
            match packet {
                [b'0', open @ ..] => {
                    let open: Open = serde_json::from_slice(open).map_err(|_| ClientError::Packet)?;
                    self.sid = Some(open.sid);
                }
                // A binary message: not for this tool.
                [b'b', ..] => continue,
                _ => {}
            }
            let outbox = Outbox { out: &mut self.pending, put: put_packet };
            session.handle_packet(packet, outbox, on_event)?;
        }
        Ok(())
    }

    /// Writes the next GET.
    fn ask(&mut self) {
        let Polling { host, sid, poll, .. } = self;
        let sid = sid.as_deref().map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let request = format!("GET {PATH}&transport=polling{sid} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        poll.out.extend_from_slice(request.as_bytes());
    }

    /// Writes a POST with everything pending, unless one is under way.
    fn tell(&mut self) {
        let Polling { host, sid: Some(sid), post, posting: false, pending, .. } = self else { return };
        if pending.is_empty() {
            return;
        }
        let head = format!(
            "POST {PATH}&transport=polling&sid={sid} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            pending.len()
        );
        post.out.extend_from_slice(head.as_bytes());
        post.out.append(pending);
        self.posting = true;
    }
}

impl Exchange {
    /// Takes bytes of an answer; its body, once it is whole.
    fn answer(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.rest, b"\r\n\r\n") else {
            return match self.rest.len() > HTTP_HEAD_MAX {
                true => Err(ClientError::Http("endless answer".to_owned())),
                false => Ok(None),
            };
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        let start = end + 4;
        let length = content_length(&head).ok_or_else(|| ClientError::Http("answer without a length".to_owned()))?;
        if length > BODY_MAX {
            return Err(ClientError::Http("answer too large".to_owned()));
        }
        if self.rest.len() < start + length {
            return Ok(None);
        }
        let status = head.lines().next().unwrap_or_default();
        let body = self.rest[start..start + length].to_vec();
        if !status.starts_with("HTTP/1.1 200") {
            return Err(ClientError::Http(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        self.rest.drain(..start + length);
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
        Ok(Some(body))
    }
}

fn put_packet(out: &mut Vec<u8>, parts: &[&[u8]]) {
    if !out.is_empty() {
        out.push(SEPARATOR);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn content_length(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}
