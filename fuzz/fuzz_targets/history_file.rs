//! Fuzzes files of `starling history` and what slots leave: any text is lines or a sentence, and lines have one meaning.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| starling::fuzzing::history_file(text));
