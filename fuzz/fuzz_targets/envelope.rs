//! Fuzzes what members and latecomers see of a publish: an item shows what was published, with its own bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| starling::fuzzing::envelope(data));
