//! Who is let in: sockets at the door, sessions at the handshake.
//!
//! Invariants: a place that was taken is given back by dropping it, wherever that happens; nobody who is refused has taken
//! anything, or changed more than the rate of his address.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::HeaderMap;

use crate::{
    addresses::{Client, Excess, Kind},
    context::Context,
    handler::Headers,
    metrics::RejectReason,
    pressure::Level,
};

/// What clients of an address are told that is refused for a while.
pub(crate) const BARRED: &str = "clients of your address were refused too often; again in a minute\n";

/// The place of one session.
pub(crate) struct Place {
    context: Arc<Context>,
    client: Option<Client>,
}

/// Somebody who has a place, and the random part of the name that the session will get.
pub(crate) struct Newcomer {
    pub(crate) place: Place,
    pub(crate) random: [u8; 12],
    pub(crate) address: IpAddr,
    /// What the program wants to know of its first request.
    pub(crate) headers: Headers,
}

/// A socket that is no WebSocket, or not yet.
pub(crate) struct Visitor {
    context: Arc<Context>,
    client: Option<Client>,
}

/// Why there is no place. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// `limits.connections` are open.
    Full,
    /// The node stops.
    Stopping,
    /// Memory is short.
    Memory,
    /// Descriptors are short.
    Descriptors,
    /// The address has or asks for too much.
    Address(Excess),
}

impl NoPlace {
    /// Its label.
    pub(crate) fn reason(self) -> RejectReason {
        match self {
            NoPlace::Full => RejectReason::Connections,
            NoPlace::Stopping => RejectReason::Draining,
            NoPlace::Memory => RejectReason::Memory,
            NoPlace::Descriptors => RejectReason::Descriptors,
            NoPlace::Address(Excess::Open) => RejectReason::PerIp,
            NoPlace::Address(Excess::Rate) => RejectReason::PerIpRate,
            NoPlace::Address(Excess::Barred) => RejectReason::FailedAuth,
        }
    }

    /// HTTP status, and a line for whoever is refused.
    pub(crate) fn answer(self) -> (u16, &'static str) {
        match self {
            NoPlace::Full => (503, "this node has as many connections as it may have\n"),
            NoPlace::Stopping => (503, "this node stops; others go on\n"),
            NoPlace::Memory => (503, "this node is short of memory\n"),
            NoPlace::Descriptors => (503, "this node is short of descriptors\n"),
            NoPlace::Address(Excess::Open) => (429, "your address has as many connections as it may have\n"),
            NoPlace::Address(Excess::Rate) => (429, "connections from your address come too fast\n"),
            NoPlace::Address(Excess::Barred) => (429, BARRED),
        }
    }
}

impl Context {
    /// Takes a place for one more session of a client.
    pub(crate) fn admit(
        self: &Arc<Context>,
        address: IpAddr,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Newcomer, NoPlace> {
        if self.stop_accepting.is_cancelled() {
            return Err(NoPlace::Stopping);
        }
        if self.pressure.level() >= Level::Newcomers {
            return Err(NoPlace::Memory);
        }
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut place = Place { context: self.clone(), client: None };
        if before >= self.config.limits.connections {
            return Err(NoPlace::Full);
        }
        place.client = self.addresses.enter(address, Kind::Session, now).map_err(NoPlace::Address)?;
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|_| NoPlace::Full)?;
        Ok(Newcomer { place, random, address, headers: Headers::of(&self.headers, headers) })
    }

    /// Lets a socket in. Of a trusted proxy there may be any number: its clients are told apart by what it says of them.
    pub(crate) fn receive(self: &Arc<Context>, address: IpAddr, now: Instant) -> Result<Visitor, NoPlace> {
        let client = if self.config.server.trusted_proxies.contains(address) {
            None
        } else {
            self.addresses.enter(address, Kind::Socket, now).map_err(NoPlace::Address)?
        };
        Ok(Visitor { context: self.clone(), client })
    }
}

impl Place {
    /// Its client was not admitted.
    pub(crate) fn fail(&self, now: Instant) {
        if let Some(client) = self.client {
            self.context.addresses.fail(client, now);
        }
    }

    /// Whether clients of its address were not admitted too often.
    pub(crate) fn is_barred(&self, now: Instant) -> bool {
        self.client.is_some_and(|client| self.context.addresses.is_barred(client, now))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.context.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.context.addresses.leave(client, Kind::Session);
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.context.addresses.leave(client, Kind::Socket);
        }
    }
}
