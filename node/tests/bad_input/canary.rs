//! Two well-behaved clients in one room, for as long as everybody else misbehaves.
//!
//! Invariant: 20 messages a second; each is acked, each arrives once, in order.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    row::{Outcome, unexpected},
    wire::{Frame, WebSocket},
};

const INTERVAL: Duration = Duration::from_millis(50);
const MESSAGES_MIN: u64 = 20;

pub(crate) struct Canary {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<Outcome>,
    listener: JoinHandle<Outcome>,
}

impl Canary {
    pub(crate) fn start(to: SocketAddr) -> Canary {
        let stop = Arc::new(AtomicBool::new(false));
        let mut listener = WebSocket::connected(to);
        listener.text(r#"420["room:join",{"room":"canary"}]"#);
        match listener.packet() {
            Frame::Text(ack) if is_ok(&ack, 0) => {}
            other => panic!("the canary could not join: {other:?}"),
        }
        let (end, sent) = (Arc::clone(&stop), Arc::new(AtomicU64::new(u64::MAX)));
        let total = Arc::clone(&sent);
        let publisher = thread::spawn(move || publish(WebSocket::connected(to), &end, &total));
        let listener = thread::spawn(move || listen(listener, &sent));
        Canary { stop, publisher, listener }
    }

    /// Ends it and says what went wrong, if anything did.
    pub(crate) fn stop(self) -> Outcome {
        self.stop.store(true, SeqCst);
        self.publisher.join().map_err(|_| "the publisher panicked".to_owned())??;
        self.listener.join().map_err(|_| "the listener panicked".to_owned())?
    }
}

/// Publishes until it is told to stop; the last message says so to the listener.
fn publish(mut socket: WebSocket, stop: &AtomicBool, sent: &AtomicU64) -> Outcome {
    let mut n = 0;
    loop {
        let last = stop.load(SeqCst) && n >= MESSAGES_MIN;
        if last {
            sent.store(n + 1, SeqCst);
        }
        let publish = format!(r#"42{n}["room:publish",{{"room":"canary","event":"tick","args":[{n}]}}]"#);
        socket.text(&publish);
        match socket.packet() {
            Frame::Text(ack) if is_ok(&ack, n) => {}
            other => return unexpected(format!("an ack of message {n}"), other),
        }
        if last {
            return Ok(());
        }
        n += 1;
        thread::sleep(INTERVAL);
    }
}

fn listen(mut socket: WebSocket, sent: &AtomicU64) -> Outcome {
    let mut n = 0;
    while n < sent.load(SeqCst) {
        match socket.packet() {
            Frame::Text(event) if event == format!(r#"42["tick",{n}]"#) => n += 1,
            other => return unexpected(format!("message {n}"), other),
        }
    }
    Ok(())
}

/// An ack of the built-in events that says yes (interface.md 1.1).
pub(crate) fn is_ok(packet: &str, id: u64) -> bool {
    packet.starts_with(&format!("43{id}[")) && packet.contains(r#""ok":true"#)
}
