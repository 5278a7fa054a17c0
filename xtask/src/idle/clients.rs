//! Thousands of WebSocket clients in one thread: they join `/`, and answer heartbeats.
//!
//! Invariants: every wait has a limit; a client that hears anything else than it expects, or nothing, is an error.

use crate::clock;
use anyhow::{Context, Result, bail};
use protocol::engine::frame::{Opcode, next_frame, put_masked_text};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Loopback addresses that the clients come from, so that none runs out of ports.
const SOURCES: u32 = 16;
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const SWEEP: Duration = Duration::from_secs(1);
/// What the server says to a client before it is idle: far less than this.
const READ_BYTES: usize = 4096;
const MASK: [u8; 4] = [0; 4];

/// See the module.
pub(super) struct Clients(Vec<Client>);

struct Client {
    stream: TcpStream,
    /// Bytes that are not a whole frame yet.
    unread: Vec<u8>,
    answered: bool,
}

impl Clients {
    /// Opens one after the other; all have joined when it returns. Those that are there answer meanwhile.
    pub(super) fn open(to: SocketAddr, count: u32) -> Result<Clients> {
        let mut clients = Clients(Vec::new());
        let mut swept = clock::now();
        for number in 0..count {
            clients.0.push(Client::join(to, number).with_context(|| format!("client {number}"))?);
            if swept.elapsed() > SWEEP {
                clients.answer()?;
                swept = clock::now();
            }
        }
        Ok(clients)
    }

    /// Waits until each has answered a heartbeat.
    pub(super) fn answer_one_heartbeat(&mut self, limit: Duration) -> Result<()> {
        let start = clock::now();
        loop {
            self.answer()?;
            let waiting = self.0.iter().filter(|client| !client.answered).count();
            if waiting == 0 {
                return Ok(());
            }
            if start.elapsed() > limit {
                bail!("{waiting} clients had no heartbeat within {} s", limit.as_secs());
            }
            std::thread::sleep(SWEEP);
        }
    }

    /// Answers every heartbeat that has come.
    fn answer(&mut self) -> Result<()> {
        let mut clients = self.0.iter_mut().enumerate();
        clients.try_for_each(|(number, client)| client.answer().with_context(|| format!("client {number}")))
    }
}

impl Client {
    fn join(to: SocketAddr, number: u32) -> Result<Client> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number % SOURCES);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&to.into()).context("cannot connect")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut client = Client { stream, unread: Vec::new(), answered: false };
        write!(
            client.stream,
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        client.expect("HTTP/1.1 101", |unread| {
            let end = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
            Some(String::from_utf8_lossy(&unread.drain(..end).collect::<Vec<u8>>()).into_owned())
        })?;
        client.expect("0{", next_text)?;
        client.say("40")?;
        client.expect("40{", next_text)?;
        client.unread = Vec::new();
        client.stream.set_nonblocking(true)?;
        Ok(client)
    }

    /// Reads until `take` finds something, which must begin like this.
    fn expect(&mut self, start: &str, take: impl Fn(&mut Vec<u8>) -> Option<String>) -> Result<()> {
        loop {
            match take(&mut self.unread) {
                Some(text) if text.starts_with(start) => return Ok(()),
                Some(text) => bail!("wanted {start:?} and heard {text:?}"),
                None => self.read().context("the server says nothing")?,
            }
        }
    }

    /// Answers a heartbeat, if there is one.
    fn answer(&mut self) -> Result<()> {
        match self.read() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(text) = next_text(&mut self.unread) {
            if text != "2" {
                bail!("heard {text:?} while idle");
            }
            self.say("3")?;
            self.answered = true;
        }
        Ok(())
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        let read = self.stream.read(&mut bytes)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&bytes[..read]);
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let mut frame = Vec::new();
        put_masked_text(&mut frame, &[text.as_bytes()], MASK);
        Ok(self.stream.write_all(&frame)?)
    }
}

/// Takes a whole text frame; anything that is none reads as an empty text, which nobody wants.
fn next_text(unread: &mut Vec<u8>) -> Option<String> {
    let (opcode, payload, end) = match next_frame(unread) {
        Ok(frame) => frame?,
        Err(_) => return Some(String::new()),
    };
    let text =
        if opcode == Opcode::Text { String::from_utf8_lossy(&unread[payload]).into_owned() } else { String::new() };
    unread.drain(..end);
    Some(text)
}
