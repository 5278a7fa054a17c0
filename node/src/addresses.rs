//! How much each client address has and asks for: sockets before they are WebSockets, sessions, and how fast they come.
//!
//! Invariants: whoever entered leaves (`Place`, `Visitor`); the table is bounded, and what it forgets first is who has
//! nothing and asks for nothing; an address that does not fit any more is not counted rather than refused: the node's own
//! limits hold all the same. IPv6 clients are known by their /64, which is what a provider gives to one of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::Limits,
    rate::{Bucket, Rate},
};

/// Addresses that are remembered, some 100 bytes each.
const ADDRESSES_MAX: usize = 65_536;
/// How often a full table is searched for what can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What may come at once, in seconds of the rate.
const BURST_SECONDS: u64 = 5;
/// How long an address is refused whose clients were not who they said too often (`reliability.md` 4.4).
const BARRED_FOR: Duration = Duration::from_secs(60);

/// A client address, as far as limits tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(u64);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Client {
        match address.to_canonical() {
            // No IPv6 network begins with these bits.
            IpAddr::V4(address) => Client(0xffff_ffff_0000_0000 | u64::from(address.to_bits())),
            IpAddr::V6(address) => Client((address.to_bits() >> 64) as u64),
        }
    }
}

/// What an address has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A TCP connection that is no WebSocket, or not yet.
    Socket,
    /// An Engine.IO session.
    Session,
}

/// Why one more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// `limits.per_ip` are open.
    Open,
    /// They come faster than `limits.per_ip_rate`.
    Rate,
    /// They were not admitted more than `limits.failed_auth_per_minute` times, a moment ago.
    Barred,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    open: usize,
    arrivals: Bucket,
}

#[derive(Debug, Default)]
struct Entry {
    sockets: Account,
    sessions: Account,
    failures: Bucket,
    barred_until: Option<Instant>,
}

impl Entry {
    fn account(&mut self, kind: Kind) -> &mut Account {
        match kind {
            Kind::Socket => &mut self.sockets,
            Kind::Session => &mut self.sessions,
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        let accounts = [self.sockets, self.sessions];
        accounts.iter().all(|account| account.open == 0 && account.arrivals.is_full(now))
            && self.failures.is_full(now)
            && !self.is_barred(now)
    }

    fn is_barred(&self, now: Instant) -> bool {
        self.barred_until.is_some_and(|until| until > now)
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Client, Entry>,
    swept: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Addresses {
    open_max: Option<usize>,
    rate: Option<Rate>,
    failures: Option<Rate>,
    table: Mutex<Table>,
}

impl Addresses {
    /// Nobody is there.
    pub(crate) fn new(limits: &Limits) -> Addresses {
        let per_second = limits.per_ip_rate as u64;
        Addresses {
            open_max: (limits.per_ip > 0).then_some(limits.per_ip),
            rate: Rate::per_second(per_second, per_second * BURST_SECONDS),
            failures: Rate::per_minute(limits.failed_auth_per_minute as u64),
            table: Mutex::default(),
        }
    }

    /// One more of an address; `None` if it is not counted, so that nobody has to leave.
    pub(crate) fn enter(&self, address: IpAddr, kind: Kind, now: Instant) -> Result<Option<Client>, Excess> {
        if self.open_max.is_none() && self.rate.is_none() && self.failures.is_none() {
            return Ok(None);
        }
        let client = Client::from(address);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.has_room_for(client, now) {
            return Ok(None);
        }
        let entry = table.entries.entry(client).or_default();
        // Whoever has a session goes on, also by polling, which may need another socket for it.
        if kind == Kind::Session && entry.is_barred(now) {
            return Err(Excess::Barred);
        }
        let account = entry.account(kind);
        if self.rate.is_some_and(|rate| !account.arrivals.take(rate, 1, now)) {
            return Err(Excess::Rate);
        }
        if self.open_max.is_some_and(|max| account.open >= max) {
            return Err(Excess::Open);
        }
        account.open += 1;
        Ok(Some(client))
    }

    /// A client was not admitted; too often, and its address is barred.
    pub(crate) fn fail(&self, client: Client, now: Instant) {
        let Some(rate) = self.failures else { return };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.entries.get_mut(&client)
            && !entry.failures.take(rate, 1, now)
        {
            entry.barred_until = Some(now + BARRED_FOR);
        }
    }

    /// Whether the address is barred. Where nobody can be, nothing is looked up.
    pub(crate) fn is_barred(&self, client: Client, now: Instant) -> bool {
        if self.failures.is_none() {
            return false;
        }
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.get(&client).is_some_and(|entry| entry.is_barred(now))
    }

    /// One less.
    pub(crate) fn leave(&self, client: Client, kind: Kind) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.entries.get_mut(&client) {
            let account = entry.account(kind);
            account.open = account.open.saturating_sub(1);
        }
    }
}

impl Table {
    fn has_room_for(&mut self, client: Client, now: Instant) -> bool {
        if self.entries.len() < ADDRESSES_MAX || self.entries.contains_key(&client) {
            return true;
        }
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.entries.retain(|_, entry| !entry.is_idle(now));
        }
        self.entries.len() < ADDRESSES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn addresses(per_ip: u64, per_second: u64) -> Addresses {
        Addresses {
            open_max: usize::try_from(per_ip).ok().filter(|max| *max > 0),
            rate: Rate::per_second(per_second, per_second * BURST_SECONDS),
            failures: None,
            table: Mutex::default(),
        }
    }

    #[test]
    fn an_address_whose_clients_fail_too_often_is_barred_for_a_minute_and_no_other() {
        let (mut addresses, now) = (addresses(0, 0), clock::now());
        addresses.failures = Rate::per_minute(3);
        let enter = |text, at| addresses.enter(ip(text), Kind::Session, at);
        let client = enter("192.0.2.1", now).unwrap().unwrap();
        let fail = |()| {
            addresses.fail(client, now);
            addresses.is_barred(client, now)
        };
        assert_eq!([(); 4].map(fail), [false, false, false, true]);
        addresses.leave(client, Kind::Session);
        assert_eq!(enter("192.0.2.1", now + Duration::from_secs(59)), Err(Excess::Barred));
        assert!(addresses.enter(ip("192.0.2.1"), Kind::Socket, now).is_ok(), "a session that polls goes on");
        assert!(enter("192.0.2.2", now).is_ok() && enter("192.0.2.1", now + Duration::from_secs(60)).is_ok());
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_open_and_one_that_leaves_makes_room() {
        let (addresses, now) = (addresses(2, 0), clock::now());
        let enter = |text, kind| addresses.enter(ip(text), kind, now);
        let first = enter("192.0.2.1", Kind::Session).unwrap().unwrap();
        enter("::ffff:192.0.2.1", Kind::Session).unwrap();
        assert_eq!(enter("192.0.2.1", Kind::Session), Err(Excess::Open));
        assert!(enter("192.0.2.1", Kind::Socket).is_ok() && enter("192.0.2.2", Kind::Session).is_ok());
        addresses.leave(first, Kind::Session);
        assert!(enter("192.0.2.1", Kind::Session).is_ok());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let (addresses, now) = (addresses(1, 0), clock::now());
        addresses.enter(ip("2001:db8:1:2::1"), Kind::Session, now).unwrap();
        assert_eq!(addresses.enter(ip("2001:db8:1:2:ffff::9"), Kind::Session, now), Err(Excess::Open));
        assert!(addresses.enter(ip("2001:db8:1:3::1"), Kind::Session, now).is_ok());
    }

    #[test]
    fn arrivals_are_counted_by_the_second_also_those_that_left_again() {
        let (addresses, now) = (addresses(0, 2), clock::now());
        for _ in 0..10 {
            let client = addresses.enter(ip("192.0.2.1"), Kind::Socket, now).unwrap().unwrap();
            addresses.leave(client, Kind::Socket);
        }
        assert_eq!(addresses.enter(ip("192.0.2.1"), Kind::Socket, now), Err(Excess::Rate));
        assert!(addresses.enter(ip("192.0.2.1"), Kind::Socket, now + Duration::from_millis(500)).is_ok());
    }

    #[test]
    fn a_full_table_forgets_who_has_nothing_and_counts_no_newcomers_until_then() {
        let (addresses, now) = (addresses(1, 1), clock::now());
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        let holder = addresses.enter(address(0), Kind::Session, now).unwrap();
        assert!(holder.is_some());
        for n in 1..ADDRESSES_MAX {
            let client = addresses.enter(address(n), Kind::Socket, now).unwrap().unwrap();
            addresses.leave(client, Kind::Socket);
        }
        assert_eq!(addresses.enter(address(ADDRESSES_MAX), Kind::Socket, now), Ok(None));
        let later = now + Duration::from_secs(10);
        assert!(addresses.enter(address(ADDRESSES_MAX), Kind::Socket, later).unwrap().is_some());
        assert_eq!(addresses.table.lock().unwrap().entries.len(), 2);
        assert_eq!(addresses.enter(address(0), Kind::Session, later), Err(Excess::Open));
    }

    #[test]
    fn without_limits_nobody_is_counted() {
        assert_eq!(addresses(0, 0).enter(ip("192.0.2.1"), Kind::Session, clock::now()), Ok(None));
    }
}
