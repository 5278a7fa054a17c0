//! Tests of an embedding program's calls: real packets over polling into one shard's gateway, without a clock or a socket.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use protocol::sid::Sid;
use tokio::sync::oneshot;

use super::*;
use crate::{
    app::gateway_alone,
    clock,
    handler::{Args, AskError, Handler, History, Layer, SayError},
    message,
    metrics::RejectReason,
    transport::PollReply,
};

/// A handler that writes down how it was called and does what an event's name says.
#[derive(Default)]
struct Scripted {
    engine: bool,
    calls: Mutex<Vec<String>>,
    kept: Mutex<Option<Ack>>,
}

impl Scripted {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// The test and the gateway share one handler.
#[derive(Clone)]
struct Shared(Arc<Scripted>);

impl Shared {
    /// What is told later; `None` if the event's name says something else.
    fn start(&self, socket: &mut Socket<'_>, event: &str, args: &Args) -> Option<()> {
        let kept = self.0.clone();
        let note_answer = move |socket: &mut Socket<'_>, answer: Result<Args, AskError>| {
            let answer = answer.map(|args| args.json);
            kept.note(format!("answer {answer:?} {}", socket.is_connected()));
        };
        let kept = self.0.clone();
        match event {
            "ask" => socket.ask("q", args, Duration::from_secs(1), note_answer).unwrap(),
            "ask much" => {
                for _ in 0..256 {
                    socket.ask("q", args, Duration::from_secs(1), note_answer.clone()).unwrap();
                }
                let one_more = socket.ask("q", args, Duration::from_secs(1), note_answer);
                assert_eq!(one_more, Err(SayError::TooManyAsks));
            }
            "join" => drop(socket.join("a").unwrap()),
            "join much" => {
                for _ in 0..4_097 {
                    let kept = kept.clone();
                    socket.join("a").unwrap().then(move |_, joined| {
                        joined.unwrap_or_else(|why| {
                            kept.note(why.code.as_str().to_owned());
                            History { epoch: String::new(), offset: 0, items: vec![], complete: true, gap: false }
                        });
                    });
                }
            }
            "publish to two" => socket.to("a").to("b").publish("x", args).unwrap().then(move |_, outcome| {
                kept.note(format!("{:?}", outcome.unwrap().offset));
            }),
            "wrong rooms" => {
                let id = socket.id().to_owned();
                assert_eq!(socket.join(&*id).unwrap_err(), SayError::RoomOfASocket);
                assert_eq!(socket.join("").unwrap_err(), SayError::Name);
                assert_eq!(socket.to("a\n").publish("x", args).unwrap_err(), SayError::Name);
                assert_eq!(socket.broadcast().id("1").publish("x", args).unwrap_err(), SayError::Id);
                let many = (0..65).fold(socket.broadcast(), |all, n| all.to(&n.to_string()));
                assert_eq!(many.publish("x", args).unwrap_err(), SayError::TooManyRooms);
            }
            "leave and speak" => {
                socket.disconnect();
                socket.emit("last", args).unwrap();
            }
            _ => return None,
        }
        Some(())
    }
}

impl Handler for Shared {
    fn layer(&self) -> Layer {
        if self.0.engine { Layer::EngineIo } else { Layer::SocketIo }
    }

    fn accepts(&self, namespace: &str) -> bool {
        assert_ne!(namespace, "/panic", "planned");
        namespace != "/closed"
    }

    fn on_connect(&self, socket: &mut Socket<'_>, auth: Option<&str>) {
        self.0.note(format!("connect {} {}", socket.namespace(), auth.unwrap_or("-")));
        socket.emit("hello", &Args::text("[1, {\"a\": 2}]")).unwrap();
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let args = event.args();
        self.0.note(format!("{} {}", event.name(), args.json));
        match (event.name(), ack) {
            ("panic", _) => panic!("planned"),
            ("echo", None) => socket.emit("back", &args).unwrap(),
            ("echo", Some(ack)) => socket.ack(ack, &args).unwrap(),
            ("keep", ack) => *self.0.kept.lock().unwrap() = ack,
            ("answer kept", _) => {
                let kept = self.0.kept.lock().unwrap().take().unwrap();
                socket.ack(kept, &args).unwrap();
            }
            ("mistakes", _) => {
                let many = Args { json: "[]".into(), attachments: vec![Bytes::new(); 11] };
                assert_eq!(socket.emit("connect", &args), Err(SayError::ReservedName));
                assert_eq!(socket.emit("x", &many), Err(SayError::TooManyAttachments));
                assert!(matches!(socket.emit("x", &Args::text("{}")), Err(SayError::Args(_))));
            }
            (name, ack) => {
                return self.start(socket, name, &args).map_or(Handled::No(ack), |()| Handled::Yes);
            }
        }
        Handled::Yes
    }

    fn on_disconnect(&self, socket: &mut Socket<'_>, why: Departure) {
        self.0.note(format!("disconnect {} {why:?}", socket.namespace()));
        assert!(!socket.is_connected());
        assert_eq!(socket.emit("x", &Args::text("[]")), Err(SayError::Gone));
        if !socket.rooms().is_empty() {
            self.0.note(format!("from {:?}", socket.rooms()));
        }
        assert_ne!(socket.namespace(), "/panics-at-the-end", "planned");
    }

    fn on_message(&self, message: Message) -> Option<Message> {
        (message != Message::Text("quiet".into())).then_some(message)
    }
}

/// A gateway, its handler, and the time.
struct World {
    gateway: Gateway,
    handler: Arc<Scripted>,
    now: Instant,
}

impl World {
    fn new(engine: bool) -> World {
        let handler = Arc::new(Scripted { engine, ..Scripted::default() });
        let gateway = gateway_alone("socketio.connect_timeout = \"1s\"", Shared(handler.clone())).unwrap();
        World { gateway, handler, now: clock::now() }
    }

    /// A new session, before any namespace.
    fn open(&mut self) -> Sid {
        let known: Vec<Sid> = self.gateway.sids.keys().copied().collect();
        let newcomer =
            self.gateway.context.admit([127, 0, 0, 1].into(), &http::HeaderMap::new(), self.now).ok().unwrap();
        let (reply, answer) = oneshot::channel();
        self.gateway.open_polling(newcomer, reply, self.now);
        assert!(self.body(answer).unwrap().starts_with('0'));
        self.gateway.sids.keys().copied().find(|sid| !known.contains(sid)).unwrap()
    }

    /// A session whose socket in `/` has been greeted.
    fn connect(&mut self) -> Sid {
        let sid = self.open();
        self.post(&sid, "40");
        self.poll(&sid).unwrap();
        self.handler.calls();
        sid
    }

    /// Sends packets, divided as in a polling body.
    fn post(&mut self, sid: &Sid, body: &str) {
        let (reply, started) = oneshot::channel();
        self.gateway.handle(message::Message::PostStarted { sid: *sid, reply }, self.now);
        self.gateway.turn(self.now);
        assert!(started.blocking_recv().unwrap().is_ok());
        let (reply, answer) = oneshot::channel();
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.gateway.handle(message::Message::Post { sid: *sid, body, reply }, self.now);
        let _ = self.body(answer);
    }

    /// What waits for a session; `None` if nothing does, and the poll stays open then.
    fn poll(&mut self, sid: &Sid) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        self.gateway.handle(message::Message::Get { sid: *sid, reply }, self.now);
        self.body(answer)
    }

    fn body(&mut self, mut answer: oneshot::Receiver<PollReply>) -> Option<String> {
        self.gateway.turn(self.now);
        let body = answer.try_recv().ok()?.into_response().into_body();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(body.collect()).unwrap().to_bytes();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn is_open(&self, sid: &Sid) -> bool {
        self.gateway.sids.contains_key(sid)
    }
}

#[test]
fn what_is_said_on_connect_follows_the_answer_to_connect() {
    let mut world = World::new(false);
    let sid = world.open();
    world.post(&sid, "40/chat,{\"token\":\"x\"}");
    assert_eq!(world.handler.calls(), ["connect /chat {\"token\":\"x\"}"]);
    let said = world.poll(&sid).unwrap();
    let (answer, event) = said.split_once('\x1e').unwrap();
    assert!(answer.starts_with("40/chat,{\"sid\":"), "{answer}");
    assert_eq!(event, "42/chat,[\"hello\",1, {\"a\": 2}]");
}

#[test]
fn a_namespace_that_is_not_accepted_is_refused_and_others_still_open() {
    let mut world = World::new(false);
    let sid = world.open();
    world.post(&sid, "40/closed,\x1e40/open,");
    let said = world.poll(&sid).unwrap();
    assert!(
        said.starts_with(
            "44/closed,{\"data\":{\"code\":\"bad_request\"},\"message\":\"Invalid namespace\"}\x1e40/open,"
        ),
        "{said}"
    );
    assert_eq!(world.handler.calls(), ["connect /open -"]);
}

#[test]
fn events_are_handled_and_answered_in_their_order() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"echo\",1]\x1e427[\"echo\", {\"b\" : []}]\x1e42[\"echo\"]");
    assert_eq!(world.poll(&sid).unwrap(), "42[\"back\",1]\x1e437[{\"b\" : []}]\x1e42[\"back\"]");
    assert_eq!(world.handler.calls(), ["echo [1]", "echo [{\"b\" : []}]", "echo []"]);
}

#[test]
fn attachments_come_and_go_with_their_event() {
    let mut world = World::new(false);
    let sid = world.connect();
    let place = "{\"_placeholder\":true,\"num\":0}";
    world.post(&sid, &format!("451-[\"echo\",{place}]\x1ebAQID\x1e451-9[\"echo\",{place}]\x1ebBAUG"));
    assert_eq!(world.poll(&sid).unwrap(), format!("451-[\"back\",{place}]\x1ebAQID\x1e461-9[{place}]\x1ebBAUG"));
}

#[test]
fn an_event_nobody_knows_is_answered_as_unhandled() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "421[\"what\"]\x1e42[\"what\"]\x1e42[\"echo\"]");
    let said = world.poll(&sid).unwrap();
    let (answer, rest) = said.split_once('\x1e').unwrap();
    assert!(answer.starts_with("431[{") && answer.contains("\"code\":\"unhandled_event\""), "{answer}");
    assert_eq!(rest, "42[\"back\"]");
    world.gateway.turn(world.now);
    assert_eq!(world.gateway.context.metrics.rejected.of(RejectReason::Unhandled).get(), 2);
}

#[test]
fn built_in_events_are_never_shown_to_the_handler() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "421[\"room:leave\",{\"room\":\"a\"}]");
    assert_eq!(world.poll(&sid).unwrap(), "431[{\"ok\":true}]");
    assert!(world.handler.calls().is_empty());
}

#[test]
fn an_ack_answers_its_own_socket_whoever_spends_it() {
    let mut world = World::new(false);
    let (asker, other) = (world.connect(), world.connect());
    world.post(&asker, "421[\"keep\"]");
    world.post(&other, "42[\"answer kept\",5]");
    assert_eq!(world.poll(&other), None);
    assert_eq!(world.poll(&asker).unwrap(), "431[5]");
}

#[test]
fn what_no_client_could_read_is_not_sent() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"mistakes\"]");
    assert!(world.is_open(&sid));
    assert_eq!(world.poll(&sid), None);
}

#[test]
fn the_handler_learns_why_a_socket_is_gone() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "40/chat\x1e41/chat");
    assert_eq!(world.handler.calls(), ["connect /chat -", "disconnect /chat Left"]);
    world.post(&sid, "1");
    world.gateway.turn(world.now);
    assert_eq!(world.handler.calls(), ["disconnect / Closed(ClientClose)"]);
}

#[test]
fn a_panic_in_the_handler_closes_that_connection_and_no_other() {
    let mut world = World::new(false);
    let (careful, clumsy, wrong) = (world.connect(), world.connect(), world.connect());
    world.post(&clumsy, "421[\"panic\"]\x1e42[\"echo\"]");
    world.post(&wrong, "40/panic\x1e42[\"echo\"]");
    for sid in [clumsy, wrong] {
        assert_eq!(world.poll(&sid).as_deref(), Some("1"));
        assert!(!world.is_open(&sid));
    }
    let ends = "disconnect / Closed(ServerClose)";
    assert_eq!(world.handler.calls(), ["panic []", ends, ends]);
    world.post(&careful, "40/panics-at-the-end\x1e41/panics-at-the-end\x1e42[\"echo\"]");
    assert!(world.poll(&careful).unwrap().ends_with("42[\"back\"]"));
}

#[test]
fn at_the_lower_layer_bare_messages_come_back_and_no_namespace_is_needed() {
    let mut world = World::new(true);
    let sid = world.open();
    world.post(&sid, "440\x1e4quiet\x1ebAQID");
    assert_eq!(world.poll(&sid).unwrap(), "440\x1ebAQID");
    world.now += Duration::from_secs(2);
    world.gateway.turn(world.now);
    assert!(world.is_open(&sid));
    assert!(world.handler.calls().is_empty());
}

#[test]
fn a_connection_that_joins_no_namespace_in_time_is_closed() {
    let mut world = World::new(false);
    let sid = world.open();
    world.now += Duration::from_secs(2);
    world.gateway.turn(world.now);
    world.poll(&sid);
    assert!(!world.is_open(&sid));
}

#[test]
fn behind_a_packet_that_breaks_the_protocol_nothing_is_handled() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"echo\",1]\x1e4abc\x1e42[\"echo\",2]");
    assert_eq!(world.poll(&sid).unwrap(), "42[\"back\",1]\x1e1");
    assert_eq!(world.handler.calls(), ["echo [1]", "disconnect / Closed(ParseError)"]);
}

#[test]
fn a_client_that_is_asked_answers_once_and_in_time_or_is_given_up() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"ask\",1]");
    assert_eq!(world.poll(&sid).unwrap(), "420[\"q\",1]");
    world.handler.calls();
    world.post(&sid, "437[1]\x1e430[5]\x1e430[6]");
    assert_eq!(world.handler.calls(), ["answer Ok(\"[5]\") true"]);
    world.post(&sid, "42[\"ask\"]\x1e42[\"echo\"]");
    assert_eq!(world.poll(&sid).unwrap(), "421[\"q\"]\x1e42[\"back\"]");
    world.handler.calls();
    assert!(world.gateway.poll_timeout().unwrap() <= world.now + Duration::from_secs(1));
    world.now += Duration::from_secs(1);
    world.gateway.turn(world.now);
    assert_eq!(world.handler.calls(), ["answer Err(Timeout) true"]);
    world.post(&sid, "431[7]");
    assert!(world.handler.calls().is_empty());
}

#[test]
fn who_is_gone_answers_nothing_and_that_is_told() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"join\"]");
    world.gateway.turn(world.now);
    world.post(&sid, "42[\"ask\"]\x1e1");
    let gone = ["ask []", "disconnect / Closed(ClientClose)", "from [\"a\"]", "answer Err(Gone) false"];
    assert_eq!(world.handler.calls()[1..], gone);
}

#[test]
fn a_connection_is_asked_so_much_and_no_more() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"ask much\"]");
    world.handler.calls();
    assert!(world.poll(&sid).unwrap().starts_with("420[\"q\"]\x1e421[\"q\"]\x1e"));
    world.post(&sid, "43255[]\x1e42[\"ask\"]");
    assert_eq!(world.handler.calls(), ["answer Ok(\"[]\") true", "ask []"]);
}

#[test]
fn what_a_program_has_open_for_a_connection_is_bounded_joins_of_joined_rooms_too() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"join\"]");
    world.gateway.turn(world.now);
    world.handler.calls();
    world.post(&sid, "42[\"join much\"]");
    world.gateway.turn(world.now);
    let calls = world.handler.calls();
    assert_eq!((calls.len(), calls[1].as_str()), (2, "rate_limited"));
    world.post(&sid, "421[\"room:join\",{\"room\":\"a\"}]");
    assert!(world.poll(&sid).unwrap().starts_with("431[{\"ok\":true"), "what was answered is no longer open");
}

#[test]
fn the_outcome_of_several_publishes_is_told_once() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"publish to two\",1]");
    world.gateway.turn(world.now);
    assert_eq!(world.handler.calls(), ["publish to two [1]", "None"]);
    assert!(world.gateway.pending.is_empty() && world.gateway.open.is_empty());
}

#[test]
fn rooms_that_cannot_be_are_the_programs_mistake() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"wrong rooms\"]");
    assert!(world.is_open(&sid), "no assertion of the handler failed");
}

#[test]
fn who_is_sent_away_hears_first_what_was_said() {
    let mut world = World::new(false);
    let sid = world.connect();
    world.post(&sid, "42[\"leave and speak\",1]");
    assert_eq!(world.poll(&sid).unwrap(), "42[\"last\",1]\x1e41");
    assert_eq!(world.handler.calls()[1..], ["disconnect / Dismissed"]);
    world.post(&sid, "40");
    assert!(world.poll(&sid).unwrap().starts_with("40{"), "the connection goes on");
}
