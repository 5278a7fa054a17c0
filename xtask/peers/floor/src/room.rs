//! A room: who is in it, and what this turn has for them.

/// Members, and the frames of the turn when they are coalesced.
#[derive(Debug, Default)]
pub struct Room {
    /// Connections by token.
    pub members: Vec<usize>,
    /// Frames not yet written.
    pub turn: Vec<u8>,
}

impl Room {
    /// Adds the frame of one message to the turn.
    pub fn put(&mut self, payload: &[u8]) {
        self.turn.extend_from_slice(&frame(payload));
    }
}

/// The frame that every member gets: event `m` with the payload.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_text(&mut frame, &[b"42[\"m\",\"", payload, b"\"]"]);
    frame
}

/// Appends one unmasked text frame whose payload is the concatenation of `parts`.
pub fn put_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x81);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
