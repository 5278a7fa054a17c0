//! The smallest HTTP client that can ask an admin port: one GET, one answer, then the connection is over.
//!
//! Invariants: HTTP/1.0, so an answer is never chunked and ends with the connection; bounded in bytes, and in time per
//! step.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// How long connecting, and each silence of the other side, may last.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer; nothing was changed, and asking again may help unless the address is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0:?} is not an address such as http://127.0.0.1:3001")]
    Address(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the answer is not HTTP")]
    Malformed,
}

/// Gets `path` from `base`, which is `http://HOST:PORT`.
pub(super) fn get(base: &str, path: &str) -> Result<Answer, HttpError> {
    let authority = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/');
    let well_formed =
        authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !well_formed || authority.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(HttpError::Address(base.to_owned()));
    }
    let mut stream = connect(authority)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    // One write: a server may answer and close as soon as it has seen the first line.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or(HttpError::Malformed)
}

fn connect(authority: &str) -> Result<TcpStream, HttpError> {
    let mut last = None;
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, STEP_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| HttpError::Address(authority.to_owned()), HttpError::Io))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..head_end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: answer.get(head_end + 4..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\n{}").unwrap();
        assert_eq!(answer, Answer { status: 503, body: b"{}".to_vec() });
    }

    #[test]
    fn garbage_is_no_answer() {
        for garbage in
            [&b""[..], b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.\r\n\r\n"]
        {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn an_address_needs_a_host_and_a_port_and_nothing_else() {
        for base in ["", "http://", "http://localhost", "http://:3001", "https://a:1", "http://a:1/x", "http://a b:1"] {
            assert!(matches!(get(base, "/"), Err(HttpError::Address(_))), "{base}");
        }
    }
}
