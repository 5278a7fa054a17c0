//! Fuzzes polling bodies: limits hold, and what can be read is written back as a body that reads the same.

#![no_main]

use bytestring::ByteString;
use libfuzzer_sys::fuzz_target;
use protocol::engine::payload::{self, Limits};

const LIMITS: Limits = Limits { bytes: 2000, packets: 16 };

fuzz_target!(|text: &str| {
    let Ok(packets) = payload::decode(&ByteString::from(text), LIMITS) else { return };
    assert!(text.len() <= LIMITS.bytes && packets.len() <= LIMITS.packets);
    assert_eq!(packets.len(), text.split('\x1E').count());
    let written = payload::encode(&packets);
    // Base64 without its padding is written with it.
    let limits = Limits { bytes: LIMITS.bytes + 2 * LIMITS.packets, ..LIMITS };
    assert_eq!(payload::decode(&written, limits), Ok(packets));
});
