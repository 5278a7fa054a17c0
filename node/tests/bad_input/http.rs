//! Malformed HTTP, wrong handshakes, wrong requests for sessions, and the admin port (protocol.md 1 and 5).

use crate::{
    node::Node,
    row::{Outcome, Row, unexpected},
    wire::{Answer, Connection, exchange, get, polling, post, upgrade},
};

/// What must come back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// A JSON body `{"code":N,"message":"…"}` with this status.
    Error(u16, u8, &'static str),
    /// What a WebSocket client gets of the same: the bare message, as `text/html`.
    Bare(&'static str),
    /// This status without a body.
    Empty(u16),
    /// This status with this text in the body.
    Text(u16, &'static str),
    /// One of these, whatever the body.
    Status(&'static [u16]),
    /// One of these, or the connection is closed without a word: a peer that speaks no HTTP is owed nothing.
    Refusal(&'static [u16]),
}

pub(crate) const UNKNOWN_SID: Want = Want::Error(400, 1, "Session ID unknown");
pub(crate) const BAD_REQUEST: Want = Want::Error(400, 3, "Bad request");
const TRANSPORT_UNKNOWN: Want = Want::Error(400, 0, "Transport unknown");
const BAD_METHOD: Want = Want::Error(400, 2, "Bad handshake method");
const FORBIDDEN: Want = Want::Error(403, 4, "Forbidden");
const BAD_VERSION: Want = Want::Error(400, 5, "Unsupported protocol version");

pub(crate) fn compare(want: Want, seen: Option<&Answer>) -> Outcome {
    let Some(answer) = seen else {
        return if matches!(want, Want::Refusal(_)) { Ok(()) } else { unexpected(want, "a closed connection") };
    };
    let holds = match want {
        Want::Error(status, code, message) => {
            answer.status == status
                && answer.body == format!(r#"{{"code":{code},"message":"{message}"}}"#)
                && answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
        }
        Want::Bare(message) => {
            (answer.status, answer.body.as_str(), answer.header("content-type")) == (400, message, Some("text/html"))
        }
        Want::Empty(status) => answer.status == status && answer.body.is_empty(),
        Want::Text(status, text) => answer.status == status && answer.body.contains(text),
        Want::Status(statuses) | Want::Refusal(statuses) => statuses.contains(&answer.status),
    };
    if holds { Ok(()) } else { unexpected(want, answer) }
}

pub(crate) fn rows() -> Vec<Row> {
    [quick(), sessions(), slow(), elsewhere()].concat()
}

/// Requests that are refused at once and leave no session.
pub(crate) fn quick() -> Vec<Row> {
    [malformed(), handshakes(), order(), upgrades(), unknown()].concat()
}

/// One request to the client port.
fn request(name: &str, bytes: impl Into<Vec<u8>>, want: Want) -> Row {
    let bytes = bytes.into();
    Row::new(&format!("http: {name}"), move |node| compare(want, exchange(node.clients, &bytes).as_ref()))
}

fn malformed() -> Vec<Row> {
    const REFUSED: Want = Want::Refusal(&[400]);
    let with =
        |headers: &str| format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\n{headers}\r\n\r\n");
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: y")).collect();
    vec![
        request("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), REFUSED),
        request("nothing but zeros", vec![0; 64], REFUSED),
        request("random binary", (0..=255).rev().collect::<Vec<u8>>(), REFUSED),
        request("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Want::Refusal(&[400, 505])),
        request("HTTP/0.9", b"GET /socket.io/\r\n\r\n".to_vec(), REFUSED),
        request("an unknown version", b"GET / HTTP/9.9\r\nHost: t\r\n\r\n".to_vec(), Want::Refusal(&[400, 505])),
        request("a request line of one word", b"GET\r\n\r\n".to_vec(), REFUSED),
        request("a space in the path", b"GET /socket.io/ ?EIO=4 HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(), REFUSED),
        request("a header without a colon", with("nonsense"), REFUSED),
        request("a zero byte in a header", with("X: a\0b"), REFUSED),
        request("a space before the colon", with("X : a"), REFUSED),
        request("a header block over 16 KiB", with(&format!("X: {}", "a".repeat(200_000))), Want::Refusal(&[431])),
        request("a hundred headers", with(&many.join("\r\n")), Want::Refusal(&[431])),
        request("a negative length", with("Content-Length: -1"), REFUSED),
        request("a length that is no number", with("Content-Length: many"), REFUSED),
        request("a length over 64 bits", with("Content-Length: 99999999999999999999999"), REFUSED),
        request("two lengths", with("Content-Length: 1\r\nContent-Length: 2"), REFUSED),
        request("a transfer coding that is not chunked", with("Transfer-Encoding: gzip"), Want::Refusal(&[400, 501])),
        request(
            "a path of 60,000 bytes",
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(60_000)),
            Want::Refusal(&[404, 414, 431]),
        ),
        Row::new("http: a second request smuggled behind two kinds of length", |node| {
            let mut connection = Connection::open(node.clients);
            let smuggled = "GET /socket.io/socket.io.js HTTP/1.1\r\nHost: t\r\n\r\n";
            let head = "POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n";
            connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nX{smuggled}").as_bytes());
            compare(Want::Refusal(&[400]), connection.answer().as_ref())?;
            // Whatever is behind it begins with an X and is no request; a 200 would be the smuggled one.
            compare(Want::Refusal(&[400, 404, 405]), connection.answer().as_ref())
        }),
    ]
}

fn slow() -> Vec<Row> {
    vec![Row::new("http: a header block that never ends", |node| {
        let mut connection = Connection::open(node.clients);
        connection.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\nX: ");
        compare(Want::Refusal(&[400, 408]), connection.answer().as_ref())
    })]
}

fn handshakes() -> Vec<Row> {
    let method = |method: &str| format!("{method} /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\n\r\n");
    let origin = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\nOrigin: http://\x80\xff\r\n\r\n";
    vec![
        request("no query", get(""), TRANSPORT_UNKNOWN),
        request("no transport", get("EIO=4"), TRANSPORT_UNKNOWN),
        request("an unknown transport", get("EIO=4&transport=pigeon"), TRANSPORT_UNKNOWN),
        request("a transport named constructor", get("EIO=4&transport=constructor"), TRANSPORT_UNKNOWN),
        request("a transport with a percent sign at its end", get("EIO=4&transport=polling%"), TRANSPORT_UNKNOWN),
        request("a query of separators", get(&"&".repeat(4_000)), TRANSPORT_UNKNOWN),
        request("no version", get("transport=polling"), BAD_VERSION),
        request("version 3", get("EIO=3&transport=polling"), BAD_VERSION),
        request("version 4x", get("EIO=4x&transport=polling"), BAD_VERSION),
        request("a handshake by POST", post("EIO=4&transport=polling", b"4hi"), BAD_METHOD),
        request("a handshake by PUT", method("PUT"), BAD_METHOD),
        request("a handshake by an unknown method", method("BREW"), BAD_METHOD),
        request("transport=websocket without an upgrade", get("EIO=4&transport=websocket"), BAD_REQUEST),
        request("an origin that is no text", origin.to_vec(), BAD_REQUEST),
        request("a page of another site", from("https://evil.example", &get("EIO=4&transport=polling")), FORBIDDEN),
    ]
}

/// A request of a page.
fn from(origin: &str, request: &[u8]) -> Vec<u8> {
    let (line, rest) = request.split_at(request.windows(2).position(|two| two == b"\r\n").unwrap());
    [line, b"\r\nOrigin: ", origin.as_bytes(), rest].concat()
}

/// With two things wrong the first in the reference's order is told: transport, origin, session, method, version.
fn order() -> Vec<Row> {
    let evil = |request: Vec<u8>| from("https://evil.example", &request);
    vec![
        request("order: transport before origin", evil(get("EIO=4&transport=pigeon")), TRANSPORT_UNKNOWN),
        request("order: transport before session", get("transport=pigeon&sid=nobody"), TRANSPORT_UNKNOWN),
        request("order: origin before session", evil(get("EIO=4&transport=polling&sid=nobody")), FORBIDDEN),
        request("order: origin before method", evil(post("EIO=4&transport=polling", b"4")), FORBIDDEN),
        request("order: session before method", post("EIO=4&transport=polling&sid=nobody", b"4"), UNKNOWN_SID),
        request("order: session before version", get("EIO=3&transport=polling&sid=nobody"), UNKNOWN_SID),
        request("order: method before version", post("transport=polling", b"4"), BAD_METHOD),
        request("order: upgrade before version", get("EIO=3&transport=websocket"), BAD_REQUEST),
    ]
}

fn upgrades() -> Vec<Row> {
    let open = "EIO=4&transport=websocket";
    let bad_version = Want::Bare("Unsupported protocol version");
    vec![
        request(
            "an upgrade to an unknown transport",
            upgrade("EIO=4&transport=pigeon", &[]),
            Want::Bare("Transport unknown"),
        ),
        request(
            "an upgrade of an unknown session",
            upgrade(&format!("{open}&sid=nobody"), &[]),
            Want::Bare("Session ID unknown"),
        ),
        // The reference writes this one into the socket after a 101.
        request("an upgrade with version 3", upgrade("EIO=3&transport=websocket", &[]), bad_version),
        request("an upgrade without a version", upgrade("transport=websocket", &[]), bad_version),
        request("an upgrade without a key", upgrade(open, &["Sec-WebSocket-Key"]), Want::Status(&[400])),
        request(
            "an upgrade without a WebSocket version",
            upgrade(open, &["Sec-WebSocket-Version"]),
            Want::Status(&[400, 426]),
        ),
        request("an upgrade without Connection: Upgrade", upgrade(open, &["Connection"]), BAD_REQUEST),
        request("an upgrade to something else", upgrade(open, &["Upgrade"]), BAD_REQUEST),
        Row::new("http: a WebSocket for transport=polling", |node| {
            // The reference completes the handshake and closes; a refusal before it tells the client more, sooner.
            let mut connection = Connection::open(node.clients);
            connection.send(&upgrade("EIO=4&transport=polling", &[]));
            compare(Want::Status(&[101, 400]), connection.answer().as_ref())
        }),
    ]
}

fn unknown() -> Vec<Row> {
    let unknown =
        |name: &str, sid: &str| request(name, get(&format!("EIO=4&transport=polling&sid={sid}")), UNKNOWN_SID);
    vec![
        unknown("an unknown session", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        unknown("a session named __proto__", "__proto__"),
        unknown("an empty session id", ""),
        unknown("a session id of 5,000 bytes", &"A".repeat(5_000)),
        unknown("a session id that is no text", "%ff%fe%00"),
    ]
}

fn sessions() -> Vec<Row> {
    vec![
        Row::new("http: a session id with one changed letter", |node| {
            let query = polling(node.clients);
            let other = if query.ends_with('A') { "B" } else { "A" };
            let forged = format!("{}{other}", &query[..query.len() - 1]);
            compare(UNKNOWN_SID, exchange(node.clients, &get(&forged)).as_ref())
        }),
        Row::new("http: PUT and DELETE on a live session", |node| {
            let query = polling(node.clients);
            for method in ["PUT", "DELETE"] {
                let request = format!("{method} /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n\r\n");
                compare(Want::Empty(500), exchange(node.clients, request.as_bytes()).as_ref())?;
            }
            compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, b"40")).as_ref())
        }),
        Row::new("http: a polling session asked for by a WebSocket GET without an upgrade", |node| {
            let query = polling(node.clients).replace("polling", "websocket");
            compare(BAD_REQUEST, exchange(node.clients, &get(&query)).as_ref())
        }),
    ]
}

fn elsewhere() -> Vec<Row> {
    let plain = |line: &str| format!("{line} HTTP/1.1\r\nHost: t\r\n\r\n");
    let local = |line: &str| format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let admin = |name: &str, bytes: String, want: Want| {
        Row::new(&format!("admin: {name}"), move |node: &Node| {
            compare(want, exchange(node.admin, bytes.as_bytes()).as_ref())
        })
    };
    vec![
        request("the path without its slash", plain("GET /socket.io?EIO=4&transport=polling"), Want::Status(&[404])),
        request("an unknown path", plain("GET /nothing/here"), Want::Status(&[404])),
        request("a path out of the bundle", plain("GET /socket.io/../../../etc/passwd"), Want::Status(&[404])),
        request(
            "an encoded path out of the bundle",
            plain("GET /socket.io/%2e%2e%2f%2e%2e%2fetc/passwd"),
            Want::Status(&[404]),
        ),
        request("a POST to the bundle", plain("POST /socket.io/socket.io.js"), Want::Status(&[404, 405])),
        admin("an unknown call", local("GET /api/nonsense"), Want::Text(404, r#""code""#)),
        admin("a wrong method", local("POST /api/cluster"), Want::Status(&[405])),
        admin("no HTTP", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), Want::Refusal(&[400])),
    ]
}
