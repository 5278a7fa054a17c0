//! Fuzzes what proxies and strangers say of themselves: only a trusted proxy is believed, and only what it wrote itself.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use starling::config::{self, Networks};

#[path = "../../node/src/server/guest.rs"]
mod guest;

use guest::{Guest, Visit};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

// A line is a header: its first byte says which one. The first line says who comes.
fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let who = lines.next().unwrap_or_default();
    let (mut headers, mut origins) = (HeaderMap::new(), Vec::new());
    for (kind, value) in lines.filter_map(|line| line.split_first()) {
        let name = match kind {
            b'f' => FORWARDED_FOR,
            b'p' => HeaderName::from_static("x-forwarded-proto"),
            b'h' => HeaderName::from_static("x-forwarded-host"),
            b'H' => http::header::HOST,
            _ => {
                origins.extend(std::str::from_utf8(value));
                continue;
            }
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let trusted =
        Networks(["10.0.0.0/8", "fd00::/8", "::ffff:0:0/120"].map(|it| it.parse().expect("a network")).into());
    let guest = |address| Guest { address, secure: who.contains(&b's') };
    by_a_stranger(guest(STRANGER), &headers, &trusted);
    by_a_proxy(guest(PROXY), &headers, &trusted);
    for visit in [Visit::of(guest(STRANGER), &headers, &trusted), Visit::of(guest(PROXY), &headers, &trusted)] {
        at_home(&visit, &origins);
    }
});

fn by_a_stranger(guest: Guest, headers: &HeaderMap, trusted: &Networks) {
    let mut own = headers.clone();
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].iter().for_each(|name| drop(own.remove(*name)));
    let visit = Visit::of(guest, headers, trusted);
    assert_eq!(visit.address, guest.address);
    assert_eq!(visit, Visit::of(guest, &own, trusted), "a stranger was believed");
}

fn by_a_proxy(guest: Guest, headers: &HeaderMap, trusted: &Networks) {
    let visit = Visit::of(guest, headers, trusted);
    assert!(visit.address == guest.address || !trusted.contains(visit.address));
    let behind = |address: &'static str| {
        let mut headers = headers.clone();
        headers.append(FORWARDED_FOR, HeaderValue::from_static(address));
        Visit::of(guest, &headers, trusted)
    };
    assert_eq!(behind("1.1.1.1").address.to_string(), "1.1.1.1", "what the nearest proxy wrote");
    assert_eq!(behind("10.2.3.4"), visit, "another proxy of ours on the way");
    let mut forged = HeaderMap::new();
    forged.append(FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"));
    headers.iter().for_each(|(name, value)| {
        forged.append(name.clone(), value.clone());
    });
    if visit.address != guest.address {
        assert_eq!(Visit::of(guest, &forged, trusted), visit, "what a client wrote");
    }
}

fn at_home(visit: &Visit, origins: &[&str]) {
    for origin in origins.iter().filter(|origin| visit.is_at_home(origin)) {
        let (scheme, authority) = origin.split_once("://").expect("an origin has both");
        assert!(["http", "https"].contains(&scheme) && !authority.is_empty());
        assert!(visit.is_at_home(&format!("{scheme}://{}", authority.to_ascii_uppercase())));
        assert!(!visit.is_at_home(&format!("{scheme}://evil.{authority}")), "{origin}");
        assert!(!visit.is_at_home(&format!("{scheme}://{authority}.evil")), "{origin}");
    }
}
