//! Placeholders in the JSON of binary events: found and replaced in the text, which is otherwise left as it is.
//!
//! Invariant: only what the stock client writes counts, an object with exactly `_placeholder` and `num`; text inside
//! strings never does.

use serde::Deserialize;

/// What stands for an attachment (`protocol.md` 7).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placeholder {
    _placeholder: bool,
    num: usize,
}

/// Copies `text` to `out`, with `put(num, out)` in the place of every placeholder.
pub(super) fn replace(text: &str, out: &mut String, mut put: impl FnMut(usize, &mut String)) {
    let mut copied = 0;
    for (at, len, num) in find(text) {
        out.push_str(&text[copied..at]);
        put(num, out);
        copied = at + len;
    }
    out.push_str(&text[copied..]);
}

/// Whether the placeholders in `texts` name each of `attachments` attachments exactly once, as the stock client does. An
/// attachment that is named often would be sent, and stored in answers, as often.
pub(crate) fn names_each_once<'a>(texts: impl Iterator<Item = &'a str>, attachments: usize) -> bool {
    let mut named = vec![false; attachments];
    let mut count = 0;
    for (_, _, num) in texts.flat_map(find) {
        match named.get_mut(num) {
            Some(seen) if !*seen => *seen = true,
            Some(_) | None => return false,
        }
        count += 1;
    }
    count == attachments
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

/// Placeholders of a JSON text, in order: where each starts, its length, and its number.
fn find(text: &str) -> Vec<(usize, usize, usize)> {
    let bytes = text.as_bytes();
    let (mut at, mut in_string) = (0, false);
    let mut found = Vec::new();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'{' if !in_string => {
                let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Placeholder>();
                if let Some(Ok(Placeholder { _placeholder: true, num })) = values.next() {
                    let len = values.byte_offset();
                    found.push((at, len, num));
                    at += len;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        let mut out = String::new();
        replace(text, &mut out, |num, out| out.push_str(&format!("<{num}>")));
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
            [r#"{"_placeholder":false,"num":0}"#, r#"{"_placeholder":true}"#, r#"{"_placeholder":true,"num":0,"x":1}"#]
        {
            assert_eq!(replaced(text), text);
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
    }
}
