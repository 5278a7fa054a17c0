//! Frames on the streams of a link: `len u32 | type u8 | version u8 | flags u16 | body`, big-endian; `len` counts the body.
//!
//! Invariants: a length beyond the stream's limit is an error before anything is allocated for it; a buffer grows only with
//! bytes that arrived; a type we do not know is skipped when its sender allowed that, and otherwise ends the link
//! (`mesh.md` 2.5, rules 2 and 3).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before a body.
pub(crate) const HEADER: usize = 8;
/// The only layout version of every type so far.
pub(crate) const VERSION: u8 = 1;
/// Flag: a receiver that does not know the type may skip the frame.
pub(crate) const MAY_IGNORE: u16 = 1;

/// What a body is. Below 0x10 the link's own, from 0x10 on the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First frame of a control stream: who speaks and what it understands.
    Hello = 0x01,
    /// The lower ordinal declares this connection the link.
    Open = 0x02,
    /// First frame of a lane's stream: which lane.
    Lane = 0x03,
    /// One gossip packet too large for a datagram.
    Gossip = 0x04,
    /// A request of the application.
    Request = 0x05,
    /// The answer to either request.
    Answer = 0x06,
    /// No answer will come.
    Refused = 0x07,
    /// A request for the roster, with ours.
    PushPull = 0x08,
    /// First frame of a pipe: its use, and what its opener says.
    Pipe = 0x09,
    /// Bytes of a pipe.
    Piece = 0x0a,
    /// So many of a pipe's bytes were taken.
    Took = 0x0b,
    /// One frame of the application.
    Application = 0x10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            0x01 => Kind::Hello,
            0x02 => Kind::Open,
            0x03 => Kind::Lane,
            0x04 => Kind::Gossip,
            0x05 => Kind::Request,
            0x06 => Kind::Answer,
            0x07 => Kind::Refused,
            0x08 => Kind::PushPull,
            0x09 => Kind::Pipe,
            0x0a => Kind::Piece,
            0x0b => Kind::Took,
            0x10 => Kind::Application,
            _ => return None,
        })
    }
}

/// Bytes that are no frames of ours; the stream cannot be read further and its link is closed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The claimed length is beyond what this stream may carry.
    #[error("frame of {len} bytes where {limit} are allowed")]
    TooLarge {
        /// Claimed.
        len: usize,
        /// Allowed.
        limit: usize,
    },
    /// A type we do not know and may not skip.
    #[error("unknown frame type {0:#04x}")]
    UnknownKind(u8),
    /// A type we know in a layout we do not.
    #[error("frame type {kind:#04x} has unknown version {version}")]
    UnknownVersion {
        /// The type.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// A body that does not read as its type says.
    #[error("malformed {0} frame")]
    Malformed(&'static str),
}

/// Appends the header of a body of `len` bytes. Bodies are bounded far below 4 GiB by every caller.
pub(crate) fn put_header(buf: &mut BytesMut, kind: Kind, len: usize) {
    buf.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    buf.put_u8(kind as u8);
    buf.put_u8(VERSION);
    buf.put_u16(0);
}

/// One whole frame.
pub(crate) fn frame(kind: Kind, body: &[u8]) -> Bytes {
    let mut buf = BytesMut::with_capacity(HEADER + body.len());
    put_header(&mut buf, kind, body.len());
    buf.put_slice(body);
    buf.freeze()
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    limit: usize,
    /// Bytes of a skipped frame still to come.
    skip: usize,
    /// Frames skipped since somebody asked.
    skipped: u64,
}

impl Decoder {
    /// A decoder for bodies of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Decoder {
        Decoder { buffer: BytesMut::new(), limit, skip: 0, skipped: 0 }
    }

    /// Where to put what arrived. With room for less than `least` more bytes, a new block of `block` bytes is begun; frames
    /// cut from a block share it. Call [`Decoder::poll_frame`] until `None` afterwards.
    pub(crate) fn buffer(&mut self, least: usize, block: usize) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < least {
            self.buffer.reserve(block.max(least));
        }
        &mut self.buffer
    }

    /// Bodies may be so large from now on.
    pub(crate) fn allow(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether nothing is incomplete.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.skip == 0
    }

    /// Frames that were skipped since the last call.
    pub(crate) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The next whole frame, if its bytes are here.
    pub(crate) fn poll_frame(&mut self) -> Result<Option<(Kind, Bytes)>, FrameError> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            let Some((head, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
            let [l0, l1, l2, l3, kind, version, f0, f1] = *head;
            let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
            if len > self.limit {
                return Err(FrameError::TooLarge { len, limit: self.limit });
            }
            let may_ignore = u16::from_be_bytes([f0, f1]) & MAY_IGNORE != 0;
            match Kind::from_byte(kind) {
                Some(_) if version != VERSION && !may_ignore => {
                    return Err(FrameError::UnknownVersion { kind, version });
                }
                Some(known) if version == VERSION => {
                    if rest.len() < len {
                        return Ok(None);
                    }
                    self.buffer.advance(HEADER);
                    return Ok(Some((known, self.buffer.split_to(len).freeze())));
                }
                None if !may_ignore => return Err(FrameError::UnknownKind(kind)),
                Some(_) | None => {
                    self.skip = HEADER + len;
                    self.skipped += 1;
                }
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames of `bytes`, fed `step` bytes at a time.
    fn decode(bytes: &[u8], limit: usize, step: usize) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
        let mut decoder = Decoder::new(limit);
        let mut frames = Vec::new();
        for chunk in bytes.chunks(step) {
            decoder.buffer(0, 0).extend_from_slice(chunk);
            while let Some((kind, body)) = decoder.poll_frame()? {
                frames.push((kind, body.to_vec()));
            }
        }
        Ok(frames)
    }

    #[test]
    fn the_bytes_of_a_frame_never_change() {
        assert_eq!(&frame(Kind::Application, b"abc")[..], b"\0\0\0\x03\x10\x01\0\0abc");
        let golden: [(Kind, &[u8]); 12] = [
            (Kind::Hello, b"\0\0\0\0\x01\x01\0\0"),
            (Kind::Open, b"\0\0\0\0\x02\x01\0\0"),
            (Kind::Lane, b"\0\0\0\0\x03\x01\0\0"),
            (Kind::Gossip, b"\0\0\0\0\x04\x01\0\0"),
            (Kind::Request, b"\0\0\0\0\x05\x01\0\0"),
            (Kind::Answer, b"\0\0\0\0\x06\x01\0\0"),
            (Kind::Refused, b"\0\0\0\0\x07\x01\0\0"),
            (Kind::PushPull, b"\0\0\0\0\x08\x01\0\0"),
            (Kind::Pipe, b"\0\0\0\0\x09\x01\0\0"),
            (Kind::Piece, b"\0\0\0\0\x0a\x01\0\0"),
            (Kind::Took, b"\0\0\0\0\x0b\x01\0\0"),
            (Kind::Application, b"\0\0\0\0\x10\x01\0\0"),
        ];
        for (kind, bytes) in golden {
            assert_eq!(frame(kind, b""), bytes, "{kind:?}");
            assert_eq!(decode(bytes, 0, 8), Ok(vec![(kind, Vec::new())]));
        }
        let known = golden.map(|(kind, _)| kind as u8);
        assert!(
            (0..=u8::MAX).all(|byte| Kind::from_byte(byte).is_some() == known.contains(&byte)),
            "a kind lacks its bytes"
        );
    }

    #[test]
    fn skipped_frames_are_counted_once_however_they_are_cut() {
        let newer = b"\0\0\0\x02\x7f\x01\0\x01xy";
        let mut decoder = Decoder::new(100);
        for byte in [&newer[..], newer, &frame(Kind::Open, b"")].concat() {
            decoder.buffer(0, 0).extend_from_slice(&[byte]);
            while decoder.poll_frame().unwrap().is_some() {}
        }
        assert_eq!((decoder.take_skipped(), decoder.take_skipped()), (2, 0));
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let stream =
            [frame(Kind::Lane, b"\x02"), frame(Kind::Application, b""), frame(Kind::Application, &[7; 300])].concat();
        for step in [1, 2, 7, 8, 9, 100, 1000] {
            let frames = decode(&stream, 1000, step).unwrap();
            let expected =
                vec![(Kind::Lane, vec![2]), (Kind::Application, Vec::new()), (Kind::Application, vec![7; 300])];
            assert_eq!(frames, expected, "step {step}");
        }
    }

    #[test]
    fn a_hostile_length_is_refused_from_the_header_alone() {
        let header = b"\xff\xff\xff\xff\x10\x01\0\0";
        let error = decode(header, 1 << 20, 8).unwrap_err();
        assert_eq!(error, FrameError::TooLarge { len: 0xffff_ffff, limit: 1 << 20 });
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = Decoder::new(1 << 21);
        decoder.buffer(0, 0).extend_from_slice(b"\0\x1f\xff\xff\x10\x01\0\0");
        assert_eq!(decoder.poll_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 1024);
    }

    #[test]
    fn an_unknown_type_is_skipped_only_with_permission() {
        let allowed = [&b"\0\0\0\x02\x7f\x01\0\x01xy"[..], &frame(Kind::Open, b"")].concat();
        for step in [1, 3, 100] {
            assert_eq!(decode(&allowed, 100, step), Ok(vec![(Kind::Open, Vec::new())]));
        }
        assert_eq!(decode(b"\0\0\0\x02\x7f\x01\0\0xy", 100, 100), Err(FrameError::UnknownKind(0x7f)));
    }

    #[test]
    fn an_unknown_version_is_skipped_only_with_permission() {
        let newer = b"\0\0\0\x01\x10\x02\0\0x";
        assert_eq!(decode(newer, 100, 9), Err(FrameError::UnknownVersion { kind: 0x10, version: 2 }));
        assert_eq!(decode(b"\0\0\0\x01\x10\x02\0\x01x", 100, 9), Ok(Vec::new()));
    }
}
