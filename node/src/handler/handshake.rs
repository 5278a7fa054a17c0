//! A client at the door of a namespace: what it says of itself, and what its first request said.
//!
//! Invariants: of the request that opened a connection only the headers that the program named are kept, as copies; none of
//! what a client shows is ever printed.

use std::{fmt, net::IpAddr};

use http::{HeaderMap, HeaderName, header};

/// A client that wants to enter a namespace.
#[derive(Clone, Copy)]
pub struct Handshake<'a> {
    /// The namespace, `/` or `/name`.
    pub namespace: &'a str,
    /// The JSON object the client sent along (`auth` of the client library), as text.
    pub auth: Option<&'a str>,
    /// Where it comes from: the peer of its first connection, or what a trusted proxy says (`server.trusted_proxies`).
    pub address: IpAddr,
    pub(crate) headers: &'a Headers,
}

impl<'a> Handshake<'a> {
    /// A header of the request that opened the connection; its first line, if it has several. Only those are there that
    /// [`Handler::headers`](super::Handler::headers) names.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.lines(name).next()
    }

    /// A cookie of that request; `cookie` must be among the headers that are named.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let pairs = self.headers.lines(header::COOKIE.as_str()).flat_map(|line| line.split(';'));
        pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Handshake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// What is kept of the request that opened a connection; nothing, if the program wants nothing.
#[derive(Default)]
pub(crate) struct Headers(Option<Box<[Line]>>);

/// One line of a header.
struct Line {
    name: HeaderName,
    text: Box<str>,
}

impl Headers {
    /// Copies those that are wanted: what hyper holds is part of a buffer of a whole request.
    pub(crate) fn of(wanted: &[HeaderName], all: &HeaderMap) -> Headers {
        let mut kept = Vec::new();
        for name in wanted {
            let texts = all.get_all(name).iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
            kept.extend(texts.map(|text| Line { name: name.clone(), text: Box::from(text) }));
        }
        Headers((!kept.is_empty()).then(|| kept.into_boxed_slice()))
    }

    fn lines<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let kept = self.0.as_deref().unwrap_or_default().iter();
        kept.filter(move |line| line.name.as_str().eq_ignore_ascii_case(name)).map(|line| &*line.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        let mut all = HeaderMap::new();
        all.append("cookie", "theme=dark; session=abc=".parse().unwrap());
        all.append("cookie", "second=2".parse().unwrap());
        all.append("authorization", "Bearer t".parse().unwrap());
        all.append("user-agent", "not asked for".parse().unwrap());
        Headers::of(&[header::COOKIE, header::AUTHORIZATION, header::ORIGIN], &all)
    }

    #[test]
    fn a_program_reads_the_headers_it_named_and_no_others() {
        let headers = headers();
        let client =
            Handshake { namespace: "/", auth: Some("secret"), address: [127, 0, 0, 1].into(), headers: &headers };
        assert_eq!((client.header("Authorization"), client.header("user-agent")), (Some("Bearer t"), None));
        assert_eq!(client.header("origin"), None);
        let cookies = ["theme", "session", "second", "none", ""].map(|name| client.cookie(name));
        assert_eq!(cookies, [Some("dark"), Some("abc="), Some("2"), None, None]);
        let printed = format!("{client:?}");
        assert!(!printed.contains("secret") && !printed.contains("abc"), "{printed}");
    }

    #[test]
    fn a_connection_keeps_nothing_for_a_program_that_names_nothing() {
        let mut all = HeaderMap::new();
        all.append("cookie", "a=1".parse().unwrap());
        assert!(Headers::of(&[], &all).0.is_none() && Headers::of(&[header::ORIGIN], &all).0.is_none());
    }
}
