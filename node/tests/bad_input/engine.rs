//! Engine.IO sessions by long-polling: bad bodies, doubled requests, requests that break off (protocol.md 4 to 6).

use crate::{
    http::{BAD_REQUEST, UNKNOWN_SID, Want, compare},
    row::{Outcome, Row, unexpected},
    wire::{Answer, Connection, Frame, WebSocket, exchange, get, polling, post},
};

const MAX_PAYLOAD: usize = 1_000_000;
const PACKETS_MAX: usize = 4_096;
/// What nobody can see happen is given some time, and tried again if it took longer.
const SOON: std::time::Duration = std::time::Duration::from_millis(200);
const TRIES: usize = 3;

pub(crate) fn rows() -> Vec<Row> {
    [bodies(), too_large(), doubled(), upgrades()].concat()
}

/// A body that Engine.IO cannot understand. The answer to the POST is free (200 or 400); the session must be gone.
fn body(name: &str, body: impl Into<Vec<u8>>) -> Row {
    let body = body.into();
    Row::new(&format!("polling: {name}"), move |node| {
        let query = polling(node.clients);
        compare(Want::Status(&[200, 400]), exchange(node.clients, &post(&query, &body)).as_ref())?;
        compare(UNKNOWN_SID, exchange(node.clients, &get(&query)).as_ref())
    })
}

/// A body whose meaning is wrong: the server closes the session, and may say so to one more poll (protocol.md 6).
fn wrong(name: &str, body: impl Into<Vec<u8>>) -> Row {
    let body = body.into();
    Row::new(&format!("polling: {name}"), move |node| {
        let query = polling(node.clients);
        compare(Want::Status(&[200, 400]), exchange(node.clients, &post(&query, &body)).as_ref())?;
        match exchange(node.clients, &get(&query)) {
            Some(said) if said.status == 200 && said.body.ends_with('1') => {
                compare(UNKNOWN_SID, exchange(node.clients, &get(&query)).as_ref())
            }
            gone => compare(UNKNOWN_SID, gone.as_ref()),
        }
    })
}

fn bodies() -> Vec<Row> {
    vec![
        body("an empty body", ""),
        body("an unknown packet type", "9"),
        body("a word", "hello"),
        body("nothing between two packets", "4a\u{1e}\u{1e}4b"),
        body("nothing behind the last separator", "4a\u{1e}"),
        body("base64 that is none", "b!!!!"),
        body("base64 cut short", "bAAAAA"),
        wrong("no UTF-8", vec![b'4', 0xff, 0xfe]),
        wrong("a ping from a client", "2"),
        wrong("a Socket.IO packet of an unknown type", "49"),
        wrong("an event in a namespace nobody joined", r#"42["x"]"#),
        body("more packets than a payload may have", ["3"; PACKETS_MAX + 1].join("\u{1e}")),
        Row::new("polling: a body of octets", |node| {
            let query = polling(node.clients);
            let head =
                format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\n");
            let request = format!("{head}Content-Length: 2\r\n\r\n4a");
            compare(Want::Empty(400), exchange(node.clients, request.as_bytes()).as_ref())
        }),
        Row::new("polling: a chunk size that is no number", |node| {
            let query = polling(node.clients);
            let head = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
            compare(Want::Refusal(&[400]), exchange(node.clients, format!("{head}ZZ\r\n4a\r\n").as_bytes()).as_ref())
        }),
        Row::new("polling: a body that breaks off", |node| {
            let query = polling(node.clients);
            let mut connection = Connection::open(node.clients);
            connection.send(
                format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n4a").as_bytes(),
            );
            drop(connection);
            Ok(())
        }),
    ]
}

/// A body over the limit is refused with 413; the session stays.
fn refused_by_size(name: &str, request: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Row {
    Row::new(&format!("polling: {name}"), move |node| {
        let query = polling(node.clients);
        compare(Want::Empty(413), exchange(node.clients, &request(&query)).as_ref())?;
        compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, b"40")).as_ref())?;
        compare(Want::Text(200, r#"40{"sid":"#), exchange(node.clients, &get(&query)).as_ref())
    })
}

fn too_large() -> Vec<Row> {
    let head =
        |query: &str, headers: &str| format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n{headers}\r\n\r\n");
    vec![
        refused_by_size("a body of one byte too many", |query| post(query, &vec![b'4'; MAX_PAYLOAD + 1])),
        refused_by_size("a length of 10 GB and no body", move |query| {
            head(query, "Content-Length: 10000000000").into_bytes()
        }),
        refused_by_size("chunks without an end", move |query| {
            let chunk = format!("10000\r\n{}\r\n", "4".repeat(0x10000));
            [head(query, "Transfer-Encoding: chunked"), chunk.repeat(20)].concat().into_bytes()
        }),
    ]
}

fn doubled() -> Vec<Row> {
    vec![
        Row::new("polling: a second GET while one is open", |node| {
            let query = polling(node.clients);
            // Two connections have no order: whichever is heard second is refused, and the other one told the end.
            let mut both = [Connection::open(node.clients), Connection::open(node.clients)];
            both.iter_mut().for_each(|connection| connection.send(&get(&query)));
            let [first, second] = both.map(|mut connection| connection.answer());
            let refused = |answer: &Option<Answer>| compare(Want::Empty(400), answer.as_ref()).is_ok();
            let ended = |answer: &Option<Answer>| is_end(answer.as_ref());
            if !(refused(&first) && ended(&second) || ended(&first) && refused(&second)) {
                return unexpected("one refused and one ended", (first, second));
            }
            compare(UNKNOWN_SID, exchange(node.clients, &get(&query)).as_ref())
        }),
        Row::new("polling: a second POST while one is open", |node| {
            let query = polling(node.clients);
            let mut first = Connection::open(node.clients);
            let head = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n");
            // Once the node asks for its body it is open.
            first.send(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
            compare(Want::Empty(100), first.answer().as_ref())?;
            compare(Want::Empty(400), exchange(node.clients, &post(&query, b"3")).as_ref())?;
            compare(UNKNOWN_SID, exchange(node.clients, &get(&query)).as_ref())
        }),
        Row::new("polling: a poll that is broken off ends the session", |node| {
            for _ in 0..TRIES {
                let query = polling(node.clients);
                let mut poll = Connection::open(node.clients);
                poll.send(&get(&query));
                std::thread::sleep(SOON);
                drop(poll);
                // Until the node has heard of the end, a poll may still find the session, as the second one.
                let mut polls = (0..TRIES).filter_map(|_| exchange(node.clients, &get(&query)));
                let last = polls.find(|answer| compare(Want::Empty(400), Some(answer)).is_err());
                // A heartbeat: what was broken off was not heard yet, and the poll behind it is the only one.
                if last.as_ref().is_none_or(|answer| answer.body != "2") {
                    return compare(UNKNOWN_SID, last.as_ref());
                }
            }
            unexpected("a session that is over", "one that is not, each time")
        }),
        Row::new("polling: requests after the client closed", |node| {
            let query = polling(node.clients);
            compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, b"1")).as_ref())?;
            compare(UNKNOWN_SID, exchange(node.clients, &get(&query)).as_ref())?;
            compare(UNKNOWN_SID, exchange(node.clients, &post(&query, b"3")).as_ref())
        }),
    ]
}

/// A poll that is told that its session is over.
fn is_end(answer: Option<&Answer>) -> bool {
    answer.is_some_and(|answer| answer.status == 200 && answer.body == "1")
}

fn upgrades() -> Vec<Row> {
    vec![
        Row::new("upgrade: something else than a probe", |node| {
            let query = polling(node.clients);
            let mut socket = candidate(node.clients, &query)?;
            socket.text("4hello");
            closed(&mut socket)?;
            compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, b"40")).as_ref())?;
            compare(Want::Text(200, r#"40{"sid":"#), exchange(node.clients, &get(&query)).as_ref())
        }),
        Row::new("upgrade: a second candidate while one is probing", |node| {
            let query = polling(node.clients);
            let mut first = candidate(node.clients, &query)?;
            first.text("2probe");
            if first.next() != Frame::Text("3probe".to_owned()) {
                return unexpected("3probe", "something else");
            }
            let mut second = candidate(node.clients, &query)?;
            closed(&mut second)?;
            first.text("5");
            first.text("40");
            match first.packet() {
                Frame::Text(connect) if connect.starts_with("40{") => Ok(()),
                other => unexpected("the session goes on by its first candidate", other),
            }
        }),
        Row::new("upgrade: polling with the sid of a WebSocket session", |node| {
            let (_socket, sid) = WebSocket::session(node.clients);
            let query = format!("EIO=4&transport=polling&sid={sid}");
            compare(BAD_REQUEST, exchange(node.clients, &get(&query)).as_ref())?;
            compare(BAD_REQUEST, exchange(node.clients, &post(&query, b"3")).as_ref())
        }),
        Row::new("upgrade: a second WebSocket for a WebSocket session", |node| {
            let (mut socket, sid) = WebSocket::session(node.clients);
            let mut second = candidate(node.clients, &format!("EIO=4&transport=polling&sid={sid}"))?;
            closed(&mut second)?;
            socket.text("40");
            match socket.packet() {
                Frame::Text(connect) if connect.starts_with("40{") => Ok(()),
                other => unexpected("the session lives on", other),
            }
        }),
    ]
}

fn candidate(clients: std::net::SocketAddr, query: &str) -> Result<WebSocket, String> {
    let query = query.replace("transport=polling", "transport=websocket");
    WebSocket::open(clients, &query).or_else(|answer| unexpected("101", answer))
}

fn closed(socket: &mut WebSocket) -> Outcome {
    match socket.next() {
        Frame::Close(_) | Frame::End => Ok(()),
        other => unexpected("that WebSocket closed", other),
    }
}
