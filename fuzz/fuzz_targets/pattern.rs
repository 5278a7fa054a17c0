//! Fuzzes names of rooms as rules write them: pattern, room and user are a line each; a slow reader agrees.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../node/src/policy/pattern.rs"]
mod pattern;

use pattern::{Fit, Pattern};

const USER: &[u8] = b"{user}";

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let [written, room, user] = [(); 3].map(|()| lines.next().unwrap_or_default());
    if written.len() * room.len() > 10_000 {
        return;
    }
    let (pattern, user) = (Pattern::new(written), Some(user).filter(|user| !user.is_empty()));
    let shape = written.replace("{user}", "*");
    let speaks = matches(shape.as_bytes(), room.as_bytes(), b"");
    assert_eq!(pattern.speaks_of(room), speaks);
    let named = match user {
        Some(user) => matches(written.as_bytes(), room.as_bytes(), user.as_bytes()),
        None => speaks && !written.contains("{user}"),
    };
    let fit = if named {
        Fit::Yes
    } else if speaks {
        Fit::NamesAnother
    } else {
        Fit::No
    };
    assert_eq!(pattern.fit(room, user), fit);
    // Stars are counted beside placeholders, never for them.
    assert!(pattern.rank() >= Pattern::new(&shape).rank());
    assert!(pattern.rank() > Pattern::new(&format!("{written}*")).rank());
});

/// Whether the whole room fits: all places that the pattern may have reached, step by step.
fn matches(mut pattern: &[u8], room: &[u8], user: &[u8]) -> bool {
    let mut reached = vec![false; room.len() + 1];
    reached[0] = true;
    while !pattern.is_empty() {
        let mut next = vec![false; room.len() + 1];
        let (token, rest) = match pattern {
            _ if pattern.starts_with(USER) && !user.is_empty() => (user, &pattern[USER.len()..]),
            _ => pattern.split_at(1),
        };
        let mut open = false;
        for at in 0..=room.len() {
            open |= reached[at];
            if pattern[0] == b'*' {
                next[at] = open;
            } else if reached[at] && room[at..].starts_with(token) {
                next[at + token.len()] = true;
            }
        }
        (reached, pattern) = (next, rest);
    }
    reached[room.len()]
}
