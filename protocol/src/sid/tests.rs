//! Tests of session ids: layout, refusal of everything not ours, and secrecy of the debug form.

use proptest::prelude::*;

use super::*;

fn key() -> SidKey {
    SidKey::new(b"a secret for tests")
}

fn sid() -> Sid {
    Sid::mint(0x0102, 0xAA_03_04_05, 6, *b"twelve bytes", &key())
}

#[test]
fn the_layout_is_node_generation_shard_random_and_mac() {
    let bytes = URL_SAFE_NO_PAD.decode(sid().to_string()).unwrap();
    assert_eq!(bytes.len(), 24);
    assert_eq!(bytes[..6], [1, 2, 3, 4, 5, 6], "the top byte of the generation is dropped");
    assert_eq!(&bytes[6..18], b"twelve bytes");
}

#[test]
fn the_text_of_a_known_id_never_changes() {
    // Computed by hand with another HMAC. Frozen: nodes of two versions must read each other's ids during a rolling update.
    assert_eq!(sid().to_string(), "AQIDBAUGdHdlbHZlIGJ5dGVz2043xn55");
}

#[test]
fn every_single_bit_flip_is_refused() {
    let bytes = sid().0;
    for bit in 0..BYTES * 8 {
        let mut forged = bytes;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Sid::parse(&URL_SAFE_NO_PAD.encode(forged), &key()), Err(SidError::Forged), "bit {bit}");
    }
}

#[test]
fn an_id_of_another_key_is_refused() {
    assert_eq!(Sid::parse(&sid().to_string(), &SidKey::new(b"another secret")), Err(SidError::Forged));
}

#[test]
fn texts_of_the_wrong_shape_are_refused() {
    let good = sid().to_string();
    for text in ["", "__proto__", &good[..31], &format!("{good}A"), &good.replace(&good[..1], "+"), &"é".repeat(16)] {
        assert_eq!(Sid::parse(text, &key()), Err(SidError::Malformed), "{text}");
    }
}

#[test]
fn debug_shows_neither_the_id_nor_the_key() {
    assert_eq!(format!("{:?}", sid()), "Sid(node 258, generation 197637, shard 6)");
    assert_eq!(format!("{:?}", key()), "SidKey(redacted)");
}

proptest! {
    #[test]
    fn a_minted_id_parses_to_itself(node: u16, generation in 0u32..1 << 24, shard: u8, random: [u8; 12]) {
        let sid = Sid::mint(node, generation, shard, random, &key());
        let text = sid.to_string();
        prop_assert_eq!(text.len(), CHARS);
        prop_assert_eq!(Sid::parse(&text, &key()), Ok(sid));
        prop_assert_eq!((sid.node(), sid.generation(), sid.shard()), (node, generation, shard));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        prop_assert!(Sid::parse(&text, &key()).is_err());
    }
}
