//! The wire messages' golden bytes, round trips and hostile inputs.

use proptest::prelude::*;

use super::*;

fn frame() -> Frame {
    Frame {
        room: RoomKey::new("/", "lobby"),
        slot: 7,
        lineage: 0x0102_0304_0506_0708,
        term: 9,
        n: 42,
        prev: 41,
        origin: Origin { node: NodeId(3), generation: 1_700_000_000_000, shard: 1, oseq: 5 },
        time_ms: 1_700_000_000_123,
        flags: 0,
        id: "k".into(),
        from: "ada".into(),
        except: vec!["sock".into()],
        payload: Bytes::from_static(b"\x81\x0542[1]"),
    }
}

#[test]
fn a_room_frame_has_the_bytes_it_always_had() {
    let golden: &[u8] = &[
        0x20, 1, 0, 0, 0, 7, 0, 3, 1, 1, 1, 3, // kind, version, flags, slot, node, shard, excepts, id, from
        0, 0, 0, 9, // term
        1, 2, 3, 4, 5, 6, 7, 8, // lineage
        0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 41, // n, prev
        0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0, 0, 0, 0, 0, 0, 0, 0, 5, // generation, oseq
        0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0x7b, // time_ms
        0, 7, b'/', 0, b'l', b'o', b'b', b'b', b'y', b'k', b'a', b'd', b'a', 0, 4, b's', b'o', b'c',
        b'k', // names
        0x81, 5, b'4', b'2', b'[', b'1', b']', // payload
    ];
    assert_eq!(frame().encode(), golden);
    assert_eq!(Frame::decode(Bytes::from_static(golden)), Ok(frame()));
}

#[test]
fn control_messages_have_the_bytes_they_always_had() {
    let add = Control::InterestAdd { room: b"/\0a" }.encode();
    assert_eq!(&add[..], &[0x21, 0, 3, b'/', 0, b'a']);
    let published = Control::Published { slot: 7, shard: 1, oseq: 5, lineage: 9, n: 300 }.encode();
    assert_eq!(&published[..], &[0x21, 3, 7, 1, 5, 9, 251, 44, 1]);
    let refused = |why| Control::Refused { slot: 7, shard: 1, oseq: 5, why }.encode();
    assert_eq!(&refused(Refusal::Overloaded { retry_ms: 9 })[..], &[0x21, 4, 7, 1, 5, 0, 9]);
    assert_eq!(&refused(Refusal::StorageFull)[..], &[0x21, 4, 7, 1, 5, 1]);
    assert_eq!(&refused(Refusal::Timeout)[..], &[0x21, 4, 7, 1, 5, 4]);
    assert_eq!(&Control::NotOwner { slot: 7 }.encode()[..], &[0x21, 5, 7]);
    assert_eq!(&Control::Resync { shard: 1, of: 2, lane: 3 }.encode()[..], &[0x21, 6, 1, 2, 3]);
    assert_eq!(&Control::InterestDigest(7, 2, 5).encode()[..], &[0x21, 9, 7, 2, 5]);
    assert_eq!(&Control::InterestLost(7).encode()[..], &[0x21, 10, 7]);
    assert_eq!(&Control::Resend { slot: 7 }.encode()[..], &[0x21, 7, 7]);
    assert_eq!(&Control::LeaseAsk { room: b"/\0a" }.encode()[..], &[0x21, 14, 3, b'/', 0, b'a']);
    let lease = |upto, nodes| Control::Lease { room: b"/\0a", upto, nodes }.encode();
    let golden = [0x21, 15, 3, b'/', 0, b'a', 251, 44, 1, 1, 4, 0, 2, 1, 3];
    assert_eq!(&lease(300, Some([0, 2, 1, 3].as_slice()))[..], &golden);
    assert_eq!(&lease(0, None)[..], &[0x21, 15, 3, b'/', 0, b'a', 0, 0]);
}

#[test]
fn words_about_presence_have_the_bytes_they_always_had() {
    use crate::wire::presence::{Part, Said};
    let room = RoomKey::new("/", "a");
    let said = |said: Said<'_>| said.encode(&room)[..].to_vec();
    let about = |rest: &[u8]| [&[0x21, 8, 3, b'/', 0, b'a'], rest].concat();
    assert_eq!(said(Said::Enter { id: b"s", body: b"{}" }), about(&[0, 1, b's', 2, b'{', b'}']));
    assert_eq!(said(Said::Depart { id: b"s" }), about(&[1, 1, b's']));
    let came = Said::Change { seq: 300, node: 2, id: b"s", body: Some(b"{}") };
    assert_eq!(said(came), about(&[2, 251, 44, 1, 2, 1, b's', 1, 2, b'{', b'}']));
    let left = Said::Change { seq: 1, node: 2, id: b"s", body: None };
    assert_eq!(said(left), about(&[2, 1, 2, 1, b's', 0]));
    assert_eq!(said(Said::Crowded { id: b"s" }), about(&[3, 1, b's']));
    let part = Part { first: true, last: false, members: b"m" };
    assert_eq!(said(Said::Mine { part }), about(&[4, 1, 0, 1, b'm']));
    assert_eq!(said(Said::List { seq: 7, part }), about(&[5, 7, 1, 0, 1, b'm']));
    assert_eq!(said(Said::Elsewhere), about(&[6]));
    let bytes = came.encode(&room);
    let control = Control::Presence { room: b"/\0a", said: came };
    assert_eq!(LaneMessage::decode(&bytes), Ok(LaneMessage::Control(control)));
}

#[test]
fn requests_have_the_bytes_they_always_had() {
    use crate::wire::request::{Figures, OpenSlots, Request};
    let request = Request::History { room: b"/\0a", after: 1, upto: 300, of: 9, count: 5, newest: true };
    let golden: &[u8] = &[0, 3, b'/', 0, b'a', 1, 251, 44, 1, 9, 5, 1];
    assert_eq!(request.encode(), golden);
    assert_eq!(Request::decode(golden), Ok(request));
    assert_eq!(&Request::Figures.encode()[..], &[1]);
    let open = OpenSlots { owned: 3, in_sync: 4, syncing: 5, witness: 6, single_copy: 7 };
    let figures = Figures { connections: 300, slots: 2, open, version: "0.1.0".to_owned() };
    let golden: &[u8] = &[251, 44, 1, 2, 3, 4, 5, 6, 7, 5, b'0', b'.', b'1', b'.', b'0'];
    assert_eq!(figures.encode(), golden);
    assert_eq!(Figures::decode(golden), Ok(figures));
    assert_eq!(&Request::Presence { room: b"/\0a" }.encode()[..], &[2, 3, b'/', 0, b'a']);
    let copy = Request::Copy { slot: 300, after: &[7, 0] };
    let golden: &[u8] = &[4, 251, 44, 1, 2, 7, 0];
    assert_eq!(copy.encode(), golden);
    assert_eq!(Request::decode(golden), Ok(copy));
    assert_eq!(&Request::Seats { slot: 300 }.encode()[..], &[5, 251, 44, 1]);
}

#[test]
fn what_is_known_of_seats_has_the_bytes_it_always_had() {
    use crate::wire::{
        request::{Part, Seats},
        triple::{Life, Term, TermId, Triple},
    };
    let id = TermId { number: 3, lineage: 9 };
    let triple = Triple { owner: Life { node: NodeId(2), generation: 7 }, replica: None, witness: None };
    let term = Some(Term { id, parent: id, triple });
    let golden: [(Part, &[u8]); 4] = [
        (Part::None, &[0]),
        (Part::Owner { copied: true }, &[1, 1]),
        (Part::Replica { whole: false }, &[2, 0]),
        (Part::Witness, &[3]),
    ];
    for (part, bytes) in golden {
        let whole = [&[1, 3, 9, 3, 9, 2, 7, 0, 0], bytes].concat();
        assert_eq!(Seats { term, part }.encode(), whole);
        assert_eq!(Seats::decode(&whole), Ok(Seats { term, part }));
    }
    assert_eq!(&Seats::default().encode()[..], &[0, 0]);
}

#[test]
fn every_prefix_of_a_frame_is_an_error_or_a_shorter_payload() {
    let bytes = frame().encode();
    let names_end = bytes.len() - frame().payload.len();
    for end in 0..names_end {
        assert!(Frame::decode(bytes.slice(..end)).is_err(), "{end} bytes were taken for a whole frame");
    }
}

#[test]
fn a_hostile_length_allocates_nothing() {
    // 0xfd announces a u64 length: nine bytes that claim a sixteen-exabyte room name.
    let hostile = Bytes::from_static(&[0x21, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255]);
    assert_eq!(LaneMessage::decode(&hostile), Err(DecodeError::MalformedControl));
}

#[test]
fn what_a_later_build_may_have_meant_is_told_from_what_is_broken() {
    let newer = |bytes: &[u8]| LaneMessage::decode(&Bytes::copy_from_slice(bytes)).unwrap_err();
    assert_eq!(newer(&[0x7f]), DecodeError::UnknownKind(0x7f));
    assert_eq!(newer(&[0x21, 200]), DecodeError::UnknownControl);
    assert_eq!(newer(&[0x21, 4, 7, 1, 5, 99]), DecodeError::UnknownControl, "a refusal of a later build");
    assert!([&[0x7f][..], &[0x21, 200]].into_iter().all(|bytes| newer(bytes).is_newer()));
    assert!([&[0x21][..], &[0x20, 1], &[]].into_iter().all(|bytes| !newer(bytes).is_newer()));
}

#[test]
fn trailing_bytes_make_a_control_message_malformed() {
    let mut bytes = Control::NotOwner { slot: 1 }.encode().to_vec();
    bytes.push(0);
    assert_eq!(LaneMessage::decode(&bytes.into()), Err(DecodeError::MalformedControl));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = LaneMessage::decode(&bytes);
        let _ = Frame::decode(bytes.clone());
        let _ = crate::wire::request::Request::decode(&bytes);
        let _ = crate::wire::request::Figures::decode(&bytes);
        let _ = crate::wire::request::Seats::decode(&bytes);
    }

    #[test]
    fn a_frame_survives_the_wire(
        room in "[a-z]{1,40}", id in "[a-z]{0,64}", n in any::<u64>(), prev in any::<u64>(),
        except in proptest::collection::vec("[a-z]{1,20}", 0..4), payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let frame = Frame {
            room: RoomKey::new("/n", &room), id: id.into(), n, prev,
            except: except.into_iter().map(ByteString::from).collect(), payload: payload.into(), ..frame()
        };
        prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
    }
}
