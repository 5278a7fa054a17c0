//! Golden bytes of what members of a slot say, and of what the replica keeps.

use bytestring::ByteString;

use super::*;
use crate::{
    room::RoomKey,
    wire::{
        address::{Address, Purpose},
        message::{Control, LaneMessage, Origin},
    },
};

fn life(node: u16) -> Life {
    Life { node: NodeId(node), generation: 7 }
}

fn term(number: u32) -> Term {
    let id = TermId { number, lineage: 9 };
    let triple = Triple { owner: life(0), replica: Some(life(1)), witness: None };
    Term { id, parent: TermId { number: number - 1, ..id }, triple }
}

fn frame() -> Frame {
    let room = RoomKey::new("/", "lobby");
    Frame {
        slot: room.slot(),
        room,
        lineage: 9,
        term: 2,
        n: 4,
        prev: 3,
        origin: Origin { node: NodeId(3), generation: 5, shard: 1, oseq: 5 },
        time_ms: 1,
        flags: 0,
        id: ByteString::new(),
        from: ByteString::new(),
        except: Vec::new(),
        payload: Bytes::from_static(b"x"),
    }
}

#[test]
fn what_members_say_has_the_bytes_it_always_had() {
    let id = TermId { number: 2, lineage: 9 };
    let known = { [(9, 300), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)] };
    // A term: its number and lineage, those of the one before, owner, replica (there is one), witness (there is none).
    let [two, three] = [[2, 9, 1, 9, 0, 7, 1, 1, 7, 0], [3, 9, 2, 9, 0, 7, 1, 1, 7, 0]];
    let golden: [(Say, Vec<u8>); 7] = [
        (Say::Ask { term: term(2), next: term(3) }, [&[0][..], &two, &three].concat()),
        (Say::Exists(term(2)), [&[1][..], &two].concat()),
        (
            Say::Began { term: term(2), from: 1, stamped: id, base: 300 },
            [&[2][..], &two, &[1, 2, 9, 251, 44, 1]].concat(),
        ),
        (Say::Ack { term: id, n: Some(4), whole: true }, vec![3, 2, 9, 1, 4, 1]),
        (Say::Shown { term: id, n: 3 }, vec![4, 2, 9, 3]),
        (Say::Yield { term: term(2) }, [&[5][..], &two].concat()),
        (Say::Welcome { term: term(2), known }, [&[6][..], &two, &[9, 251, 44, 1], &[0; 14]].concat()),
    ];
    for (say, bytes) in golden {
        let control = Control::Slot { slot: 300, say };
        let encoded = control.encode();
        assert_eq!(encoded, [&[0x21, 11, 251, 44, 1][..], &bytes].concat(), "{say:?}");
        assert_eq!(LaneMessage::decode(&encoded), Ok(LaneMessage::Control(control)));
        assert_eq!(Address::peek(&encoded), Ok(Address::Slot(300)));
    }
    assert_eq!(Control::Told { shard: 1, of: 2, lane: 3 }.encode()[..], [0x21, 12, 1, 2, 3]);
    assert_eq!(Control::Beat.encode()[..], [0x21, 13]);
}

#[test]
fn a_frame_to_keep_is_the_frame_itself_behind_the_name_of_a_term() {
    let id = TermId { number: 6, lineage: 9 };
    let keep = encode_keep(id, &frame());
    assert_eq!(keep[..KEEP_HEAD], [0x25, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(plain(&keep), frame().encode());
    assert_eq!(decode_keep(keep.clone()), Ok((id, frame())));
    assert_eq!(Address::peek(&keep), Ok(Address::Slot(frame().slot)));
    assert_eq!(Purpose::peek(&keep), Some(Purpose::Keep));
    for end in 0..keep.len() - frame().payload.len() {
        assert!(decode_keep(keep.slice(..end)).is_err(), "{end} bytes were taken for a whole frame");
    }
    assert_eq!(decode_keep(encode_keep(id, &Frame { n: 0, ..frame() })), Err(DecodeError::MalformedName));
}

#[test]
fn why_a_frame_comes_is_seen_from_outside() {
    assert_eq!(Purpose::peek(&frame().encode()), Some(Purpose::Show));
    assert_eq!(Purpose::peek(&Frame { term: 0, ..frame() }.encode()), Some(Purpose::Publish));
    assert_eq!(Purpose::peek(&Control::Beat.encode()), None);
}
