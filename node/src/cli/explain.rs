//! `starling explain ROOM`: where a room is. Who orders it, who comes next, who votes.
//!
//! Invariant: it says what one node sees now; nodes that see different members answer differently.

use super::{Exit, ExplainArgs, ask, say};
use crate::api::PlacementReport;

pub(super) fn run(arguments: &ExplainArgs) -> Exit {
    let (room, namespace) = (encoded(&arguments.room), encoded(&arguments.namespace));
    let path = format!("/api/rooms/{room}?namespace={namespace}");
    match ask::json::<PlacementReport>(&arguments.admin, &path) {
        Ok(placement) if arguments.json => {
            say(serde_json::json!(placement));
            Exit::Ok
        }
        Ok(placement) => {
            say(text(&placement));
            Exit::Ok
        }
        Err(error) => ask::complain(&arguments.admin, &error),
    }
}

fn text(placement: &PlacementReport) -> String {
    let PlacementReport { namespace, room, slot, owner, replica, witness } = placement;
    let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "nobody".to_owned());
    format!(
        "{room} of {namespace} is in slot {slot}: owner {}, replica {}, witness {}",
        name(owner),
        name(replica),
        name(witness)
    )
}

/// Percent-encoded, so that it is one segment of a path whatever it holds.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_the_path() {
        assert_eq!(encoded("a/b?c d%é"), "a%2Fb%3Fc%20d%25%C3%A9");
    }

    #[test]
    fn missing_places_are_said() {
        let alone = PlacementReport {
            namespace: "/".to_owned(),
            room: "lobby".to_owned(),
            slot: 2399,
            owner: Some("gw-0".to_owned()),
            ..PlacementReport::default()
        };
        assert_eq!(text(&alone), "lobby of / is in slot 2399: owner gw-0, replica nobody, witness nobody");
    }
}
