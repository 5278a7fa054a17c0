//! Members that read slowly, or not at all, in a room that others read well: the real program over real sockets.
//!
//! Invariants checked: nobody else waits for a laggard; a laggard that reads again has missed nothing and sees everything
//! in order; one that never reads is cut off, and counted; all that whichever parser a member uses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use protocol::{
    engine::Message,
    socketio::{Args, Decoder, DecoderLimits, Packet, Parser},
};
use support::{
    metric,
    node::Node,
    wire::{Frame, WebSocket, frame},
};

/// More than the kernel's buffers of a loopback connection hold, less than a connection may be behind.
const MESSAGES: usize = 400;
const BYTES: usize = 16 * 1024;
const LIMITS: DecoderLimits = DecoderLimits { attachments: 0, bytes: 1 << 20, name_bytes: 256, json_depth: 16 };

/// A client in `/` that speaks through one of the parsers.
struct Client {
    socket: WebSocket,
    parser: Parser,
    decoder: Decoder,
}

impl Client {
    fn connect(node: &Node, parser: Parser) -> Client {
        let (socket, _) = WebSocket::session(node.clients);
        let mut client = Client { socket, parser, decoder: Decoder::for_parser(parser, LIMITS) };
        client.send(&Packet::Connect { nsp: "/".into(), auth: None });
        let welcome = client.receive();
        assert!(matches!(welcome, Some(Packet::Connect { auth: Some(_), .. })), "{welcome:?}");
        client
    }

    fn join(node: &Node, parser: Parser) -> Client {
        let mut client = Client::connect(node, parser);
        client.ask(r#"["room:join",{"room":"r"}]"#.to_owned());
        client
    }

    fn publish(&mut self, n: usize) {
        let filler = "x".repeat(BYTES);
        self.ask(format!(r#"["room:publish",{{"room":"r","event":"e","args":[{n},"{filler}"]}}]"#));
    }

    /// Emits an event that must be answered with `ok`.
    fn ask(&mut self, args: String) {
        self.send(&Packet::Event { nsp: "/".into(), id: Some(0), args: Args::text(args) });
        let Some(Packet::Ack { args, .. }) = self.receive() else { panic!("no ack") };
        assert!(args.json.contains("\"ok\":true"), "{}", args.json);
    }

    fn expect_event(&mut self, n: usize) {
        let Some(Packet::Event { args, .. }) = self.receive() else { panic!("no message {n}") };
        let json = args.json;
        assert!(json.starts_with(&format!(r#"["e",{n},"#)), "wanted {n}, saw {}", &json[..40.min(json.len())]);
    }

    fn send(&mut self, packet: &Packet) {
        for message in packet.encode_as(self.parser).messages() {
            match message {
                Message::Text(text) => self.socket.text(&format!("4{text}")),
                Message::Binary(data) => self.socket.raw(&frame(0x82, &data)),
            }
        }
    }

    /// The next packet; none if the connection ends.
    fn receive(&mut self) -> Option<Packet> {
        let message = match self.socket.packet() {
            Frame::Text(text) => Message::Text(text.strip_prefix('4').expect("no message").into()),
            Frame::Binary(data) => Message::Binary(data.into()),
            _ => return None,
        };
        self.decoder.decode(message).expect("no packet")
    }
}

/// A member for each parser.
fn members(node: &Node) -> Vec<Client> {
    Parser::ALL.into_iter().map(|parser| Client::join(node, parser)).collect()
}

#[test]
fn a_laggard_misses_nothing_and_delays_nobody() {
    let node = Node::start_with(&[("STARLING_LIMITS__QUEUE_BYTES", "64MiB")]);
    let mut publisher = Client::connect(&node, Parser::Json);
    let (mut readers, mut laggards) = (members(&node), members(&node));
    for n in 0..MESSAGES {
        publisher.publish(n);
        readers.iter_mut().for_each(|reader| reader.expect_event(n));
    }
    assert_eq!(metric(&node, "starling_lagging_members"), 2.0, "not everybody lagged: something was not tested");
    for laggard in &mut laggards {
        (0..MESSAGES).for_each(|n| laggard.expect_event(n));
    }
    publisher.publish(MESSAGES);
    laggards.iter_mut().chain(&mut readers).for_each(|member| member.expect_event(MESSAGES));
    assert_eq!(metric(&node, "starling_lagging_members"), 0.0);
    node.stop().unwrap();
}

#[test]
fn who_never_reads_is_cut_off_and_counted() {
    let node = Node::start_with(&[("STARLING_LIMITS__QUEUE_BYTES", "256KiB")]);
    let mut publisher = Client::connect(&node, Parser::MsgPack);
    let (mut readers, laggards) = (members(&node), members(&node));
    for n in 0..MESSAGES {
        publisher.publish(n);
        readers.iter_mut().for_each(|reader| reader.expect_event(n));
    }
    assert_eq!(metric(&node, "starling_slow_consumers_closed_total"), 2.0);
    for mut laggard in laggards {
        let mut seen = 0;
        while let Some(Packet::Event { args, .. }) = laggard.receive() {
            assert!(args.json.starts_with(&format!(r#"["e",{seen},"#)), "a gap before the end");
            seen += 1;
        }
        assert!(seen < MESSAGES, "it was not cut off");
    }
    node.stop().unwrap();
}
