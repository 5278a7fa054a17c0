//! Tests of the JSON questions, mostly against `serde_json`, which answers them by building values.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[test]
fn depth_is_exact_and_ignores_strings() {
    for (text, depth) in
        [("1", 0), ("[]", 1), ("[{}]", 2), (r#"["[[[\"[["]"#, 1), ("[[],[],{}]", 2), (r#"["\\",[]]"#, 2)]
    {
        assert_eq!(check(text, depth), Ok(()), "{text}");
        if depth > 0 {
            assert_eq!(check(text, depth - 1), Err(JsonError::TooDeep { limit: depth - 1 }), "{text}");
        }
    }
    let bomb = "[".repeat(1_000_000);
    assert_eq!(check(&bomb, 64), Err(JsonError::TooDeep { limit: 64 }));
    assert_eq!(check(&bomb, usize::MAX), Err(JsonError::Syntax), "even without a limit the stack is safe");
}

#[test]
fn what_is_no_json_is_refused() {
    for text in ["", "[", "[1,]", "[1]x", "[1][2]", "{1:2}", "['a']", "[\"\n\"]", r#"["\x"]"#, r#"[""#, "nul", "[01]"] {
        assert_eq!(check(text, 64), Err(JsonError::Syntax), "{text}");
    }
}

#[test]
fn half_an_emoji_is_json_as_javascript_writes_it() {
    assert_eq!(check(r#"["chat","cut \ud83d"]"#, 64), Ok(()));
    assert_eq!(check_placeholders(r#"["chat","cut \ud83d",{"\ud83d":1}]"#, 1), Ok(()));
}

#[test]
fn placeholders_must_name_an_attachment() {
    let good = [
        r#"[]"#,
        r#"[{"_placeholder":true,"num":0}]"#,
        r#"[ { "num" : 1 , "_placeholder" : true } ]"#,
        r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
        r#"[{"a":[[{"_placeholder":true,"num":1,"more":[]}]]}]"#,
        r#"[{"_placeholder":false,"num":9},{"_placeholder":"true"},{"_placeholder":1},{"num":9}]"#,
        r#"[{"_placeholder":true,"_placeholder":false,"num":9}]"#,
        r#"["{\"_placeholder\":true,\"num\":9}"]"#,
    ];
    for text in good {
        assert_eq!(check_placeholders(text, 2), Ok(()), "{text}");
    }
    let bad = [
        r#"[{"_placeholder":true}]"#,
        r#"[{"_placeholder":true,"num":2}]"#,
        r#"[{"_placeholder":true,"num":-1}]"#,
        r#"[{"_placeholder":true,"num":0.5}]"#,
        r#"[{"_placeholder":true,"num":1e0}]"#,
        r#"[{"_placeholder":true,"num":"0"}]"#,
        r#"[{"_placeholder":true,"num":null}]"#,
        r#"[{"_placeholder":true,"num":[0]}]"#,
        r#"[{"_placeholder":true,"num":99999999999999999999999}]"#,
        r#"[{"_placeholder":true,"num":0,"num":2}]"#,
        r#"[{"\u005fplaceholder":true,"num":2}]"#,
        r#"[{"_placeholder":true,"num":0,"\u006eum":2}]"#,
        r#"[{"a":{"_placeholder":true,"num":2}}]"#,
        r#"[{"_placeholder":true,"num":0,"more":{"_placeholder":true,"num":2}}]"#,
    ];
    for text in bad {
        assert_eq!(check(text, 64), Ok(()), "{text}");
        assert_eq!(check_placeholders(text, 2), Err(JsonError::Placeholder), "{text}");
    }
}

/// Small JSON values in which placeholders are likely.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1_i64..4).prop_map(Value::from),
        (-9_i8..9).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        "[\\\\\"\\[{é:, a]*".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let key = prop_oneof!["_placeholder", "num", "[\\\\\"é:, a]*"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            (-1_i64..4).prop_map(|num| serde_json::json!({"_placeholder": true, "num": num})),
        ]
    })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn placeholders_are_good(value: &Value, attachments: u64) -> bool {
    match value {
        Value::Array(list) => list.iter().all(|it| placeholders_are_good(it, attachments)),
        Value::Object(map) => {
            let good = map.get("_placeholder") != Some(&Value::Bool(true))
                || map.get("num").and_then(Value::as_u64).is_some_and(|num| num < attachments);
            good && map.values().all(|it| placeholders_are_good(it, attachments))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

proptest! {
    #[test]
    fn answers_agree_with_those_of_a_built_value(value in any_value(), pretty: bool, attachments in 1_usize..5) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let depth = depth(&value);
        prop_assert_eq!(check(&text, depth), Ok(()));
        prop_assert!(depth == 0 || check(&text, depth - 1).is_err());
        let good = placeholders_are_good(&value, attachments as u64);
        prop_assert_eq!(check_placeholders(&text, attachments).is_ok(), good, "{}", text);
    }

    #[test]
    fn the_first_element_is_that_of_the_built_array(first in any_value(), rest in proptest::collection::vec(any_value(), 0..3), pretty: bool) {
        let array = Value::from([vec![first.clone()], rest].concat());
        let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) }.unwrap();
        let element = first_element(&text).map(|element| serde_json::from_str::<Value>(element).unwrap());
        prop_assert_eq!(element, (depth(&first) == 0).then_some(first));
    }

    #[test]
    fn no_text_makes_any_function_panic_or_hang(text in prop_oneof![any::<String>(), "[\\[\\]{}\":,\\\\ a1é]*"]) {
        let valid = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(check(&text, usize::MAX).is_ok(), valid);
        let _ = check_placeholders(&text, 1);
        let _ = first_element(&text).and_then(unescape);
        let _ = unescape_lossy(&text);
    }
}
