//! The floor: the least a server can do to deliver a message to every member of a room.
//!
//! One thread, one readiness queue, one pre-encoded frame. It speaks just enough Socket.IO for the load test's
//! `emit:join,publish` dialect and nothing else: no heartbeat, no checks, no answer to the WebSocket key. Its figures are
//! what the kernel costs; a real server is compared with them and not with zero.
//!
//! - Without `--coalesce`: one `write(2)` per delivery.
//! - With it: all frames of one turn (one wait for events) leave for a member in one `write(2)`.

mod connection;
mod room;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use clap::Parser;
use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use socket2::{Domain, Socket, Type};

use connection::{Connection, Request};
use room::Room;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;
/// What one read takes at most.
const SCRATCH: usize = 64 * 1024;
/// How the queue calls the listener.
const LISTENER: u64 = u64::MAX;

/// The least a server can do.
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Write everything a turn has for a member at once.
    #[arg(long)]
    coalesce: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    rlimit::increase_nofile_limit(u64::MAX).context("limit of open files")?;
    let socket = Socket::new(Domain::for_address(args.listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&args.listen.into()).with_context(|| format!("cannot bind {}", args.listen))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    println!("listening on {}", listener.local_addr()?);
    Server::new(listener, args.coalesce)?.serve()
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    coalesce: bool,
    /// By token; a closed one leaves a hole that is not filled again.
    connections: Vec<Option<Connection>>,
    rooms: BTreeMap<String, Room>,
    scratch: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener, coalesce: bool) -> anyhow::Result<Server> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), EventFlags::IN)?;
        let (connections, rooms) = (Vec::new(), BTreeMap::new());
        Ok(Server { epoll, listener, coalesce, connections, rooms, scratch: vec![0; SCRATCH] })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        loop {
            let (ready, _) = match epoll::wait(&self.epoll, &mut events, None) {
                Ok(ready) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("epoll"),
            };
            for event in ready {
                let epoll::Event { data, flags } = *event;
                match usize::try_from(data.u64()) {
                    _ if data.u64() == LISTENER => self.accept()?,
                    Ok(index) => self.handle_ready(index, flags),
                    Err(_) => {}
                }
            }
            if self.coalesce {
                self.end_turn();
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = epoll::EventData::new_u64(self.connections.len() as u64);
            let everything = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &stream, token, everything)?;
            self.connections.push(Some(Connection::new(stream)));
        }
        Ok(())
    }

    fn handle_ready(&mut self, index: usize, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        if flags.contains(EventFlags::OUT) {
            connection.flush();
        }
        let requests = connection.read(&mut self.scratch);
        let ended = requests.is_none();
        for request in requests.unwrap_or_default() {
            match request {
                Request::Join { room, id } => {
                    self.rooms.entry(room).or_default().members.push(index);
                    if let Some(connection) = &mut self.connections[index] {
                        connection.send(format!("43{id}[]").as_bytes());
                    }
                }
                Request::Publish { room, payload } => self.publish(&room, &payload),
            }
        }
        if ended {
            self.connections[index] = None;
            self.rooms.values_mut().for_each(|room| room.members.retain(|member| *member != index));
        }
    }

    fn publish(&mut self, room: &str, payload: &[u8]) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        if self.coalesce {
            return room.put(payload);
        }
        let frame = room::frame(payload);
        for member in &room.members {
            if let Some(connection) = &mut self.connections[*member] {
                connection.write(&frame);
            }
        }
    }

    /// Everything the turn brought, to every member in one write.
    fn end_turn(&mut self) {
        for room in self.rooms.values_mut().filter(|room| !room.turn.is_empty()) {
            for member in &room.members {
                if let Some(connection) = &mut self.connections[*member] {
                    connection.write(&room.turn);
                }
            }
            room.turn.clear();
        }
    }
}
