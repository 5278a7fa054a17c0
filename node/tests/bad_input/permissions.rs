//! Clients that want what the configuration does not give them: each gets the refusal it is owed, and nothing else.
//!
//! Invariant: nobody is signed in here, so that every name in a room, an argument or a handshake is a claim without proof.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::{
    canary::is_ok,
    http::{Want, compare},
    rooms::{ask_in, refused_in},
    row::{Outcome, Row, unexpected},
    wire::{Frame, WebSocket, exchange, get, polling, post},
};

/// What the rows are about.
pub(crate) const RULES: &str = r#"
[auth]
anonymous = true

# Everybody here comes from one address.
[limits]
per_ip_rate = 0

[[namespace]]
name = "/"
allow_join = "anonymous"
allow_publish = "member"
allow_history = "member"
allow_presence = "member"

[[namespace.rooms]]
pattern = "canary"
allow_publish = "anonymous"

[[namespace.rooms]]
pattern = "closed"
allow_join = "nobody"
allow_publish = "nobody"
allow_history = "nobody"
allow_presence = "nobody"

[[namespace.rooms]]
pattern = "news"
allow_publish = "nobody"

[[namespace.rooms]]
pattern = "diary"
allow_history = "nobody"
allow_presence = "nobody"

[[namespace.rooms]]
pattern = "staff:*"
allow_join = "authenticated"
allow_publish = "authenticated"
allow_history = "authenticated"
allow_presence = "authenticated"

[[namespace.rooms]]
pattern = "inbox:{user}"
allow_join = "authenticated"
allow_publish = "authenticated"
allow_history = "authenticated"
allow_presence = "authenticated"

[[namespace]]
name = "/open"
allow_join = "anonymous"
allow_publish = "anonymous"
allow_history = "anonymous"
allow_presence = "anonymous"

[[namespace]]
name = "/loud"
allow_broadcast = "anonymous"

[[namespace]]
name = "/cursors"
class = "ephemeral"
presence = false
relay = "sender_rooms"
allow_join = "anonymous"
allow_publish = "anonymous"

[[namespace.rooms]]
pattern = "read:*"
allow_publish = "nobody"
"#;

/// What four verbs do with a room.
const VERBS: [&str; 4] = ["room:join", "room:publish", "room:history", "room:presence"];
const OPEN: &str = "/open";
const LOUD: &str = "/loud";
const CURSORS: &str = "/cursors";
/// What one look through a long list takes at most, on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(10);

pub(crate) fn rows() -> Vec<Row> {
    [quick(), lookalikes(), namespaces(), forgeries(), disguises()].concat()
}

/// Those that end at once and after which no message and no session is kept.
pub(crate) fn quick() -> Vec<Row> {
    [rooms(), strangers(), members(), sockets(), ephemeral()].concat()
}

/// What a verb is given: more than it needs, so that one argument serves all.
fn event(verb: &str, room: &str) -> Value {
    json!([verb, {"room": room, "event": "e", "args": []}])
}

/// A client with a socket in this namespace.
fn client(to: std::net::SocketAddr, namespace: &str) -> Result<WebSocket, String> {
    let (mut socket, _) = WebSocket::session(to);
    socket.text(&format!("40{namespace},"));
    match socket.packet() {
        Frame::Text(connect) if connect.contains(r#"{"sid":"#) => Ok(socket),
        other => unexpected(format!("CONNECT to {namespace}"), other),
    }
}

/// One event of a stranger in this namespace, and the code of its refusal.
fn denied(name: &str, namespace: &'static str, event: Value, code: &'static str) -> Row {
    Row::new(&format!("permission: {name}"), move |node| {
        refused_in(&mut client(node.clients, namespace)?, namespace, &event, code)
    })
}

/// Every verb on a room.
fn all_denied(name: &str, room: &str, code: &'static str) -> Vec<Row> {
    VERBS.iter().map(|verb| denied(&format!("{verb} of {name}"), "/", event(verb, room), code)).collect()
}

fn granted(socket: &mut WebSocket, namespace: &str, event: &Value) -> Result<Value, String> {
    let answer = ask_in(socket, namespace, event)?;
    if answer["ok"] == json!(true) { Ok(answer) } else { unexpected(format!("yes to {event}"), answer) }
}

fn rooms() -> Vec<Row> {
    let named = [
        ("a room that is closed", "closed", "forbidden"),
        ("a room for those who are signed in", "staff:1", "unauthorized"),
        ("somebody's inbox", "inbox:ann", "unauthorized"),
        ("somebody's own room", "user:ann", "forbidden"),
        ("the own room of nobody", "user:", "forbidden"),
    ];
    let mut rows: Vec<Row> = named.into_iter().flat_map(|(name, room, code)| all_denied(name, room, code)).collect();
    let patterns = [("staff:*", "unauthorized"), ("inbox:{user}", "unauthorized"), ("inbox:*", "unauthorized")];
    let owned = [("user:*", "forbidden"), ("user:{user}", "forbidden")];
    rows.extend(patterns.into_iter().chain(owned).map(|(pattern, code)| {
        denied(&format!("joining the pattern {pattern}"), "/", event("room:join", pattern), code)
    }));
    rows
}

/// Rooms that are not what their names look like.
fn lookalikes() -> Vec<Row> {
    vec![
        Row::new("permission: a star is a room like any other, and hears no other", |node| {
            let (mut star, mut other) = (client(node.clients, "/")?, client(node.clients, "/")?);
            granted(&mut star, "/", &event("room:join", "*"))?;
            granted(&mut other, "/", &event("room:join", "star-test"))?;
            granted(&mut other, "/", &event("room:publish", "star-test"))?;
            hears_nothing(&mut star, "/")
        }),
        Row::new("permission: a refusal does not say whether the room exists", |node| {
            let mut socket = client(node.clients, "/")?;
            granted(&mut client(node.clients, "/")?, "/", &event("room:join", "exists"))?;
            for verb in ["room:publish", "room:history", "room:presence"] {
                let answers = ["exists", "does-not"].map(|room| ask_in(&mut socket, "/", &event(verb, room)));
                if answers[0].is_err() || answers[0] != answers[1] {
                    return unexpected("one answer for both", answers);
                }
            }
            Ok(())
        }),
    ]
}

/// The next thing a socket hears is the answer to what it asks now.
fn hears_nothing(socket: &mut WebSocket, namespace: &str) -> Outcome {
    granted(socket, namespace, &json!(["room:leave", {"room": "never joined"}])).map(|_| ())
}

fn strangers() -> Vec<Row> {
    vec![
        denied("publishing without joining", "/", event("room:publish", "lobby"), "not_member"),
        denied("reading history without joining", "/", event("room:history", "lobby"), "not_member"),
        denied("listing members without joining", "/", event("room:presence", "lobby"), "not_member"),
        denied("telling a whole namespace", "/", json!(["room:publish", {"event": "e", "args": []}]), "forbidden"),
        denied(
            "telling a whole namespace by a room that is null",
            "/",
            json!(["room:publish", {"room": null, "event": "e", "args": []}]),
            "forbidden",
        ),
        denied("two rooms in one argument", "/", raw_twice(), "bad_request"),
        Row::new("permission: of two arguments the second is none", |node| {
            let mut socket = client(node.clients, "/")?;
            granted(&mut socket, "/", &json!(["room:join", {"room": "lobby"}, {"room": "closed"}]))?;
            refused_in(&mut socket, "/", &event("room:publish", "closed"), "forbidden")
        }),
        Row::new("permission: a prototype is no argument", |node| {
            let mut socket = client(node.clients, "/")?;
            let join = json!(["room:join", {"__proto__": {"room": "closed"}, "room": "lobby"}]);
            if granted(&mut socket, "/", &join)?["room"] != json!("lobby") {
                return unexpected("the room that was asked for", "another");
            }
            refused_in(&mut socket, "/", &event("room:history", "closed"), "forbidden")
        }),
        Row::new("permission: a refusal that nobody asked to hear is one all the same", |node| {
            let mut socket = client(node.clients, "/")?;
            socket.text(r#"42["room:join",{"room":"closed"}]"#);
            socket.text(r#"42["room:join",{"room":"inbox:ann"}]"#);
            refused_in(&mut socket, "/", &event("room:history", "closed"), "forbidden")
        }),
    ]
}

/// The same key twice, which no JSON value of ours can hold: the text is put in by `ask_in` as it is.
fn raw_twice() -> Value {
    Value::String(r#"["room:join",{"room":"lobby","room":"closed"}]"#.to_owned())
}

fn members() -> Vec<Row> {
    let diary = |name: &str, event: Value| {
        Row::new(&format!("permission: {name}"), move |node| {
            let mut socket = client(node.clients, "/")?;
            granted(&mut socket, "/", &json!(["room:join", {"room": "diary"}]))?;
            refused_in(&mut socket, "/", &event, "forbidden")
        })
    };
    let joining = |name: &str, wish: Value| {
        Row::new(&format!("permission: {name}"), move |node| {
            let mut socket = client(node.clients, "/")?;
            refused_in(&mut socket, "/", &json!(["room:join", wish]), "forbidden")?;
            refused_in(&mut socket, "/", &event("room:publish", "diary"), "not_member")
        })
    };
    vec![
        diary("a member reads history that is nobody's", event("room:history", "diary")),
        diary("a member lists members that are nobody's to see", event("room:presence", "diary")),
        diary("a member joins again, with history", json!(["room:join", {"room": "diary", "history": {"last": 9}}])),
        diary("a member joins again, with presence", json!(["room:join", {"room": "diary", "presence": true}])),
        joining(
            "joining with history that is nobody's joins nothing",
            json!({"room": "diary", "history": {"last": 1}}),
        ),
        joining("joining with presence that is nobody's joins nothing", json!({"room": "diary", "presence": true})),
        Row::new("permission: a member publishes where nobody may", |node| {
            let mut socket = client(node.clients, "/")?;
            granted(&mut socket, "/", &event("room:join", "news"))?;
            refused_in(&mut socket, "/", &event("room:publish", "news"), "forbidden")
        }),
        Row::new("permission: who left is no member", |node| {
            let mut socket = client(node.clients, "/")?;
            granted(&mut socket, "/", &event("room:join", "lobby"))?;
            granted(&mut socket, "/", &event("room:leave", "lobby"))?;
            VERBS[1..].iter().try_for_each(|verb| refused_in(&mut socket, "/", &event(verb, "lobby"), "not_member"))
        }),
        Row::new("permission: membership of one socket is not another's", |node| {
            let mut member = client(node.clients, "/")?;
            granted(&mut member, "/", &event("room:join", "lobby"))?;
            refused_in(&mut client(node.clients, "/")?, "/", &event("room:publish", "lobby"), "not_member")
        }),
    ]
}

fn sockets() -> Vec<Row> {
    let all = VERBS.into_iter().chain(["room:leave"]);
    let mut rows: Vec<Row> = all
        .map(|verb| {
            Row::new(&format!("permission: {verb} of the room of another socket"), move |node| {
                let (mut other, id) = with_id(node.clients)?;
                refused_in(&mut client(node.clients, "/")?, "/", &event(verb, &id), "forbidden")?;
                hears_nothing(&mut other, "/")
            })
        })
        .collect();
    rows.extend(["room:join", "room:leave", "room:history", "room:presence"].map(|verb| {
        Row::new(&format!("permission: {verb} of the room of one's own socket"), move |node| {
            let (mut socket, id) = with_id(node.clients)?;
            refused_in(&mut socket, "/", &event(verb, &id), "forbidden")
        })
    }));
    rows
}

/// A socket in `/`, and its id.
fn with_id(to: std::net::SocketAddr) -> Result<(WebSocket, String), String> {
    let (mut socket, _) = WebSocket::session(to);
    socket.text("40");
    let Frame::Text(connect) = socket.packet() else { return unexpected("CONNECT", "something else") };
    let id: Value = serde_json::from_str(&connect[2..]).map_err(|error| error.to_string())?;
    Ok((socket, id["sid"].as_str().unwrap_or_default().to_owned()))
}

fn namespaces() -> Vec<Row> {
    let unwritten = ["/admin", "/Open", "/open/", "//open", "/open%2f", "/*", "/user:ann", "/open/../open"];
    let mut rows: Vec<Row> = unwritten
        .into_iter()
        .map(|namespace| {
            Row::new(&format!("permission: a namespace that is not written, {namespace}"), move |node| {
                let mut socket = client(node.clients, "/")?;
                socket.text(&format!("40{namespace},{{\"user\":\"ann\"}}"));
                let refusal = r#"{"data":{"code":"bad_request"},"message":"Invalid namespace"}"#;
                match socket.packet() {
                    Frame::Text(no) if no == format!("44{namespace},{refusal}") => {}
                    other => return unexpected("Invalid namespace", other),
                }
                hears_nothing(&mut socket, "/")
            })
        })
        .collect();
    rows.extend([
        Row::new("permission: a member in one namespace is none in another", |node| {
            let mut socket = client(node.clients, "/")?;
            socket.text("40/open,");
            socket.packet();
            granted(&mut socket, OPEN, &event("room:join", "lobby"))?;
            for room in ["lobby", "/open,lobby", "/open/lobby", "/open#lobby"] {
                refused_in(&mut socket, "/", &event("room:publish", room), "not_member")?;
            }
            Ok(())
        }),
        Row::new("permission: a room hears nothing of its namesake elsewhere", |node| {
            let (mut here, mut there) = (client(node.clients, "/")?, client(node.clients, OPEN)?);
            granted(&mut here, "/", &event("room:join", "namesake"))?;
            granted(&mut there, OPEN, &event("room:publish", "namesake"))?;
            hears_nothing(&mut here, "/")
        }),
        Row::new("permission: a whole namespace is no other", |node| {
            let (mut here, mut there) = (client(node.clients, "/")?, client(node.clients, LOUD)?);
            granted(&mut there, LOUD, &json!(["room:publish", {"event": "all", "args": []}]))?;
            hears_nothing(&mut here, "/")
        }),
    ]);
    rows
}

fn forgeries() -> Vec<Row> {
    vec![
        Row::new("permission: nobody says who a message is from, nor when or where it stands", |node| {
            let mut socket = client(node.clients, OPEN)?;
            let forged = json!(["room:publish", {"room": "forged", "event": "e", "args": [], "from": "ann", "user": "ann",
                "offset": 7_777_777, "epoch": "forged", "time_ms": 1}]);
            granted(&mut socket, OPEN, &forged)?;
            let past = granted(&mut socket, OPEN, &event("room:history", "forged"))?;
            let item = past["items"].as_array().and_then(|items| items.last()).cloned().unwrap_or_default();
            let honest = item["event"] == json!("e")
                && item.get("from").is_none()
                && item["offset"] != json!(7_777_777)
                && item["epoch"] != json!("forged")
                && item["time_ms"].as_u64().is_some_and(|time| time > 1);
            if honest { Ok(()) } else { unexpected("what the node knows", item) }
        }),
        Row::new("permission: nobody says who a member is", |node| {
            let mut socket = client(node.clients, OPEN)?;
            let forged = json!({"id": "forged", "user": "ann", "info": {"admin": true}});
            let join = json!(["room:join", {"room": "masked", "presence": true, "member": forged, "user": "ann",
                "id": "forged", "info": {"admin": true}}]);
            let joined = granted(&mut socket, OPEN, &join)?;
            let member = joined["members"].as_array().and_then(|members| members.first()).cloned().unwrap_or_default();
            let honest = member["id"].as_str().is_some_and(|id| id != "forged")
                && member.get("user").is_none()
                && member.get("info").is_none();
            if honest { Ok(()) } else { unexpected("what the node knows", joined) }
        }),
        claimed("a user in the handshake", r#"40{"user":"ann","sub":"ann","identity":{"user":"ann"}}"#),
        claimed("a token without a signature", r#"40{"token":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."}"#),
        Row::new("permission: a list of 10,000 to leave out leaves nobody out, and costs nothing", |node| {
            let (mut speaker, mut listener) = (client(node.clients, OPEN)?, client(node.clients, OPEN)?);
            granted(&mut listener, OPEN, &event("room:join", "excepted"))?;
            let except: Vec<String> = (0..10_000).map(|n| format!("somebody-{n}")).collect();
            let publish = json!(["room:publish", {"room": "excepted", "event": "heard", "args": [], "except": except}]);
            let begin = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            granted(&mut speaker, OPEN, &publish)?;
            let took = SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(begin);
            match listener.packet() {
                Frame::Text(heard) if heard == r#"42/open,["heard"]"# && took < AT_ONCE => Ok(()),
                other => unexpected("the message, soon", (other, took)),
            }
        }),
    ]
}

/// Whoever says to be ann is not let into what is hers.
fn claimed(name: &str, connect: &'static str) -> Row {
    Row::new(&format!("permission: {name} proves nothing"), move |node| {
        let (mut socket, _) = WebSocket::session(node.clients);
        socket.text(connect);
        match socket.packet() {
            Frame::Text(connect) if connect.starts_with("40{") => {}
            // Where tokens are read, one that proves nothing is refused.
            Frame::Text(refusal) if refusal.starts_with("44{") => return Ok(()),
            other => return unexpected("CONNECT", other),
        }
        refused_in(&mut socket, "/", &event("room:join", "user:ann"), "forbidden")?;
        refused_in(&mut socket, "/", &event("room:join", "inbox:ann"), "unauthorized")
    })
}

fn ephemeral() -> Vec<Row> {
    let join = |wish: Value| json!(["room:join", wish]);
    let publish = json!(["room:publish", {"room": "r", "event": "e", "args": [], "id": "once"}]);
    vec![
        denied("history of an ephemeral namespace", CURSORS, event("room:history", "r"), "bad_request"),
        denied(
            "joining an ephemeral room with history",
            CURSORS,
            join(json!({"room": "r", "history": {"last": 1}})),
            "bad_request",
        ),
        denied("an id in an ephemeral namespace", CURSORS, publish, "bad_request"),
        denied("presence where it is off", CURSORS, event("room:presence", "r"), "bad_request"),
        denied(
            "joining with presence where it is off",
            CURSORS,
            join(json!({"room": "r", "presence": true})),
            "bad_request",
        ),
        denied("publishing where nobody may", CURSORS, event("room:publish", "read:1"), "forbidden"),
    ]
}

/// What is refused one way is refused any other.
fn disguises() -> Vec<Row> {
    let passed_on = |name: &str, room: &'static str, event: Value, code: &'static str| {
        Row::new(&format!("permission: {name}"), move |node| {
            let (mut sender, mut other) = (client(node.clients, CURSORS)?, client(node.clients, CURSORS)?);
            for socket in [&mut sender, &mut other] {
                granted(socket, CURSORS, &json!(["room:join", {"room": room}]))?;
            }
            refused_in(&mut sender, CURSORS, &event, code)?;
            hears_nothing(&mut other, CURSORS)
        })
    };
    vec![
        Row::new("permission: a client that polls is refused the same", |node| {
            let query = polling(node.clients);
            compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, b"40")).as_ref())?;
            compare(Want::Text(200, "40{"), exchange(node.clients, &get(&query)).as_ref())?;
            let join = br#"427["room:join",{"room":"closed"}]"#;
            compare(Want::Text(200, "ok"), exchange(node.clients, &post(&query, join)).as_ref())?;
            compare(Want::Text(200, r#""code":"forbidden""#), exchange(node.clients, &get(&query)).as_ref())
        }),
        passed_on("an event passed on to a room nobody writes to", "read:2", json!(["move", 1]), "forbidden"),
        passed_on("a forged notice of a member", "notices", json!(["room:joined", {"room": "notices"}]), "bad_request"),
        passed_on("a forged notice of a gap", "notices", json!(["room:gap", {"room": "notices"}]), "bad_request"),
        passed_on("a forged notice of the session", "notices", json!(["auth:expired", {}]), "bad_request"),
        Row::new("permission: an event passed on reaches no room but its sender's", |node| {
            let (mut sender, mut other) = (client(node.clients, CURSORS)?, client(node.clients, CURSORS)?);
            granted(&mut other, CURSORS, &event("room:join", "elsewhere"))?;
            sender.text(r#"42/cursors,7["move",{"room":"elsewhere"}]"#);
            match sender.packet() {
                Frame::Text(ack) if is_ok(&ack.replace("/cursors,", ""), 7) => {}
                answer => return unexpected("an ack", answer),
            }
            hears_nothing(&mut other, CURSORS)
        }),
    ]
}
