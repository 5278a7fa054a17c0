//! The door of the client port: sockets accepted, the TLS handshake if there is one, refusals before a request is read.
//!
//! Invariants: running out of descriptors pauses the loop and ends nothing; a handshake is bounded in time, and so is the
//! number of those under way; whoever is sent away is told why, as long as that costs little (`REFUSALS_MAX`).

use std::{cell::Cell, io, net::IpAddr, rc::Rc, time::Duration};

use http::StatusCode;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{RETRY_AFTER, guest::Guest, serve};
use crate::{clock, metrics::RejectReason, shard::Shard, tls::Tls};

/// Pause after the system refused a connection, so that the loop does not spin while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take nothing of what is written to it, an answer or a WebSocket; then the kernel ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// TLS handshakes of one shard under way; each holds some 20 KiB.
const HANDSHAKES_MAX: usize = 1_024;
/// The first byte of every TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Refusals of one shard being told; beyond it sockets are closed without a word.
const REFUSALS_MAX: usize = 128;
/// How long somebody who is sent away may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What is under way at one shard's door.
#[derive(Debug, Default)]
struct Door {
    handshakes: Cell<usize>,
    refusals: Cell<usize>,
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
    let door = Rc::new(Door::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                prepare(&tcp, shard.context().config.socketio.ping_timeout);
                welcome(&shard, &door, tcp, peer.ip().to_canonical());
            }
            Err(error) => {
                tracing::warn!(%error, "accepting clients pauses");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn welcome(shard: &Rc<Shard>, door: &Rc<Door>, tcp: TcpStream, address: IpAddr) {
    let (at, door) = (shard.clone(), door.clone());
    let visitor = match shard.context().receive(address, clock::now()) {
        Ok(visitor) => visitor,
        Err(why) => {
            shard.context().metrics.rejected.of(why.reason()).inc();
            return shard.spawn(async move { refuse(&at, &door, tcp, why.answer()).await });
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

/// Options of a client's socket. That one of them cannot be set is no reason to send a client away. The kernel is never
/// less patient than the heartbeat.
fn prepare(tcp: &TcpStream, ping_timeout: Duration) {
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_user_timeout(Some(WRITE_TIMEOUT.max(ping_timeout)));
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

/// Sends somebody away who speaks TLS, if this is a port for it: then there is no way to say why that costs little.
async fn refuse(shard: &Shard, door: &Door, tcp: TcpStream, answer: (u16, &str)) {
    if shard.context().tls.is_none() {
        tell(door, tcp, answer).await;
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
        for (ping_timeout, patience) in [(20, WRITE_TIMEOUT), (60, Duration::from_secs(60))] {
            prepare(&client, Duration::from_secs(ping_timeout));
            assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), Some(patience));
        }
    }
}
