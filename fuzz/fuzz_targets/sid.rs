//! Fuzzes session and socket ids: a text that is taken for one of ours is exactly the text of that id, and a key that did
//! not make an id does not take it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use protocol::{
    Sid, SidKey,
    socket_id::{self, Place},
};

static KEY: LazyLock<SidKey> = LazyLock::new(|| SidKey::new(b"fuzz"));
static OTHER: LazyLock<SidKey> = LazyLock::new(|| SidKey::new(b"other"));

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(sid) = Sid::parse(text, &KEY) {
            assert_eq!(sid.to_string(), text);
        }
        if let Some(place) = socket_id::place(text, &KEY) {
            assert_eq!(socket_id::place(text, &OTHER), None, "{place:?} is nobody else's");
        }
    }
    let Some(([a, b, c, d, e, f, random @ ..], _)) = data.split_first_chunk::<18>() else { return };
    let (node, generation) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([0, *c, *d, *e]));
    let sid = Sid::mint(node, generation, *f, *random, &KEY);
    assert_eq!((sid.node(), sid.generation(), sid.shard()), (node, generation, *f));
    assert_eq!(Sid::parse(&sid.to_string(), &KEY), Ok(sid));
    assert!(Sid::parse(&sid.to_string(), &OTHER).is_err());
    let Some((secret, _)) = random.split_first_chunk() else { return };
    let id = socket_id::mint(node, *f, *secret, &KEY);
    assert_eq!(socket_id::place(&id, &KEY), Some(Place { node, shard: *f }));
    assert_eq!(socket_id::place(&id, &OTHER), None);
});
