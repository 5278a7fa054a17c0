//! Fuzzes what links say themselves, hello, roster and gossip: what is accepted settles into one form.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mesh::fuzzing::control(data));
