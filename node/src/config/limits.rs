//! `[limits]`: what one client, or all of them, can take (`reliability.md` 4.4).
//!
//! Invariants: every limit that may be switched off is off at 0; the defaults are for the public, development lifts what
//! would surprise somebody who tries out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Origin, Size};

/// `[limits]`: bounds on what one client, or all of them, can take.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open connections of this node.
    pub connections: usize,
    /// Of them, of one client address (IPv6: of one /64), and as many sockets that are no WebSocket; 0 is no limit.
    pub per_ip: usize,
    /// Sockets, and sessions, that one client address may open a second, five seconds' worth at once; 0 is no limit.
    pub per_ip_rate: usize,
    /// Times a minute that clients of one address may be refused by who they say they are (`Handler::admit`), before all of
    /// them are for a minute; 0 is no limit.
    pub failed_auth_per_minute: usize,
    /// Messages a second of one connection, two seconds' worth at once; 0 is no limit.
    pub messages_per_second: usize,
    /// Their bytes; 0 is no limit.
    pub bytes_per_second: Size,
    /// Rooms a second that one connection may join, two seconds' worth at once; 0 is no limit.
    pub joins_per_second: usize,
    /// Rooms one socket may be in.
    pub rooms_per_socket: usize,
    /// Namespaces one connection may join.
    pub namespaces: usize,
    /// Longest room, event or namespace name in bytes.
    pub name_bytes: usize,
    /// Attachments of one message.
    pub attachments: usize,
    /// Nested arrays and objects in one message.
    pub json_depth: usize,
    /// Messages in one polling body.
    pub packets_per_poll: usize,
    /// What a connection may send before it joined a namespace.
    pub connect_bytes: Size,
    /// WebSocket frames that one message may come in.
    pub fragments: usize,
    /// How long the next attachment of a message, or the rest of it, may take.
    pub assembly_timeout: Duration,
    /// Bytes that may wait for one connection before it is closed as a slow consumer.
    pub queue_bytes: Size,
    /// How long a connection may take nothing of what waits for it.
    pub lag_timeout: Duration,
    /// Lines of one block of HTTP request headers.
    pub headers: usize,
    /// Largest block of HTTP request headers.
    pub header_bytes: Size,
    /// How long a block of headers may take.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// Memory of the process, from which on it takes less; `None` is four fifths of what the system allows it, if it says.
    pub memory_bytes: Option<Size>,
}

impl Limits {
    pub(super) fn defaults() -> Limits {
        const KIB: u64 = 1 << 10;
        Limits {
            connections: 20_000,
            per_ip: 200,
            per_ip_rate: 20,
            failed_auth_per_minute: 10,
            messages_per_second: 100,
            bytes_per_second: Size(1_000_000),
            joins_per_second: 20,
            rooms_per_socket: 128,
            namespaces: 8,
            name_bytes: 256,
            attachments: 10,
            json_depth: 64,
            packets_per_poll: 4_096,
            connect_bytes: Size(16 * KIB),
            fragments: 1_024,
            assembly_timeout: Duration::from_secs(10),
            queue_bytes: Size(256 * KIB),
            lag_timeout: Duration::from_secs(30),
            headers: 64,
            header_bytes: Size(16 * KIB),
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(5),
            memory_bytes: None,
        }
    }

    /// Who tries out comes from one address, and as fast as a script can.
    pub(super) fn lift(&mut self, origins: &BTreeMap<String, Origin>) {
        let unset = |name: &str| !origins.contains_key(&format!("limits.{name}"));
        let counts = [
            ("per_ip", &mut self.per_ip),
            ("per_ip_rate", &mut self.per_ip_rate),
            ("failed_auth_per_minute", &mut self.failed_auth_per_minute),
            ("messages_per_second", &mut self.messages_per_second),
            ("joins_per_second", &mut self.joins_per_second),
        ];
        for (name, count) in counts {
            if unset(name) {
                *count = 0;
            }
        }
        if unset("bytes_per_second") {
            self.bytes_per_second = Size(0);
        }
    }
}
