//! Fuzzes the frames of links: torn anywhere a stream reads the same, and no body is larger than its stream allows.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mesh::fuzzing::frames(data));
