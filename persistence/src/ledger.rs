//! The small table: which schema, which generation, whether the last stop was clean, and what each slot left.
//!
//! Invariants:
//! - The schema is looked at before anything else is believed: a newer table may hold what this version never saw.
//! - The mark of a clean stop names the last block there was: damage may take blocks away and leave the mark.
//! - What slots left at a clean stop is read once. A later generation must not find it: slots have moved on since.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{engine::HistoryStore, error::EngineError, key::BlockId};

/// Version of the layout on disk. 3 has marks that forget a whole slot: whoever reads only 2 would show what they forget.
pub(crate) const SCHEMA: u64 = 3;
/// The oldest version that is read as it is: everything in it means the same today.
const SCHEMA_MIN: u64 = 2;

const SCHEMA_KEY: &[u8] = b"schema";
const GENERATION_KEY: &[u8] = b"generation";
const CLEAN_KEY: &[u8] = b"clean";
const DROPPED_KEY: &[u8] = b"dropped";
const META_PREFIX: u8 = b'm';
const TRIMMED_PREFIX: u8 = b't';
/// A slot key is its prefix, a zero byte and the slot: never as long as, or equal to, a named key.
const SLOT_KEY_BYTES: usize = 4;

/// The small table, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) generation: u64,
    /// The last block at a clean stop; nothing was written since.
    pub(crate) clean: Option<BlockId>,
    /// The last block that retention dropped.
    pub(crate) dropped: BlockId,
    pub(crate) meta: BTreeMap<u16, Bytes>,
    pub(crate) trimmed: BTreeMap<u16, u64>,
}

impl Ledger {
    pub(crate) fn read(store: &dyn HistoryStore) -> Result<Ledger, EngineError> {
        let table = store.meta()?;
        if let Some((_, schema)) = table.iter().find(|(key, _)| key == SCHEMA_KEY) {
            check_schema(number(schema)?)?;
        }
        let mut ledger = Ledger::default();
        for (key, value) in table {
            match (&key[..], slot_of(&key)) {
                (SCHEMA_KEY, _) => {}
                (GENERATION_KEY, _) => ledger.generation = number(&value)?,
                (DROPPED_KEY, _) => ledger.dropped = BlockId(number(&value)?),
                (CLEAN_KEY, _) => ledger.clean = Some(BlockId(number(&value)?)),
                (_, Some((META_PREFIX, slot))) => drop(ledger.meta.insert(slot, value)),
                (_, Some((TRIMMED_PREFIX, slot))) => drop(ledger.trimmed.insert(slot, number(&value)?)),
                _ => return Err(EngineError::Damaged(format!("unknown meta key {key:?}"))),
            }
        }
        Ok(ledger)
    }

    /// Begins a generation: it is not clean, and what slots left is handed out for the last time.
    pub(crate) fn begin(
        &mut self,
        generation: u64,
        store: &mut dyn HistoryStore,
    ) -> Result<BTreeMap<u16, Bytes>, EngineError> {
        (self.generation, self.clean) = (generation, None);
        self.write_named(store)?;
        for slot in self.meta.keys() {
            store.put_meta(&slot_key(META_PREFIX, *slot), None)?;
        }
        Ok(std::mem::take(&mut self.meta))
    }

    /// What is not of a slot.
    pub(crate) fn write_named(&self, store: &mut dyn HistoryStore) -> Result<(), EngineError> {
        let clean = self.clean.map(BlockId::encode);
        store.put_meta(CLEAN_KEY, clean.as_ref().map(|last| &last[..]))?;
        store.put_meta(SCHEMA_KEY, Some(&SCHEMA.to_be_bytes()))?;
        store.put_meta(GENERATION_KEY, Some(&self.generation.to_be_bytes()))?;
        store.put_meta(DROPPED_KEY, Some(&self.dropped.encode()))
    }

    pub(crate) fn put_meta(
        &mut self,
        slot: u16,
        value: &Bytes,
        store: &mut dyn HistoryStore,
    ) -> Result<(), EngineError> {
        store.put_meta(&slot_key(META_PREFIX, slot), Some(value))?;
        self.meta.insert(slot, value.clone());
        Ok(())
    }

    /// Numbers of `slot` up to `n` may be gone.
    pub(crate) fn put_trimmed(&mut self, slot: u16, n: u64, store: &mut dyn HistoryStore) -> Result<(), EngineError> {
        let trimmed = self.trimmed.entry(slot).or_default();
        *trimmed = n.max(*trimmed);
        store.put_meta(&slot_key(TRIMMED_PREFIX, slot), Some(&trimmed.to_be_bytes()))
    }
}

fn check_schema(found: u64) -> Result<(), EngineError> {
    match found {
        ..SCHEMA_MIN => Err(EngineError::Outdated { found, supported: SCHEMA_MIN }),
        SCHEMA_MIN..=SCHEMA => Ok(()),
        _ => Err(EngineError::Schema { found, supported: SCHEMA }),
    }
}

fn slot_key(prefix: u8, slot: u16) -> [u8; SLOT_KEY_BYTES] {
    let [high, low] = slot.to_be_bytes();
    [prefix, 0, high, low]
}

fn slot_of(key: &[u8]) -> Option<(u8, u16)> {
    let [prefix, 0, high, low] = *key else { return None };
    Some((prefix, u16::from_be_bytes([high, low])))
}

fn number(value: &[u8]) -> Result<u64, EngineError> {
    let bytes = value.try_into().map_err(|_| EngineError::Damaged("a meta number is not 8 bytes".to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryEngine;

    #[test]
    fn a_newer_schema_is_refused_whatever_else_is_there_and_an_older_one_is_told_apart() {
        let mut store = MemoryEngine::default();
        store.put_meta(b"a key of the future", Some(b"x")).unwrap();
        store.put_meta(SCHEMA_KEY, Some(&(SCHEMA + 1).to_be_bytes())).unwrap();
        assert!(matches!(Ledger::read(&store), Err(EngineError::Schema { found, .. }) if found == SCHEMA + 1));
        store.put_meta(SCHEMA_KEY, Some(&1_u64.to_be_bytes())).unwrap();
        assert!(matches!(Ledger::read(&store), Err(EngineError::Outdated { found: 1, .. })));
        for readable in [2_u64, 3] {
            store.put_meta(SCHEMA_KEY, Some(&readable.to_be_bytes())).unwrap();
            assert!(matches!(Ledger::read(&store), Err(EngineError::Damaged(_))), "an unknown key is damage");
        }
    }

    #[test]
    fn a_store_of_the_version_before_is_read_and_raised_where_a_generation_begins() {
        let mut store = MemoryEngine::default();
        Ledger { generation: 4, ..Ledger::default() }.write_named(&mut store).unwrap();
        store.put_meta(SCHEMA_KEY, Some(&2_u64.to_be_bytes())).unwrap();
        let mut ledger = Ledger::read(&store).unwrap();
        assert_eq!(ledger.generation, 4);
        ledger.begin(5, &mut store).unwrap();
        let table = store.meta().unwrap();
        let schema = table.iter().find(|(key, _)| key == SCHEMA_KEY).map(|(_, value)| number(value).unwrap());
        assert_eq!(schema, Some(SCHEMA), "before the first mark of a slot can be written");
    }

    #[test]
    fn what_slots_left_is_handed_out_once() {
        let mut store = MemoryEngine::default();
        let mut ledger = Ledger { clean: Some(BlockId(3)), ..Ledger::default() };
        ledger.write_named(&mut store).unwrap();
        ledger.put_meta(7, &Bytes::from_static(b"left"), &mut store).unwrap();
        let mut next = Ledger::read(&store).unwrap();
        assert_eq!(next.clean, Some(BlockId(3)));
        assert_eq!(next.begin(5, &mut store).unwrap(), BTreeMap::from([(7, Bytes::from_static(b"left"))]));
        let killed = Ledger::read(&store).unwrap();
        assert_eq!((killed.generation, killed.clean, killed.meta.len()), (5, None, 0));
    }
}
