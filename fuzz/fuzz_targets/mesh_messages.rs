//! Fuzzes messages of lanes and requests: a frame has exactly one form, and its address agrees with it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mesh::fuzzing::messages(data));
