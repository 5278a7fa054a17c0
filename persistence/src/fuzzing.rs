//! What the fuzzer feeds with bytes of a disk (`cargo xtask fuzz`); compiled for it only.
//!
//! Invariants: any bytes are damage or a block; with every checksum put right, so that what lies behind them is reached, a
//! block that is accepted gives its sections and is written again byte for byte; so does the small table.

use crate::{
    block,
    engine::HistoryStore,
    error::EngineError,
    key::BlockId,
    ledger::Ledger,
    memory::MemoryEngine,
    section::{Section, sum},
};

const ID: BlockId = BlockId(7);

/// A block, as it is and with its checksums put right.
///
/// # Panics
/// A decoder broke an invariant.
pub fn block(data: &[u8]) {
    try_out(data);
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    try_out(&repaired);
}

fn try_out(value: &[u8]) {
    let mut places = Vec::new();
    let verdict = block::check(ID, value, &mut |place, outline| {
        assert!(block::room(value, place, outline).len() <= value.len());
        places.push(place);
    });
    let sections: Result<Vec<Section>, _> = places.iter().map(|place| block::section(ID, value, *place)).collect();
    match (verdict, sections) {
        (Ok(()), Ok(sections)) => {
            let written = block::encode(ID, &sections.iter().collect::<Vec<_>>());
            assert_eq!((written.value.as_slice(), written.places), (value, places), "a block has one form");
        }
        (Ok(()), Err(damage)) => panic!("{damage} in a block that was found whole"),
        // Sections before the damage stay readable.
        (Err(_), sections) => assert!(sections.is_ok()),
    }
}

/// Writes version, length and every checksum as they should be, as far as the lengths in between make sense.
fn repair(value: &mut [u8]) -> Option<()> {
    let len = u32::try_from(value.len()).ok()?;
    *value.first_mut()? = 2;
    value.get_mut(1..5)?.copy_from_slice(&len.to_be_bytes());
    let mut seed = sum(0, [&ID.encode(), value.get(..5)?]);
    let head = seed;
    value.get_mut(5..9)?.copy_from_slice(&seed.to_be_bytes());
    let mut at = 9;
    while at < value.len() {
        let room_len = usize::from(word(value, at + 2)?);
        let count = word(value, at + 4)?;
        seed = put(value, head, at, 6, room_len)?;
        at += 10 + room_len;
        for _ in 0..count {
            let body_len = usize::try_from(u32::from_be_bytes(*value.get(at + 16..)?.first_chunk()?)).ok()?;
            seed = put(value, seed, at, 20, body_len)?;
            at += 24 + body_len;
        }
    }
    Some(())
}

/// Puts the checksum of `head` bytes at `at` and the `len` bytes behind their checksum.
fn put(value: &mut [u8], seed: u32, at: usize, head: usize, len: usize) -> Option<u32> {
    let body = at.checked_add(head + 4)?;
    let crc = sum(seed, [value.get(at..at + head)?, value.get(body..body.checked_add(len)?)?]);
    value.get_mut(at + head..body)?.copy_from_slice(&crc.to_be_bytes());
    Some(crc)
}

fn word(value: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*value.get(at..)?.first_chunk()?))
}

/// A small table, laid as `(length u8, key, length u8, value)*`: what is read of it is read again as it is written.
///
/// # Panics
/// The reader broke an invariant.
pub fn ledger(data: &[u8]) {
    let mut store = MemoryEngine::default();
    let mut rest = data;
    while let Some((key, value, after)) = entry(rest) {
        rest = after;
        put_meta(&mut store, key, value);
    }
    match Ledger::read(&store) {
        Ok(ledger) => {
            let mut again = MemoryEngine::default();
            match write(&ledger, &mut again).and_then(|()| Ledger::read(&again)) {
                Ok(read) => assert_eq!(read, ledger),
                Err(error) => panic!("{error} in what was written"),
            }
        }
        Err(EngineError::Schema { found, supported } | EngineError::Outdated { found, supported }) => {
            assert_ne!(found, supported);
        }
        Err(error) => assert!(matches!(error, EngineError::Damaged(_)), "{error}"),
    }
}

fn entry(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = named(data)?;
    let (value, rest) = named(rest)?;
    Some((key, value, rest))
}

fn named(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

fn put_meta(store: &mut MemoryEngine, key: &[u8], value: &[u8]) {
    if let Err(error) = store.put_meta(key, Some(value)) {
        panic!("{error}");
    }
}

fn write(ledger: &Ledger, store: &mut MemoryEngine) -> Result<(), EngineError> {
    let mut empty = Ledger::default();
    ledger.write_named(store)?;
    ledger.meta.iter().try_for_each(|(slot, value)| empty.put_meta(*slot, value, store))?;
    ledger.trimmed.iter().try_for_each(|(slot, n)| empty.put_trimmed(*slot, *n, store))
}
