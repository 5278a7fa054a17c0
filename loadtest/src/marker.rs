//! The stamp every payload starts with: who sent it, which one it is, and when it was *meant* to be sent.
//!
//! Fixed width lower-case hexadecimal, so that a receiver finds and reads it inside any packet without parsing JSON, and
//! no JSON encoder on the way has a reason to escape it.

use memchr::memmem;

/// What opens a marker. Two characters that JSON never escapes.
const TAG: [u8; 2] = *b"~#";
/// Tag, run (8), publisher (4), sequence number (8), intended time (16).
pub(crate) const LEN: usize = 2 + 8 + 4 + 8 + 16;
/// What fills a payload up to its size.
const PADDING: u8 = b'.';

/// The identity of one published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The measured phase; a message of an earlier one is not counted in this one.
    pub(crate) run: u32,
    /// Number of the publisher in the whole test, not in its worker.
    pub(crate) publisher: u16,
    /// Counts from 0 in every phase.
    pub(crate) seq: u32,
    /// When the schedule said it should leave ([`crate::clock::now_ns`]).
    pub(crate) intended_ns: u64,
}

impl Marker {
    /// Appends the marker and padding: `payload` bytes in all, but never fewer than [`LEN`].
    pub(crate) fn put(&self, out: &mut Vec<u8>, payload: usize) {
        let end = out.len() + payload.max(LEN);
        out.extend_from_slice(&TAG);
        put_hex(out, u64::from(self.run), 8);
        put_hex(out, u64::from(self.publisher), 4);
        put_hex(out, u64::from(self.seq), 8);
        put_hex(out, self.intended_ns, 16);
        out.resize(end, PADDING);
    }

    /// Reads the marker that begins at `at`, if there is one.
    fn read(packet: &[u8], at: usize) -> Option<Marker> {
        let text = packet.get(at..at + LEN)?.strip_prefix(&TAG)?;
        Some(Marker {
            run: u32::try_from(hex(&text[..8])?).ok()?,
            publisher: u16::try_from(hex(&text[8..12])?).ok()?,
            seq: u32::try_from(hex(&text[12..20])?).ok()?,
            intended_ns: hex(&text[20..])?,
        })
    }
}

/// Finds markers, remembering where the last one was: in one test they nearly always sit at the same place.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    last: usize,
}

impl Finder {
    /// The first marker in `packet`.
    pub(crate) fn find(&mut self, packet: &[u8]) -> Option<Marker> {
        if let Some(marker) = Marker::read(packet, self.last) {
            return Some(marker);
        }
        self.last = memmem::find(packet, &TAG)?;
        Marker::read(packet, self.last)
    }
}

fn put_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        let nibble = usize::try_from(value >> (4 * place) & 0xf).unwrap_or(0);
        out.push(b"0123456789abcdef"[nibble]);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: 0xdead_beef, publisher: 513, seq: 70_000, intended_ns: u64::MAX - 5 };

    fn packet(prefix: &str, payload: usize) -> Vec<u8> {
        let mut packet = prefix.as_bytes().to_vec();
        MARKER.put(&mut packet, payload);
        packet.extend_from_slice(b"\"]");
        packet
    }

    #[test]
    fn a_marker_is_found_wherever_the_server_puts_it() {
        let mut finder = Finder::default();
        for prefix in ["42[\"m\",\"", "42/chat,[\"m\",\"", "42[\"m\",\"", "42[\"a ~ b\",\""] {
            assert_eq!(finder.find(&packet(prefix, 128)), Some(MARKER), "{prefix}");
        }
    }

    #[test]
    fn a_payload_has_the_size_asked_for_and_never_cuts_the_marker() {
        for (asked, got) in [(0, LEN), (LEN, LEN), (LEN + 1, LEN + 1), (1000, 1000)] {
            let mut out = Vec::new();
            MARKER.put(&mut out, asked);
            assert_eq!(out.len(), got);
        }
    }

    #[test]
    fn a_packet_without_a_whole_marker_has_none() {
        let mut finder = Finder::default();
        let whole = packet("42[\"m\",\"", 0);
        assert_eq!(finder.find(b"42[\"m\",\"hello\"]"), None);
        assert_eq!(finder.find(&whole[..whole.len() - 3]), None);
        assert_eq!(finder.find(b""), None);
        assert_eq!(finder.find(b"42[\"m\",\"~#zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"]"), None);
    }
}
