//! `starling explain ROOM`: where a room is. Who orders it, who holds the second copy, who votes, and who should.
//!
//! Invariant: it says what the nodes say that answered; who did not is named.

use super::{Exit, ExplainArgs, ask, say};
use crate::api::{PlacementReport, SeatsReport};

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
    let PlacementReport { namespace, room, slot, owner, ring, .. } = placement;
    let (is_in, ring) = (format!("{room} of {namespace} is in slot {slot}"), seats(ring));
    let mut lines = match owner {
        None => vec![format!("{is_in}, which nobody orders yet"), format!("by the ring: {ring}")],
        Some(_) => vec![is_in, taken(placement)],
    };
    let PlacementReport { owner: Some(owner), .. } = placement else { return with_silent(lines, placement) };
    if !placement.leads {
        lines.push(format!("{owner} itself does not say so: it is what others last heard"));
    }
    let now = SeatsReport {
        owner: Some(owner.clone()),
        replica: placement.replica.clone(),
        witness: placement.witness.clone(),
    };
    if now == placement.ring {
        lines.push("this is where the ring has it".to_owned());
    } else {
        lines.push(format!("the ring would have {ring}"));
    }
    with_silent(lines, placement)
}

/// The seats as they are, and what they are worth.
fn taken(placement: &PlacementReport) -> String {
    let PlacementReport { owner, replica, witness, term, epoch, .. } = placement;
    let whole = match placement.replica_whole {
        Some(true) => " (has everything)",
        Some(false) => " (is still being filled)",
        None => "",
    };
    let term = term.map_or_else(|| "?".to_owned(), |term| term.to_string());
    format!(
        "owner {}, replica {}{whole}, witness {}; term {term}, epoch {}",
        name(owner),
        name(replica),
        name(witness),
        epoch.as_deref().unwrap_or("?")
    )
}

fn with_silent(mut lines: Vec<String>, placement: &PlacementReport) -> String {
    lines.extend(placement.silent.iter().map(|node| format!("{node} did not answer")));
    lines.join("\n")
}

fn seats(seats: &SeatsReport) -> String {
    format!("owner {}, replica {}, witness {}", name(&seats.owner), name(&seats.replica), name(&seats.witness))
}

fn name(node: &Option<String>) -> &str {
    node.as_deref().unwrap_or("nobody")
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

    fn placed(nodes: [&str; 3]) -> SeatsReport {
        let [owner, replica, witness] = nodes.map(|node| Some(node.to_owned()));
        SeatsReport { owner, replica, witness }
    }

    fn lobby() -> PlacementReport {
        PlacementReport {
            namespace: "/".to_owned(),
            room: "lobby".to_owned(),
            slot: 2399,
            ring: placed(["gw-0", "gw-1", "gw-2"]),
            ..PlacementReport::default()
        }
    }

    #[test]
    fn a_room_that_nobody_orders_is_where_the_ring_would_have_it() {
        let text = text(&PlacementReport { silent: vec!["gw-2".to_owned()], ..lobby() });
        assert_eq!(
            text,
            "lobby of / is in slot 2399, which nobody orders yet\n\
             by the ring: owner gw-0, replica gw-1, witness gw-2\n\
             gw-2 did not answer"
        );
    }

    #[test]
    fn who_has_the_seats_is_said_before_who_should() {
        let led = PlacementReport {
            owner: Some("gw-1".to_owned()),
            replica: Some("gw-2".to_owned()),
            leads: true,
            term: Some(4),
            epoch: Some("abc".to_owned()),
            replica_whole: Some(false),
            ..lobby()
        };
        assert_eq!(
            text(&led),
            "lobby of / is in slot 2399\n\
             owner gw-1, replica gw-2 (is still being filled), witness nobody; term 4, epoch abc\n\
             the ring would have owner gw-0, replica gw-1, witness gw-2"
        );
        let heard = PlacementReport {
            owner: Some("gw-0".to_owned()),
            replica: Some("gw-1".to_owned()),
            witness: Some("gw-2".to_owned()),
            leads: false,
            replica_whole: Some(true),
            ..led
        };
        assert_eq!(
            text(&heard),
            "lobby of / is in slot 2399\n\
             owner gw-0, replica gw-1 (has everything), witness gw-2; term 4, epoch abc\n\
             gw-0 itself does not say so: it is what others last heard\n\
             this is where the ring has it"
        );
    }
}
