//! The Socket.IO half of a client: connect, join, receive; the same over every transport.
//!
//! Packets here are Engine.IO packets as text, from the type digit on (`2`, `40`, `42["m","…"]`).

use std::rc::Rc;

use super::{ClientError, Event};
use crate::client::dialect::Dialect;

/// The ack id of a join. A member publishes nothing, so no publish can have the same.
const JOIN_ID: u64 = 0;

/// What a client does once it is connected; shared by all that do the same.
#[derive(Debug)]
pub(crate) struct Script {
    host: String,
    dialect: Dialect,
    connect: Vec<u8>,
    join: Option<Rc<[u8]>>,
}

impl Script {
    /// A member: joins `room` of `namespace` and asks for `history` items.
    pub(crate) fn member(host: &str, dialect: &Dialect, namespace: &str, room: &str, history: u32) -> Script {
        let join = dialect.join_packet(namespace, JOIN_ID, room, history);
        Script { join: Some(join.into()), ..Script::publisher(host, dialect, namespace) }
    }

    /// A publisher: only connects to `namespace`.
    pub(crate) fn publisher(host: &str, dialect: &Dialect, namespace: &str) -> Script {
        let connect = if namespace == "/" { "40".to_owned() } else { format!("40{namespace},") };
        Script { host: host.to_owned(), dialect: dialect.clone(), connect: connect.into_bytes(), join: None }
    }

    /// The value of the `Host` header.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// One client's progress through its script.
#[derive(Debug)]
pub(super) struct Session {
    script: Rc<Script>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Connecting,
    Joining,
    Ready,
}

/// How to append one packet to a transport's output.
pub(super) struct Outbox<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) put: fn(&mut Vec<u8>, &[&[u8]]),
}

impl Outbox<'_> {
    fn send(&mut self, parts: &[&[u8]]) {
        (self.put)(self.out, parts);
    }
}

impl Session {
    pub(super) fn new(script: Rc<Script>) -> Session {
        Session { script, stage: Stage::Opening }
    }

    /// The join packet, while its answer is awaited.
    pub(super) fn join_again(&self) -> Option<Rc<[u8]>> {
        self.script.join.clone().filter(|_| self.stage == Stage::Joining)
    }

    /// Takes one packet, answers into `outbox` and reports what it means.
    ///
    /// # Errors
    /// The server ended the session, refused it, or sent something that is no packet.
    pub(super) fn handle_packet(
        &mut self,
        packet: &[u8],
        mut outbox: Outbox<'_>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        match packet {
            [b'4', b'2', ..] => on_event(Event::Message(packet)),
            [b'4', b'3', answer @ ..] => self.handle_answer(answer, on_event)?,
            [b'2', rest @ ..] => outbox.send(&[b"3", rest]),
            [b'0', ..] if self.stage == Stage::Opening => {
                self.stage = Stage::Connecting;
                outbox.send(&[&self.script.connect]);
            }
            [b'4', b'0', ..] if self.stage == Stage::Connecting => {
                on_event(Event::Connected);
                self.stage = match &self.script.join {
                    Some(join) => {
                        outbox.send(&[join]);
                        Stage::Joining
                    }
                    None => Stage::Ready,
                };
            }
            [b'4', b'4', reason @ ..] => {
                return Err(ClientError::Refused(String::from_utf8_lossy(reason).into_owned()));
            }
            [b'1', ..] | [b'4', b'1', ..] => return Err(ClientError::Closed),
            // A binary header, a noop: nothing that this tool asked for, and nothing wrong.
            [b'4', b'5' | b'6', ..] | [b'6', ..] => {}
            _ => return Err(ClientError::Packet),
        }
        Ok(())
    }

    fn handle_answer(&mut self, answer: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), ClientError> {
        let (id, body) = split_answer(answer).ok_or(ClientError::Packet)?;
        if self.stage != Stage::Joining || id != JOIN_ID {
            on_event(Event::Answer { id, body });
            return Ok(());
        }
        let answer = self.script.dialect.answer(body);
        match answer.refusal {
            Some(code) => Err(ClientError::Refused(code)),
            None => {
                self.stage = Stage::Ready;
                on_event(Event::Joined { history: answer.history });
                Ok(())
            }
        }
    }
}

/// `[/namespace,]id[…]` as the id and the array.
fn split_answer(answer: &[u8]) -> Option<(u64, &[u8])> {
    let answer = match answer.first()? {
        b'/' => &answer[memchr::memchr(b',', answer)? + 1..],
        _ => answer,
    };
    let digits = answer.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let id = std::str::from_utf8(&answer[..digits]).ok()?.parse().ok()?;
    Some((id, &answer[digits..]))
}
