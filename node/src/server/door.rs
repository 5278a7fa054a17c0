//! The door of the client port: sockets accepted, the TLS handshake if there is one, refusals before a request is read.
//!
//! Invariants: running out of descriptors pauses the loop and ends nothing, and the last ones are not for clients: the store,
//! the admin port and the certificate need some too; a handshake is bounded in time, and so is the
//! number of those under way; whoever is sent away is told why, as long as that costs little (`REFUSALS_MAX`).

use std::{
    cell::Cell,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    rc::Rc,
    time::{Duration, Instant},
};

use http::StatusCode;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{RETRY_AFTER, guest::Guest, serve};
use crate::{admission::NoPlace, clock, metrics::RejectReason, shard::Shard, tls::Tls};

/// Pause after the system refused a connection, so that the loop does not spin while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that are not for clients, and their share where there are few.
const RESERVE_MAX: u64 = 64;
const RESERVE_SHARE: u64 = 8;
/// Clients of one shard that are told that descriptors are short: each holds one of the reserve meanwhile.
const TOLD_MAX: usize = 2;
/// How often the log says so.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// TLS handshakes of one shard under way; each holds some 20 KiB.
const HANDSHAKES_MAX: usize = 1_024;
/// The first byte of every TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Refusals of one shard being told; beyond it sockets are closed without a word.
const REFUSALS_MAX: usize = 128;
/// How long somebody who is sent away may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What is under way at one shard's door.
#[derive(Debug)]
struct Door {
    handshakes: Cell<usize>,
    refusals: Cell<usize>,
    /// Descriptors from this one on are not for clients. The kernel gives the lowest that is free.
    reserve: u64,
    /// When the log last said that descriptors are short.
    said: Cell<Option<Instant>>,
}

impl Door {
    fn new() -> Door {
        let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        let reserve = limit - (limit / RESERVE_SHARE).min(RESERVE_MAX);
        Door { handshakes: Cell::new(0), refusals: Cell::new(0), reserve, said: Cell::new(None) }
    }

    fn say(&self, why: &str, now: Instant) {
        if self.said.get().is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY) {
            self.said.set(Some(now));
            tracing::warn!(why, "descriptors are short: clients are refused; raise the limit of open files");
        }
    }
}

/// One of several that are counted, for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    /// One more, unless there are `max`.
    fn one_of(max: usize, count: &'a Cell<usize>) -> Option<Counted<'a>> {
        (count.get() < max).then(|| {
            count.set(count.get() + 1);
            Counted(count)
        })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts until the node stops taking connections.
pub(crate) async fn accept(shard: Rc<Shard>, listener: TcpListener) {
    let stop = shard.context().stop_accepting.clone();
    let door = Rc::new(Door::new());
    let config = &shard.context().config;
    // The kernel is never less patient than the heartbeat.
    let patience = config.limits.lag_timeout.max(config.socketio.ping_timeout);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                prepare(&tcp, patience);
                welcome(&shard, &door, tcp, peer.ip().to_canonical());
            }
            Err(error) => {
                door.say(&error.to_string(), clock::now());
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn welcome(shard: &Rc<Shard>, door: &Rc<Door>, tcp: TcpStream, address: IpAddr) {
    let (at, door) = (shard.clone(), door.clone());
    let now = clock::now();
    if u64::try_from(tcp.as_raw_fd()).is_ok_and(|descriptor| descriptor >= door.reserve) {
        shard.context().metrics.rejected.of(RejectReason::Descriptors).inc();
        door.say("the rest is for the node itself", now);
        return shard.spawn(async move { refuse(&at, &door, TOLD_MAX, tcp, NoPlace::Descriptors).await });
    }
    let visitor = match shard.context().receive(address, now) {
        Ok(visitor) => visitor,
        Err(why) => {
            shard.context().metrics.rejected.of(why.reason()).inc();
            return shard.spawn(async move { refuse(&at, &door, REFUSALS_MAX, tcp, why).await });
        }
    };
    if shard.context().tls.is_none() {
        return shard.spawn(async move {
            serve(at, tcp, Guest { address, secure: false }).await;
            drop(visitor);
        });
    }
    shard.spawn(async move {
        let Some(tls) = &at.context().tls else { return };
        if let Some(stream) = shake_hands(&at, &door, tls, tcp).await {
            serve(at.clone(), stream, Guest { address, secure: true }).await;
        }
        drop(visitor);
    });
}

/// Options of a client's socket. That one of them cannot be set is no reason to send a client away. Whoever takes nothing of
/// what is written to it for as long as `patience`, an answer or a WebSocket, is ended by the kernel.
fn prepare(tcp: &TcpStream, patience: Duration) {
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_user_timeout(Some(patience));
}

/// The TLS handshake, if the client makes one in time.
async fn shake_hands(shard: &Shard, door: &Door, tls: &Tls, tcp: TcpStream) -> Option<TlsStream<TcpStream>> {
    let reject = || shard.context().metrics.rejected.of(RejectReason::Tls).inc();
    let Some(_counted) = Counted::one_of(HANDSHAKES_MAX, &door.handshakes) else {
        reject();
        return None;
    };
    let shaken = timeout(shard.context().config.limits.tls_timeout, async {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            return Ok(Err(tcp));
        }
        TlsAcceptor::from(tls.config().clone()).accept(tcp).await.map(Ok)
    });
    let shaken: Result<io::Result<_>, _> = shaken.await;
    match shaken {
        Ok(Ok(Ok(stream))) => return Some(stream),
        Ok(Ok(Err(tcp))) => {
            tell(door, tcp, (400, "this port speaks TLS: use https:// or wss://\n")).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    reject();
    None
}

/// Sends somebody away, and says why unless `max` others are being told or the port is for TLS, where that costs a handshake.
async fn refuse(shard: &Shard, door: &Door, max: usize, tcp: TcpStream, why: NoPlace) {
    if shard.context().tls.is_none() && door.refusals.get() < max {
        tell(door, tcp, why.answer()).await;
    }
}

/// Answers whatever the client is about to ask, and closes.
async fn tell(door: &Door, mut tcp: TcpStream, (status, why): (u16, &str)) {
    let Some(_counted) = Counted::one_of(REFUSALS_MAX, &door.refusals) else { return };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Retry-After: {RETRY_AFTER}\r\nConnection: close\r\n\r\n{why}",
        why.len()
    );
    let told = timeout(REFUSAL_TIMEOUT, async {
        tcp.write_all(answer.as_bytes()).await?;
        tcp.shutdown().await?;
        // Closing over bytes that nobody read would make the kernel take the answer back.
        let mut unread = [0; 1_024];
        while tokio::io::AsyncReadExt::read(&mut tcp, &mut unread).await? > 0 {}
        io::Result::Ok(())
    });
    // Whoever does not listen has missed it.
    let _ = told.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_gives_up_on_a_client_that_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let patience = Duration::from_secs(60);
        prepare(&client, patience);
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), Some(patience));
    }
}
