//! The block codec: what is grouped, what is verified.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Record;

const ID: BlockId = BlockId(9);

fn section(n: u64, len: usize) -> Section {
    let body = vec![n.to_be_bytes()[7]; len].into();
    Section::new(Record { slot: 3, room: Bytes::from(format!("/\0room {n}")), n, time_ms: n, body })
}

fn whole(sections: &[Section]) -> Encoded {
    encode(ID, &sections.iter().collect::<Vec<_>>())
}

fn verdict(value: &[u8]) -> Result<Vec<(u32, u64)>, Damage> {
    let mut seen = Vec::new();
    check(ID, value, &mut |place, outline| seen.push((place, outline.first_n)))?;
    Ok(seen)
}

#[test]
fn every_section_is_found_at_its_place_and_proves_its_room() {
    let sections: Vec<Section> = (1..=20).map(|n| section(n, 30)).collect();
    let Encoded { value, places } = whole(&sections);
    let numbered: Vec<(u32, u64)> = places.iter().copied().zip(1..).collect();
    assert_eq!(verdict(&value).unwrap(), numbered);
    for (place, expected) in places.iter().zip(&sections) {
        assert_eq!(super::section(ID, &value, *place).unwrap(), *expected);
    }
    check(ID, &value, &mut |place, outline| {
        assert_eq!(room(&value, place, outline), format!("/\0room {}", outline.first_n).as_bytes());
    })
    .unwrap();
}

#[test]
fn a_block_ends_before_8_kib_and_holds_at_least_one_section() {
    let sections: Vec<Section> = [3_000, 3_000, 3_000, 20_000, 1].map(|len| section(1, len)).into();
    let blocks = in_blocks(sections.iter());
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
    assert!(in_blocks([].iter()).is_empty());
}

#[test]
fn a_value_under_another_number_or_of_another_version_is_damage() {
    let Encoded { mut value, places } = whole(&[section(1, 5)]);
    assert_eq!(check(BlockId(8), &value, &mut |_, _| ()), Err(Damage::Checksum));
    assert_eq!(super::section(BlockId(8), &value, places[0]), Err(Damage::Checksum));
    value[0] = 1;
    assert_eq!(verdict(&value), Err(Damage::Version(1)));
}

#[test]
fn a_cut_between_two_sections_and_bytes_behind_the_last_are_damage() {
    let Encoded { mut value, places } = whole(&[section(1, 5), section(2, 5)]);
    let cut = usize::try_from(places[1]).unwrap();
    assert_eq!(verdict(&value[..cut]), Err(Damage::Short));
    value.push(0);
    assert_eq!(verdict(&value), Err(Damage::Trailing));
}

#[test]
fn a_damaged_section_leaves_its_neighbours_readable() {
    let Encoded { mut value, places } = whole(&[section(1, 5), section(2, 5), section(3, 5)]);
    value[usize::try_from(places[1]).unwrap() + 12] ^= 4;
    assert_eq!(super::section(ID, &value, places[1]), Err(Damage::Checksum));
    assert_eq!(super::section(ID, &value, places[2]).unwrap(), section(3, 5));
    assert!(verdict(&value).is_err());
}

proptest! {
    #[test]
    fn every_single_bit_flip_is_noticed(sections in prop::collection::vec(crate::section::tests::sections(), 1..6), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut value = whole(&sections).value;
        let at = at.index(value.len());
        value[at] ^= 1 << bit;
        prop_assert!(verdict(&value).is_err());
    }

    #[test]
    fn garbage_and_places_that_are_none_never_panic(value in prop::collection::vec(any::<u8>(), 0..300), place: u32) {
        prop_assert!(verdict(&value).is_err());
        prop_assert!(super::section(ID, &value, place).is_err());
        let whole = whole(&[section(1, 5)]);
        prop_assert!(place == whole.places[0] || super::section(ID, &whole.value, place % 100).is_err() || place % 100 == whole.places[0]);
    }
}
