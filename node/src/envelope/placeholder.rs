//! Placeholders in the JSON of binary events: found and replaced in the text, which is otherwise left as it is.
//!
//! Invariant: what is one is decided where events are read (`protocol`), as every client does; text inside strings never is.

use protocol::socketio::{Placeholder, placeholders};

/// Copies `text`, which came with so many attachments, to `out`, with `put(num, out)` in the place of every placeholder.
pub(super) fn replace(text: &str, attachments: usize, out: &mut String, mut put: impl FnMut(usize, &mut String)) {
    let mut copied = 0;
    for Placeholder { at, length, num } in placeholders(text, attachments).unwrap_or_default() {
        out.push_str(&text[copied..at]);
        put(num, out);
        copied = at + length;
    }
    out.push_str(&text[copied..]);
}

/// Whether the placeholders in `texts` name each of `attachments` attachments exactly once, as the stock client does. An
/// attachment that is named often would be sent, and stored in answers, as often.
pub(crate) fn names_each_once<'a>(texts: impl Iterator<Item = &'a str>, attachments: usize) -> bool {
    let mut named = vec![false; attachments];
    for text in texts {
        let Ok(found) = placeholders(text, attachments) else { return false };
        for Placeholder { num, .. } in found {
            match named.get_mut(num) {
                Some(seen) if !*seen => *seen = true,
                Some(_) | None => return false,
            }
        }
    }
    named.iter().all(|seen| *seen)
}

/// Whether a client could take something in this text for a placeholder. Says yes too often rather than too rarely: the
/// key may be written with escapes, which no client does to letters.
pub(super) fn may_occur(text: &str) -> bool {
    text.contains("_placeholder") || text.match_indices("\\u").any(|(at, _)| is_part_of_the_key(text, at))
}

/// Whether the escape at `at` stands for a character of the key.
fn is_part_of_the_key(text: &str, at: usize) -> bool {
    let code = text.get(at + 2..at + 6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    code.and_then(char::from_u32).is_some_and(|character| "_placeholder".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        let mut out = String::new();
        replace(text, 3, &mut out, |num, out| out.push_str(&format!("<{num}>")));
        out
    }

    #[test]
    fn only_the_placeholders_change() {
        let text = r#"[1,{"a":{"_placeholder":true,"num":0}},"{\"_placeholder\":true,\"num\":1}", { "num" : 2 , "_placeholder" : true }]"#;
        assert_eq!(replaced(text), r#"[1,{"a":<0>},"{\"_placeholder\":true,\"num\":1}", <2>]"#);
    }

    #[test]
    fn what_is_almost_a_placeholder_stays() {
        for text in
            [r#"{"_placeholder":false,"num":0}"#, r#"{"_placeholder":1,"num":0}"#, r#"{"placeholder":true,"num":0}"#]
        {
            assert_eq!(replaced(text), text);
        }
    }

    /// Clients look at two keys, whatever else is there, and of a key that comes twice at the last.
    #[test]
    fn what_clients_take_for_a_placeholder_is_one() {
        let texts = [
            r#"{"_placeholder":true,"num":1,"x":{"_placeholder":true,"num":0}}"#,
            r#"{"_placeholder":true,"num":0,"num":1}"#,
            r#"{"\u005fplaceholder":true,"num":1}"#,
        ];
        for text in texts {
            assert_eq!(replaced(&format!("[{text},2]")), "[<1>,2]", "{text}");
        }
    }

    #[test]
    fn escapes_are_suspicious_only_where_they_spell_the_key() {
        for text in [r#"{"_placeholder":true}"#, r#"{"\u005fplaceholder":1}"#, r#"{"_placeholde\u0072":1}"#] {
            assert!(may_occur(text), "{text}");
        }
        for text in [r#""\u0000 \u001b \ud83d \u2028""#, r#""\\u""#, r#"{"placeholder":true}"#] {
            assert!(!may_occur(text), "{text}");
        }
    }

    #[test]
    fn every_attachment_is_named_once_or_the_event_is_refused() {
        let (zero, one) = (r#"{"_placeholder":true,"num":0}"#, r#"{"x":[{"_placeholder":true,"num":1}]}"#);
        assert!(names_each_once([zero, one].into_iter(), 2));
        assert!(names_each_once(["1"].into_iter(), 0));
        assert!(!names_each_once([zero, zero].into_iter(), 1), "twice");
        assert!(!names_each_once([zero].into_iter(), 2), "one is not named");
        assert!(!names_each_once([one].into_iter(), 1), "a number without an attachment");
        let more = r#"{"_placeholder":true,"num":0,"x":1}"#;
        assert!(!names_each_once([zero, more].into_iter(), 1), "twice, and not as the stock client writes it");
    }
}
