//! HTTP/1.1 and WebSocket by hand, over blocking sockets: just enough to send what no library would.
//!
//! Invariants: every read has a deadline, so that a node that says nothing fails a row instead of hanging the test;
//! nothing here checks what it sends.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than every deadline of the node that a row waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// A node that has nothing to say but heartbeats does not answer.
const HEARTBEATS_MAX: usize = 4;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The query of a WebSocket that opens a session.
pub(crate) const FRESH_WEBSOCKET: &str = "EIO=4&transport=websocket";

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Bytes in both directions: TCP, or TLS over it.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// A client connection.
pub(crate) struct Connection {
    reader: BufReader<Box<dyn Duplex>>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Connection {
        Connection::try_open(to).expect("a connection")
    }

    fn try_open(to: SocketAddr) -> io::Result<Connection> {
        Ok(Connection::over(socket(to)?))
    }

    /// A connection over something that is connected.
    pub(crate) fn over(stream: impl Duplex + 'static) -> Connection {
        Connection { reader: BufReader::new(Box::new(stream)) }
    }

    /// Sends as much as the node takes; it may refuse the rest, which is what the row is about.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_mut().write_all(bytes);
    }

    /// The next answer; nothing if the node closed the connection instead.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        heard(self.reader.read_exact(&mut body))?;
        answer.body = String::from_utf8(body).ok()?;
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = heard(self.reader.read_line(&mut line))?;
        (read > 0).then(|| line.trim_end().to_owned())
    }
}

/// A socket whose reads and writes have a deadline.
pub(crate) fn socket(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What a read brought; nothing if the connection is gone. Silence is neither, and fails the row.
fn heard<T>(read: io::Result<T>) -> Option<T> {
    let silent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    assert!(!read.as_ref().is_err_and(silent), "the node said nothing for {PATIENCE:?} and kept the connection");
    read.ok()
}

/// One request on a connection of its own.
pub(crate) fn exchange(to: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut connection = Connection::try_open(to).ok()?;
    connection.send(request);
    connection.answer()
}

/// What a WebSocket server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The connection ended without a close frame.
    End,
}

/// A WebSocket after its handshake.
pub(crate) struct WebSocket {
    connection: Connection,
    /// What the last close frame said beside its code.
    pub(crate) last_words: String,
}

impl WebSocket {
    /// Asks for a WebSocket at the Engine.IO path; the answer if it is not 101.
    pub(crate) fn open(to: SocketAddr, query: &str) -> Result<WebSocket, Option<Answer>> {
        WebSocket::over(Connection::open(to), query)
    }

    /// The same on a connection that is there.
    pub(crate) fn over(mut connection: Connection, query: &str) -> Result<WebSocket, Option<Answer>> {
        connection.send(&upgrade(query, &[]));
        WebSocket::upgraded(connection)
    }

    /// What becomes of a connection on which it was asked for.
    pub(crate) fn upgraded(mut connection: Connection) -> Result<WebSocket, Option<Answer>> {
        match connection.answer() {
            Some(answer) if answer.status == 101 => Ok(WebSocket { connection, last_words: String::new() }),
            other => Err(other),
        }
    }

    /// A new Engine.IO session by WebSocket; its sid.
    pub(crate) fn session(to: SocketAddr) -> (WebSocket, String) {
        WebSocket::session_over(Connection::open(to))
    }

    /// The same on a connection that is there.
    pub(crate) fn session_over(connection: Connection) -> (WebSocket, String) {
        let mut socket = WebSocket::over(connection, FRESH_WEBSOCKET).expect("a WebSocket");
        match socket.next() {
            Frame::Text(open) if open.starts_with('0') => {
                let sid = sid_of(&open);
                (socket, sid)
            }
            other => panic!("the open packet was {other:?}"),
        }
    }

    /// A new session with a socket in the namespace `/`.
    pub(crate) fn connected(to: SocketAddr) -> WebSocket {
        WebSocket::connected_over(Connection::open(to))
    }

    /// The same on a connection that is there.
    pub(crate) fn connected_over(connection: Connection) -> WebSocket {
        let (mut socket, _) = WebSocket::session_over(connection);
        socket.text("40");
        match socket.packet() {
            Frame::Text(text) if text.starts_with("40{") => socket,
            other => panic!("CONNECT was answered by {other:?}"),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(&frame(0x81, text.as_bytes()));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.connection.send(bytes);
    }

    /// Whether the node's system takes these bytes: not once the node has let go of the socket.
    pub(crate) fn takes(&mut self, bytes: &[u8]) -> bool {
        self.connection.reader.get_mut().write_all(bytes).is_ok()
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Frame {
        self.read().unwrap_or(Frame::End)
    }

    /// The next frame that is no heartbeat; heartbeats are answered.
    pub(crate) fn packet(&mut self) -> Frame {
        for _ in 0..HEARTBEATS_MAX {
            match self.next() {
                Frame::Text(ping) if ping == "2" => self.text("3"),
                other => return other,
            }
        }
        panic!("the node said nothing but {HEARTBEATS_MAX} heartbeats");
    }

    /// Emits an event in `/` and waits for its ack; what comes before it is passed over.
    pub(crate) fn ask(&mut self, event: &str, argument: &str) -> String {
        self.text(&format!(r#"420["{event}",{argument}]"#));
        loop {
            match self.packet() {
                Frame::Text(ack) if ack.starts_with("430[") => return ack,
                Frame::Text(_) => {}
                other => panic!("{other:?} instead of an ack"),
            }
        }
    }

    fn read(&mut self) -> Option<Frame> {
        let reader = &mut self.connection.reader;
        let mut head = [0; 2];
        heard(reader.read_exact(&mut head))?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                heard(reader.read_exact(&mut length))?;
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                heard(reader.read_exact(&mut length))?;
                usize::try_from(u64::from_be_bytes(length)).ok()?
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        heard(reader.read_exact(&mut payload))?;
        match head[0] {
            0x81 => Some(Frame::Text(String::from_utf8(payload).expect("UTF-8 in a text frame"))),
            0x82 => Some(Frame::Binary(payload)),
            0x88 => {
                self.last_words = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).expect("UTF-8");
                Some(Frame::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))))
            }
            0x89 => Some(Frame::Ping(payload)),
            0x8a => Some(Frame::Pong(payload)),
            other => panic!("a server frame began with {other:#x}"),
        }
    }
}

/// A masked frame (RFC 6455, 5.2); `first` is its first byte: FIN, reserved bits, opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A request for a WebSocket at the Engine.IO path, without the headers whose names are in `without`.
pub(crate) fn upgrade(query: &str, without: &[&str]) -> Vec<u8> {
    let headers = [
        ("Host", "t"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut request = format!("GET /socket.io/?{query} HTTP/1.1\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| !without.contains(name)) {
        request += &format!("{name}: {value}\r\n");
    }
    (request + "\r\n").into_bytes()
}

/// A GET at the Engine.IO path.
pub(crate) fn get(query: &str) -> Vec<u8> {
    format!("GET /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes()
}

/// A POST at the Engine.IO path.
pub(crate) fn post(query: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A new polling session: the query that names it.
pub(crate) fn polling(to: SocketAddr) -> String {
    let answer = exchange(to, &get("EIO=4&transport=polling")).expect("an open packet");
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("EIO=4&transport=polling&sid={}", sid_of(&answer.body))
}

fn sid_of(open: &str) -> String {
    let after = open.split("\"sid\":\"").nth(1).expect("an open packet with a sid");
    after.split('"').next().unwrap().to_owned()
}
