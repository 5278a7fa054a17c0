//! Members that read slowly, or not at all, in a room that others read well: the real program over real sockets.
//!
//! Invariants checked: nobody else waits for a laggard; a laggard that reads again has missed nothing and sees everything
//! in order; one that never reads is cut off, and counted; all that whichever parser a member uses. What a program says
//! volatilely is lost by whoever has not taken what came before, and by nobody else.

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
    until,
    wire::{Frame, WebSocket, exchange, frame, get, polling, post},
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

    /// Has the program of the `verbs` example say something back: `n`, and a filler.
    fn have_said(&mut self, how: &str, n: usize, filler: &str) {
        let args = Args::text(format!(r#"["{how}",{n},"{filler}"]"#));
        self.send(&Packet::Event { nsp: "/".into(), id: None, args });
    }

    /// What the program said back.
    fn expect_said(&mut self) -> usize {
        loop {
            let Some(Packet::Event { args, .. }) = self.receive() else { panic!("nothing is said") };
            // It also says hello.
            if let Some(said) = args.json.strip_prefix(r#"["back","#) {
                return said[..said.find(',').unwrap()].parse().unwrap();
            }
        }
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

/// How often something volatile was left out.
fn left_out(node: &Node) -> f64 {
    metric(node, r#"starling_dropped_total{reason="volatile"}"#)
}

#[test]
fn a_laggard_loses_what_is_volatile_and_nothing_else_and_whoever_keeps_up_loses_nothing() {
    const VOLATILE: usize = 20;
    let node = Node::start_example("verbs", &[("STARLING_LIMITS__QUEUE_BYTES", "64MiB")]);
    for parser in Parser::ALL {
        let before = left_out(&node);
        let (mut laggard, mut reader) = (Client::connect(&node, parser), Client::connect(&node, parser));
        let filler = "x".repeat(BYTES);
        let mut said = 0;
        while metric(&node, "starling_lagging_members") == 0.0 {
            (said..said + 20).for_each(|n| laggard.have_said("back", n, &filler));
            said += 20;
            assert!(said < 20 * MESSAGES, "nobody lags");
        }
        (said..said + VOLATILE).for_each(|n| laggard.have_said("back if idle", n, ""));
        laggard.have_said("back", said + VOLATILE, "");
        until("everything volatile is left out", || left_out(&node) - before >= VOLATILE as f64);
        // Somebody else's lag is no reason.
        for n in 0..VOLATILE {
            reader.have_said("back if idle", n, &filler);
            assert_eq!(reader.expect_said(), n);
        }
        (0..said).for_each(|n| assert_eq!(laggard.expect_said(), n));
        assert_eq!(laggard.expect_said(), said + VOLATILE, "what was volatile came, or what was not did not");
        // Who has caught up is a laggard no more.
        laggard.have_said("back if idle", 1, "");
        assert_eq!(laggard.expect_said(), 1);
        assert_eq!(left_out(&node) - before, VOLATILE as f64, "{parser:?}");
    }
    node.stop().unwrap();
}

#[test]
fn between_two_polls_one_volatile_event_waits_and_no_more() {
    let node = Node::start_example("verbs", &[]);
    let query = polling(node.clients);
    let send = |body: &str| assert_eq!(exchange(node.clients, &post(&query, body.as_bytes())).unwrap().body, "ok");
    let polled = || exchange(node.clients, &get(&query)).unwrap().body;
    send("40");
    let hello = polled();
    assert!(hello.starts_with("40{") && hello.contains("hello"), "{hello}");
    send("42[\"back if idle\",1]\u{1e}42[\"back if idle\",2]\u{1e}42[\"back\",3]");
    assert_eq!(polled(), "42[\"back\",1]\u{1e}42[\"back\",3]");
    assert_eq!(left_out(&node), 1.0);
    send("42[\"back if idle\",4]");
    assert_eq!(polled(), "42[\"back\",4]");
    node.stop().unwrap();
}
