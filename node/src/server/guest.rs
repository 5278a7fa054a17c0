//! Who asks, and for which site, as far as that can be believed.
//!
//! Invariants: `X-Forwarded-*` counts only in a request of a trusted proxy, and of a list only what the trusted proxies wrote
//! themselves; a header that says nonsense is as good as none.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::config::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    /// Of its socket: the client itself, or the proxy before it.
    pub(super) address: IpAddr,
    /// It speaks TLS.
    pub(super) secure: bool,
}

/// One request of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// The client.
    pub(super) address: IpAddr,
    /// What its pages of this site begin with; `None` where only the proxy knows, and said nothing.
    scheme: Option<&'static str>,
    /// The host and port it asked for.
    host: Option<String>,
}

impl Visit {
    /// Reads the headers of a request.
    pub(super) fn of(guest: Guest, headers: &HeaderMap, trusted: &Networks) -> Visit {
        let host = last(headers, &header::HOST);
        let secure = guest.secure.then_some("https");
        if !trusted.contains(guest.address) {
            return Visit { address: guest.address, scheme: secure, host: host.map(str::to_owned) };
        }
        let scheme = match last(headers, &FORWARDED_PROTO) {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Some("https"),
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Some("http"),
            Some(_) | None => secure,
        };
        let host = last(headers, &FORWARDED_HOST).or(host).map(str::to_owned);
        Visit { address: client(headers, trusted).unwrap_or(guest.address), scheme, host }
    }

    /// Whether a page of `origin` is one of the site that was asked for.
    pub(super) fn is_at_home(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let Some(host) = &self.host else { return false };
        let port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return false,
        };
        let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
        // TLS usually ends before us: without a proxy that says so, both schemes are ours.
        self.scheme.is_none_or(|ours| ours == scheme) && !authority.is_empty() && bare(authority) == bare(host)
    }
}

/// The last value of a header that may be a list: the one that the nearest proxy wrote.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next().map(str::trim)
}

/// The rightmost address that is no trusted proxy.
fn client(headers: &HeaderMap, trusted: &Networks) -> Option<IpAddr> {
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    for part in values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')) {
        let address = address(part.trim())?;
        if !trusted.contains(address) {
            return Some(address);
        }
    }
    None
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn visit(from: &str, secure: bool, lines: &[(&'static str, &str)]) -> Visit {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted = Networks(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        Visit::of(Guest { address: from.parse().unwrap(), secure }, &headers, &trusted)
    }

    fn address_of(from: &str, forwarded: &[&str]) -> String {
        let lines: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        visit(from, false, &lines).address.to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("192.0.2.9", &["1.1.1.1"], "192.0.2.9"),
            (PROXY, &[], PROXY),
            (PROXY, &["1.1.1.1"], "1.1.1.1"),
            (PROXY, &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (PROXY, &["6.6.6.6, 1.1.1.1, 10.2.3.4"], "1.1.1.1"),
            (PROXY, &["6.6.6.6", "1.1.1.1", "10.2.3.4"], "1.1.1.1"),
            (PROXY, &["1.1.1.1:4711"], "1.1.1.1"),
            (PROXY, &["2001:db8::7"], "2001:db8::7"),
            (PROXY, &["[2001:db8::7]:4711"], "2001:db8::7"),
            (PROXY, &["[2001:db8::7]"], "2001:db8::7"),
            (PROXY, &["::ffff:1.1.1.1"], "1.1.1.1"),
            (PROXY, &["10.9.9.9"], PROXY),
            (PROXY, &["unknown"], PROXY),
            (PROXY, &["1.1.1.1, unknown"], PROXY),
            (PROXY, &["1.1.1.1, 999.1.1.1"], PROXY),
            (PROXY, &["1.1.1.1,"], PROXY),
            (PROXY, &["\u{1}"][..0], PROXY),
            ("fd00::1", &["1.1.1.1"], "1.1.1.1"),
        ];
        for (from, forwarded, expected) in cases {
            assert_eq!(address_of(from, forwarded), *expected, "{from} {forwarded:?}");
        }
    }

    #[test]
    fn a_page_is_at_home_on_the_site_that_was_asked_for_and_nowhere_else() {
        let home =
            |from, secure, lines: &[(&'static str, &str)], origin: &str| visit(from, secure, lines).is_at_home(origin);
        let host = [("host", "Chat.example:8443")];
        assert!(home("192.0.2.9", false, &host, "http://chat.example:8443"));
        assert!(home("192.0.2.9", false, &host, "https://chat.example:8443"), "TLS may end before us");
        assert!(home("192.0.2.9", true, &host, "https://chat.example:8443"));
        assert!(
            !home("192.0.2.9", true, &host, "http://chat.example:8443"),
            "a page that anybody on the way can write"
        );
        for foreign in
            ["https://chat.example", "https://chat.example:8444", "https://example:8443", "null", "https://", ""]
        {
            assert!(!home("192.0.2.9", true, &host, foreign), "{foreign}");
        }
        assert!(
            home("192.0.2.9", true, &[("host", "a:443")], "https://a")
                && home("1.1.1.1", true, &[("host", "a")], "https://a:443")
        );
        assert!(!home("192.0.2.9", true, &[], "https://a"));
    }

    #[test]
    fn only_a_trusted_proxy_says_what_site_was_asked_for() {
        let lines = [("host", "inside:3000"), ("x-forwarded-host", "chat.example"), ("x-forwarded-proto", "https")];
        assert!(visit(PROXY, false, &lines).is_at_home("https://chat.example"));
        assert!(!visit(PROXY, false, &lines).is_at_home("http://chat.example"));
        assert!(!visit(PROXY, false, &lines).is_at_home("http://inside:3000"));
        assert!(!visit("192.0.2.9", false, &lines).is_at_home("https://chat.example"));
        assert!(visit("192.0.2.9", false, &lines).is_at_home("http://inside:3000"));
    }

    proptest! {
        #[test]
        fn nobody_gets_an_address_by_writing_to_the_left(forged in "[ -~]{0,60}") {
            let line = format!("{forged}, 1.1.1.1");
            prop_assert_eq!(address_of(PROXY, &[&line]), "1.1.1.1");
        }
    }
}
