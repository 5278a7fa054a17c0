//! The Socket.IO packets of this test: events out, and what a server answers.
//!
//! Invariants: a message says which room it is for and carries a checksum over its name and room, so that one that is
//! delivered to the wrong room or damaged is seen; what is not of this test is `Other`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::{Item, Place};

/// The event that carries messages.
pub(crate) const EVENT: &str = "m";

/// Something a server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The answer to question `id`.
    Ack { id: u64, answer: Result<Answer, Refusal> },
    /// A message.
    Message { room: String, mid: String },
    /// `room:gap`.
    Gap { room: String, at: Place },
    /// Nothing this test knows.
    Other,
}

/// An answer that says yes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Where the room is, or where the message got.
    pub(crate) at: Option<Place>,
    pub(crate) recovered: Option<bool>,
    pub(crate) items: Vec<Item>,
    pub(crate) complete: bool,
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) retry_ms: Option<u64>,
}

#[derive(Deserialize)]
struct RawAnswer {
    ok: bool,
    #[serde(default)]
    code: String,
    retry_ms: Option<u64>,
    epoch: Option<String>,
    offset: Option<u64>,
    recovered: Option<bool>,
    #[serde(default)]
    history: Vec<RawItem>,
    #[serde(default)]
    items: Vec<RawItem>,
    #[serde(default)]
    complete: bool,
}

#[derive(Deserialize)]
struct RawItem {
    epoch: String,
    offset: u64,
    args: (String, String, u32),
}

#[derive(Deserialize)]
struct RawGap {
    room: String,
    epoch: String,
    offset: u64,
}

/// The text of a question: event `name` with one argument.
pub(crate) fn question(id: u64, name: &str, argument: &serde_json::Value) -> String {
    format!(r#"42{id}["{name}",{argument}]"#)
}

/// The argument of `room:publish` for a message.
pub(crate) fn publish(room: &str, mid: &str) -> serde_json::Value {
    serde_json::json!({ "room": room, "event": EVENT, "id": mid, "args": [mid, room, checksum(mid, room)] })
}

fn checksum(mid: &str, room: &str) -> u32 {
    crc32fast::hash(format!("{mid} in {room}").as_bytes())
}

/// The message as it is recorded: one that is damaged begins with `?`.
fn judged((mid, room, sum): (String, String, u32)) -> (String, String) {
    if checksum(&mid, &room) == sum { (room, mid) } else { (room, format!("?{mid}")) }
}

impl Packet {
    /// Reads a packet.
    pub(crate) fn read(text: &str) -> Packet {
        Packet::known(text).unwrap_or(Packet::Other)
    }

    fn known(text: &str) -> Option<Packet> {
        if let Some(rest) = text.strip_prefix("43") {
            let (id, body) = rest.split_at(rest.find('[')?);
            let (answer,): (RawAnswer,) = serde_json::from_str(body).ok()?;
            return Some(Packet::Ack { id: id.parse().ok()?, answer: answer.judged() });
        }
        let (name, argument) = text.strip_prefix("42[")?.strip_suffix(']')?.split_once(',')?;
        match name.trim_matches('"') {
            EVENT => {
                let args: (String, String, u32) = serde_json::from_str(&format!("[{argument}]")).ok()?;
                let (room, mid) = judged(args);
                Some(Packet::Message { room, mid })
            }
            "room:gap" => {
                let argument: Box<RawValue> = serde_json::from_str(argument).ok()?;
                let RawGap { room, epoch, offset } = serde_json::from_str(argument.get()).ok()?;
                Some(Packet::Gap { room, at: Place { epoch, offset } })
            }
            _ => None,
        }
    }
}

impl RawAnswer {
    fn judged(self) -> Result<Answer, Refusal> {
        if !self.ok {
            return Err(Refusal { code: self.code, retry_ms: self.retry_ms });
        }
        let at = self.epoch.zip(self.offset).map(|(epoch, offset)| Place { epoch, offset });
        let item = |RawItem { epoch, offset, args }: RawItem| {
            let (_, mid) = judged(args);
            Item { at: Place { epoch, offset }, mid }
        };
        let items = self.history.into_iter().chain(self.items).map(item).collect();
        Ok(Answer { at, recovered: self.recovered, items, complete: self.complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_is_read() {
        let sum = checksum("1.a.r.7", "r");
        let message = Packet::Message { room: "r".to_owned(), mid: "1.a.r.7".to_owned() };
        assert_eq!(Packet::read(&format!(r#"42["m","1.a.r.7","r",{sum}]"#)), message);
        let damaged = Packet::Message { room: "r".to_owned(), mid: "?1.a.r.8".to_owned() };
        assert_eq!(Packet::read(&format!(r#"42["m","1.a.r.8","r",{sum}]"#)), damaged);
        let at = Place { epoch: "e".to_owned(), offset: 9 };
        let gap = Packet::Gap { room: "r".to_owned(), at: at.clone() };
        assert_eq!(Packet::read(r#"42["room:gap",{"room":"r","epoch":"e","offset":9}]"#), gap);
        let answer = Answer { at: Some(at), ..Answer::default() };
        assert_eq!(
            Packet::read(r#"4312[{"ok":true,"epoch":"e","offset":9}]"#),
            Packet::Ack { id: 12, answer: Ok(answer) }
        );
        let refusal = Refusal { code: "overloaded".to_owned(), retry_ms: Some(500) };
        let refused = r#"433[{"ok":false,"code":"overloaded","message":"later","retry_ms":500}]"#;
        assert_eq!(Packet::read(refused), Packet::Ack { id: 3, answer: Err(refusal) });
        assert_eq!(Packet::read("41"), Packet::Other);
    }

    #[test]
    fn history_in_an_answer_is_read() {
        let sum = checksum("1.a.r.7", "r");
        let item = format!(r#"{{"offset":4,"epoch":"e","event":"m","args":["1.a.r.7","r",{sum}],"time_ms":1}}"#);
        let text = format!(r#"431[{{"ok":true,"epoch":"e","offset":9,"recovered":true,"history":[{item}]}}]"#);
        let Packet::Ack { answer: Ok(answer), .. } = Packet::read(&text) else { panic!("{text}") };
        assert_eq!(answer.recovered, Some(true));
        assert_eq!(answer.items, [Item { at: Place { epoch: "e".to_owned(), offset: 4 }, mid: "1.a.r.7".to_owned() }]);
    }
}
