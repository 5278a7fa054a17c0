//! Fuzzes blocks of the store, as they are and with their checksums put right: one form, or damage.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| persistence::fuzzing::block(data));
