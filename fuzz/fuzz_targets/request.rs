//! Fuzzes the query of a request: of a name that matters the first value counts, whatever stands around it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../node/src/server/query.rs"]
mod query;

fuzz_target!(|text: &str| {
    let parsed = query::Query::parse(text);
    let first = |wanted: &str| {
        let mut pairs = text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find_map(|(name, value)| (name == wanted).then_some(value))
    };
    assert_eq!((parsed.transport, parsed.sid, parsed.eio), (first("transport"), first("sid"), first("EIO")));
});
