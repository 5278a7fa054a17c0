//! `room:*` events with arguments that make no sense: `{ok:false, code}` by ack, and the socket lives (interface.md 1.1).

use serde_json::{Value, json};

use crate::{
    row::{Outcome, Row, unexpected},
    websocket::ends,
    wire::{Frame, WebSocket},
};

const MAX_PAYLOAD: usize = 1_000_000;
const ROOMS_MAX: usize = 128;
const ACK_ID: u32 = 7;

pub(crate) fn rows() -> Vec<Row> {
    [joins(), leaves_and_reads(), publishes(), names(), limits()].concat()
}

fn ask(socket: &mut WebSocket, event: &Value) -> Result<Value, String> {
    ask_in(socket, "/", event)
}

fn refused(socket: &mut WebSocket, event: &Value, code: &str) -> Outcome {
    refused_in(socket, "/", event, code)
}

/// Sends one event in a namespace and returns the argument of its ack. A string is sent as it is: text that no JSON value
/// could hold.
pub(crate) fn ask_in(socket: &mut WebSocket, namespace: &str, event: &Value) -> Result<Value, String> {
    let text = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
    let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
    socket.text(&format!("42{namespace}{ACK_ID}{text}"));
    match socket.packet() {
        Frame::Text(text) => {
            let ack =
                text.strip_prefix(&format!("43{namespace}{ACK_ID}")).ok_or(format!("wanted an ack, saw {text}"))?;
            let mut arguments: Vec<Value> = serde_json::from_str(ack).map_err(|error| format!("{error}: {ack}"))?;
            if arguments.len() == 1 { Ok(arguments.remove(0)) } else { unexpected("one argument", arguments) }
        }
        other => unexpected("an ack", other),
    }
}

/// The refusal has a code and a text for people, and the socket is as good as before.
pub(crate) fn refused_in(socket: &mut WebSocket, namespace: &str, event: &Value, code: &str) -> Outcome {
    let answer = ask_in(socket, namespace, event)?;
    let message = answer["message"].as_str().is_some_and(|message| !message.is_empty());
    if answer["ok"] != json!(false) || answer["code"] != json!(code) || !message {
        return unexpected(code, answer);
    }
    let after = ask_in(socket, namespace, &json!(["room:leave", {"room": "never joined"}]))?;
    if after["ok"] == json!(true) { Ok(()) } else { unexpected("a socket that works", after) }
}

fn bad(name: &str, event: Value) -> Row {
    Row::new(&format!("room: {name}"), move |node| {
        refused(&mut WebSocket::connected(node.clients), &event, "bad_request")
    })
}

fn joins() -> Vec<Row> {
    let history = |history: Value| json!(["room:join", {"room": "r", "history": history}]);
    vec![
        bad("join without an argument", json!(["room:join"])),
        bad("join with a string", json!(["room:join", "lobby"])),
        bad("join with null", json!(["room:join", null])),
        bad("join with an array", json!(["room:join", ["lobby"]])),
        bad("join without a room", json!(["room:join", {}])),
        bad("join with a number as room", json!(["room:join", {"room": 7}])),
        bad("join with null as room", json!(["room:join", {"room": null}])),
        bad("join with a history that is a number", history(json!(5))),
        bad("join with a negative history", history(json!({"last": -1}))),
        bad("join with half a message of history", history(json!({"last": 1.5}))),
        bad("join with a history of text", history(json!({"last": "all"}))),
        bad("join since an offset without its epoch", history(json!({"since": 3}))),
        bad("join since a negative offset", history(json!({"since": -3, "epoch": "e"}))),
        bad("join since an offset that is text", history(json!({"since": "3", "epoch": "e"}))),
        bad("join since an epoch that is a number", history(json!({"since": 3, "epoch": 4}))),
        bad("join with an unknown kind of replay", json!(["room:join", {"room": "r", "replay": "loud"}])),
    ]
}

fn leaves_and_reads() -> Vec<Row> {
    let read = |rest: Value| {
        let mut argument = json!({"room": "r"});
        argument.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!(["room:history", argument])
    };
    vec![
        bad("leave without a room", json!(["room:leave", {}])),
        bad("leave with an object as room", json!(["room:leave", {"room": {}}])),
        bad("history without a room", json!(["room:history", {}])),
        bad("history with a negative limit", read(json!({"limit": -1}))),
        bad("history with a limit of text", read(json!({"limit": "all"}))),
        bad("history since an offset without its epoch", read(json!({"since": 3}))),
        bad("history in a direction of text", read(json!({"reverse": "yes"}))),
    ]
}

fn publishes() -> Vec<Row> {
    let publish = |rest: Value| {
        let mut argument = json!({"room": "r", "event": "e", "args": []});
        argument.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!(["room:publish", argument])
    };
    vec![
        bad("publish without an event", json!(["room:publish", {"room": "r", "args": []}])),
        bad("publish with a number as event", publish(json!({"event": 5}))),
        bad("publish with an empty event", publish(json!({"event": ""}))),
        bad("publish with an event of 257 bytes", publish(json!({"event": "e".repeat(257)}))),
        bad("publish with a control character in the event", publish(json!({"event": "a\u{7}b"}))),
        bad("publish of a reserved event", publish(json!({"event": "disconnect"}))),
        bad("publish of a forged notice of the room", publish(json!({"event": "room:removed"}))),
        bad("publish of a forged notice of the session", publish(json!({"event": "auth:expired"}))),
        bad("publish with args that are an object", publish(json!({"args": {}}))),
        bad("publish with args that are text", publish(json!({"args": "x"}))),
        bad("publish with an id of 65 bytes", publish(json!({"id": "i".repeat(65)}))),
        bad("publish with an id that is a number", publish(json!({"id": 5}))),
        bad("publish that is volatile and has an id", publish(json!({"volatile": true, "id": "i"}))),
        bad("publish with an echo of text", publish(json!({"echo": "yes"}))),
        bad("publish with a volatile of text", publish(json!({"volatile": "yes"}))),
    ]
}

/// The rule of room names holds for every verb that takes one.
fn names() -> Vec<Row> {
    let mut rows = Vec::new();
    for verb in ["room:join", "room:publish", "room:history"] {
        let named = |room: &str| json!([verb, {"room": room, "event": "e", "args": []}]);
        rows.extend([
            bad(&format!("{verb} with an empty name"), named("")),
            bad(&format!("{verb} with a name of 257 bytes"), named(&"r".repeat(257))),
            bad(&format!("{verb} with 129 letters of two bytes"), named(&"é".repeat(129))),
            bad(&format!("{verb} with a zero byte in the name"), named("a\u{0}b")),
            bad(&format!("{verb} with a line feed in the name"), named("a\nb")),
        ]);
    }
    rows
}

fn limits() -> Vec<Row> {
    vec![
        Row::new("room: one room too many", |node| {
            let mut socket = WebSocket::connected(node.clients);
            for n in 0..ROOMS_MAX {
                let answer = ask(&mut socket, &json!(["room:join", {"room": format!("r{n}")}]))?;
                if answer["ok"] != json!(true) {
                    // The room of the socket's own id may count.
                    return if n + 2 >= ROOMS_MAX { Ok(()) } else { unexpected(format!("room {n}"), answer) };
                }
            }
            refused(&mut socket, &json!(["room:join", {"room": "one more"}]), "limit_reached")
        }),
        Row::new("room: a publish over the payload limit", |node| {
            let mut socket = WebSocket::connected(node.clients);
            let large = "x".repeat(MAX_PAYLOAD);
            let event = json!(["room:publish", {"room": "r", "event": "e", "args": [large]}]);
            socket.text(&format!("42{ACK_ID}{event}"));
            ends(&mut socket, &[1009])
        }),
        Row::new("room: nonsense without an ack id is ignored", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.text(r#"42["room:join",17]"#);
            socket.text(r#"42["room:publish"]"#);
            let after = ask(&mut socket, &json!(["room:leave", {"room": "r"}]))?;
            if after["ok"] == json!(true) { Ok(()) } else { unexpected("a socket that works", after) }
        }),
        Row::new("room: an event that nobody handles", |node| {
            refused(&mut WebSocket::connected(node.clients), &json!(["nobody:listens", 1]), "unhandled_event")
        }),
        Row::new("room: joining the room of another socket's id", |node| {
            let mut other = WebSocket::session(node.clients).0;
            other.text("40");
            let Frame::Text(connect) = other.packet() else { return unexpected("CONNECT", "something else") };
            let id: Value = serde_json::from_str(&connect[2..]).map_err(|error| error.to_string())?;
            let event = json!(["room:join", {"room": id["sid"]}]);
            refused(&mut WebSocket::connected(node.clients), &event, "forbidden")
        }),
    ]
}
