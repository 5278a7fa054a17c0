//! What the fuzzer feeds with bytes of a peer (`cargo xtask fuzz`); compiled for it only.
//!
//! Invariants: every function takes any bytes; what a decoder accepts it writes again as something that reads the same,
//! and where a stream is cut into pieces changes nothing.

use bytes::{BufMut, Bytes, BytesMut};
use foca::Codec;

use crate::{
    membership::{Identity, codec::PacketCodec},
    slot,
    wire::{
        address::Address,
        control::{CodecError, Hello, decode_roster, encode_roster},
        direct::Direct,
        forward::{Errand, Word},
        header::{self, FrameError, Kind},
        message::{Control, Frame, LaneMessage},
        presence::Said,
        request::{Figures, Request, Seats},
        triple,
    },
};

/// Largest body of the streams that are cut here.
const BODY_MAX: usize = 512;

/// Frames of a stream: the first byte says where the stream is torn.
///
/// # Panics
/// A decoder broke an invariant.
pub fn frames(data: &[u8]) {
    let Some((at, stream)) = data.split_first() else { return };
    let (start, end) = stream.split_at(usize::from(*at).min(stream.len()));
    let whole = cut(&[stream]);
    assert_eq!(whole, cut(&[start, end]), "torn at {at}");
    for (kind, body) in &whole.0 {
        assert!(body.len() <= BODY_MAX);
        assert_eq!(cut(&[&header::frame(*kind, body)]), (vec![(*kind, body.clone())], None));
    }
}

/// All frames of the pieces, and what ended them.
fn cut(pieces: &[&[u8]]) -> (Vec<(Kind, Bytes)>, Option<FrameError>) {
    let (mut decoder, mut frames) = (header::Decoder::new(BODY_MAX), Vec::new());
    for piece in pieces {
        decoder.buffer(piece.len(), 1_024).put_slice(piece);
        loop {
            match decoder.poll_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// What links say themselves: the first byte chooses between hello, roster and a packet of gossip.
///
/// # Panics
/// A decoder broke an invariant.
pub fn control(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    match choice % 3 {
        0 => settles(&body, Hello::decode, |hello| hello.encode()),
        1 => settles(&body, decode_roster, |members| encode_roster(members.iter())),
        _ => settles(&body, gossip, |(header, members)| {
            let mut out = BytesMut::new();
            PacketCodec.encode_header(header, &mut out).unwrap_or_else(|error| panic!("{error}"));
            for member in members {
                PacketCodec.encode_member(member, &mut out).unwrap_or_else(|error| panic!("{error}"));
            }
            out.freeze()
        }),
    }
}

type Gossip = (foca::Header<Identity>, Vec<foca::Member<Identity>>);

fn gossip(mut body: Bytes) -> Result<Gossip, CodecError> {
    let header = PacketCodec.decode_header(&mut body)?;
    let mut members = Vec::new();
    while !body.is_empty() {
        members.push(PacketCodec.decode_member(&mut body)?);
    }
    Ok((header, members))
}

/// What was read, written and read again is written the same: a name that is too long or no UTF-8 changes once.
fn settles<T, E: std::fmt::Debug>(body: &Bytes, decode: impl Fn(Bytes) -> Result<T, E>, encode: impl Fn(&T) -> Bytes) {
    let Ok(value) = decode(body.clone()) else { return };
    let written = encode(&value);
    match decode(written.clone()) {
        Ok(again) => assert_eq!(encode(&again), written),
        Err(error) => panic!("{error:?} in what was written from {body:?}"),
    }
}

/// Messages of lanes and requests.
///
/// # Panics
/// A decoder broke an invariant.
pub fn messages(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let address = Address::peek(&bytes);
    match LaneMessage::decode(&bytes) {
        Ok(LaneMessage::Frame(frame)) => {
            assert_eq!(address, Ok(Address::Slot(u16::from_be_bytes([data[4], data[5]]))));
            assert_eq!(frame.encode(), bytes, "a frame has one form");
            assert_eq!(Frame::decode(frame.encode()), Ok(frame));
        }
        Ok(LaneMessage::Keep(term, frame)) => {
            assert_eq!(address, Ok(Address::Slot(frame.slot)));
            assert_eq!(triple::encode_keep(term, &frame), bytes, "a frame to keep has one form");
        }
        Ok(LaneMessage::Control(control)) => {
            let written = control.encode();
            assert_eq!(LaneMessage::decode(&written), Ok(LaneMessage::Control(control)));
            assert_eq!(Address::peek(&written), address);
            if let Control::Presence { said: Said::Mine { part } | Said::List { part, .. }, .. } = control {
                slot::assert_one_form(part.members);
            }
        }
        Err(_) => {}
    }
    if let Ok(direct) = Direct::decode(bytes.clone()) {
        assert!(Direct::is(&bytes));
        assert_eq!(direct.encode(), bytes, "an event for one socket has one form");
    }
    slot::assert_one_page(bytes);
    if let Ok(errand) = Errand::decode(data) {
        assert_eq!(Errand::decode(&errand.encode()), Ok(errand));
    }
    if let Ok(word) = Word::decode(data) {
        assert_eq!(Word::decode(&word.encode()), Ok(word));
    }
    if let Ok(request) = Request::decode(data) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(seats) = Seats::decode(data) {
        assert_eq!(Seats::decode(&seats.encode()), Ok(seats));
    }
    if let Ok(figures) = Figures::decode(data) {
        assert_eq!(Figures::decode(&figures.encode()), Ok(figures));
    }
}
