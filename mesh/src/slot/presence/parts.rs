//! A whole roll on its way between two nodes: in parts, since a control message is small.
//!
//! Invariants: parts of one roll follow each other in their lane, the first and the last marked; a roll that begins anew
//! forgets the unfinished one; what is kept of an unfinished roll is bounded as the roll itself is.
//!
//! Layout of a part's members, big-endian: `(node u16 | id len u16 | body len u16 | id | body)*`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use bytestring::ByteString;

use super::{Member, roll};
use crate::{
    NodeId,
    wire::{message::DecodeError, presence::Part},
};

/// Bytes of one part: well below what a control message may have.
const PART_BYTES: usize = 32 * 1024;

/// One part, read.
#[derive(Debug)]
pub(super) struct Parted {
    first: bool,
    last: bool,
    members: Vec<(NodeId, Member)>,
}

impl Parted {
    /// Reads a part's members.
    pub(super) fn decode(Part { first, last, members }: Part<'_>) -> Result<Parted, DecodeError> {
        let mut bytes = Bytes::copy_from_slice(members);
        let mut members = Vec::new();
        while bytes.has_remaining() {
            let node = NodeId(bytes.try_get_u16().map_err(short)?);
            let id_len = usize::from(bytes.try_get_u16().map_err(short)?);
            let body_len = usize::from(bytes.try_get_u16().map_err(short)?);
            let (id, body) = (take(&mut bytes, id_len)?, take(&mut bytes, body_len)?);
            members.push((node, Member { id, body }));
        }
        Ok(Parted { first, last, members })
    }
}

/// Asserts that members have one form: what is read of a part is what is said of it again.
#[cfg(fuzzing)]
pub(crate) fn assert_one_form(members: &[u8]) {
    let Ok(part) = Parted::decode(Part { first: true, last: true, members }) else { return };
    let again = in_parts(part.members.into_iter(), |part| Bytes::copy_from_slice(part.members));
    assert_eq!(again.concat(), members);
}

/// The messages that say `members`, each made by `encode` of one part.
pub(super) fn in_parts(
    members: impl Iterator<Item = (NodeId, Member)>,
    encode: impl Fn(Part<'_>) -> Bytes,
) -> Vec<Bytes> {
    let mut parts: Vec<Vec<u8>> = vec![Vec::new()];
    for (node, Member { id, body }) in members {
        // Both are far shorter: ids have 20 bytes, bodies little more than the kilobyte of `info`.
        let (Ok(id_len), Ok(body_len)) = (u16::try_from(id.len()), u16::try_from(body.len())) else { continue };
        if parts.last().is_some_and(|part| part.len() + id.len() + body.len() > PART_BYTES) {
            parts.push(Vec::new());
        }
        let Some(part) = parts.last_mut() else { continue };
        part.put_u16(node.0);
        part.put_u16(id_len);
        part.put_u16(body_len);
        part.put_slice(id.as_bytes());
        part.put_slice(body.as_bytes());
    }
    let last = parts.len() - 1;
    let encode = |(at, members): (usize, &Vec<u8>)| encode(Part { first: at == 0, last: at == last, members });
    parts.iter().enumerate().map(encode).collect()
}

/// Rolls that have not arrived whole, by who sends them.
#[derive(Debug, Default)]
pub(super) struct Incoming(BTreeMap<NodeId, Vec<(NodeId, Member)>>);

impl Incoming {
    /// Adds a part; the whole roll with its last one.
    pub(super) fn add(&mut self, from: NodeId, part: Parted) -> Option<Vec<(NodeId, Member)>> {
        let Parted { first, last, members } = part;
        if first {
            self.0.insert(from, Vec::new());
        }
        // Without its first part a roll is not whole: its sender will say it again.
        let gathered = self.0.get_mut(&from)?;
        gathered.extend(members);
        if gathered.len() > roll::MEMBERS_MAX {
            self.0.remove(&from);
            return None;
        }
        if last { self.0.remove(&from) } else { None }
    }

    pub(super) fn forget(&mut self, from: NodeId) {
        self.0.remove(&from);
    }
}

fn take(bytes: &mut Bytes, len: usize) -> Result<ByteString, DecodeError> {
    if bytes.len() < len {
        return Err(DecodeError::Truncated);
    }
    ByteString::try_from(bytes.split_to(len)).map_err(|_| DecodeError::MalformedName)
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_bytes_it_always_had_and_no_prefix_of_it_is_whole() {
        let member = Member { id: "ab".into(), body: "{}".into() };
        let mut parts = Vec::new();
        in_parts([(NodeId(258), member)].into_iter(), |part| {
            assert!(part.first && part.last);
            Bytes::copy_from_slice(part.members)
        })
        .into_iter()
        .for_each(|part| parts.push(part));
        assert_eq!(parts, [&[1, 2, 0, 2, 0, 2, b'a', b'b', b'{', b'}'][..]]);
        for end in 1..parts[0].len() {
            let part = Part { first: true, last: true, members: &parts[0][..end] };
            assert!(Parted::decode(part).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn what_does_not_fit_into_one_part_comes_in_several_and_is_whole_with_the_last() {
        let members =
            (0..300u16).map(|n| (NodeId(n), Member { id: format!("{n}").into(), body: "x".repeat(1_000).into() }));
        let members: Vec<(NodeId, Member)> = members.collect();
        let mut incoming = Incoming::default();
        let mut whole = Vec::new();
        let marks = std::cell::RefCell::new(Vec::new());
        let parts = in_parts(members.clone().into_iter(), |part| {
            assert!(part.members.len() <= PART_BYTES);
            marks.borrow_mut().push((part.first, part.last));
            Bytes::copy_from_slice(part.members)
        });
        for (bytes, (first, last)) in parts.iter().zip(marks.into_inner()) {
            let part = Parted::decode(Part { first, last, members: bytes }).unwrap();
            whole.extend(incoming.add(NodeId(1), part));
        }
        assert_eq!(whole, [members]);
        let late = Parted { first: false, last: true, members: Vec::new() };
        assert_eq!(incoming.add(NodeId(1), late), None, "a part without a beginning");
    }
}
