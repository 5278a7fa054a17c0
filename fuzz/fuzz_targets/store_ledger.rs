//! Fuzzes the small table of the store, which is read before anything else: one meaning, or damage.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| persistence::fuzzing::ledger(data));
