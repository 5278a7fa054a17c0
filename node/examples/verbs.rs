//! Every verb a program has, each behind an event of its own: what `docs/reference/handler.md` shows and the end-to-end
//! tests ask for.
//!
//! Invariants: an arm is what a reader would write; what a test needs beyond that is not in it.

use std::{process::ExitCode, thread, time::Duration};

use serde_json::json;
use starling::{
    app, cli,
    handler::{
        Ack, Args, Code, Decision, Departure, Event, Handled, Handler, Handshake, Identity, Join, Listing, Node, Page,
        Publish, Refused, SayError, Socket,
    },
};

/// How long clients may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// And nodes.
const WAIT: Duration = Duration::from_secs(2);

struct Verbs;

impl Handler for Verbs {
    fn on_start(&self, node: &Node) {
        let clock = node.of("/").to("clock").volatile();
        thread::spawn(move || {
            for tick in 0.. {
                thread::sleep(PATIENCE);
                drop(clock.clone().publish("tick", &args(&json!([tick]))));
            }
        });
    }

    fn accepts(&self, namespace: &str) -> bool {
        namespace != "/nowhere"
    }

    fn headers(&self) -> &'static [&'static str] {
        &["cookie"]
    }

    fn admit(&self, client: &Handshake<'_>) -> Result<Identity, Refused> {
        let auth: serde_json::Value = serde_json::from_str(client.auth.unwrap_or("{}")).unwrap_or_default();
        match (client.namespace, auth["user"].as_str().or(client.cookie("user"))) {
            ("/inside", _) if !client.address.is_loopback() => Err(Refused::own("outside", "not from there")),
            ("/members", None) => Err(Refused::new(Code::Unauthorized, "sign in first")),
            (_, Some("mallory")) => Err(Refused::own("banned", "you know why")),
            (_, Some(user)) => Ok(Identity::user(user.to_owned())),
            (_, None) => Ok(Identity::default()),
        }
    }

    fn on_connect(&self, socket: &mut Socket<'_>, _auth: Option<&str>) {
        let _ = socket.emit("hello", &args(&json!([socket.id(), socket.user()])));
        let _ = socket.join(Join::new("announcements").last(10).replayed());
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let said = event.args();
        let first: String = event.first().unwrap_or_default();
        let reached = match event.name() {
            "everybody" => socket.broadcast().echo().publish("news", &said).map(drop),
            "everybody else" => socket.broadcast().publish("news", &said).map(drop),
            "in red" => socket.to("red").echo().publish("news", &said).map(drop),
            "to red" => socket.to("red").publish("news", &said).map(drop),
            "to red or blue" => socket.to("red").to("blue").publish("news", &said).map(drop),
            "to red but blue" => socket.to("red").except("blue").publish("news", &said).map(drop),
            "all but red" => socket.broadcast().except("red").publish("news", &said).map(drop),
            "to one" => socket.to(&first).publish("news", &said).map(drop),
            "to one or red" => socket.to(&first).to("red").publish("news", &said).map(drop),
            "to another namespace" => socket.of("/other").publish("news", &said).map(drop),
            "to many" => {
                let (rooms, but): (Vec<String>, Vec<String>) = event.first().unwrap_or_default();
                let many = rooms.iter().fold(socket.broadcast(), |many, room| many.to(room));
                but.iter().fold(many, |many, room| many.except(room)).publish("news", &said).map(drop)
            }
            "once" => socket.to("red").id(&first).publish("news", &said).map(|place| place.answer(ack)),
            "announce" => socket.to("announcements").publish("announced", &said).map(|place| place.answer(ack)),
            "back" => socket.emit("back", &said),
            "back if idle" => socket.emit_volatile("back", &said).map(drop),
            "join" => socket.join(&*first).map(|joined| joined.answer(ack)),
            "leave" => {
                socket.leave(&first);
                Ok(())
            }
            "rooms" => match ack {
                Some(ack) => {
                    let rooms = args(&json!([socket.rooms()]));
                    socket.ack(ack, &rooms)
                }
                None => Ok(()),
            },
            "leave me" => {
                socket.disconnect();
                Ok(())
            }
            "hang up" => {
                socket.close();
                Ok(())
            }
            "panic" => panic!("as the client wished"),
            _ => return with_ack(socket, event, ack),
        };
        told(reached)
    }

    fn on_join(&self, _socket: &mut Socket<'_>, room: &str) -> Decision {
        match room {
            "secret" => Decision::Refuse(Refused::forbidden("this room is for others")),
            _ => Decision::Default,
        }
    }

    fn on_publish(&self, socket: &mut Socket<'_>, publish: &Publish<'_>) -> Decision {
        match publish.room {
            Some(room) if !socket.is_in(room) => Decision::Refuse(Refused::new(Code::NotMember, "join it first")),
            Some(_) | None => Decision::Default,
        }
    }

    fn on_disconnect(&self, socket: &mut Socket<'_>, why: Departure) {
        let gone = args(&json!([socket.id(), format!("{why:?}")]));
        let _ = socket.to("red").volatile().publish("gone", &gone);
    }
}

/// What takes time, and answers then.
fn with_ack(socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
    let Some(ack) = ack else { return Handled::No(None) };
    let said = event.args();
    let started = match event.name() {
        "ask me" => socket.ask("question", &said, PATIENCE, |socket, answer| {
            let answer = answer.unwrap_or_else(|error| args(&json!([error.to_string()])));
            let _ = told(socket.ack(ack, &answer));
        }),
        "ask the others" => socket.to("red").ask("question", &said, PATIENCE, |socket, answers| {
            let texts: Vec<&str> = answers.answers.iter().map(|answer| &*answer.json).collect();
            let counts = json!([answers.asked, answers.silent, answers.unheard]).to_string();
            let text = format!("[[{}],{counts}]", texts.join(","));
            let _ = told(socket.ack(ack, &Args::text(text)));
        }),
        "history" => socket.history("red", Page { limit: 10, since: None, reverse: false }).map(|asked| {
            asked.then(|socket, history| {
                let events: Vec<String> =
                    history.iter().flat_map(|page| &page.items).map(|item| item.event.clone()).collect();
                let _ = told(socket.ack(ack, &args(&json!([events]))));
            });
        }),
        "publish and tell" => socket.to("red").publish("news", &said).map(|asked| {
            asked.then(|socket, outcome| {
                let offset = outcome.ok().and_then(|published| published.offset);
                let _ = told(socket.ack(ack, &args(&json!([offset]))));
            });
        }),
        "later" => {
            let node = socket.node();
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                node.ack(ack, said)
            });
            Ok(())
        }
        _ => return everywhere(socket, event, ack),
    };
    told(started)
}

/// What is done with sockets wherever in the cluster they are.
fn everywhere(socket: &mut Socket<'_>, event: &Event<'_>, ack: Ack) -> Handled {
    let room: String = event.first().unwrap_or_default();
    let red = socket.to("red").echo();
    let ordered = match event.name() {
        "who is in red" => red.fetch_sockets(Listing::default(), WAIT).map(|sockets| sockets.answer(ack)),
        "next in red" => red.fetch_sockets(Listing { limit: 2, after: &room }, WAIT).map(|sockets| sockets.answer(ack)),
        "who else" => socket.to(&room).fetch_sockets(Listing::default(), WAIT).map(|sockets| sockets.answer(ack)),
        "red joins" => red.sockets_join(&[&room], WAIT).map(|reached| reached.answer(ack)),
        "red leaves" => red.sockets_leave(&[&room], WAIT).map(|reached| reached.answer(ack)),
        "send red away" => red.except(&room).disconnect_sockets(false, WAIT).map(|reached| reached.answer(ack)),
        "cut off" => socket.to(&room).disconnect_sockets(true, WAIT).map(|reached| reached.answer(ack)),
        "from a thread" => {
            let (node, said) = (socket.node(), event.args());
            thread::spawn(move || {
                let red = node.of("/").to("red");
                let place = red.clone().publish("news", &said).wait();
                let sockets = red.fetch_sockets(Listing::default(), WAIT).wait();
                let offset = place.ok().and_then(|published| published.offset);
                let count = sockets.ok().map(|sockets| sockets.count);
                node.ack(ack, args(&json!([offset, count])))
            });
            Ok(())
        }
        _ => return Handled::No(Some(ack)),
    };
    told(ordered)
}

/// Arguments made of a JSON array.
fn args(array: &serde_json::Value) -> Args {
    Args::text(array.to_string())
}

/// A mistake of this program is its developer's affair.
fn told(done: Result<(), SayError>) -> Handled {
    if let Err(error) = done {
        eprintln!("not said: {error}");
    }
    Handled::Yes
}

fn main() -> ExitCode {
    cli::run(|config| app::serve_with(config, Verbs))
}
