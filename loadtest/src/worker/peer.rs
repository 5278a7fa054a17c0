//! One connection of a worker: its sockets, its client, and where it is in its life.
//!
//! Sockets never block. They are registered once, edge-triggered, for everything; a read that fills less than the
//! scratch buffer has emptied the socket, so the usual message costs one read and nothing else.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use super::receiving::Seat;
use crate::client::{Channel, Client, ClientError, Event, Script, Transport};
use crate::clock;
use crate::tracker::Tracker;

/// The life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected (yet, or any more).
    Away,
    /// Between the first SYN and the namespace.
    Connecting,
    /// Has asked for its room.
    Joining,
    /// Where it should be.
    Ready,
}

/// One member or publisher.
#[derive(Debug)]
pub(super) struct Peer {
    /// Room and server.
    pub(super) seat: Seat,
    /// Join requests that were repeated since it connected.
    pub(super) joins_resent: u32,
    /// Where it is in its life.
    pub(super) state: State,
    /// When `state` began.
    pub(super) since_ns: u64,
    /// Attempts to connect since it was last ready.
    pub(super) attempts: u32,
    /// Was ready when the phase began, and ever since.
    pub(super) stayed: bool,
    /// What it has seen in this phase.
    pub(super) tracker: Tracker,
    route: Route,
    script: Rc<Script>,
    client: Option<Client>,
    streams: [Option<TcpStream>; 2],
}

/// From where to where a peer connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// Its number in the worker, by which the readiness queue knows it.
    pub(super) index: usize,
    /// The server.
    pub(super) target: SocketAddr,
    /// The local address; `None` lets the kernel choose.
    pub(super) source: Option<IpAddr>,
}

/// How all peers of a worker connect.
#[derive(Debug)]
pub(super) struct Road {
    /// The readiness queue of the worker.
    pub(super) epoll: OwnedFd,
    /// The transport of all peers.
    pub(super) transport: Transport,
}

impl Peer {
    pub(super) fn new(seat: Seat, route: Route, script: Rc<Script>) -> Peer {
        Peer {
            seat,
            route,
            joins_resent: 0,
            state: State::Away,
            since_ns: 0,
            attempts: 0,
            stayed: false,
            tracker: Tracker::default(),
            script,
            client: None,
            streams: [None, None],
        }
    }

    /// Changes the state.
    pub(super) fn enter(&mut self, state: State, now_ns: u64) {
        self.state = state;
        self.since_ns = now_ns;
    }

    /// Starts connecting.
    ///
    /// # Errors
    /// The connection was refused at once, or there is no local port or descriptor for it.
    pub(super) fn connect(&mut self, road: &Road) -> io::Result<()> {
        self.close();
        self.attempts += 1;
        self.joins_resent = 0;
        self.client = Some(Client::new(road.transport, Rc::clone(&self.script)));
        self.open(road, Channel::Main)?;
        self.enter(State::Connecting, clock::now_ns());
        Ok(())
    }

    /// Closes everything; events that are still queued for it find nothing.
    pub(super) fn close(&mut self) {
        self.streams = [None, None];
        self.client = None;
        self.state = State::Away;
        self.stayed = false;
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn send(&mut self, road: &Road, parts: &[&[u8]]) -> Result<(), ClientError> {
        let Some(client) = &mut self.client else { return Err(ClientError::Closed) };
        client.send(parts);
        self.flush(road)
    }

    /// Asks for the room again, if it was asked and did not answer. Says whether it did.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn join_again(&mut self, road: &Road) -> Result<bool, ClientError> {
        self.joins_resent += 1;
        let asked = self.client.as_mut().is_some_and(Client::join_again);
        self.flush(road)?;
        Ok(asked)
    }

    /// Reads what has arrived on `channel` and reports it with the time it was read. `ending` says that the stream has
    /// an end or an error behind its last bytes.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn read(
        &mut self,
        channel: Channel,
        ending: bool,
        scratch: &mut [u8],
        mut on_event: impl FnMut(&mut Tracker, Event<'_>, u64),
    ) -> Result<(), ClientError> {
        let Peer { tracker, client, streams, .. } = self;
        let (Some(client), Some(stream)) = (client, &mut streams[channel.index()]) else { return Ok(()) };
        loop {
            let length = match stream.read(scratch) {
                Ok(0) => {
                    streams[channel.index()] = None;
                    return client.handle_end(channel);
                }
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Http(error.to_string())),
            };
            let now_ns = clock::now_ns();
            client.handle_bytes(channel, &scratch[..length], &mut |event| on_event(tracker, event, now_ns))?;
            if length < scratch.len() && !ending {
                return Ok(());
            }
        }
    }

    /// Writes what the client has to say, as far as the sockets take it.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn flush(&mut self, road: &Road) -> Result<(), ClientError> {
        for channel in Channel::ALL {
            let Some(client) = &mut self.client else { return Ok(()) };
            if client.output(channel).is_empty() {
                continue;
            }
            if self.streams[channel.index()].is_none() {
                self.open(road, channel).map_err(|error| ClientError::Http(error.to_string()))?;
            }
            self.write(channel)?;
        }
        Ok(())
    }

    fn write(&mut self, channel: Channel) -> Result<(), ClientError> {
        let (Some(client), Some(stream)) = (&mut self.client, &mut self.streams[channel.index()]) else {
            return Ok(());
        };
        let out = client.output(channel);
        let mut written = 0;
        while written < out.len() {
            match stream.write(&out[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Http(error.to_string())),
            }
        }
        // Thousands of peers say something once a minute: an empty buffer is given back.
        if written == out.len() {
            *out = Vec::new();
        } else {
            out.drain(..written);
        }
        Ok(())
    }

    fn open(&mut self, road: &Road, channel: Channel) -> io::Result<()> {
        let Route { index, target, source } = self.route;
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from(socket);
        let token = epoll::EventData::new_u64(token(index, channel));
        let everything =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&road.epoll, &stream, token, everything)?;
        self.streams[channel.index()] = Some(stream);
        Ok(())
    }
}

/// What the readiness queue calls the sockets of peer `index`.
pub(super) fn token(index: usize, channel: Channel) -> u64 {
    (index * 2 + channel.index()) as u64
}

/// The other way round.
pub(super) fn of_token(token: u64) -> Option<(usize, Channel)> {
    let token = usize::try_from(token).ok()?;
    Some((token / 2, Channel::ALL[token % 2]))
}
