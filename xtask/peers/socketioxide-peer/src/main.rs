//! socketioxide with two handlers: `join(room)`, acked, and `publish(room, payload)`, which sends event `m` to the room.
//!
//! All defaults: the multi-threaded runtime, the in-memory adapter, its own buffers.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use socket2::{Domain, Socket, Type};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A room server made with socketioxide.
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    rlimit::increase_nofile_limit(u64::MAX).context("limit of open files")?;
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("join", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
            socket.join(room);
            // A client that has gone meanwhile needs no answer.
            let _ = ack.send(&());
        });
        socket.on("publish", async |socket: SocketRef, Data((room, payload)): Data<(String, String)>| {
            // A member whose buffer is full misses the message; that is socketioxide's rule and part of its figures.
            let _ = socket.within(room).emit("m", &payload).await;
        });
    });
    let listener = listen(args.listen)?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, axum::Router::new().layer(layer)).await?;
    Ok(())
}

fn listen(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot bind {address}"))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(socket.into())?)
}
