//! The codec of sections on valid, damaged and random bytes.

use proptest::prelude::*;

use super::*;

pub(crate) fn sections() -> impl Strategy<Value = Section> {
    let one = (1..1000_u64, any::<u64>(), prop::collection::vec(any::<u8>(), 0..40));
    let (slot, room) = (any::<u16>(), prop::collection::vec(any::<u8>(), 0..20));
    (slot, room, prop::collection::vec(one, 0..RECORDS_MAX)).prop_map(|(slot, room, items)| {
        let room = Bytes::from(room);
        let mut section = Section::mark(slot, room.clone());
        let mut n = 0;
        for (step, time_ms, body) in items {
            n += step;
            section.push(Record { slot, room: room.clone(), n, time_ms, body: body.into() }).unwrap();
        }
        section
    })
}

fn encoded(section: &Section) -> Vec<u8> {
    let mut out = Vec::new();
    section.encode(7, &mut out);
    out
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(section in sections(), behind in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut bytes = encoded(&section);
        prop_assert_eq!(bytes.len(), section.encoded_len());
        bytes.extend(behind);
        let outline = Outline::decode(7, &bytes).unwrap();
        prop_assert_eq!(&bytes[outline.room.clone()], &section.room()[..]);
        prop_assert_eq!(Outline { room: 0..0, ..outline }, Outline::of(&section));
        prop_assert_eq!(Section::decode(7, &bytes).unwrap(), section);
    }

    #[test]
    fn every_single_bit_flip_is_noticed(section in sections(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = encoded(&section);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Section::decode(7, &bytes).is_err());
    }

    #[test]
    fn every_truncation_and_every_other_block_is_noticed(section in sections(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&section);
        prop_assert!(Section::decode(7, &bytes[..at.index(bytes.len())]).is_err());
        prop_assert!(Section::decode(8, &bytes).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Section::decode(7, &bytes).is_err());
    }

    /// Behind valid checksums the lengths themselves are the attack.
    #[test]
    fn lengths_that_lie_behind_a_valid_checksum_are_noticed(room_len: u16, count: u16, len: u32, tail in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = Vec::new();
        bytes.put_u16(1);
        bytes.put_u16(room_len % 50);
        bytes.put_u16(count.max(1));
        let room = &tail[..usize::from(room_len % 50).min(tail.len())];
        let crc = sum(7, [&bytes, room]);
        bytes.put_u32(crc);
        bytes.put_slice(room);
        let begin = bytes.len();
        bytes.put_u64(1);
        bytes.put_u64(1);
        bytes.put_u32(len);
        let body = &tail[..tail.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        let crc = sum(crc, [&bytes[begin..], body]);
        bytes.put_u32(crc);
        bytes.put_slice(body);
        if let Ok(section) = Section::decode(7, &bytes) {
            prop_assert_eq!((section.records().len(), count.max(1)), (1, 1));
        }
    }
}

#[test]
fn a_section_takes_rising_numbers_up_to_its_limits() {
    let record =
        |n, len| Record { slot: 1, room: Bytes::from_static(b"/\0a"), n, time_ms: 0, body: vec![0; len].into() };
    let mut small = Section::new(record(1, 1));
    assert!(small.push(record(1, 1)).is_err(), "the same number again");
    for n in 2..=32 {
        small.push(record(n, 1)).unwrap();
    }
    assert!(small.push(record(33, 1)).is_err(), "33 records");

    let mut large = Section::new(record(1, BYTES_TARGET - 1));
    large.push(record(2, BYTES_TARGET)).unwrap();
    assert!(large.push(record(3, 1)).is_err(), "4 KiB are there");
}

#[test]
fn the_bytes_are_frozen() {
    let record =
        Record { slot: 0x0102, room: Bytes::from_static(b"/\0a"), n: 5, time_ms: 6, body: Bytes::from_static(b"hi") };
    let bytes = encoded(&Section::new(record));
    assert_eq!(bytes[..6], *b"\x01\x02\x00\x03\x00\x01");
    assert_eq!(bytes[10..33], *b"/\0a\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\x02");
    assert_eq!(bytes[37..], *b"hi");
    let marks =
        [encoded(&Section::mark(0x0102, Bytes::from_static(b"/\0a"))), encoded(&Section::mark(0x0102, Bytes::new()))];
    assert_eq!((&marks[0][..6], &marks[0][10..]), (&b"\x01\x02\x00\x03\0\0"[..], &b"/\0a"[..]), "of a room");
    assert_eq!((&marks[1][..6], marks[1].len()), (&b"\x01\x02\0\0\0\0"[..], 10), "of a slot");
}
