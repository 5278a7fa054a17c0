//! The block codec on valid, damaged and random bytes.

use proptest::prelude::*;

use super::*;

fn records() -> impl Strategy<Value = Vec<Record>> {
    let one = (1..1000_u64, any::<u64>(), prop::collection::vec(any::<u8>(), 0..40));
    (any::<u16>(), prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(one, 1..RECORDS_MAX)).prop_map(
        |(slot, room, items)| {
            let room = Bytes::from(room);
            let mut n = 0;
            let item = |(step, time_ms, body): (u64, u64, Vec<u8>)| {
                n += step;
                Record { slot, room: room.clone(), n, time_ms, body: body.into() }
            };
            items.into_iter().map(item).collect()
        },
    )
}

fn block(records: Vec<Record>) -> Block {
    let mut records = records.into_iter();
    let mut block = Block::new(records.next().unwrap());
    records.for_each(|record| block.push(record).unwrap());
    block
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(records in records(), link: u64) {
        let block = block(records);
        prop_assert_eq!(Block::decode(block.encode(link).into()).unwrap(), (block, link));
    }

    #[test]
    fn every_single_bit_flip_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = block(records).encode(7);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Block::decode(bytes.into()).is_err());
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_noticed(records in records(), at in any::<prop::sample::Index>()) {
        let bytes = Bytes::from(block(records).encode(7));
        prop_assert!(Block::decode(bytes.slice(..at.index(bytes.len()))).is_err());
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        prop_assert!(Block::decode(longer).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Block::decode(bytes.into()).is_err());
    }

    /// Behind a valid checksum the lengths themselves are the attack.
    #[test]
    fn garbage_with_a_valid_checksum_never_panics(mut tail in prop::collection::vec(any::<u8>(), 0..200), room_len in 0..8_u16) {
        if tail.len() > 12 {
            tail[10..12].copy_from_slice(&room_len.to_be_bytes());
        }
        let mut bytes = vec![VERSION];
        bytes.put_u32(crc32fast::hash(&tail));
        bytes.extend(tail);
        if let Ok((block, _)) = Block::decode(bytes.into()) {
            prop_assert!(!block.records().is_empty());
        }
    }
}

#[test]
fn a_block_takes_rising_numbers_up_to_its_limits() {
    let record =
        |n, len| Record { slot: 1, room: Bytes::from_static(b"/\0a"), n, time_ms: 0, body: vec![0; len].into() };
    let mut small = Block::new(record(1, 1));
    assert!(small.push(record(1, 1)).is_err(), "the same number again");
    for n in 2..=32 {
        small.push(record(n, 1)).unwrap();
    }
    assert!(small.push(record(33, 1)).is_err(), "33 records");

    let mut large = Block::new(record(1, BYTES_TARGET - 1));
    large.push(record(2, BYTES_TARGET)).unwrap();
    assert!(large.push(record(3, 1)).is_err(), "16 KiB are there");
}

#[test]
fn the_bytes_are_frozen() {
    let record =
        Record { slot: 0x0102, room: Bytes::from_static(b"/\0a"), n: 5, time_ms: 6, body: Bytes::from_static(b"hi") };
    let bytes = Block::new(record).encode(7);
    assert_eq!(bytes[0], 1);
    assert_eq!(
        bytes[5..],
        *b"\0\0\0\0\0\0\0\x07\x01\x02\x00\x03/\0a\x00\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\x02hi"
    );
}

#[test]
fn of_two_records_with_one_number_a_merge_keeps_the_newer() {
    let record = |n, body: &'static [u8]| Record { slot: 1, room: Bytes::new(), n, time_ms: 0, body: body.into() };
    let merged =
        block(vec![record(1, b"old"), record(9, b"only")]).merge(block(vec![record(1, b"new"), record(4, b"x")]));
    let seen: Vec<_> = merged.records().iter().map(|r| (r.n, &r.body[..])).collect();
    assert_eq!(seen, [(1, &b"new"[..]), (4, b"x"), (9, b"only")]);
}
