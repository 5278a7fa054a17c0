//! Where a client is in its stream of WebSocket frames (RFC 6455, 5.2): between messages, or in the middle of one.
//!
//! Invariants: only lengths are read here, nothing is judged, copied or unmasked: that is the parser's; however the stream is
//! cut into pieces, the answer is the same.

/// Bytes that a client puts between the header of a frame and its payload.
const MASK: u64 = 4;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// What has come of the next header.
    header: [u8; 10],
    have: usize,
    /// Bytes of the frame that are missing.
    missing: u64,
    /// Frames of the message that is not complete.
    fragments: usize,
    /// The frame under way is a message's, or part of one; and its last.
    data: bool,
    last: bool,
}

impl Frames {
    /// Passes over bytes of the stream.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.missing > 0 {
                let skipped = self.missing.min(bytes.len() as u64);
                self.missing -= skipped;
                // What is skipped is part of a slice, so it fits.
                bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
                self.settle();
                continue;
            }
            self.header[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if let Some(length) = self.length() {
                self.data = self.header[0] & 0x08 == 0;
                self.last = self.header[0] & 0x80 != 0;
                self.fragments += usize::from(self.data);
                let masked = self.header[1] & 0x80 != 0;
                self.missing = length.saturating_add(if masked { MASK } else { 0 });
                self.have = 0;
                self.settle();
            }
        }
    }

    /// Frames of the message that is not complete; its last is not waited for.
    pub(super) fn fragments(&self) -> usize {
        self.fragments
    }

    /// Whether nothing is incomplete.
    pub(super) fn is_at_rest(&self) -> bool {
        self.have == 0 && self.missing == 0 && self.fragments == 0
    }

    /// The length of the payload, when the header is complete.
    fn length(&self) -> Option<u64> {
        let [_, short, long @ ..] = self.header;
        match (short & 0x7f, self.have) {
            (126, 4..) => Some(u64::from(u16::from_be_bytes([long[0], long[1]]))),
            (127, 10) => Some(u64::from_be_bytes(long)),
            (126 | 127, _) | (_, 0..2) => None,
            (length, _) => Some(u64::from(length)),
        }
    }

    fn settle(&mut self) {
        if self.missing == 0 && self.data && self.last {
            self.fragments = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match u16::try_from(length) {
            Ok(short @ ..=125) => bytes.push(0x80 | short.to_be_bytes()[1]),
            Ok(medium) => {
                bytes.push(0xfe);
                bytes.extend(medium.to_be_bytes());
            }
            Err(_) => {
                bytes.push(0xff);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + 4 + length, 0xff);
        bytes
    }

    fn after(bytes: &[u8]) -> Frames {
        let mut frames = Frames::default();
        frames.pass(bytes);
        frames
    }

    #[test]
    fn whole_messages_of_every_length_leave_nothing_and_all_but_their_last_byte_something() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
            let whole = frame(0x81, length);
            assert!(after(&whole).is_at_rest(), "{length}");
            assert!(!after(&whole[..whole.len() - 1]).is_at_rest(), "{length}");
        }
    }

    #[test]
    fn fragments_are_counted_until_the_last_and_a_ping_between_them_is_none() {
        let stream = [frame(0x01, 3), frame(0x89, 5), frame(0x00, 0), frame(0x00, 200)].concat();
        assert_eq!(after(&stream).fragments(), 3);
        assert!(after(&[stream, frame(0x80, 1)].concat()).is_at_rest());
    }

    proptest! {
        #[test]
        fn the_answer_does_not_depend_on_how_the_stream_is_cut(
            lengths in prop::collection::vec((prop::sample::select(vec![0x81, 0x01, 0x00, 0x80, 0x89]), 0..300_usize), 1..8),
            cuts in prop::collection::vec(1..400_usize, 1..30),
        ) {
            let stream: Vec<u8> = lengths.into_iter().flat_map(|(first, length)| frame(first, length)).collect();
            let (mut frames, mut rest) = (Frames::default(), stream.as_slice());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                frames.pass(piece);
                rest = left;
            }
            // What is left over of earlier headers in the buffer says nothing.
            let whole = after(&stream);
            prop_assert_eq!((frames.fragments(), frames.is_at_rest()), (whole.fragments(), whole.is_at_rest()));
        }
    }
}
