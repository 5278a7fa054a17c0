//! What was published against this program's neighbours, tried here: each row names the advisory whose rule it checks
//! (`reliability.md` 4.1). Advisories that other rows cover as well are in those rows' tables.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use crate::{
    canary::is_ok,
    http::{BAD_REQUEST, UNKNOWN_SID, Want, compare},
    row::{Outcome, Row, unexpected},
    websocket::ends,
    wire::{Connection, Frame, WebSocket, exchange, frame, get, polling, post, socket, upgrade},
};

const BAD_VERSION: Want = Want::Error(400, 5, "Unsupported protocol version");
const FORBIDDEN: Want = Want::Error(403, 4, "Forbidden");
/// What linear work on a megabyte takes at most, in a debug build on a machine with twenty times as much to do. Work that
/// grows with the square would take a hundred times as long.
const LINEAR: Duration = Duration::from_secs(25);
/// Ids that are looked at together.
const IDS: usize = 32;

pub(crate) fn rows() -> Vec<Row> {
    [ids(), origins(), parsers(), upgrades(), sessions(), headers(), frames(), secrets()].concat()
}

/// Fails a row that took longer than work which grows with its input may take.
fn in_time(work: impl FnOnce() -> Outcome) -> Outcome {
    let begin = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    work()?;
    let took = SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(begin);
    if took < LINEAR { Ok(()) } else { unexpected(LINEAR, took) }
}

/// The session answers as if nothing had happened.
fn lives(to: SocketAddr, query: &str) -> Outcome {
    compare(Want::Text(200, "ok"), exchange(to, &post(query, b"40")).as_ref())?;
    compare(Want::Text(200, r#"40{"sid":"#), exchange(to, &get(query)).as_ref())
}

fn still_works(socket: &mut WebSocket) -> Outcome {
    socket.text(r#"427["room:leave",{"room":"r"}]"#);
    match socket.packet() {
        Frame::Text(ack) if is_ok(&ack, 7) => Ok(()),
        other => unexpected("an ack", other),
    }
}

fn ids() -> Vec<Row> {
    vec![
        Row::new("CVE-2017-16031: session ids cannot be guessed from others", |node| {
            let ids: BTreeSet<String> = (0..IDS).map(|_| polling(node.clients)).collect();
            unlike(&ids, "EIO=4&transport=polling&sid=".len())
        }),
        Row::new("CVE-2017-16031: socket ids cannot be guessed from others, nor from the session's", |node| {
            let mut ids = BTreeSet::new();
            for _ in 0..IDS {
                let (mut socket, sid) = WebSocket::session(node.clients);
                socket.text("40");
                let Frame::Text(connect) = socket.packet() else { return unexpected("CONNECT", "something else") };
                let id = connect.trim_start_matches("40{\"sid\":\"").trim_end_matches("\"}").to_owned();
                if sid.contains(&id) || id.contains(&sid) {
                    return unexpected("two ids", (sid, id));
                }
                ids.insert(id);
            }
            unlike(&ids, 0)
        }),
    ]
}

/// Ids of one length that are all different, and more than the few letters that say where.
fn unlike(ids: &BTreeSet<String>, prefix: usize) -> Outcome {
    let ids: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[prefix..]).collect();
    let alike = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
    let worst = ids.iter().enumerate().flat_map(|(n, a)| ids[..n].iter().map(|b| alike(a, b))).max();
    match (ids.len(), worst) {
        (IDS, Some(worst)) if worst * 2 < ids[0].len() => Ok(()),
        seen => unexpected("ids that have less than half of their letters in common", seen),
    }
}

fn origins() -> Vec<Row> {
    let from = |request: &[u8], origin: &str| {
        let text = String::from_utf8(request.to_vec()).unwrap();
        text.replacen("Host: t\r\n", &format!("Host: t\r\nOrigin: {origin}\r\n"), 1).into_bytes()
    };
    let foreign = ["http://evil.example", "null", "http://t.evil.example", "http://t:81", "file://", "http://eviltt"];
    let mut rows: Vec<Row> = foreign
        .into_iter()
        .map(|origin| {
            Row::new(&format!("CVE-2020-28481: a handshake of a page from {origin}"), move |node| {
                let request = from(&get("EIO=4&transport=polling"), origin);
                compare(FORBIDDEN, exchange(node.clients, &request).as_ref())
            })
        })
        .collect();
    rows.extend([
        Row::new("GHSA-f53g-frr2-jhpf: a WebSocket of a page from elsewhere", move |node| {
            let request = from(&upgrade("EIO=4&transport=websocket", &[]), "http://evil.example");
            compare(Want::Text(403, "Forbidden"), exchange(node.clients, &request).as_ref())
        }),
        Row::new("CVE-2020-28481: a poll and a POST of a page from elsewhere, and the session lives", move |node| {
            let query = polling(node.clients);
            for request in [get(&query), post(&query, b"1")] {
                compare(FORBIDDEN, exchange(node.clients, &from(&request, "http://evil.example")).as_ref())?;
            }
            lives(node.clients, &query)
        }),
        Row::new("CVE-2020-28481: an upgrade of a page from elsewhere, and the session lives", move |node| {
            let query = polling(node.clients);
            let request = from(&upgrade(&query.replace("polling", "websocket"), &[]), "http://evil.example");
            compare(Want::Text(403, "Forbidden"), exchange(node.clients, &request).as_ref())?;
            lives(node.clients, &query)
        }),
    ]);
    rows
}

fn parsers() -> Vec<Row> {
    let slow = |name: &str, packet: String, closes: bool| {
        Row::new(name, move |node| {
            in_time(|| {
                let mut socket = WebSocket::connected(node.clients);
                socket.text(&packet);
                if closes { ends(&mut socket, &[]) } else { still_works(&mut socket) }
            })
        })
    };
    let nine = "9".repeat(900_000);
    let names: String = (0..60_000).fold(String::new(), |mut all, n| {
        let _ = write!(all, "\"k{n}\":{n},");
        all
    });
    vec![
        slow("CVE-2020-36049: a number of attachments of 900,000 digits", format!("45{nine}-[\"x\"]"), true),
        slow("CVE-2020-36049: an ack id of 900,000 digits", format!("42{nine}[\"x\"]"), true),
        slow("CVE-2020-36049: a namespace of 900,000 letters", format!("42/{nine},[\"x\"]"), true),
        slow("CVE-2020-36049: a string of 450,000 escapes", format!("42[\"x\",\"{}\"]", "\\n".repeat(450_000)), false),
        slow("CVE-2020-36049: an object of 60,000 keys", format!("42[\"x\",{{{names}\"z\":0}}]"), false),
        slow("CVE-2020-36049: an array of 400,000 values", format!("42[\"x\"{}]", ",0".repeat(400_000)), false),
        slow("CVE-2020-36049: a quote that is opened and not closed", format!("42[\"x\",\"{nine}]"), true),
        Row::new("CVE-2020-36048: a body of the largest size in chunks of ten bytes", |node| {
            in_time(|| {
                let query = polling(node.clients);
                let chunk = "a\r\n4aaaaaaaaa\r\n".repeat(60_000);
                let head =
                    format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
                let request = format!("{head}{chunk}0\r\n\r\n");
                compare(Want::Status(&[200, 400, 413]), exchange(node.clients, request.as_bytes()).as_ref())
            })
        }),
        ending("CVE-2022-2421: a placeholder named splice", r#"451-["x",{"_placeholder":true,"num":"splice"}]"#),
        ending("CVE-2022-2421: a placeholder of half a number", r#"451-["x",{"_placeholder":true,"num":0.5}]"#),
        ending("CVE-2022-2421: an event named by an attachment", r#"451-[{"_placeholder":true,"num":0}]"#),
        ending("CVE-2023-32695: an event named by an object with toString", r#"42[{"toString":"x"}]"#),
        ending("CVE-2024-38355: an error from a client", r#"44{"message":"x"}"#),
        ending("CVE-2024-38355: an error from a client as text", r#"44"x""#),
        ending("CVE-2024-38355: an error in a namespace it never joined", "44/admin,"),
        ending("CVE-2026-33151: as many attachments as 32 bits hold", r#"454294967295-["x"]"#),
        ending("CVE-2026-69185: no attachments in an event", r#"450-["x"]"#),
        ending("CVE-2026-69185: no attachments in an ack", "460-1[]"),
        ending("CVE-2026-69185: no attachments, spelt with zeros", r#"45000-["x"]"#),
        Row::new("CVE-2026-33219: much of an event before any namespace is joined", |node| {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.text(&format!("42[\"x\",\"{}\"]", "a".repeat(900_000)));
            ends(&mut socket, &[])
        }),
        Row::new("CVE-2026-33219: much of a CONNECT", |node| {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.text(&format!("40{{\"token\":\"{}\"}}", "a".repeat(900_000)));
            ends(&mut socket, &[])
        }),
    ]
}

/// A packet of a client in `/` that closes its connection.
fn ending(name: &str, packet: &'static str) -> Row {
    Row::new(name, move |node| {
        let mut socket = WebSocket::connected(node.clients);
        socket.text(packet);
        // What would be waited for may come; it must not be.
        socket.raw(&frame(0x82, b"data"));
        ends(&mut socket, &[])
    })
}

fn upgrades() -> Vec<Row> {
    let broken = |name: &str, bytes: Vec<u8>| {
        Row::new(name, move |node| {
            let query = polling(node.clients);
            for _ in 0..10 {
                let mut stream = socket(node.clients).map_err(|error| error.to_string())?;
                let request = upgrade(&query.replace("polling", "websocket"), &[]);
                let _ = stream.write_all(&[request.as_slice(), &bytes].concat());
                // Unread data makes the kernel end it with a reset.
                drop(stream);
            }
            lives(node.clients, &query)
        })
    };
    let revision = |name: &str, revision: &'static str| {
        Row::new(name, move |node| {
            let query = polling(node.clients);
            let other = query.replace("EIO=4&", revision).replace("polling", "websocket");
            compare(
                Want::Text(400, "Unsupported protocol version"),
                exchange(node.clients, &upgrade(&other, &[])).as_ref(),
            )?;
            lives(node.clients, &query)
        })
    };
    vec![
        broken("CVE-2022-21676: an upgrade that is reset at once", Vec::new()),
        broken("CVE-2022-41940: an upgrade that is reset behind a probe", frame(0x81, b"2probe")),
        broken("CVE-2023-31125: an upgrade that is reset inside a frame", frame(0x81, b"2probe")[..5].to_vec()),
        broken("CVE-2022-21676: an upgrade that is reset behind garbage", vec![0xff; 64]),
        revision("CVE-2026-102599: an upgrade with version 3 of a session of version 4", "EIO=3&"),
        revision("CVE-2026-102599: an upgrade without a version of a session of version 4", ""),
        Row::new("CVE-2026-102599: a poll with version 3 of a session of version 4", |node| {
            let query = polling(node.clients);
            let other = query.replace("EIO=4", "EIO=3");
            compare(BAD_VERSION, exchange(node.clients, &get(&other)).as_ref())?;
            compare(BAD_VERSION, exchange(node.clients, &post(&other, b"1")).as_ref())?;
            lives(node.clients, &query)
        }),
        Row::new("CVE-2022-21667: a POST without a body and without a length", |node| {
            let query = polling(node.clients);
            let request = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n\r\n");
            compare(Want::Status(&[200, 400, 411]), exchange(node.clients, request.as_bytes()).as_ref())
        }),
        Row::new("CVE-2026-59725: fifty bodies of octets are all answered", |node| {
            let query = polling(node.clients);
            let head = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n");
            let request = format!("{head}Content-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\n4a");
            let mut connection = Connection::open(node.clients);
            for _ in 0..50 {
                connection.send(request.as_bytes());
                compare(Want::Empty(400), connection.answer().as_ref())?;
            }
            Ok(())
        }),
    ]
}

fn sessions() -> Vec<Row> {
    let names = ["__proto__", "constructor", "toString", "hasOwnProperty", "..%2f..%2f", "%00", "0", "undefined"];
    let mut rows: Vec<Row> = names
        .into_iter()
        .map(|name| {
            Row::new(&format!("GHSA-gr94-w7qr-f4j3: an upgrade of a session named {name}"), move |node| {
                let request = upgrade(&format!("EIO=4&transport=websocket&sid={name}"), &[]);
                compare(Want::Text(400, "Session ID unknown"), exchange(node.clients, &request).as_ref())
            })
        })
        .collect();
    rows.push(Row::new("CVE-2026-102600: session ids of other nodes that nobody signed", |node| {
        let query = polling(node.clients);
        let (start, sid) = query.split_at(query.find("sid=").unwrap() + 4);
        for at in 0..sid.len() {
            let other = if sid.as_bytes()[at] == b'A' { "B" } else { "A" };
            let forged = format!("{start}{}{other}{}", &sid[..at], &sid[at + 1..]);
            compare(UNKNOWN_SID, exchange(node.clients, &get(&forged)).as_ref())?;
        }
        lives(node.clients, &query)
    }));
    rows
}

/// A WebSocket handshake with more headers; the answer's status, and that it names no extension.
fn with_headers(name: &str, headers: String, statuses: &'static [u16]) -> Row {
    Row::new(name, move |node| {
        in_time(|| {
            let request = String::from_utf8(upgrade("EIO=4&transport=websocket", &[])).unwrap();
            let request = request.replacen("Host: t\r\n", &format!("Host: t\r\n{headers}\r\n"), 1);
            let answer = exchange(node.clients, request.as_bytes());
            if let Some(extensions) = answer.as_ref().and_then(|answer| answer.header("sec-websocket-extensions")) {
                return unexpected("no extension", extensions);
            }
            compare(Want::Refusal(statuses), answer.as_ref())
        })
    })
}

fn headers() -> Vec<Row> {
    let many: Vec<String> = (0..80).map(|n| format!("X-{n}: y")).collect();
    vec![
        with_headers(
            "GHSA-5v72-xg48-5rpm: extensions of quotes and backslashes",
            format!("Sec-WebSocket-Extensions: {}", "a;b=\"\\\",".repeat(800)),
            &[101, 400],
        ),
        with_headers(
            "CVE-2021-32640: sub-protocols of spaces",
            format!("Sec-WebSocket-Protocol: a{}b", " ".repeat(7_000)),
            &[101, 400],
        ),
        with_headers("CVE-2024-37890: eighty headers at an upgrade", many.join("\r\n"), &[431]),
        with_headers("RUSTSEC-2023-0065: an upgrade of 200,000 bytes", format!("X: {}", "a".repeat(200_000)), &[431]),
        with_headers(
            "CVE-2026-27571: an upgrade that asks for compression",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned(),
            &[101],
        ),
        Row::new("RUSTSEC-2024-0332: an upgrade to HTTP/2 without TLS", |node| {
            let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\n";
            let ask = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
            compare(Want::Text(200, "0{"), exchange(node.clients, format!("{head}{ask}").as_bytes()).as_ref())
        }),
    ]
    .into_iter()
    .chain(smuggling())
    .collect()
}

/// RUSTSEC-2021-0078 and -0079: lengths that two servers could read differently.
fn smuggling() -> Vec<Row> {
    let lengths = [
        ("a plus sign in front", "Content-Length: +2\r\n\r\n4a"),
        ("two numbers", "Content-Length: 2, 3\r\n\r\n4a"),
        ("hexadecimal", "Content-Length: 0x2\r\n\r\n4a"),
        ("a space inside", "Content-Length: 1 2\r\n\r\n4a"),
        ("chunked and then something else", "Transfer-Encoding: chunked, identity\r\n\r\n2\r\n4a\r\n0\r\n\r\n"),
        ("almost chunked", "Transfer-Encoding: xchunked\r\n\r\n2\r\n4a\r\n0\r\n\r\n"),
        ("a vertical tab before chunked", "Transfer-Encoding: \x0bchunked\r\n\r\n2\r\n4a\r\n0\r\n\r\n"),
        ("a chunk of more than 64 bits", "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n4a\r\n0\r\n\r\n"),
        ("a negative chunk", "Transfer-Encoding: chunked\r\n\r\n-2\r\n4a\r\n0\r\n\r\n"),
        ("a line folded into the next", "X: a\r\n Content-Length: 2\r\n\r\n4a"),
    ];
    lengths
        .into_iter()
        .map(|(name, rest)| {
            Row::new(&format!("RUSTSEC-2021-0079: a length with {name}"), move |node| {
                let query = polling(node.clients);
                let request = format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: t\r\n{rest}");
                compare(Want::Refusal(&[400, 411, 413, 501]), exchange(node.clients, request.as_bytes()).as_ref())
            })
        })
        .collect()
}

fn frames() -> Vec<Row> {
    let claims = |name: &str, length: u64| {
        let bytes = [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], b"4"].concat();
        Row::new(name, move |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&bytes);
            ends(&mut socket, &[1002, 1009])
        })
    };
    let pieces = |name: &str, count: usize, piece: &'static [u8]| {
        Row::new(name, move |node| {
            in_time(|| {
                let mut socket = WebSocket::connected(node.clients);
                socket.raw(&frame(0x01, b"4"));
                socket.raw(&frame(0x00, piece).repeat(count));
                socket.raw(&frame(0x80, br#"27["room:leave",{"room":"r"}]"#));
                match socket.packet() {
                    // Pieces of nothing make a good packet; so many may still be refused for their number.
                    Frame::Text(ack) if piece.is_empty() && is_ok(&ack, 7) => Ok(()),
                    Frame::Close(Some(1002 | 1008 | 1009)) | Frame::End => Ok(()),
                    other => unexpected("an ack or the end", other),
                }
            })
        })
    };
    vec![
        claims("CVE-2016-10542: a frame that claims all that memory can hold", i64::MAX.cast_unsigned()),
        claims("CVE-2026-27889: a frame whose length has the highest bit", 1 << 63),
        claims("CVE-2026-27889: a frame whose length and header pass 64 bits", u64::MAX - 6),
        pieces("CVE-2026-48779: a message in 60,000 pieces of a byte", 60_000, b"x"),
        pieces("CVE-2026-62389: a message in 60,000 empty pieces", 60_000, b""),
        Row::new("CVE-2016-10518: a ping is answered by its own bytes", |node| {
            let mut socket = WebSocket::connected(node.clients);
            let data: Vec<u8> = (0..125).collect();
            for length in [0, 1, 124, 125] {
                socket.raw(&frame(0x89, &data[..length]));
                match socket.packet() {
                    Frame::Pong(pong) if pong == data[..length] => {}
                    other => return unexpected(format!("a pong of {length} bytes"), other),
                }
            }
            still_works(&mut socket)
        }),
        Row::new("CVE-2026-45736: a close is answered by its code and nothing else", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&frame(0x88, &[&[0x03, 0xe8][..], &[b'r'; 123]].concat()));
            ends(&mut socket, &[1000])
        }),
        Row::new("CVE-2016-10518: a ping that claims more than it has", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&frame(0x89, &[b'x'; 125])[..20]);
            drop(socket);
            still_works(&mut WebSocket::connected(node.clients))
        }),
    ]
}

fn secrets() -> Vec<Row> {
    vec![
        Row::new("CVE-2026-33216: neither metrics nor the cluster's state show an id that is a secret", |node| {
            let (mut socket, sid) = WebSocket::session(node.clients);
            socket.text("40");
            socket.packet();
            for path in ["/metrics", "/api/cluster", "/readyz", "/livez"] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
                let answer = exchange(node.admin, request.as_bytes());
                match answer {
                    Some(answer) if answer.status == 200 && !answer.body.contains(&sid) => {}
                    other => return unexpected(format!("{path} without the id"), other),
                }
            }
            Ok(())
        }),
        Row::new("CVE-2023-46129: an error does not repeat the id it refuses", |node| {
            let query = "EIO=4&transport=websocket&sid=do-not-repeat-me";
            let answer = exchange(node.clients, &get(query));
            match &answer {
                Some(answer) if !answer.body.contains("repeat") => compare(UNKNOWN_SID, Some(answer)),
                other => unexpected(BAD_REQUEST, other),
            }
        }),
    ]
}
