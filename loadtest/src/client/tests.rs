//! Clients against hand-made bytes, cut in every place.

use std::rc::Rc;

use super::*;

const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
const OPEN: &str = r#"0{"sid":"abc","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}"#;

fn member(transport: Transport, namespace: &str) -> Client {
    Client::new(transport, Rc::new(Script::member("host:1", &Dialect::Room, namespace, "r", 0)))
}

/// A server's text frame.
fn frame(packet: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    protocol::engine::frame::put_text(&mut frame, &[packet.as_bytes()]);
    frame
}

fn response(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Feeds bytes in pieces of `size` and returns a readable log of the events.
fn feed(client: &mut Client, channel: Channel, bytes: &[u8], size: usize) -> Result<Vec<String>, ClientError> {
    let mut log = Vec::new();
    for piece in bytes.chunks(size) {
        client.handle_bytes(channel, piece, &mut |event| {
            log.push(match event {
                Event::Connected => "connected".to_owned(),
                Event::Joined { history } => format!("joined with {history}"),
                Event::Message(packet) => String::from_utf8_lossy(packet).into_owned(),
                Event::Answer { id, body } => format!("answer {id} {}", String::from_utf8_lossy(body)),
            });
        })?;
    }
    Ok(log)
}

/// The packets of the masked frames that a client wrote.
fn written(out: &mut Vec<u8>) -> Vec<String> {
    let bytes = std::mem::take(out);
    let mut packets = Vec::new();
    let mut rest = bytes.as_slice();
    while let [_, length, a, b, c, d, ..] = rest {
        let (mask, length) = ([*a, *b, *c, *d], usize::from(length & 0x7f));
        assert!(length < 126, "tests write short packets");
        let payload = rest[6..6 + length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        packets.push(String::from_utf8(payload).unwrap());
        rest = &rest[6 + length..];
    }
    packets
}

#[test]
fn a_member_joins_and_receives_however_the_bytes_are_cut() {
    let long = format!("42[\"m\",\"{}\"]", "x".repeat(70_000));
    let packets =
        [OPEN, r#"40{"sid":"s"}"#, r#"430[{"ok":true,"epoch":"e","offset":4}]"#, "2", "42[\"m\",\"a\"]", &long];
    let frames: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
    let bytes = [UPGRADE, &frames].concat();
    let expected = ["connected", "joined with 0", "42[\"m\",\"a\"]", &long];
    for size in [1, 2, 3, 7, 50, 1000, bytes.len()] {
        let mut client = member(Transport::WebSocket, "/");
        client.output(Channel::Main).clear();
        assert_eq!(feed(&mut client, Channel::Main, &bytes, size).unwrap(), expected, "in pieces of {size}");
        assert_eq!(written(client.output(Channel::Main)), ["40", r#"420["room:join",{"room":"r"}]"#, "3"]);
    }
}

#[test]
fn a_namespace_stands_before_everything() {
    let mut client = member(Transport::WebSocket, "/chat");
    client.output(Channel::Main).clear();
    let packets =
        [OPEN, r#"40/chat,{"sid":"s"}"#, r#"43/chat,0[{"ok":true}]"#, "42/chat,[\"m\",\"a\"]", "43/chat,17[{}]"];
    let frames: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
    let log = feed(&mut client, Channel::Main, &[UPGRADE, &frames].concat(), 10).unwrap();
    assert_eq!(log, ["connected", "joined with 0", "42/chat,[\"m\",\"a\"]", "answer 17 [{}]"]);
    assert_eq!(written(client.output(Channel::Main)), ["40/chat,", r#"42/chat,0["room:join",{"room":"r"}]"#]);
}

#[test]
fn a_join_is_asked_again_only_while_it_is_open() {
    let mut client = member(Transport::WebSocket, "/");
    assert!(!client.join_again());
    let connected = [UPGRADE, &frame(OPEN), &frame("40{}")].concat();
    feed(&mut client, Channel::Main, &connected, 1000).unwrap();
    assert!(client.join_again());
    feed(&mut client, Channel::Main, &frame(r#"430[{"ok":true}]"#), 1000).unwrap();
    assert!(!client.join_again());
}

#[test]
fn a_no_ends_the_client_with_the_reason() {
    let after_open = |packets: &[&str]| {
        let frames: Vec<u8> = packets.iter().flat_map(|packet| frame(packet)).collect();
        let mut client = member(Transport::WebSocket, "/");
        feed(&mut client, Channel::Main, &[UPGRADE, &frame(OPEN), &frames].concat(), 1000).unwrap_err().to_string()
    };
    assert_eq!(after_open(&["40{}", r#"430[{"ok":false,"code":"forbidden"}]"#]), "refused: forbidden");
    assert_eq!(after_open(&[r#"44{"message":"no"}"#]), r#"refused: {"message":"no"}"#);
    assert_eq!(after_open(&["40{}", "41"]), "closed by the server");
    assert_eq!(after_open(&["1"]), "closed by the server");
    assert_eq!(after_open(&["9"]), "bad packet from the server");
    assert_eq!(after_open(&["43[]"]), "bad packet from the server");
    assert_eq!(after_open(&["43/chat"]), "bad packet from the server");
}

#[test]
fn an_answer_that_is_no_upgrade_ends_the_client_with_its_status() {
    let mut client = member(Transport::WebSocket, "/");
    let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let error = feed(&mut client, Channel::Main, refused, 1000).unwrap_err();
    assert_eq!(error.to_string(), "http: HTTP/1.1 503 Service Unavailable");
    let mut client = member(Transport::WebSocket, "/");
    assert!(feed(&mut client, Channel::Main, &vec![b'x'; HTTP_HEAD_MAX + 1], 1000).is_err());
}

#[test]
fn a_broken_frame_ends_the_client() {
    let mut client = member(Transport::WebSocket, "/");
    feed(&mut client, Channel::Main, UPGRADE, 1000).unwrap();
    assert!(matches!(feed(&mut client, Channel::Main, &[0xff, 0xff], 1000), Err(ClientError::Frame(_))));
}

#[test]
fn a_polling_member_waits_on_one_connection_and_posts_on_the_other() {
    let text = |client: &mut Client, channel| String::from_utf8(std::mem::take(client.output(channel))).unwrap();
    let mut client = member(Transport::Polling, "/");
    assert!(text(&mut client, Channel::Main).starts_with("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n"));

    assert!(feed(&mut client, Channel::Main, &response(OPEN), 5).unwrap().is_empty());
    assert!(text(&mut client, Channel::Main).starts_with("GET /socket.io/?EIO=4&transport=polling&sid=abc "));
    let post = text(&mut client, Channel::Post);
    assert!(
        post.starts_with("POST /socket.io/?EIO=4&transport=polling&sid=abc ") && post.ends_with("\r\n\r\n40"),
        "{post}"
    );

    // Two packets while the POST is under way leave together with the next one.
    let log = feed(&mut client, Channel::Main, &response("40{\"sid\":\"s\"}\u{1e}2"), 7).unwrap();
    assert_eq!(log, ["connected"]);
    assert_eq!(text(&mut client, Channel::Post), "");
    feed(&mut client, Channel::Post, &response("ok"), 3).unwrap();
    let post = text(&mut client, Channel::Post);
    assert!(post.ends_with("420[\"room:join\",{\"room\":\"r\"}]\u{1e}3"), "{post}");

    let body = "430[{\"ok\":true}]\u{1e}42[\"m\",\"a\"]\u{1e}bAAAA\u{1e}42[\"m\",\"b\"]";
    let log = feed(&mut client, Channel::Main, &response(body), 11).unwrap();
    assert_eq!(log, ["joined with 0", "42[\"m\",\"a\"]", "42[\"m\",\"b\"]"]);
}

#[test]
fn a_polling_client_survives_the_end_of_an_idle_post_connection_and_of_nothing_else() {
    let mut client = member(Transport::Polling, "/");
    feed(&mut client, Channel::Main, &response(OPEN), 1000).unwrap();
    assert!(client.handle_end(Channel::Post).is_err(), "a body is under way");
    feed(&mut client, Channel::Post, &response("ok"), 1000).unwrap();
    assert!(client.handle_end(Channel::Post).is_ok());
    assert!(client.handle_end(Channel::Main).is_err());
    assert!(member(Transport::WebSocket, "/").handle_end(Channel::Main).is_err());
}

#[test]
fn a_polling_answer_that_is_an_error_or_has_no_length_ends_the_client() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n0nope",
    ] {
        let mut client = member(Transport::Polling, "/");
        assert!(feed(&mut client, Channel::Main, answer.as_bytes(), 1000).is_err(), "{answer}");
    }
}
