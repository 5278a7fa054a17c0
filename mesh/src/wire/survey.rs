//! One question to the clients of many nodes, and what each node tells about it, message by message.
//!
//! A survey goes to every node in a lane; every shard there says first how many clients it asks, then what became of each.
//! What was told before a node dies is known.
//!
//! Invariants: as in `message`. Layouts, big-endian; a name is `len u16 | bytes`:
//!
//! ```text
//! survey: 0x23 | version u8 | shard u8 | rooms u8 | except u8 | survey u64 | ack id u64 | timeout ms u32 | namespace, rooms…, except… | payload …to the end
//! report: 0x24 | version u8 | shard u8 | what u8 | survey u64 | asked: clients u32, shards u8 / answer: attachments u8, (len u32 | bytes)*, json …to the end
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::{
    direct::{put_name, take_name},
    message::DecodeError,
};

/// First bytes.
const KIND_SURVEY: u8 = 0x23;
const KIND_REPORT: u8 = 0x24;
/// Version of both layouts.
const VERSION: u8 = 1;
/// What a report says.
const ASKED: u8 = 0;
const ANSWER: u8 = 1;
const SILENCE: u8 = 2;

/// A question to the clients of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The shard of the asking node that collects.
    pub shard: u8,
    /// Its name for it.
    pub survey: u64,
    /// The ack id in the payload.
    pub id: u64,
    /// How long clients may take, from the moment this is read.
    pub timeout_ms: u32,
    /// `/` or `/name`.
    pub namespace: ByteString,
    /// Rooms and sockets; none is the whole namespace.
    pub rooms: Vec<ByteString>,
    /// Rooms and sockets that are not asked.
    pub except: Vec<ByteString>,
    /// What the clients receive.
    pub payload: Bytes,
}

/// What a shard tells about a survey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As in the survey.
    pub shard: u8,
    /// As in the survey.
    pub survey: u64,
    /// What.
    pub what: What,
}

/// See `Report`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It asks so many clients; said once, before anything else, by each of the node's `shards`.
    Asked {
        /// Clients of this shard.
        clients: u32,
        /// Shards of the node.
        shards: u8,
    },
    /// A client answered.
    Answer {
        /// A JSON array.
        json: ByteString,
        /// What its placeholders point to.
        attachments: Vec<Bytes>,
    },
    /// A client did not, and will not.
    Silence,
}

/// Either, as read from a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A question.
    Survey(Survey),
    /// What became of one.
    Report(Report),
}

impl Survey {
    /// The bytes for a lane.
    ///
    /// Names longer than their length fields are cut off by the edge's limits long before; here they are clamped so that
    /// encoding is total.
    pub fn encode(&self) -> Bytes {
        let few = |names: &[ByteString]| u8::try_from(names.len()).unwrap_or(u8::MAX);
        let (rooms, except) = (few(&self.rooms), few(&self.except));
        let mut out = BytesMut::with_capacity(64 + 64 * (self.rooms.len() + self.except.len()) + self.payload.len());
        out.put_slice(&[KIND_SURVEY, VERSION, self.shard, rooms, except]);
        out.put_u64(self.survey);
        out.put_u64(self.id);
        out.put_u32(self.timeout_ms);
        put_name(&mut out, self.namespace.as_bytes());
        let rooms = self.rooms.iter().take(usize::from(rooms));
        rooms.chain(self.except.iter().take(usize::from(except))).for_each(|name| put_name(&mut out, name.as_bytes()));
        out.put_slice(&self.payload);
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Survey, DecodeError> {
        let shard = bytes.try_get_u8().map_err(short)?;
        let (rooms, except) = (bytes.try_get_u8().map_err(short)?, bytes.try_get_u8().map_err(short)?);
        let (survey, id) = (bytes.try_get_u64().map_err(short)?, bytes.try_get_u64().map_err(short)?);
        let timeout_ms = bytes.try_get_u32().map_err(short)?;
        let namespace = name(&mut bytes)?;
        let rooms = (0..rooms).map(|_| name(&mut bytes)).collect::<Result<_, _>>()?;
        let except = (0..except).map(|_| name(&mut bytes)).collect::<Result<_, _>>()?;
        Ok(Survey { shard, survey, id, timeout_ms, namespace, rooms, except, payload: bytes })
    }
}

impl Report {
    /// The bytes for a lane.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let what = match self.what {
            What::Asked { .. } => ASKED,
            What::Answer { .. } => ANSWER,
            What::Silence => SILENCE,
        };
        out.put_slice(&[KIND_REPORT, VERSION, self.shard, what]);
        out.put_u64(self.survey);
        match &self.what {
            What::Asked { clients, shards } => {
                out.put_u32(*clients);
                out.put_u8(*shards);
            }
            What::Answer { json, attachments } => {
                // A client's packet holds far fewer, and far less, than these fields can say.
                let attachments = &attachments[..attachments.len().min(usize::from(u8::MAX))];
                out.put_u8(u8::try_from(attachments.len()).unwrap_or(u8::MAX));
                for bytes in attachments {
                    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    out.put_slice(bytes);
                }
                out.put_slice(json.as_bytes());
            }
            What::Silence => {}
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Report, DecodeError> {
        let (shard, what) = (bytes.try_get_u8().map_err(short)?, bytes.try_get_u8().map_err(short)?);
        let survey = bytes.try_get_u64().map_err(short)?;
        let what = match what {
            ASKED => {
                let (clients, shards) = (bytes.try_get_u32().map_err(short)?, bytes.try_get_u8().map_err(short)?);
                What::Asked { clients, shards }
            }
            ANSWER => {
                let count = bytes.try_get_u8().map_err(short)?;
                let attachments = (0..count).map(|_| attachment(&mut bytes)).collect::<Result<_, _>>()?;
                let json = ByteString::try_from(bytes).map_err(|_| DecodeError::MalformedName)?;
                What::Answer { json, attachments }
            }
            SILENCE => What::Silence,
            other => return Err(DecodeError::UnknownKind(other)),
        };
        Ok(Report { shard, survey, what })
    }
}

impl Said {
    /// Whether these are the bytes of one, to be read by `decode`.
    pub fn is(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(KIND_SURVEY | KIND_REPORT)))
    }

    /// Reads what `Survey::encode` or `Report::encode` made. Names, payload and attachments are slices of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Said, DecodeError> {
        let (kind, version) = (bytes.try_get_u8().map_err(short)?, bytes.try_get_u8().map_err(short)?);
        match (kind, version) {
            (KIND_SURVEY, VERSION) => Survey::decode(bytes).map(Said::Survey),
            (KIND_REPORT, VERSION) => Report::decode(bytes).map(Said::Report),
            (KIND_SURVEY | KIND_REPORT, version) => Err(DecodeError::UnknownVersion(version)),
            (kind, _) => Err(DecodeError::UnknownKind(kind)),
        }
    }
}

fn name(bytes: &mut Bytes) -> Result<ByteString, DecodeError> {
    ByteString::try_from(take_name(bytes)?).map_err(|_| DecodeError::MalformedName)
}

fn attachment(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = bytes.try_get_u32().map_err(short)? as usize;
    if bytes.len() < len { Err(DecodeError::Truncated) } else { Ok(bytes.split_to(len)) }
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn survey() -> Survey {
        Survey {
            shard: 1,
            survey: 7,
            id: 9,
            timeout_ms: 500,
            namespace: "/".into(),
            rooms: vec!["red".into()],
            except: vec!["id".into()],
            payload: Bytes::from_static(b"\x81\x0642[0]"),
        }
    }

    fn report(what: What) -> Report {
        Report { shard: 1, survey: 7, what }
    }

    #[test]
    fn surveys_and_reports_have_the_bytes_they_always_had() {
        let golden: [(&[u8], Said); 4] = [
            (
                b"\x23\x01\x01\x01\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\x01\xf4\0\x01/\0\x03red\0\x02id\x81\x0642[0]",
                Said::Survey(survey()),
            ),
            (
                b"\x24\x01\x01\0\0\0\0\0\0\0\0\x07\0\0\0\x03\x02",
                Said::Report(report(What::Asked { clients: 3, shards: 2 })),
            ),
            (
                b"\x24\x01\x01\x01\0\0\0\0\0\0\0\x07\x01\0\0\0\x02ab[1]",
                Said::Report(report(What::Answer { json: "[1]".into(), attachments: vec![Bytes::from_static(b"ab")] })),
            ),
            (b"\x24\x01\x01\x02\0\0\0\0\0\0\0\x07", Said::Report(report(What::Silence))),
        ];
        for (bytes, said) in golden {
            let encoded = match &said {
                Said::Survey(survey) => survey.encode(),
                Said::Report(report) => report.encode(),
            };
            assert_eq!(&encoded[..], bytes);
            assert!(Said::is(bytes));
            assert_eq!(Said::decode(Bytes::copy_from_slice(bytes)), Ok(said));
        }
    }

    #[test]
    fn bytes_that_end_early_or_name_something_else_are_refused() {
        let whole = survey().encode();
        for len in 0..whole.len() - survey().payload.len() {
            assert_eq!(Said::decode(whole.slice(..len)), Err(DecodeError::Truncated), "{len}");
        }
        assert_eq!(Said::decode(Bytes::from_static(b"\x23\x02")), Err(DecodeError::UnknownVersion(2)));
        assert_eq!(Said::decode(Bytes::from_static(b"\x20\x01")), Err(DecodeError::UnknownKind(0x20)));
        let unknown = Bytes::from_static(b"\x24\x01\x01\x09\0\0\0\0\0\0\0\x07");
        assert_eq!(Said::decode(unknown), Err(DecodeError::UnknownKind(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0x23u8..0x25) {
            if bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[kind, VERSION]);
            }
            let _ = Said::decode(Bytes::from(bytes));
        }
    }
}
