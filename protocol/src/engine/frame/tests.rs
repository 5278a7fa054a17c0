//! Tests of frames: bytes from RFC 6455, and that reading is the inverse of writing and total.

use proptest::prelude::*;

use super::*;
use crate::engine::tests::{any_message, any_packet};

fn frame(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

#[test]
fn frames_have_the_bytes_of_the_standard() {
    assert_eq!(frame(|out| put_text(out, &[b"Hel", b"lo"])), b"\x81\x05Hello");
    assert_eq!(frame(|out| put_binary(out, &[1, 2])), b"\x82\x02\x01\x02");
    assert_eq!(frame(|out| put_close(out, 1001, "away")), b"\x88\x06\x03\xE9away");
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(frame(|out| put_masked_text(out, &[b"Hel", b"lo"], mask)), masked, "the example of RFC 6455, 5.7");
}

#[test]
fn lengths_take_the_shortest_of_the_three_forms() {
    let cases: [(usize, &[u8]); 5] = [
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xFF, 0xFF]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (70_000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
    ];
    for (length, header) in cases {
        let frame = frame(|out| put_binary(out, &vec![7; length]));
        assert_eq!(&frame[..header.len()], header);
        let whole = (Opcode::Binary, header.len()..header.len() + length, frame.len());
        assert_eq!(next_frame(&frame), Ok(Some(whole)));
    }
}

#[test]
fn a_packet_is_its_text_or_its_bytes() {
    let mut out = Vec::new();
    put_packet(&mut out, &Packet::Pong("probe".into()));
    put_packet(&mut out, &Packet::Message(Message::Text("2[]".into())));
    put_packet(&mut out, &Packet::Message(Message::Binary(vec![9].into())));
    assert_eq!(out, b"\x81\x063probe\x81\x0442[]\x82\x01\x09");
}

#[test]
fn a_long_close_reason_is_cut_between_characters() {
    let frame = frame(|out| put_close(out, 1000, &"é".repeat(100)));
    assert_eq!(frame[1], 2 + 122);
    assert!(std::str::from_utf8(&frame[4..]).is_ok());
}

#[test]
fn what_no_server_of_ours_writes_is_refused() {
    let cases: [(&[u8], FrameError); 7] = [
        (&[0x01, 0], FrameError::Unexpected { first: 0x01 }),
        (&[0x80, 0], FrameError::Unexpected { first: 0x80 }),
        (&[0xC1, 0], FrameError::Unexpected { first: 0xC1 }),
        (&[0x83, 0], FrameError::Unexpected { first: 0x83 }),
        (&[0x81, 0x80, 0, 0, 0, 0], FrameError::Masked),
        (&[0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], FrameError::TooLarge),
        (&[0x82, 127, 0, 0, 0, 0, 1, 0, 0, 1], FrameError::TooLarge),
    ];
    for (bytes, error) in cases {
        assert_eq!(next_frame(bytes), Err(error), "{bytes:?}");
        assert_eq!(messages(&Bytes::copy_from_slice(bytes)).collect::<Vec<_>>(), [Err(error)]);
    }
}

#[test]
fn frames_that_are_no_messages_are_refused() {
    let cases: [(&'static [u8], FrameError); 6] = [
        (b"\x81\x012", FrameError::NotAMessage),
        (b"\x81\x00", FrameError::NotAMessage),
        (b"\x88\x00", FrameError::NotAMessage),
        (b"\x81\x024\xFF", FrameError::Utf8),
        (b"\x81\x024", FrameError::Truncated),
        (b"\x81", FrameError::Truncated),
    ];
    for (bytes, error) in cases {
        assert_eq!(messages(&Bytes::from_static(bytes)).collect::<Vec<_>>(), [Err(error)], "{bytes:?}");
    }
}

#[test]
fn messages_are_slices_of_the_frames() {
    let frames = Bytes::from(frame(|out| put_message(out, &Message::Text("hello".into()))));
    let Some(Ok(Message::Text(text))) = messages(&frames).next() else { panic!("no message") };
    assert_eq!(text.as_ptr(), frames[3..].as_ptr());
}

proptest! {
    #[test]
    fn messages_survive_their_frames(list in proptest::collection::vec(any_message(), 0..10)) {
        let frames = Bytes::from(frame(|out| list.iter().for_each(|message| put_message(out, message))));
        prop_assert_eq!(messages(&frames).collect::<Result<Vec<_>, _>>(), Ok(list));
    }

    #[test]
    fn every_prefix_of_a_frame_asks_for_more(packet in any_packet()) {
        let frame = frame(|out| put_packet(out, &packet));
        for end in 0..frame.len() {
            prop_assert_eq!(next_frame(&frame[..end]), Ok(None));
        }
        let (_, _, consumed) = next_frame(&frame).unwrap().unwrap();
        prop_assert_eq!(consumed, frame.len());
    }

    #[test]
    fn masking_hides_and_keeps_the_payload(text: String, mask: [u8; 4]) {
        let masked = frame(|out| put_masked_text(out, &[text.as_bytes()], mask));
        let plain = frame(|out| put_text(out, &[text.as_bytes()]));
        let payload = &masked[masked.len() - text.len()..];
        let unmasked: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        prop_assert_eq!(unmasked, text.as_bytes());
        prop_assert_eq!(masked.len(), plain.len() + 4);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes: Vec<u8>, first in prop::sample::select(vec![0x81_u8, 0x82, 0x88, 0x00])) {
        let bytes = [vec![first], bytes].concat();
        if let Ok(Some((_, payload, consumed))) = next_frame(&bytes) {
            prop_assert!(payload.end == consumed && consumed <= bytes.len());
        }
        messages(&bytes.into()).for_each(drop);
    }
}
