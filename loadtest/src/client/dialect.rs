//! Which events a server understands: Starling's `room:*`, or two application events of any Socket.IO server.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The event members receive.
const EVENT: &str = "m";

/// How to join a room and how to publish to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dialect {
    /// `room:join {room}` and `room:publish {room, event, args}`, both acked with `{ok, …}`.
    Room,
    /// The same with `volatile: true`: what is published has no place and no order.
    Volatile,
    /// `JOIN(room)`, acked with anything, and `PUBLISH(room, payload)`, not acked.
    Emit {
        /// Name of the event that joins.
        join: String,
        /// Name of the event that publishes.
        publish: String,
    },
}

/// What the server made of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Why not, if not.
    pub(crate) refusal: Option<String>,
    /// Lineage of the room.
    pub(crate) epoch: Option<String>,
    /// Position of the message.
    pub(crate) offset: Option<u64>,
    /// How many history items came along.
    pub(crate) history: u32,
}

/// The packet of a publish around its id and payload.
#[derive(Clone, Debug)]
pub(crate) struct PublishTemplate {
    /// `42` and the namespace.
    pub(crate) head: Vec<u8>,
    /// Everything between id and payload.
    pub(crate) middle: Vec<u8>,
    /// Everything after the payload.
    pub(crate) tail: &'static [u8],
    /// Whether an answer will come, so that the id belongs in there.
    pub(crate) answered: bool,
}

#[derive(Deserialize)]
struct Body {
    ok: bool,
    code: Option<String>,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    history: Vec<IgnoredAny>,
}

impl Dialect {
    /// The packet that joins `room`, to be answered under `id`.
    pub(super) fn join_packet(&self, namespace: &str, id: u64, room: &str, history: u32) -> Vec<u8> {
        let args = match self {
            Dialect::Room | Dialect::Volatile if history > 0 => {
                json!(["room:join", {"room": room, "history": {"last": history}}])
            }
            Dialect::Room | Dialect::Volatile => json!(["room:join", {"room": room}]),
            Dialect::Emit { join, .. } => json!([join, room]),
        };
        format!("42{}{id}{args}", prefix(namespace)).into_bytes()
    }

    /// What to send to publish to `room`. The payload must need no JSON escapes.
    pub(crate) fn publish_template(&self, namespace: &str, room: &str) -> PublishTemplate {
        let head = format!("42{}", prefix(namespace)).into_bytes();
        let room = json!(room);
        match self {
            Dialect::Room => PublishTemplate {
                head,
                middle: format!(r#"["room:publish",{{"room":{room},"event":"{EVENT}","args":[""#).into_bytes(),
                tail: br#""]}]"#,
                answered: true,
            },
            Dialect::Volatile => PublishTemplate {
                head,
                middle: format!(r#"["room:publish",{{"room":{room},"event":"{EVENT}","volatile":true,"args":[""#)
                    .into_bytes(),
                tail: br#""]}]"#,
                answered: true,
            },
            Dialect::Emit { publish, .. } => PublishTemplate {
                head,
                middle: format!(r#"[{},{room},""#, json!(publish)).into_bytes(),
                tail: br#""]"#,
                answered: false,
            },
        }
    }

    /// Reads the array of an answer. In the `emit` dialect any answer is a yes.
    pub(crate) fn answer(&self, body: &[u8]) -> Answer {
        match self {
            Dialect::Emit { .. } => Answer::default(),
            Dialect::Room | Dialect::Volatile => match serde_json::from_slice::<[Body; 1]>(body) {
                Ok([body]) => Answer {
                    refusal: (!body.ok).then(|| body.code.unwrap_or_else(|| "no code".to_owned())),
                    epoch: body.epoch,
                    offset: body.offset,
                    history: u32::try_from(body.history.len()).unwrap_or(u32::MAX),
                },
                Err(_) => Answer { refusal: Some("unreadable answer".to_owned()), ..Answer::default() },
            },
        }
    }
}

impl std::str::FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Dialect, String> {
        let emit = text.strip_prefix("emit:").and_then(|names| names.split_once(','));
        match emit {
            _ if text == "room" => Ok(Dialect::Room),
            _ if text == "volatile" => Ok(Dialect::Volatile),
            Some((join, publish)) if !join.is_empty() && !publish.is_empty() => {
                Ok(Dialect::Emit { join: join.to_owned(), publish: publish.to_owned() })
            }
            Some(_) | None => Err(format!("`{text}` is none of `room`, `volatile` and `emit:JOIN,PUBLISH`")),
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dialect::Room => f.write_str("room"),
            Dialect::Volatile => f.write_str("volatile"),
            Dialect::Emit { join, publish } => write!(f, "emit:{join},{publish}"),
        }
    }
}

/// What stands between the packet type and the rest: nothing for the main namespace.
fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit() -> Dialect {
        "emit:join,publish".parse().unwrap()
    }

    fn whole(template: &PublishTemplate, id: &str, payload: &str) -> String {
        let parts = [&template.head, id.as_bytes(), &template.middle, payload.as_bytes(), template.tail];
        String::from_utf8(parts.concat()).unwrap()
    }

    #[test]
    fn packets_have_the_form_each_server_expects() {
        assert_eq!(Dialect::Room.join_packet("/", 0, "a\"b", 0), br#"420["room:join",{"room":"a\"b"}]"#);
        let with_history = Dialect::Room.join_packet("/chat", 3, "a", 20);
        let expected = br#"42/chat,3["room:join",{"history":{"last":20},"room":"a"}]"#;
        assert_eq!(with_history, expected);
        assert_eq!(emit().join_packet("/", 0, "a", 9), br#"420["join","a"]"#);
        assert_eq!(
            whole(&Dialect::Room.publish_template("/chat", "a"), "7", "xyz"),
            r#"42/chat,7["room:publish",{"room":"a","event":"m","args":["xyz"]}]"#
        );
        assert_eq!(
            whole(&Dialect::Volatile.publish_template("/", "a"), "7", "xyz"),
            r#"427["room:publish",{"room":"a","event":"m","volatile":true,"args":["xyz"]}]"#
        );
        assert_eq!(whole(&emit().publish_template("/", "a"), "", "xyz"), r#"42["publish","a","xyz"]"#);
    }

    #[test]
    fn an_answer_is_a_yes_only_if_it_says_ok() {
        let yes = Dialect::Room.answer(br#"[{"ok":true,"epoch":"e","offset":12,"history":[{"a":1},{}]}]"#);
        assert_eq!(yes, Answer { refusal: None, epoch: Some("e".to_owned()), offset: Some(12), history: 2 });
        let no = Dialect::Room.answer(br#"[{"ok":false,"code":"overloaded","message":"m"}]"#);
        assert_eq!(no.refusal.as_deref(), Some("overloaded"));
        for garbage in [&b"[]"[..], b"[7]", b"", b"[{\"ok\":1}]"] {
            assert_eq!(Dialect::Room.answer(garbage).refusal.as_deref(), Some("unreadable answer"));
        }
        assert_eq!(emit().answer(b"[]").refusal, None);
    }

    #[test]
    fn a_dialect_reads_back_as_it_was_written_and_nothing_else_is_one() {
        for text in ["room", "volatile", "emit:join,publish"] {
            assert_eq!(text.parse::<Dialect>().unwrap().to_string(), text);
        }
        for bad in ["", "rooms", "emit:", "emit:join", "emit:,publish", "emit:join,"] {
            assert!(bad.parse::<Dialect>().is_err(), "{bad}");
        }
    }
}
