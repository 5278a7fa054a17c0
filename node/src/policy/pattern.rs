//! Names of rooms as rules write them: text, `*` for any text, `{user}` for the name of the user who asks.
//!
//! Invariants: a user's name is compared byte by byte and never read; matching takes at most the pattern's length times
//! the name's, and allocates nothing.

use std::cmp::Reverse;

const USER: &str = "{user}";

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The runs between its stars.
    runs: Vec<Vec<Piece>>,
    /// The texts between its stars and placeholders.
    texts: Vec<String>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    User,
}

/// How a pattern and a room are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The pattern does not speak of the room.
    No,
    /// It does, and where it says `{user}` stands whoever asks.
    Yes,
    /// It does, and there stands somebody else.
    NamesAnother,
}

/// How specific a pattern is: bytes of text, placeholders, stars (fewer are more).
pub(super) type Rank = (usize, usize, Reverse<usize>);

impl Pattern {
    pub(super) fn new(pattern: &str) -> Pattern {
        Pattern {
            runs: pattern.split('*').map(pieces).collect(),
            texts: pattern.replace(USER, "*").split('*').map(str::to_owned).collect(),
        }
    }

    pub(super) fn rank(&self) -> Rank {
        let text = self.texts.iter().map(String::len).sum();
        let (stars, wild) = (self.runs.len() - 1, self.texts.len() - 1);
        (text, wild - stars, Reverse(stars))
    }

    /// How a room fits that `user` asks for.
    pub(super) fn fit(&self, room: &str, user: Option<&str>) -> Fit {
        if !self.speaks_of(room) {
            return Fit::No;
        }
        if self.texts.len() == self.runs.len() || user.is_some_and(|user| self.names(room, user)) {
            return Fit::Yes;
        }
        Fit::NamesAnother
    }

    /// Whether the room has its shape: any text may stand where it says `{user}`.
    pub(super) fn speaks_of(&self, room: &str) -> bool {
        let Some((first, more)) = self.texts.split_first() else { return false };
        let Some(mut rest) = room.strip_prefix(first.as_str()) else { return false };
        let Some((last, between)) = more.split_last() else { return rest.is_empty() };
        for text in between {
            let Some((_, after)) = rest.split_once(text.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }

    /// Whether the room fits with this user in place of every `{user}`.
    fn names(&self, room: &str, user: &str) -> bool {
        let (room, user) = (room.as_bytes(), user.as_bytes());
        let Some((first, more)) = self.runs.split_first() else { return false };
        let Some(mut rest) = strip(room, first, user) else { return false };
        let Some((last, between)) = more.split_last() else { return rest.is_empty() };
        for run in between {
            let Some(after) = (0..=rest.len()).find_map(|at| strip(&rest[at..], run, user)) else { return false };
            rest = after;
        }
        let length = last.iter().map(|piece| piece.bytes(user).len()).sum();
        rest.len().checked_sub(length).is_some_and(|at| strip(&rest[at..], last, user).is_some())
    }
}

impl Piece {
    fn bytes<'a>(&'a self, user: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Text(text) => text.as_bytes(),
            Piece::User => user,
        }
    }
}

fn pieces(run: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (at, text) in run.split(USER).enumerate() {
        if at > 0 {
            pieces.push(Piece::User);
        }
        pieces.push(Piece::Text(text.to_owned()));
    }
    pieces
}

/// What is left of `room` behind `run`, if it begins with it.
fn strip<'a>(room: &'a [u8], run: &[Piece], user: &[u8]) -> Option<&'a [u8]> {
    run.iter().try_fold(room, |rest, piece| rest.strip_prefix(piece.bytes(user)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stars_and_the_user_each_mean_what_they_say() {
        let table = [
            ("a", "a", Fit::Yes),
            ("a", "ab", Fit::No),
            ("*", "", Fit::Yes),
            ("*", "anything", Fit::Yes),
            ("a*", "a", Fit::Yes),
            ("a*", "ba", Fit::No),
            ("*a", "ba", Fit::Yes),
            ("*a", "ab", Fit::No),
            ("a*a", "a", Fit::No),
            ("a*b*c", "axxbyyc", Fit::Yes),
            ("a*b*c", "acb", Fit::No),
            ("in:{user}", "in:ada", Fit::Yes),
            ("in:{user}", "in:bob", Fit::NamesAnother),
            ("in:{user}", "out:ada", Fit::No),
            ("in:{user}", "in:adam", Fit::NamesAnother),
            ("{user}", "ada", Fit::Yes),
            ("dm:{user}:*", "dm:ada:bob", Fit::Yes),
            ("dm:*:{user}", "dm:ada:bob", Fit::NamesAnother),
            ("{user}+{user}", "ada+ada", Fit::Yes),
            ("{user}+{user}", "ada+bob", Fit::NamesAnother),
            ("*{user}*", "xxadaxx", Fit::Yes),
            ("*{user}*", "xxadxx", Fit::NamesAnother),
            ("комната:*", "комната:1", Fit::Yes),
        ];
        for (pattern, room, fit) in table {
            assert_eq!(Pattern::new(pattern).fit(room, Some("ada")), fit, "{pattern} {room}");
        }
        assert_eq!(
            Pattern::new("in:{user}").fit("in:", None),
            Fit::NamesAnother,
            "nobody has no name, not an empty one"
        );
    }

    #[test]
    fn a_users_name_is_never_read_as_a_pattern() {
        for name in ["*", "{user}", "a*", "bob*"] {
            assert_eq!(Pattern::new("in:{user}").fit("in:bob", Some(name)), Fit::NamesAnother, "{name}");
            assert_eq!(Pattern::new("in:{user}").fit(&format!("in:{name}"), Some(name)), Fit::Yes, "{name}");
        }
    }

    #[test]
    fn more_text_counts_before_placeholders_and_these_before_fewer_stars() {
        let falling = ["chat:lobby", "chat:{user}", "chat:*", "chat:**", "{user}", "*"];
        let ranks = falling.map(|pattern| Pattern::new(pattern).rank());
        assert!(ranks.is_sorted_by(|a, b| a > b), "{ranks:?}");
    }

    /// What a pattern means, written in the slowest way.
    fn meant(pattern: &[char], room: &[char], user: &[char]) -> bool {
        if pattern.starts_with(&['{', 'u', 's', 'e', 'r', '}']) {
            return room.starts_with(user) && meant(&pattern[6..], &room[user.len()..], user);
        }
        match (pattern.first(), room.first()) {
            (None, None) => true,
            (Some('*'), _) => (0..=room.len()).any(|at| meant(&pattern[1..], &room[at..], user)),
            (Some(a), Some(b)) if a == b => meant(&pattern[1..], &room[1..], user),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_exactly_what_it_means(
            pattern in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*"), Just("{user}")], 0..6),
            room in "[ab*]{0,8}", user in "[ab*]{1,2}",
        ) {
            let pattern = pattern.concat();
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            let expected = meant(&chars(&pattern), &chars(&room), &chars(&user));
            let fit = Pattern::new(&pattern).fit(&room, Some(&user));
            prop_assert_eq!(fit == Fit::Yes, expected, "{} {} {}: {:?}", pattern, room, user, fit);
            let shape = meant(&chars(&pattern.replace("{user}", "*")), &chars(&room), &[]);
            prop_assert_eq!(fit != Fit::No, shape, "{} {} {}: {:?}", pattern, room, user, fit);
        }
    }
}
